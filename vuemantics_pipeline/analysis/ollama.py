"""The analyzer that asks an Ollama server, as the application itself does."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from PIL import Image

from vuemantics_pipeline.analysis.analyzer import (
    AnalyzerIdentity,
    Description,
    Label,
    OnFrame,
    unheard,
)
from vuemantics_pipeline.analysis.audit import PASS_MARK, audit
from vuemantics_pipeline.analysis.ollama_errors import OllamaRefusal
from vuemantics_pipeline.analysis.ollama_images import jpeg
from vuemantics_pipeline.analysis.prompts import (
    DESCRIBE_IMAGE,
    PROMPT_VERSION,
    FrameNote,
    describe_frame,
    describe_video,
)
from vuemantics_pipeline.errors import BackendUnavailable, UploadError
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.settings import Settings

if TYPE_CHECKING:
    from vuemantics_pipeline.analysis.ollama_server import OllamaServer

# The same picture gets the same words. One that is asked about again must get others.
_FIRST_SEED, _SECOND_SEED = 1, 2
_WARMER = 0.3
_MAX_TEMPERATURE = 2.0

# What the instructions of the synthesis take of the context, generously.
_INSTRUCTION_TOKENS = 400
_LEAST_NOTE_TOKENS = 64

_SOUND_PICTURE = Image.new("RGB", (112, 112), "white")
_LEAST_TEXT_TO_PART = 32

_Options = dict[str, str | int | float]


class OllamaAnalyzer:
    """Describes with a vision model and embeds with an embedding model of one Ollama server.

    How long the server keeps a model in memory is left to its own OLLAMA_KEEP_ALIVE: its default
    of 5 minutes spans the gap between two uploads.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._identity = AnalyzerIdentity(
            analyzer="ollama",
            vision_model=settings.vision_model,
            embedding_model=settings.embedding_model,
            dimension=settings.embedding_dimensions,
            prompt_version=PROMPT_VERSION,
        )

    @property
    def identity(self) -> AnalyzerIdentity:
        return self._identity

    def describe(
        self,
        frames: Sequence[Image.Image],
        info: MediaInfo,
        *,
        again: bool = False,
        on_frame: OnFrame = unheard,
    ) -> Description:
        """See `Analyzer.describe`. A video is described frame by frame, and then as a whole.

        Raises:
            BackendUnavailable: 'ollama_unreachable', 'ollama_timeout', 'ollama_error' or
                'model_missing'.
            UploadError: 'rejected_by_model', 'empty_description'.
        """
        options = self._options(again=again)
        if info.file_type == "video":
            text = self._describe_video(frames, info.duration_seconds, options, on_frame)
        else:
            text = self._ask(DESCRIBE_IMAGE, frames[0], options)
        if not text:
            raise UploadError(
                "empty_description",
                f"{self._identity.vision_model} gave an empty answer for this file.",
                "Run it again, or set VISION_MODEL to another model.",
            )
        digest = self._server.digest(self._identity.vision_model)
        return Description(text, model_digest=digest, options=options)

    def embed(self, text: str, labels: Sequence[Label] = ()) -> list[float]:  # noqa: ARG002
        """See `Analyzer.embed`.

        A text that the model does not take whole is embedded in parts: nothing of it is dropped.

        Raises:
            BackendUnavailable: as `describe`, or 'wrong_dimension'.
        """
        try:
            return self._unit(self._server.embed(self._identity.embedding_model, text))
        except OllamaRefusal as refusal:
            if not refusal.blames_text or len(text) < _LEAST_TEXT_TO_PART:
                raise
        parts = _halves(text)
        vectors = [self.embed(part) for part in parts]
        return self._unit(
            [
                sum(len(part) * value for part, value in zip(parts, values, strict=True))
                for values in zip(*vectors, strict=True)
            ]
        )

    def check(self) -> str:
        """See `Analyzer.check`. Lists the server's models without loading one."""
        vision_model, embedding_model = self._identity.vision_model, self._identity.embedding_model
        self._server.require(vision_model, embedding_model)
        return f"Ollama at {self._server.host} has {vision_model} and {embedding_model}."

    @cached_property
    def _server(self) -> "OllamaServer":
        from vuemantics_pipeline.analysis.ollama_server import OllamaServer

        return OllamaServer(self._settings.ollama_host, self._settings.ollama_timeout_seconds)

    def _options(self, *, again: bool) -> _Options:
        temperature = self._settings.ollama_temperature
        if again:
            temperature = round(min(temperature + _WARMER, _MAX_TEMPERATURE), 3)
        return {
            "temperature": temperature,
            "seed": _SECOND_SEED if again else _FIRST_SEED,
            "num_ctx": self._settings.ollama_context_tokens,
            "num_predict": self._settings.ollama_answer_tokens,
        }

    def _describe_video(
        self,
        frames: Sequence[Image.Image],
        duration: float | None,
        options: _Options,
        on_frame: OnFrame,
    ) -> str:
        count = len(frames)
        note_options = options | {"num_predict": self._note_tokens(count)}
        notes = []
        for number, frame in enumerate(frames, start=1):
            # Frames are from the middles of equal parts of the video.
            second = None if duration is None else round(duration * (number - 0.5) / count, 1)
            prompt = describe_frame(number, count, second)
            notes.append(FrameNote(second, self._ask(prompt, frame, note_options)))
            on_frame(number, count)
        good = [note for note in notes if audit(note.text) >= PASS_MARK]
        if len(good) < 2:
            return max((note.text for note in notes), key=audit)
        return self._ask(describe_video(good, duration), None, options)

    def _note_tokens(self, count: int) -> int:
        """Longest note on a frame, so that `count` of them leave the context room for an answer."""
        answer = self._settings.ollama_answer_tokens
        room = self._settings.ollama_context_tokens - answer - _INSTRUCTION_TOKENS
        return min(answer, max(_LEAST_NOTE_TOKENS, room // count))

    def _ask(self, prompt: str, picture: Image.Image | None, options: _Options) -> str:
        model = self._identity.vision_model
        images = [] if picture is None else [jpeg(picture)]
        try:
            return self._server.chat(model, prompt, images, options)
        except OllamaRefusal as refusal:
            if refusal.blames_picture or (refusal.status == 500 and self._is_well()):
                raise UploadError(
                    "rejected_by_model",
                    f"{model} cannot read this file: {refusal.reason}.",
                    "Convert it to JPEG (or MP4), or export it again, and upload that.",
                ) from refusal
            raise

    def _is_well(self) -> bool:
        """Whether the model can describe a picture that is surely sound.

        Some pictures crash the model's runner with status 500 every time (ollama/ollama#14170):
        that must not look like a server that is down and hold up the batch for ever.
        """
        model, options = self._identity.vision_model, self._options(again=False)
        try:
            self._server.chat(model, DESCRIBE_IMAGE, [jpeg(_SOUND_PICTURE)], options)
        except OllamaRefusal:
            return False
        return True

    def _unit(self, vector: list[float]) -> list[float]:
        """Check a vector and bring it to unit length."""
        model, dimension = self._identity.embedding_model, self._identity.dimension
        host = self._server.host
        if len(vector) != dimension:
            raise BackendUnavailable(
                "wrong_dimension",
                f"{model} at {host} makes vectors of {len(vector)} numbers, not {dimension}.",
                "Set LOCAL_EMBEDDING_MODEL and LOCAL_EMBEDDING_DIMENSIONS so that they agree, "
                "and with the dimension of uploads.embedding_local.",
            )
        length = math.hypot(*vector)
        if not math.isfinite(length) or length == 0:
            raise BackendUnavailable(
                "ollama_error",
                f"{model} at {host} answered with a vector of no direction.",
                f"Run `ollama pull {model}` again.",
            )
        return [value / length for value in vector]


def _halves(text: str) -> tuple[str, str]:
    """Part a text at the last gap before its middle, or in the middle if there is none."""
    middle = len(text) // 2
    gap = text.rfind(" ", 1, middle)
    cut = gap if gap > 0 else middle
    return text[:cut], text[cut:]
