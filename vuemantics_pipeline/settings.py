"""The environment as typed settings. Names without a prefix are the application's own."""

from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from vuemantics_pipeline.errors import UsageError


class AnalyzerName(StrEnum):
    """Which analyzer describes and embeds the media."""

    EMBEDDED = "embedded"
    OLLAMA = "ollama"
    NONE = "none"


def _default_home() -> Path:
    return Path.home() / ".vuemantics"


class Settings(BaseSettings):
    """What the pipeline reads from the environment.

    Empty variables count as unset. `load_settings` turns a wrong value into a `UsageError`.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    # The application's names
    database_url: Annotated[SecretStr | None, NoDecode] = Field(
        None, validation_alias="DATABASE_URL"
    )
    upload_path: Path | None = Field(None, validation_alias="UPLOAD_PATH")
    ollama_host: str = Field("http://127.0.0.1:11434", validation_alias="OLLAMA_HOST")
    vision_model: str = Field("qwen2.5vl:3b", validation_alias="VISION_MODEL")
    embedding_model: str = Field("bge-m3", validation_alias="LOCAL_EMBEDDING_MODEL")
    embedding_dimensions: int = Field(
        1024, ge=1, le=2000, validation_alias="LOCAL_EMBEDDING_DIMENSIONS"
    )

    secret_key: Annotated[SecretStr | None, NoDecode] = Field(None, validation_alias="SECRET_KEY")
    redis_url: Annotated[SecretStr | None, NoDecode] = Field(None, validation_alias="REDIS_URL")

    # The pipeline's own
    home: Path = Field(default_factory=_default_home, validation_alias="VUEMANTICS_HOME")
    analyzer: AnalyzerName = Field(AnalyzerName.EMBEDDED, validation_alias="VUEMANTICS_ANALYZER")
    ollama_timeout_seconds: float = Field(
        300, gt=0, validation_alias="VUEMANTICS_OLLAMA_TIMEOUT_SECONDS"
    )
    # Nearly the same words for the same picture every time, yet not quite: at 0 small vision models
    # are caught in loops more often.
    ollama_temperature: float = Field(
        0.1, ge=0, le=2, validation_alias="VUEMANTICS_OLLAMA_TEMPERATURE"
    )
    ollama_context_tokens: int = Field(
        8192, ge=2048, validation_alias="VUEMANTICS_OLLAMA_CONTEXT_TOKENS"
    )
    ollama_answer_tokens: int = Field(
        512, ge=64, validation_alias="VUEMANTICS_OLLAMA_ANSWER_TOKENS"
    )
    # None: when the extra is installed.
    ocr: bool | None = Field(None, validation_alias="VUEMANTICS_OCR")
    reuse: bool = Field(True, validation_alias="VUEMANTICS_REUSE")
    max_pixels: int = Field(250_000_000, ge=1, validation_alias="VUEMANTICS_MAX_PIXELS")
    decode_seconds: float = Field(120, gt=0, validation_alias="VUEMANTICS_DECODE_SECONDS")
    decode_memory_mib: int = Field(3072, ge=512, validation_alias="VUEMANTICS_DECODE_MEMORY_MIB")
    batches_per_tick: int = Field(10, ge=1, le=1000, validation_alias="VUEMANTICS_BATCHES_PER_TICK")
    listen_seconds: float = Field(4.5, ge=0, le=50, validation_alias="VUEMANTICS_LISTEN_SECONDS")
    grace_seconds: float = Field(900, ge=0, validation_alias="VUEMANTICS_GRACE_SECONDS")
    cancel_seconds: float = Field(10, ge=0, validation_alias="VUEMANTICS_CANCEL_SECONDS")
    # A video takes an answer of the vision model for each frame; each answer has its own limit.
    stage_seconds: float = Field(3600, gt=0, validation_alias="VUEMANTICS_STAGE_SECONDS")
    max_tries: int = Field(5, ge=1, validation_alias="VUEMANTICS_MAX_TRIES")
    backoff_seconds: float = Field(10, ge=0, validation_alias="VUEMANTICS_BACKOFF_SECONDS")
    backoff_max_seconds: float = Field(600, ge=0, validation_alias="VUEMANTICS_BACKOFF_MAX_SECONDS")

    # Where people find the Dagster UI; `vuemantics up` sets it to its own.
    ui_url: str = Field("http://127.0.0.1:3000", validation_alias="VUEMANTICS_UI_URL")
    reports_path: Path | None = Field(None, validation_alias="VUEMANTICS_REPORTS_PATH")
    alert_webhook_url: Annotated[SecretStr | None, NoDecode] = Field(
        None, validation_alias="VUEMANTICS_ALERT_WEBHOOK_URL"
    )
    gateway_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), validation_alias="VUEMANTICS_GATEWAY_ORIGINS"
    )
    gateway_sockets: int = Field(5000, ge=1, validation_alias="VUEMANTICS_GATEWAY_SOCKETS")
    gateway_sockets_per_user: int = Field(
        50, ge=1, validation_alias="VUEMANTICS_GATEWAY_SOCKETS_PER_USER"
    )

    @field_validator("gateway_origins", mode="before")
    @classmethod
    def _listed(cls, origins: object) -> object:
        """Split `https://a.example, https://b.example`."""
        if isinstance(origins, str):
            return tuple(origin.strip() for origin in origins.split(",") if origin.strip())
        return origins

    @field_validator("ui_url")
    @classmethod
    def _without_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @field_validator("home", "upload_path", "reports_path")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    @cached_property
    def uploads(self) -> Path:
        """Folder that `uploads.file_path` is relative to."""
        return self.upload_path or self.home / "uploads"

    @cached_property
    def reports(self) -> Path:
        """Folder that the daily report is written to."""
        return self.reports_path or self.home / "reports"

    def require_database_url(self) -> str:
        """Return DATABASE_URL.

        Raises:
            UsageError: it is not set.
        """
        if self.database_url is None:
            raise UsageError(
                "no_database_url",
                "DATABASE_URL is not set.",
                "Set it, or let `vuemantics up` start Dagster: it brings a database along.",
            )
        return self.database_url.get_secret_value()


def variable(name: str) -> str:
    """Return the environment variable of a setting, by field name."""
    return str(Settings.model_fields[name].validation_alias)


def load_settings(**overrides: object) -> Settings:
    """Read the environment.

    Args:
        overrides: values that win over the environment, by field name.

    Raises:
        UsageError: a variable has a value that cannot be used.
    """
    try:
        # By variable: were field names allowed too, HOME would be read as the field `home`.
        return Settings(**{variable(name): value for name, value in overrides.items()})  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise UsageError(
            "bad_setting", f"A setting cannot be used: {problems}.", "Correct it and start again."
        ) from None
