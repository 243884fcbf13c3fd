"""The application's access tokens: who is asking, and whether they still may."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt

from vuemantics_pipeline.ledger.connection import Connection, database_errors
from vuemantics_pipeline.ledger.queries import queries

_ALGORITHM = "HS256"
_TYPE = "access"
_LONGEST_TOKEN = 4096
_SQL = queries("users")


class TokenRefused(Exception):
    """A token that lets nobody in. The message says why, in words that give nothing away."""


@dataclass(frozen=True)
class Session:
    """Whoever a token speaks for.

    Attributes:
        expires_at: of the token, in UTC.
        token_version: the token holds only while the user's is the same.
    """

    user_id: UUID
    expires_at: datetime
    token_version: int


def read_token(token: str, secret: str) -> Session:
    """Check what a token says of itself: signature, algorithm, expiry, type and claims.

    Raises:
        TokenRefused: it was not issued with this secret, has expired, or is no access token.
    """
    if len(token) > _LONGEST_TOKEN:
        raise TokenRefused("The token is too long.")
    try:
        claims = jwt.decode(
            token, secret, algorithms=[_ALGORITHM], options={"require": ["sub", "exp"]}
        )
        user_id, version = UUID(claims["sub"]), claims.get("token_version")
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
    except jwt.ExpiredSignatureError:
        raise TokenRefused("The token has expired.") from None
    except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError, OverflowError, OSError):
        raise TokenRefused("The token is not valid.") from None
    if claims.get("type") != _TYPE or type(version) is not int:
        raise TokenRefused("The token is not an access token.")
    return Session(user_id, expires_at, version)


def require_active(connection: Connection, session: Session) -> None:
    """Make sure that the session's user exists, is active, and has not revoked their tokens.

    Raises:
        TokenRefused: one of these does not hold.
        BackendUnavailable: the connection is lost.
    """
    if token_versions(connection, [session.user_id]).get(session.user_id) != session.token_version:
        raise TokenRefused("The token has been revoked.")


def token_versions(connection: Connection, user_ids: Collection[UUID]) -> dict[UUID, int]:
    """Return the `token_version` of those of the users who are there and active.

    Raises:
        BackendUnavailable: the connection is lost.
    """
    with database_errors(connection):
        rows = connection.execute(_SQL["active"], {"user_ids": list(user_ids)}).fetchall()
    return dict(rows)


def token_for(connection: Connection, secret: str, user_id: UUID, *, lifetime: timedelta) -> str:
    """Return an access token for a user there is."""
    row = connection.execute(_SQL["token_version"], {"user_id": user_id}).fetchone()
    assert row is not None
    return issue_token(secret, user_id, token_version=row[0], lifetime=lifetime)


def issue_token(secret: str, user_id: UUID, *, token_version: int, lifetime: timedelta) -> str:
    """Return an access token such as the application issues."""
    claims = {
        "sub": str(user_id),
        "exp": datetime.now(UTC) + lifetime,
        "type": _TYPE,
        "token_version": token_version,
    }
    return jwt.encode(claims, secret, algorithm=_ALGORITHM)
