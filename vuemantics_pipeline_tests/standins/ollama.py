"""A stand-in for an Ollama server: the shapes of its API on 127.0.0.1, and failures on demand.

It answers what the pipeline and the application ask: /api/chat, /api/embed, /api/tags, /api/show
and /api/version, without streaming. Error bodies are `{"error": "..."}`, as Ollama's are, and like
Ollama it keeps connections open, crashes on pictures that are too small, refuses to let a model
think that cannot, and shortens a text that is too long unless told not to.
"""

import base64
import hashlib
import io
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self

from PIL import Image, UnidentifiedImageError

CREATED_AT = "2026-01-01T00:00:00.000000Z"
DESCRIPTION = (
    "A golden retriever runs along a sandy beach at sunset. Behind it the sea is calm and the sky "
    "glows orange and pink."
)
DRIP_SECONDS = 0.02

# What the runner of Qwen2.5-VL does not survive (ollama/ollama#11297, and its SmartResize).
_LEAST_SIDE, _MOST_RATIO = 28, 200


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
        weights: what the models' digests are made of; another one is another `ollama pull`.
        dimension: of the vectors.
        context_words: the longest text the embedding model takes; a word counts as a token.
        description: what the vision model answers.
        answers: what it answers first, one after the other.
        thinking: what it says it thought, if anything.
        done_reason: why its answers end: 'stop', or 'length' at `num_predict`.
        delay_seconds: how long every answer takes.
        drips: answers come byte by byte, DRIP_SECONDS apart.
        hang_ups: how many of the next requests are read and left without an answer.
        failure: what to answer instead, if anything.
        requests: what was asked, in order.
        connections: how many there were.
    """

    def __init__(
        self,
        models: tuple[str, ...] = ("qwen2.5vl:3b", "bge-m3:latest"),
        dimension: int = 1024,
    ) -> None:
        self.models = models
        self.weights = ""
        self.dimension = dimension
        self.context_words = 8192
        self.description = DESCRIPTION
        self.answers: list[str] = []
        self.thinking = ""
        self.done_reason = "stop"
        self.delay_seconds = 0.0
        self.drips = False
        self.hang_ups = 0
        self.failure: Failure | None = None
        self.requests: list[Request] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._port = 0
        self._server: _Server | None = None
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Start to listen, on the same port as before."""
        standin = self

        class Handler(_Handler):
            server_standin = standin

        self._server = _Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def down(self) -> None:
        """Close every connection and stop listening: new ones are refused until `up`."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.hang_up()
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
                return 200, {"models": [self._entry(name) for name in self.models]}
            case "/api/chat" | "/api/embed" | "/api/show":
                return self._answer_model(path, body)
        return 404, {"error": "404 page not found"}

    def takes_hang_up(self) -> bool:
        """Whether the request in hand is one of `hang_ups`."""
        with self._lock:
            if self.hang_ups < 1:
                return False
            self.hang_ups -= 1
            return True

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
            return 200, {"details": self._entry(full_name)["details"], "model_info": {}}
        if path == "/api/embed":
            return self._embed(model, body)
        return self._chat(model, body)

    def _embed(self, model: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        words = [str(text).split() for text in texts]
        if not body.get("truncate", True) and max(map(len, words)) > self.context_words:
            return 400, {"error": "the input length exceeds the context length"}
        vectors = [self._vector(" ".join(some[: self.context_words])) for some in words]
        return 200, {"model": model, "embeddings": vectors, **_durations()}

    def _chat(self, model: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body.get("think"):
            return 400, {"error": f'"{model}" does not support thinking'}
        try:
            sizes = list(_picture_sizes(body))
        except (ValueError, UnidentifiedImageError):
            return 400, {"error": "Failed to load image or audio file"}
        for size in sizes:
            if min(size) < _LEAST_SIDE or max(size) > _MOST_RATIO * min(size):
                return 500, {"error": "model runner has unexpectedly stopped"}
        with self._lock:
            content = self.answers.pop(0) if self.answers else self.description
        message = {"role": "assistant", "content": content}
        if self.thinking:
            message["thinking"] = self.thinking
        return 200, {
            "model": model,
            "created_at": CREATED_AT,
            "message": message,
            "done": True,
            "done_reason": self.done_reason,
            "eval_count": 40,
            "eval_duration": 1_000_000,
            **_durations(),
        }

    def _vector(self, text: str) -> list[float]:
        """The same for the same text, and not of unit length, so that nobody relies on it."""
        numbers = random.Random(text)
        return [numbers.uniform(-1, 1) for _ in range(self.dimension)]

    def _entry(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "model": name,
            "modified_at": CREATED_AT,
            "size": 3_200_000_000,
            "digest": hashlib.sha256(f"{name}{self.weights}".encode()).hexdigest(),
            "details": {
                "parent_model": "",
                "format": "gguf",
                "family": "stand-in",
                "families": ["stand-in"],
                "parameter_size": "3B",
                "quantization_level": "Q4_K_M",
            },
        }


def _durations() -> dict[str, int]:
    return {"total_duration": 1_000_000, "load_duration": 1_000, "prompt_eval_count": 8}


def _picture_sizes(body: dict[str, Any]) -> Iterator[tuple[int, int]]:
    for message in body["messages"]:
        for data in message.get("images", []):
            with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                yield image.size


class _Server(ThreadingHTTPServer):
    """Knows its connections, so that it can close them."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients may go away at any time."""

    def hang_up(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # The client was quicker.


class _Handler(BaseHTTPRequestHandler):
    server_standin: ClassVar[OllamaStandIn]

    protocol_version = "HTTP/1.1"  # which keeps connections open
    wbufsize = -1  # Head and body in one packet: two would wait for the client's acknowledgement.

    def setup(self) -> None:
        super().setup()
        self.server_standin.connections += 1

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _reply(self, body: dict[str, Any]) -> None:
        if self.server_standin.takes_hang_up():
            self.server_standin.requests.append(Request(self.path, body))
            self.close_connection = True
            return
        status, answer = self.server_standin.answer(self.path, body)
        content = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.server_standin.drips:
                self._drip(content)
            else:
                self.wfile.write(content)
            self.wfile.flush()
        except OSError:
            self.close_connection = True  # The client gave up waiting.

    def _drip(self, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(DRIP_SECONDS)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests look at `requests`."""
