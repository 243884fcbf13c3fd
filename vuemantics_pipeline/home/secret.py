"""The secret that access tokens are signed with: the application's, or one of the home's own."""

import os
import secrets
from contextlib import suppress

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.home.instance import home_unusable
from vuemantics_pipeline.settings import Settings

_BYTES = 32


def has_secret(settings: Settings) -> bool:
    """Whether access tokens can be checked: beside an application, only with its own secret."""
    return settings.secret_key is not None or settings.database_url is None


def secret_key(settings: Settings) -> str:
    """Return SECRET_KEY; beside an embedded database, which has no application, one made up once.

    Raises:
        UsageError: code 'no_secret_key'; the application's is needed and was not given.
        BackendUnavailable: the home cannot be written.
    """
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value()
    if not has_secret(settings):
        raise UsageError(
            "no_secret_key",
            "SECRET_KEY is not set, so nobody's access token can be checked.",
            "Set it to the application's SECRET_KEY.",
        )
    path = settings.home / "secret_key"
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        # Complete before it has its name: two that start at once read the same one.
        part = path.with_name(f".secret_key.{os.getpid()}")
        part.touch(mode=0o600)
        try:
            part.write_text(secrets.token_hex(_BYTES))
            with suppress(FileExistsError):
                path.hardlink_to(part)
        finally:
            part.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise home_unusable(settings.home, error) from error
