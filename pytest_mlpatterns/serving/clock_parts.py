"""The times of a request's clock between the processes of a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["parts_in", "written_parts"]


def written_parts(parts: Mapping[str, int]) -> bytes:
    """The times of a clock as JSON, which fits into a header."""
    return orjson.dumps(parts)


def parts_in(written: bytes) -> dict[str, int]:
    """The inverse of :func:`written_parts`; nothing from what another program wrote."""
    try:
        found = orjson.loads(written) if written else {}
    except orjson.JSONDecodeError:
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in items if type(value) is int}
