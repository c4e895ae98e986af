"""The headers of requests as one line that identifies them: names, and values or their hashes, without credentials.

Headers decide what a service does: a model name, an accepted coding. Two results whose headers differ are not
comparable. The line is committed with the baseline, so it holds no credentials; values that may be private are hashed.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from pytest_mlpatterns.credentials import names_credential

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx

__all__ = ["describe_headers"]

_NOT_COMPARED = (
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "date",
    "traceparent",
    "tracestate",
    "x-request-id",
    "x-correlation-id",
)
"""Headers that the address, the body or each single request decides."""
_SHOWN = ("accept", "accept-charset", "accept-encoding", "accept-language", "content-encoding", "content-type")
_NONE = "none"


def describe_headers(requests: Iterable[httpx.Request]) -> str:
    """The headers of all requests: ``accept: application/json; x-model: #9f86d081``; ``none`` without any.

    Args:
        requests: in any order; the same headers in another order give the same line.
    """
    values: dict[str, set[str]] = {}
    for request in requests:
        for name, value in request.headers.multi_items():
            if name not in _NOT_COMPARED and not names_credential(name):
                values.setdefault(name, set()).add(re.sub(r";\s*boundary=[^;]*", "", value))
    return "; ".join(f"{name}: {_described(name, found)}" for name, found in sorted(values.items())) or _NONE


def _described(name: str, values: set[str]) -> str:
    text = ", ".join(sorted(values))
    if name in _SHOWN and len(values) == 1:
        return text
    return f"#{hashlib.sha256(text.encode()).hexdigest()[:8]}"
