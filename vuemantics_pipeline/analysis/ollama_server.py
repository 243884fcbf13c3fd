"""One Ollama server: the calls the analyzer makes, over a connection that is kept open."""

import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import httpx
from ollama import ChatResponse, Client, ResponseError
from pydantic import ValidationError

from vuemantics_pipeline.analysis.ollama_errors import (
    OllamaRefusal,
    model_missing,
    not_ollama,
    too_slow,
    unreachable,
)
from vuemantics_pipeline.limits import TimeLimitExceeded, time_limit

CONNECT_SECONDS = 5.0
# A connection may idle between two uploads; proxies close it after 75 s (nginx's default) or so.
_KEEP_OPEN_SECONDS = 60.0

# The end of a sentence, with the quotes and brackets it closes. A point needs a gap behind it.
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s|$)|[。！？][」』”’）]*")  # noqa: RUF001


class OllamaServer:
    """The server at `host`.

    Every call may raise BackendUnavailable: 'ollama_unreachable', 'ollama_timeout',
    'model_missing', or 'ollama_error' (as an OllamaRefusal where the server gives a status).
    """

    def __init__(self, host: str, timeout_seconds: float) -> None:
        """Connect to nothing yet.

        Args:
            timeout_seconds: longest wait for one whole answer.
        """
        self.host = host
        self._timeout_seconds = timeout_seconds
        self._transport = _KeptConnection(limits=httpx.Limits(keepalive_expiry=_KEEP_OPEN_SECONDS))
        with self._understood():
            self._client = Client(
                host,
                timeout=httpx.Timeout(
                    timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)
                ),
                transport=self._transport,
            )
        # Analyzers are dropped, not closed.
        weakref.finalize(self, self._transport.close)
        self._digests: dict[str, str] = {}
        self._digests_since = 0

    def chat(
        self,
        model: str,
        prompt: str,
        images: Sequence[bytes],
        options: Mapping[str, str | int | float],
    ) -> str:
        """Ask a model about JPEG pictures, or about nothing but the prompt.

        Returns:
            What it answered, without what it thought; "" if that is nothing. An answer that was
            cut off at `num_predict` ends with its last whole sentence, if it has one.
        """
        message: dict[str, object] = {"role": "user", "content": prompt}
        if images:
            message["images"] = images
        with self._understood(model):
            # Models that can think do so unless told not to, and may use up num_predict on it
            # (ollama/ollama#16184, #17978). Others take `false` as well.
            answer = self._client.chat(
                model, messages=[message], think=False, options=dict(options)
            )
        return _said(answer)

    def embed(self, model: str, text: str) -> list[float]:
        """Embed a text as the model does it, whole or not at all."""
        with self._understood(model):
            # No options: another context size than other clients' would load the model anew.
            vectors = self._client.embed(model, text, truncate=False).embeddings
        return list(vectors[0]) if vectors else []

    def digests(self) -> dict[str, str]:
        """The models the server has: digests by full name. Loads none."""
        with self._understood():
            listed = self._client.list().models
        return {_full_name(entry.model): entry.digest or "" for entry in listed if entry.model}

    def require(self, *models: str) -> None:
        """Raise 'model_missing' for the first model that the server does not have."""
        present = self.digests()
        for model in models:
            if _full_name(model) not in present:
                raise model_missing(self.host, model)

    def digest(self, model: str) -> str | None:
        """Return the digest of a model, looked up anew on every new connection.

        None where the server does not tell: no description is lost for that.
        """
        if not self._digests or self._digests_since != self._transport.opened:
            with suppress(OllamaRefusal):
                self._digests = self.digests()
                self._digests_since = self._transport.opened
        return self._digests.get(_full_name(model)) or None

    @contextmanager
    def _understood(self, model: str | None = None) -> Iterator[None]:
        """Tell whatever goes wrong in the block as a BackendUnavailable."""
        try:
            # httpx waits for the next byte only, which a server may send one at a time.
            with time_limit(self._timeout_seconds):
                yield
        except ResponseError as error:
            if error.status_code == 404 and model is not None:
                raise model_missing(self.host, model) from error
            raise OllamaRefusal(self.host, error.status_code, _reason(error)) from error
        except httpx.ConnectTimeout as error:
            raise unreachable(self.host) from error
        except (httpx.TimeoutException, TimeLimitExceeded) as error:
            raise too_slow(self.host, self._timeout_seconds) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise unreachable(self.host) from error
        except (ValidationError, ValueError) as error:
            raise not_ollama(self.host) from error


class _KeptConnection(httpx.HTTPTransport):
    """Keeps its connection open, and survives that the server closed it.

    Mostly httpx sees that and opens a new one. What is left is a server that goes just when a
    request comes: a request whose kept connection ends before an answer is sent once more, on a
    new one (RFC 9110, 9.2.2; no request here changes anything). On a new connection that is the
    server's answer, and nothing is repeated. HTTP_PROXY is not asked: a proxy for the Internet
    does not know the way to this server.

    Attributes:
        opened: connections so far.
    """

    opened = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["trace"] = self._count
        opened_before = self.opened
        try:
            return super().handle_request(request)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if self.opened > opened_before:
                raise
            return super().handle_request(request)

    def _count(self, event: str, info: Mapping[str, object]) -> None:  # noqa: ARG002
        if event == "connection.connect_tcp.complete":
            self.opened += 1


def _full_name(model: str) -> str:
    """The full name of a model: Ollama reads 'bge-m3' as 'bge-m3:latest'."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _said(answer: ChatResponse) -> str:
    # Ollama parts thought from answer for models it knows; others print both, and templates that
    # open the thought leave only its end tag.
    text = (answer.message.content or "").rpartition("</think>")[2].partition("<think>")[0].strip()
    if answer.done_reason == "length":
        ends = [match.end() for match in _SENTENCE_END.finditer(text)]
        return text[: ends[-1]] if ends else text
    return text


def _reason(error: ResponseError) -> str:
    return " ".join(error.error.split()).rstrip(".")[:200] or "no reason given"
