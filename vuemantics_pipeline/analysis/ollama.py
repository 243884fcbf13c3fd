"""The analyzer that asks an Ollama server, as the application itself does."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from PIL import Image, ImageOps

from vuemantics_pipeline.analysis.analyzer import AnalyzerIdentity, Description, Label
from vuemantics_pipeline.analysis.prompts import DESCRIBE_IMAGE, PROMPT_VERSION, describe_video
from vuemantics_pipeline.errors import BackendUnavailable, UploadError
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.settings import Settings

if TYPE_CHECKING:
    from ollama import Client, ResponseError

IMAGE_MAX_SIDE = 1568
# Qwen2.5-VL spends a token on every 28 x 28 px (arXiv:2502.13923): even ten square frames of this
# size, 5,760 tokens, leave room in the context for the prompt and the answer.
FRAME_MAX_SIDE = 672
_CONTEXT_TOKENS = 8192
_ANSWER_TOKENS = 512

# Below 28 px a side (32 for Qwen3-VL) the model's runner crashes: ollama/ollama#11297, #13113.
_MIN_SIDE = 64
_JPEG_QUALITY = 90


class OllamaAnalyzer:
    """Describes with a vision model and embeds with an embedding model of one Ollama server."""

    def __init__(self, settings: Settings) -> None:
        self._host = settings.ollama_host
        self._timeout = settings.ollama_timeout_seconds
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
        again: bool = False,  # noqa: ARG002
    ) -> Description:
        """See `Analyzer.describe`.

        Raises:
            BackendUnavailable: 'ollama_unreachable', 'ollama_timeout', 'ollama_error' or
                'model_missing'.
            UploadError: 'rejected_by_model', 'empty_description'.
        """
        if info.file_type == "video":
            prompt = describe_video(len(frames), info.duration_seconds)
            images = [_jpeg(frame, FRAME_MAX_SIDE) for frame in frames]
        else:
            prompt = DESCRIBE_IMAGE
            images = [_jpeg(frames[0], IMAGE_MAX_SIDE)]
        answer = self._ask_about(images, prompt).strip()
        if not answer:
            raise UploadError(
                "empty_description",
                f"{self._identity.vision_model} gave an empty answer for this file.",
                "Run it again, or set VISION_MODEL to another model.",
            )
        return Description(answer)

    def embed(self, text: str, labels: Sequence[Label] = ()) -> list[float]:  # noqa: ARG002
        """See `Analyzer.embed`.

        Raises:
            BackendUnavailable: as `describe`, or 'wrong_dimension'.
        """
        from ollama import ResponseError

        model, dimension = self._identity.embedding_model, self._identity.dimension
        with self._reachable():
            try:
                vectors = self._client.embed(model, text).embeddings
            except ResponseError as error:
                self._give_up(error, model)
        vector = list(vectors[0]) if vectors else []
        if len(vector) != dimension:
            raise BackendUnavailable(
                "wrong_dimension",
                f"{model} at {self._host} makes vectors of {len(vector)} numbers, not {dimension}.",
                "Set LOCAL_EMBEDDING_MODEL and LOCAL_EMBEDDING_DIMENSIONS so that they agree, "
                "and with the dimension of uploads.embedding_local.",
            )
        length = math.hypot(*vector)
        if not math.isfinite(length) or length == 0:
            raise BackendUnavailable(
                "ollama_error",
                f"{model} at {self._host} answered with a vector of no direction.",
                f"Run `ollama pull {model}` again.",
            )
        return [value / length for value in vector]

    def check(self) -> str:
        """See `Analyzer.check`. Lists the server's models without loading one."""
        from ollama import ResponseError

        with self._reachable():
            try:
                listed = self._client.list().models
            except ResponseError as error:
                self._give_up(error, self._identity.vision_model)
        present = {_with_tag(entry.model) for entry in listed if entry.model}
        for model in (self._identity.vision_model, self._identity.embedding_model):
            if _with_tag(model) not in present:
                raise self._model_missing(model)
        return (
            f"Ollama at {self._host} has {self._identity.vision_model} "
            f"and {self._identity.embedding_model}."
        )

    @cached_property
    def _client(self) -> "Client":
        import httpx
        from ollama import Client

        # A connection kept open between photos would only find out late that the server restarted.
        limits = httpx.Limits(max_keepalive_connections=0)
        return Client(self._host, timeout=self._timeout, limits=limits)

    def _ask_about(self, images: list[bytes], prompt: str) -> str:
        from ollama import ResponseError

        model = self._identity.vision_model
        with self._reachable():
            try:
                return self._chat(images, prompt)
            except ResponseError as error:
                if _blames_image(error) or (error.status_code == 500 and self._is_well()):
                    raise UploadError(
                        "rejected_by_model",
                        f"{model} cannot read this file: {_reason(error)}.",
                        "Convert it to JPEG (or MP4), or export it again, and upload that.",
                    ) from error
                self._give_up(error, model)

    def _chat(self, images: list[bytes], prompt: str) -> str:
        answer = self._client.chat(
            self._identity.vision_model,
            messages=[{"role": "user", "content": prompt, "images": images}],
            options={
                "temperature": 0,
                "num_ctx": _CONTEXT_TOKENS,
                "num_predict": _ANSWER_TOKENS,
            },
        )
        return answer.message.content or ""

    def _is_well(self) -> bool:
        """Whether the model can describe a picture that is surely sound.

        Some pictures crash the model's runner with status 500 every time (ollama/ollama#14170):
        that must not look like a server that is down and hold up the batch for ever.
        """
        from ollama import ResponseError

        try:
            self._chat([_jpeg(Image.new("RGB", (128, 128), "white"), 128)], DESCRIBE_IMAGE)
        except ResponseError:
            return False
        return True

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        import httpx
        from pydantic import ValidationError

        try:
            yield
        except httpx.TimeoutException as error:
            raise BackendUnavailable(
                "ollama_timeout",
                f"Ollama at {self._host} did not answer within {self._timeout:g} s.",
                "Check the server's load, or raise VUEMANTICS_OLLAMA_TIMEOUT_SECONDS.",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise BackendUnavailable(
                "ollama_unreachable",
                f"Ollama cannot be reached at {self._host}.",
                "Start it with `ollama serve`, or correct OLLAMA_HOST.",
            ) from error
        except (ValidationError, ValueError) as error:
            raise BackendUnavailable(
                "ollama_error",
                f"What answers at {self._host} does not speak Ollama's language.",
                "Correct OLLAMA_HOST, or bring Ollama up to date.",
            ) from error

    def _give_up(self, error: "ResponseError", model: str) -> NoReturn:
        if error.status_code == 404:
            raise self._model_missing(model) from error
        raise BackendUnavailable(
            "ollama_error",
            f"Ollama at {self._host} failed with status {error.status_code}: {_reason(error)}.",
            "Look at the server's log, and restart it with `ollama serve`.",
        ) from error

    def _model_missing(self, model: str) -> BackendUnavailable:
        return BackendUnavailable(
            "model_missing",
            f"Ollama at {self._host} does not have the model {model}.",
            f"Get it with `ollama pull {model}`.",
        )


def _blames_image(error: "ResponseError") -> bool:
    # A model without eyes says "does not support image input": that is no picture's fault.
    reason = _reason(error).lower()
    return error.status_code == 400 and "image" in reason and "support" not in reason


def _reason(error: "ResponseError") -> str:
    return " ".join(error.error.split()).rstrip(".")[:200] or "no reason given"


def _with_tag(model: str) -> str:
    """The full name of a model: Ollama reads 'bge-m3' as 'bge-m3:latest'."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _jpeg(image: Image.Image, max_side: int) -> bytes:
    image = image.convert("RGB")
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    if min(image.size) < _MIN_SIDE:
        size = (max(image.width, _MIN_SIDE), max(image.height, _MIN_SIDE))
        image = ImageOps.pad(image, size, color="white")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
