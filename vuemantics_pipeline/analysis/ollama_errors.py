"""What can be wrong with an Ollama server, and how to mend it."""

from vuemantics_pipeline.errors import BackendUnavailable


class OllamaRefusal(BackendUnavailable):
    """The server answered, with an error.

    Attributes:
        status: the HTTP status.
        reason: what the server says, on one line.
    """

    def __init__(self, host: str, status: int, reason: str) -> None:
        super().__init__(
            "ollama_error",
            f"Ollama at {host} failed with status {status}: {reason}.",
            "Look at the server's log, and restart it with `ollama serve`.",
        )
        self.status = status
        self.reason = reason

    @property
    def blames_picture(self) -> bool:
        """Whether it is the picture that the server cannot read."""
        # A model without eyes says "does not support image input": that is no picture's fault.
        reason = self.reason.lower()
        return self.status == 400 and "image" in reason and "support" not in reason

    @property
    def blames_text(self) -> bool:
        """Whether a shorter text may do.

        bge-m3 answers some texts with NaN (ollama/ollama#14657, #15582), and no model reads beyond
        its context, which may be smaller than the one it declares (#14259).
        """
        return "NaN" in self.reason or "context length" in self.reason.lower()


def unreachable(host: str) -> BackendUnavailable:
    return BackendUnavailable(
        "ollama_unreachable",
        f"Ollama cannot be reached at {host}.",
        "Start it with `ollama serve`, or correct OLLAMA_HOST.",
    )


def too_slow(host: str, seconds: float) -> BackendUnavailable:
    return BackendUnavailable(
        "ollama_timeout",
        f"Ollama at {host} did not answer within {seconds:g} s.",
        "Check the server's load, or raise VUEMANTICS_OLLAMA_TIMEOUT_SECONDS.",
    )


def not_ollama(host: str) -> BackendUnavailable:
    return BackendUnavailable(
        "ollama_error",
        f"What answers at {host} does not speak Ollama's language.",
        "Correct OLLAMA_HOST, or bring Ollama up to date.",
    )


def model_missing(host: str, model: str) -> BackendUnavailable:
    return BackendUnavailable(
        "model_missing",
        f"Ollama at {host} does not have the model {model}.",
        f"Get it with `ollama pull {model}`.",
    )
