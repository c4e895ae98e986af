"""An example request from an OpenAPI description, as FastAPI and others publish it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ExampleRequest", "example_request"]

_DEEPEST = 8
"""Deepest example, since schemas may contain themselves."""
_BY_TYPE: Mapping[str, object] = {"string": "text", "integer": 1, "number": 1.0, "boolean": True, "null": None}
_BY_FORMAT: Mapping[str, object] = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "http://127.0.0.1/",
    "email": "someone@example.com",
}


@dataclass(frozen=True, slots=True)
class ExampleRequest:
    """A path, and a body in JSON; the method is POST, or GET if there is no body."""

    path: str
    body: object = None
    is_post: bool = True


def example_request(document: Mapping[str, Any], path: str = "") -> ExampleRequest | None:
    """A request that a service takes.

    Args:
        document: the parsed ``openapi.json``.
        path: the path that is wanted; empty for the first that takes JSON by POST, else the first without parameters
            that answers GET.

    Returns:
        None if there is none.
    """
    paths = document.get("paths")
    if not isinstance(paths, dict):
        return None
    wanted = {name: operations for name, operations in paths.items() if path in ("", name) and "{" not in name}
    for name, operations in wanted.items():
        schema = _schema_of(operations.get("post"))
        if schema is not None:
            return ExampleRequest(name, _example(schema, document, depth=0))
    for name, operations in wanted.items():
        if isinstance(operations.get("get"), dict):
            return ExampleRequest(name, is_post=False)
    return None


def _schema_of(operation: object) -> Mapping[str, Any] | None:
    """The schema of the body in JSON of an operation."""
    found = operation
    for key in ("requestBody", "content", "application/json", "schema"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _example(schema: Mapping[str, Any], document: Mapping[str, Any], *, depth: int) -> object:
    """A value that the schema allows, as far as its types say; its own example if it has one."""
    schema = _resolved(schema, document)
    given = [schema[key] for key in ("example", "default", "const") if key in schema]
    given += [schema[key][0] for key in ("examples", "enum") if isinstance(schema.get(key), list) and schema[key]]
    choices = [
        schema[key][0] for key in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(key), list) and schema[key]
    ]
    if given or depth > _DEEPEST:
        return given[0] if given else None
    if choices:
        return _example(choices[0], document, depth=depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "array":
        return [_example(schema.get("items", {}), document, depth=depth + 1)] * max(int(schema.get("minItems", 1)), 1)
    if kind == "object" or "properties" in schema:
        properties: Mapping[str, Any] = schema.get("properties", {})
        required = schema.get("required", properties)
        return {name: _example(properties[name], document, depth=depth + 1) for name in properties if name in required}
    return _plain_value(schema, str(kind))


def _plain_value(schema: Mapping[str, Any], kind: str) -> object:
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    if kind in ("integer", "number") and isinstance(least, int | float):
        return least + 1
    return _BY_FORMAT.get(str(schema.get("format")), _BY_TYPE.get(kind, 1.0))


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a reference names; another schema as it is."""
    for _ in range(_DEEPEST):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        found: Any = document
        for part in reference[2:].split("/"):
            found = found.get(part, {}) if isinstance(found, dict) else {}
        schema = found
    return schema
