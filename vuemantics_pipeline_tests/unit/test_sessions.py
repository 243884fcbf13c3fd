"""Where the token of a request is."""

import pytest
from starlette.requests import HTTPConnection

from vuemantics_pipeline.gateway.sessions import COOKIE, token_of


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, None),
        ({"authorization": "Bearer a.b.c"}, "a.b.c"),
        ({"authorization": "bearer  a.b.c "}, "a.b.c"),
        ({"cookie": f"{COOKIE}=a.b.c"}, "a.b.c"),
        ({"cookie": f"theme=dark; {COOKIE}=a.b.c"}, "a.b.c"),
        ({"cookie": "session=a.b.c"}, None),
        ({"authorization": "Bearer a.b.c", "cookie": f"{COOKIE}=x.y.z"}, "a.b.c"),
        # A proxy with a login of its own stands before the gateway.
        ({"authorization": "Basic YTpi", "cookie": f"{COOKIE}=a.b.c"}, "a.b.c"),
        ({"authorization": "Basic YTpi"}, None),
        ({"authorization": "a.b.c"}, None),
    ],
)
def test_the_token_of_a_request(headers: dict[str, str], token: str | None) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert token_of(HTTPConnection({"type": "http", "headers": raw})) == token
