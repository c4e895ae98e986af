"""Requests that the user's function ``request=`` makes from inputs, the content of responses, and a line of headers.

Headers decide what a service does: a model name, an accepted coding. Two results whose headers differ are not
comparable, so a result has them in one line. The line is committed with the baseline. It holds no credentials; values
that may be private are hashed. This module sends nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_mlpatterns.credentials import names_credential
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wording import did_you_mean, shown

if TYPE_CHECKING:
    import httpx

_METHOD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_ARGUMENTS = ("method", "path", "params", "headers", "cookies", "content", "data", "files", "json")
_DRAWN_BOUNDARY = re.compile(r"multipart/form-data; boundary=([0-9a-f]{32})")
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


class RequestBuilder(Struct, frozen=True):
    """Make the request for an input."""

    # the user's function. It takes an input and returns an ``httpx.Request`` with a relative address, or the
    # arguments of one as a mapping such as ``{"json": {"text": text}}``; the default ``method`` is POST, the
    # default ``path`` the target's
    build: Callable[[Any], object]
    path: str

    def __call__(self, value: Any) -> httpx.Request:
        """Make the request for an input."""
        import httpx

        try:
            made = self.build(value)
        except Exception as error:  # the user's code may raise anything
            raise SettingError(
                f"perf(request=...) failed for an input of type {type(value).__name__}: {type(error).__name__}: {error}"
            ) from error
        if is_request(made):
            return checked_request(made, "perf(request=...) returned a request that")  # type: ignore[arg-type]
        if not isinstance(made, Mapping):
            raise SettingError(
                f"perf(request=...) returned {type(made).__name__}, expected an httpx.Request or a mapping; write "
                'lambda text: {"json": {"text": text}}'
            )
        if unknown := [name for name in made if name not in _ARGUMENTS]:
            hint = did_you_mean(str(unknown[0]), _ARGUMENTS)
            allowed = ", ".join(_ARGUMENTS)
            raise SettingError(f"perf(request=...) returned {shown(unknown[0])}, {hint}expected only {allowed}")
        given = {"method": "POST", "path": self.path, **made}
        try:
            request = httpx.Request(given.pop("method"), given.pop("path"), **given)
        except Exception as error:  # httpx raises many kinds of errors
            raise SettingError(f"perf(request=...) returned an invalid request: {error!s:.300}") from error
        return checked_request(request, "perf(request=...) returned a request that")


def checked_request(request: httpx.Request, found: str) -> httpx.Request:
    """The request, if it can be sent as it is; a form in parts has a boundary that its content decides."""
    try:
        request.read()
    except Exception as error:  # of the user's own content, or of httpx
        raise SettingError(f"{found} has content that cannot be read: {error!s:.300}; give bytes or text") from error
    if not isinstance(request.method, str) or not _METHOD.fullmatch(request.method):
        raise SettingError(f"{found} has the method {shown(request.method)}, expected one such as POST")
    if any(b"\n" in part or b"\r" in part for header in request.headers.raw for part in header):
        raise SettingError(f"{found} has a header with a line break, expected one line; encode its value")
    return _with_fixed_boundary(request)


def _with_fixed_boundary(request: httpx.Request) -> httpx.Request:
    """The request with a boundary of its own content instead of the one that httpx draws anew for each run."""
    drawn = _DRAWN_BOUNDARY.fullmatch(request.headers.get("content-type", ""))
    if drawn is None:
        return request
    import httpx

    before, body = drawn[1].encode("ascii"), request.read()
    after = hashlib.sha256(body.replace(before, b"")).hexdigest()[: len(before)].encode("ascii")
    headers = [(name, value.replace(before, after)) for name, value in request.headers.raw]
    return httpx.Request(request.method, request.url, headers=headers, content=body.replace(before, after))


def is_request(item: object) -> bool:
    """Whether an object is an ``httpx.Request``; does not import httpx."""
    return type(item).__module__.partition(".")[0] == "httpx" and type(item).__name__ == "Request"


def answer_in(response: httpx.Response) -> Any:
    """The content of a response: JSON as Python values, text as text, anything else as bytes."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return response.json()
        except RecursionError:
            raise ValueError("its JSON is nested too deeply") from None
    return text_of(response) if kind.startswith("text/") else response.content


def text_of(response: httpx.Response) -> str:
    """The text of a response; in UTF-8 if its charset is none of a text, such as ``hex``, or is not kept to."""
    try:
        return response.text
    except (ValueError, TypeError, AssertionError):  # of any codec; the service chooses it
        return response.content.decode("utf-8", "replace")


def describe_headers(requests: Iterable[httpx.Request]) -> str:
    """The headers of all requests, sorted: ``accept: application/json; x-model: #9f86d081``; ``none`` without any."""
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
