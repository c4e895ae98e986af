"""An example request from what a service says about itself."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_mlpatterns.cli.subject_probe import ExampleRequest, example_request


def post(schema: object) -> dict[str, Any]:
    return {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}


def body_of(schema: object, **components: object) -> object:
    found = example_request({"paths": {"/p": post(schema)}, "components": {"schemas": components}})
    assert found is not None
    assert found.is_post
    return found.body


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        ({"type": "string"}, "text"),
        ({"type": ["integer", "null"]}, 1),
        ({"type": "integer", "minimum": 5}, 6),
        ({"type": "number"}, 1.0),
        ({"type": "boolean"}, True),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "enum": ["cat", "dog"]}, "cat"),
        ({"type": "string", "example": "hello"}, "hello"),
        ({"type": "string", "examples": ["hello"]}, "hello"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
        ({"type": "array", "items": {"type": "number"}, "minItems": 2}, [1.0, 1.0]),
        ({"type": "array"}, [1.0]),
        ({"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 1}),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 1}),
    ],
)
def test_body_has_the_types_of_the_schema(schema: object, body: object) -> None:
    assert body_of(schema) == body


def test_references_are_followed() -> None:
    assert body_of({"$ref": "#/components/schemas/A"}, A={"$ref": "#/components/schemas/B"}, B={"type": "integer"}) == 1


def test_schema_that_contains_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}}
    assert "next" in str(body_of({"$ref": "#/components/schemas/Node"}, Node=node))


def test_wanted_path_comes_first_and_paths_with_parameters_never() -> None:
    paths = {"/{id}": post({}), "/a": post({"type": "string"}), "/b": post({"type": "integer"})}
    assert example_request({"paths": paths}) == ExampleRequest("/a", "text")
    assert example_request({"paths": paths}, "/b") == ExampleRequest("/b", 1)
    assert example_request({"paths": paths}, "/c") is None


def test_without_a_body_a_path_is_read() -> None:
    assert example_request({"paths": {"/a": {"post": {}}, "/b": {"get": {}}}}) == ExampleRequest("/b", is_post=False)


@pytest.mark.parametrize("document", [{}, {"paths": None}, {"paths": {}}])
def test_document_without_paths_has_no_example(document: dict[str, Any]) -> None:
    assert example_request(document) is None
