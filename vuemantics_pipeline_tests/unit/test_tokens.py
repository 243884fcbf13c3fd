"""Access tokens: what is let in, and every way one can be false."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest

from vuemantics_pipeline.gateway.tokens import Session, TokenRefused, issue_token, read_token

SECRET = "a secret of at least sixty-four bytes, so that HS512 does not find it too short"
USER = UUID("1b4e28ba-2fa1-4d2f-883f-0016d3cca427")


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; None takes one away."""
    good = {
        "sub": str(USER),
        "exp": int(datetime.now(UTC).timestamp()) + 60,
        "type": "access",
        "token_version": 3,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def token(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), secret, algorithm=algorithm)


def part(content: object) -> str:
    encoded = base64.urlsafe_b64encode(json.dumps(content).encode())
    return encoded.decode().rstrip("=")


def signed(header: object, body: object, digest: str = "sha256") -> str:
    """A token with any header at all, and a signature by the right secret."""
    content = f"{part(header)}.{part(body)}"
    signature = hmac.digest(SECRET.encode(), content.encode(), digest)
    return f"{content}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def refusal(token: str) -> str:
    with pytest.raises(TokenRefused) as refused:
        read_token(token, SECRET)
    return str(refused.value)


def test_a_good_token() -> None:
    until = datetime(2100, 1, 1, tzinfo=UTC)
    assert read_token(token(exp=until), SECRET) == Session(USER, until, 3)


def test_one_issued_here() -> None:
    issued = issue_token(SECRET, USER, token_version=3, lifetime=timedelta(minutes=1))
    assert read_token(issued, SECRET).user_id == USER
    assert jwt.get_unverified_header(issued) == {"alg": "HS256", "typ": "JWT"}


def test_a_header_made_by_hand_is_as_good() -> None:
    assert read_token(signed({"alg": "HS256"}, claims()), SECRET).token_version == 3


@pytest.mark.parametrize(
    "false",
    [
        pytest.param("", id="empty"),
        pytest.param("token", id="no JWT"),
        pytest.param("a.b.c", id="no base64"),
        pytest.param("é.é.é", id="no ASCII"),
        pytest.param(token() + "x", id="tampered signature"),
        pytest.param(token(secret="another " + SECRET), id="wrong secret"),
        pytest.param(token(algorithm="HS512"), id="HS512"),
        pytest.param(f"{part({'alg': 'none'})}.{part(claims())}.", id="none"),
        pytest.param(f"{part({'alg': 'None'})}.{part(claims())}.", id="None"),
        pytest.param(signed({"alg": "none"}, claims()), id="none, but signed"),
        pytest.param(signed({"alg": "RS256"}, claims()), id="RS256 header"),
        pytest.param(signed({"alg": "HS512"}, claims(), "sha512"), id="HS512 by hand"),
        pytest.param(signed({}, claims()), id="no algorithm"),
        pytest.param(signed({"alg": "HS256", "crit": ["exp"]}, claims()), id="critical header"),
        pytest.param(signed({"alg": "HS256"}, ["claims"]), id="claims in a list"),
        pytest.param(token(exp=None), id="no expiry"),
        pytest.param(token(sub=None), id="no user"),
        pytest.param(token(sub="admin"), id="user that is no id"),
        pytest.param(signed({"alg": "HS256"}, claims(sub=7)), id="user that is a number"),
        pytest.param(token(exp=10**30), id="expiry beyond the calendar"),
        pytest.param(signed({"alg": "HS256"}, claims(exp="soon")), id="expiry that is no number"),
        pytest.param(token(nbf=datetime.now(UTC) + timedelta(hours=1)), id="not yet"),
    ],
)
def test_false_tokens(false: str) -> None:
    assert refusal(false) == "The token is not valid."


def test_a_changed_payload() -> None:
    header, _, signature = token().split(".")
    other = part(claims(sub="00000000-0000-0000-0000-000000000000"))
    assert refusal(f"{header}.{other}.{signature}") == "The token is not valid."


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "refresh"},
        {"type": None},
        {"token_version": None},
        {"token_version": "3"},
        {"token_version": True},
        {"token_version": 3.0},
    ],
)
def test_other_tokens_of_the_application(changes: dict[str, Any]) -> None:
    assert refusal(token(**changes)) == "The token is not an access token."


def test_an_expired_token() -> None:
    assert refusal(token(exp=datetime.now(UTC) - timedelta(seconds=1))) == "The token has expired."


def test_a_token_that_is_too_long() -> None:
    assert refusal(token(more="x" * 5000)) == "The token is too long."


def test_refusals_quote_nothing() -> None:
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    for false in (token(secret=digest), token(exp=1), token(type="refresh")):
        assert false not in refusal(false)
