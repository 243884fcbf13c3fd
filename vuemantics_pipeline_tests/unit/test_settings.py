"""The environment as settings: the application's names, defaults, and what cannot be used."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.settings import AnalyzerName, load_settings

OURS = ("DATABASE_URL", "UPLOAD_PATH", "OLLAMA_HOST", "VISION_MODEL")
URL = "postgresql://user:hunter2@host/db"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without any of our variables."""
    for name in list(os.environ):
        if name in OURS or name.startswith(("VUEMANTICS_", "LOCAL_EMBEDDING_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "person"))


def test_defaults(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.database_url is None
    assert settings.home == tmp_path / "person" / ".vuemantics"
    assert settings.uploads == settings.home / "uploads"
    assert settings.analyzer is AnalyzerName.EMBEDDED
    assert settings.vision_model == "qwen2.5vl:3b"
    assert settings.embedding_model == "bge-m3"
    assert settings.embedding_dimensions == 1024


def test_the_applications_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = {
        "DATABASE_URL": URL,
        "UPLOAD_PATH": str(tmp_path / "in"),
        "OLLAMA_HOST": "http://gpu:11434",
        "VISION_MODEL": "llava",
        "LOCAL_EMBEDDING_MODEL": "nomic",
        "LOCAL_EMBEDDING_DIMENSIONS": "768",
        "VUEMANTICS_ANALYZER": "ollama",
        "VUEMANTICS_HOME": str(tmp_path / "home"),
        "VUEMANTICS_MAX_TRIES": "3",
        "VUEMANTICS_GRACE_SECONDS": "0.5",
        "VUEMANTICS_UI_URL": "https://dagster.example/",
        "VUEMANTICS_GATEWAY_ORIGINS": "https://a.example, https://b.example",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.require_database_url() == URL
    assert settings.uploads == tmp_path / "in"
    assert settings.home == tmp_path / "home"
    assert settings.ollama_host == "http://gpu:11434"
    assert (settings.vision_model, settings.embedding_model) == ("llava", "nomic")
    assert settings.embedding_dimensions == 768
    assert settings.analyzer is AnalyzerName.OLLAMA
    assert (settings.max_tries, settings.grace_seconds) == (3, 0.5)
    assert settings.ui_url == "https://dagster.example"
    assert settings.gateway_origins == ("https://a.example", "https://b.example")


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "UPLOAD_PATH", "VUEMANTICS_ANALYZER", "VUEMANTICS_MAX_TRIES"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert settings.database_url is None
    assert settings.upload_path is None
    assert settings.analyzer is AnalyzerName.EMBEDDED
    assert settings.max_tries == 5


def test_overrides_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VUEMANTICS_HOME", str(tmp_path / "environment"))
    assert load_settings(home=tmp_path / "given").home == tmp_path / "given"


def test_paths_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UPLOAD_PATH", "relative/uploads")
    monkeypatch.setenv("VUEMANTICS_HOME", "~/place")
    settings = load_settings()
    assert settings.uploads == tmp_path / "relative" / "uploads"
    assert settings.home == tmp_path / "person" / "place"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VUEMANTICS_ANALYZER", "magic"),
        ("LOCAL_EMBEDDING_DIMENSIONS", "0"),
        ("LOCAL_EMBEDDING_DIMENSIONS", "2001"),
        ("LOCAL_EMBEDDING_DIMENSIONS", "many"),
        ("VUEMANTICS_MAX_TRIES", "0"),
        ("VUEMANTICS_BATCHES_PER_TICK", "-1"),
        ("VUEMANTICS_LISTEN_SECONDS", "51"),
        ("VUEMANTICS_GRACE_SECONDS", "-1"),
        ("VUEMANTICS_GRACE_SECONDS", "nan"),
        ("VUEMANTICS_GRACE_SECONDS", "inf"),
        ("VUEMANTICS_BACKOFF_SECONDS", "inf"),
        ("VUEMANTICS_BACKOFF_MAX_SECONDS", "inf"),
        ("VUEMANTICS_OLLAMA_TIMEOUT_SECONDS", "0"),
        ("VUEMANTICS_MAX_PIXELS", "0"),
    ],
)
def test_values_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as refused:
        load_settings()
    assert refused.value.code == "bad_setting"
    assert name in refused.value.message
    assert refused.value.remedy
    assert "hunter2" not in str(refused.value)


def test_every_wrong_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VUEMANTICS_ANALYZER", "magic")
    monkeypatch.setenv("VUEMANTICS_MAX_TRIES", "0")
    with pytest.raises(UsageError, match=r"VUEMANTICS_ANALYZER.*VUEMANTICS_MAX_TRIES"):
        load_settings()


def test_no_database_url() -> None:
    with pytest.raises(UsageError) as refused:
        load_settings().require_database_url()
    assert refused.value.code == "no_database_url"
    assert "vuemantics up" in refused.value.remedy


def test_the_password_is_not_shown() -> None:
    settings = load_settings(database_url=SecretStr(URL))
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)
    assert "hunter2" not in settings.model_dump_json()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        load_settings().max_tries = 1  # type: ignore[misc]
