"""A stand-in for an Ollama server: the shapes of its API on 127.0.0.1, and failures on demand.

It answers what the pipeline and the application ask: /api/chat, /api/embed, /api/tags, /api/show
and /api/version, without streaming. Error bodies are `{"error": "..."}`, as Ollama's are.
"""

import hashlib
import json
import random
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self

CREATED_AT = "2026-01-01T00:00:00.000000Z"
DESCRIPTION = (
    "A golden retriever runs along a sandy beach at sunset. Behind it the sea is calm and the sky "
    "glows orange and pink."
)


@dataclass(frozen=True)
class Request:
    """One request the server got: the path, and the JSON body ({} for GET)."""

    path: str
    body: dict[str, Any]


@dataclass
class Failure:
    """An answer to give in place of the right one.

    Attributes:
        status: HTTP status.
        error: the text of `{"error": ...}`.
        path: only requests to this path fail; None means all.
        times: how often; None means until it is taken away.
    """

    status: int
    error: str
    path: str | None = None
    times: int | None = None


class OllamaStandIn:
    """Use as a context manager; change the attributes at any time.

    Attributes:
        models: names `/api/tags` lists; others are answered with 404, as Ollama does.
        dimension: of the vectors.
        description: what the vision model answers.
        delay_seconds: how long every answer takes.
        failure: what to answer instead, if anything.
        requests: what was asked, in order.
    """

    def __init__(
        self,
        models: tuple[str, ...] = ("qwen2.5vl:3b", "bge-m3:latest"),
        dimension: int = 1024,
    ) -> None:
        self.models = models
        self.dimension = dimension
        self.description = DESCRIPTION
        self.delay_seconds = 0.0
        self.failure: Failure | None = None
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Start to listen, on the same port as before."""
        standin = self

        class Handler(_Handler):
            server_standin = standin

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def down(self) -> None:
        """Stop listening: connections are refused until `up`."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.down()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON body for one request."""
        with self._lock:
            self.requests.append(Request(path, body))
            failure = self._take_failure(path)
        time.sleep(self.delay_seconds)
        if failure is not None:
            return failure.status, {"error": failure.error}
        match path:
            case "/api/version":
                return 200, {"version": "0.12.0"}
            case "/api/tags":
                return 200, {"models": [_entry(name) for name in self.models]}
            case "/api/chat" | "/api/embed" | "/api/show":
                return self._answer_model(path, body)
        return 404, {"error": "404 page not found"}

    def _take_failure(self, path: str) -> Failure | None:
        failure = self.failure
        if failure is None or failure.path not in {None, path}:
            return None
        if failure.times is not None:
            if failure.times < 1:
                return None
            failure.times -= 1
        return failure

    def _answer_model(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        model = str(body.get("model", ""))
        full_name = model if ":" in model else f"{model}:latest"
        if full_name not in self.models:
            return 404, {"error": f"model '{model}' not found"}
        if path == "/api/show":
            return 200, {"details": _entry(full_name)["details"], "model_info": {}}
        durations = {"total_duration": 1_000_000, "load_duration": 1_000, "prompt_eval_count": 8}
        if path == "/api/embed":
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            vectors = [self._vector(str(text)) for text in texts]
            return 200, {"model": model, "embeddings": vectors, **durations}
        message = {"role": "assistant", "content": self.description}
        return 200, {
            "model": model,
            "created_at": CREATED_AT,
            "message": message,
            "done": True,
            "done_reason": "stop",
            "eval_count": 40,
            "eval_duration": 1_000_000,
            **durations,
        }

    def _vector(self, text: str) -> list[float]:
        """The same for the same text, and not of unit length, so that nobody relies on it."""
        numbers = random.Random(text)
        return [numbers.uniform(-1, 1) for _ in range(self.dimension)]


def _entry(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "modified_at": CREATED_AT,
        "size": 3_200_000_000,
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "stand-in",
            "families": ["stand-in"],
            "parameter_size": "3B",
            "quantization_level": "Q4_K_M",
        },
    }


class _Handler(BaseHTTPRequestHandler):
    server_standin: ClassVar[OllamaStandIn]

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _reply(self, body: dict[str, Any]) -> None:
        status, answer = self.server_standin.answer(self.path, body)
        content = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # The client gave up waiting.

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests look at `requests`."""
