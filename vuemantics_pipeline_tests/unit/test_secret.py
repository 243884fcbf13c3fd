"""The secret of access tokens: the application's, or one made up for a home."""

from pathlib import Path

import pytest

from vuemantics_pipeline.errors import BackendUnavailable, UsageError
from vuemantics_pipeline.home.secret import secret_key
from vuemantics_pipeline.settings import load_settings


def test_the_applications_secret_is_used(tmp_path: Path) -> None:
    assert secret_key(load_settings(home=tmp_path, secret_key="the application's")) == (
        "the application's"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_home_makes_one_up_once_and_keeps_it_to_itself(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home")
    secret = secret_key(settings)

    assert len(secret) >= 32
    assert secret_key(settings) == secret
    (path,) = settings.home.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret_key(load_settings(home=tmp_path / "other")) != secret


def test_beside_an_application_its_secret_is_needed(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, database_url="postgresql://host/db")
    with pytest.raises(UsageError) as caught:
        secret_key(settings)
    assert caught.value.code == "no_secret_key"


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendUnavailable):
        secret_key(load_settings(home=tmp_path / "file"))
