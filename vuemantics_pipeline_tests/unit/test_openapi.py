"""The OpenAPI document says what there is, and its examples are as it says."""

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from starlette.routing import Route

from vuemantics_pipeline import gateway
from vuemantics_pipeline.gateway.app import build_app
from vuemantics_pipeline.settings import load_settings

DOCUMENT: dict[str, Any] = yaml.safe_load((resources.files(gateway) / "openapi.yaml").read_text())
METHODS = ("get", "post", "put", "delete", "patch")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in (method for method in METHODS if method in item):
            yield path, method, item[method]


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """What a part says, wherever it stands."""
    while "$ref" in part:
        found: Any = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def contents() -> Iterator[Any]:
    """Every body of a request or an answer."""
    for path, method, operation in operations():
        bodies = {"request": operation.get("requestBody", {})} | operation["responses"]
        for name, body in bodies.items():
            for media_type, content in resolved(body).get("content", {}).items():
                if "json" in media_type:
                    yield pytest.param(content, id=f"{method} {path} {name}")


def test_every_address_is_in_it_and_no_other(tmp_path: Path) -> None:
    app = build_app(load_settings(home=tmp_path), "postgresql://127.0.0.1:1/x", "s" * 32)
    routes = {
        (re.sub(r":\w+}", "}", route.path), method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert routes == {(path, method) for path, method, _ in operations()}


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for *_, operation in operations()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("content", list(contents()))
def test_examples_are_as_their_schemas_say(content: dict[str, Any]) -> None:
    schema = content["schema"] | {"components": DOCUMENT["components"]}
    examples = content.get("examples", {})
    assert examples or content["schema"].get("required") == ["openapi", "info", "paths"]
    for example in examples.values():
        jsonschema_rs.validate(schema, resolved(example)["value"])


def test_every_problem_has_an_example_that_names_its_status() -> None:
    for path, method, operation in operations():
        for status, answer in operation["responses"].items():
            problem = resolved(answer).get("content", {}).get("application/problem+json")
            if problem is not None:
                for example in problem["examples"].values():
                    assert str(example["value"]["status"]) == status, (path, method)
