"""Requests as a user's service takes them, made of inputs by ``request=``; and answers as it gives them.

This module sends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

__all__ = ["RequestBuilder", "answer_in", "is_request"]

_ARGUMENTS = ("method", "path", "params", "headers", "cookies", "content", "data", "files", "json")


@dataclass(frozen=True, slots=True)
class RequestBuilder:
    """Makes the request for an input.

    Args:
        build: the user's function: an input in, an ``httpx.Request`` with a relative address out, or its arguments as
            a mapping: ``{"json": {"text": text}}``, with ``method`` POST and ``path`` that of the target by default.
        path: the target's path.
    """

    build: Callable[[Any], object]
    path: str

    def __call__(self, value: Any) -> httpx.Request:
        """The request for an input.

        Raises:
            SettingError: the function fails, or returns something else.
        """
        import httpx

        try:
            made = self.build(value)
        except Exception as error:  # the user's code may raise anything
            raise SettingError(
                f"perf(request=...) failed for an input of type {type(value).__name__}: {type(error).__name__}: {error}"
            ) from error
        if is_request(made):
            return made  # type: ignore[return-value]
        if not isinstance(made, Mapping):
            raise SettingError(
                f"perf(request=...) returned {type(made).__name__}, expected an httpx.Request or a mapping; write "
                'lambda text: {"json": {"text": text}}'
            )
        if unknown := [name for name in made if name not in _ARGUMENTS]:
            raise SettingError(f"perf(request=...) returned {unknown[0]!r}, expected only {', '.join(_ARGUMENTS)}")
        given = {"method": "POST", "path": self.path, **made}
        try:
            return httpx.Request(given.pop("method"), given.pop("path"), **given)
        except Exception as error:  # httpx looks at what it is given in many ways
            raise SettingError(f"perf(request=...) returned what is no request: {error}") from error


def is_request(item: object) -> bool:
    """Whether something is an ``httpx.Request``, without importing that."""
    return type(item).__module__.partition(".")[0] == "httpx" and type(item).__name__ == "Request"


def answer_in(response: httpx.Response) -> Any:
    """What an answer holds: JSON as Python values, text as text, anything else as bytes.

    Raises:
        ValueError: it says that it is JSON, and is not.
    """
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return response.json()
    return response.text if kind.startswith("text/") else response.content
