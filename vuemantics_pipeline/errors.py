"""Every error the pipeline raises on purpose: what happened, and what to do about it.

Three kinds, because three different things follow from them:

- `UploadError`: one file is at fault. It costs that upload an attempt; the batch goes on.
- `BackendUnavailable`: something the pipeline needs is down. No upload is at fault.
- `UsageError`: a person asked for something that cannot be done.
"""


class PipelineError(Exception):
    """An expected failure.

    Attributes:
        code: stable snake_case identifier, the same for every failure of one kind.
        message: one sentence for a person.
        remedy: one sentence that says what to do, or "" where nothing can be done.
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class UploadError(PipelineError):
    """One file cannot be processed. The fault is the file's, so it costs an attempt."""


class BackendUnavailable(PipelineError):
    """A service or resource the pipeline needs is down: nobody's failed upload."""


class UsageError(PipelineError):
    """A person asked for something impossible: a wrong path, an unknown id, a wrong setting."""
