"""What is sent: a user's inputs, or ready-made ``httpx`` requests, as complete HTTP/1.1 messages.

Everything is encoded once, before the load, so that sending costs no encoding. This module opens no socket.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wire import REST_JSON, Body, Wire, WireError, encode_request
from pytest_mlpatterns.wire.grpc_call import model_in
from pytest_mlpatterns.workload.input_order import Uniform, Zipf
from pytest_mlpatterns.workload.request_builder import is_request

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.workload.request_builder import RequestBuilder

__all__ = ["MAX_PAYLOAD_BYTES", "MAX_PRODUCED", "Payload", "arguments_of", "read_payload"]

MAX_PAYLOAD_BYTES = 256 * 2**20
"""Most bytes that the prepared requests of one test may take."""
MAX_PRODUCED = 10_000
"""So many inputs are taken of a function that yields them, which may never end."""
_FRAMING = ("host", "content-length", "transfer-encoding")


@dataclass(frozen=True, slots=True)
class Payload:
    """Inputs and what is sent for them, index by index.

    ``inputs`` holds what the user gave. ``bodies`` holds the encoded body of each, in one piece, or is empty where
    ``requests`` holds requests as the service takes them: what the user gave, or what ``builder`` made of it.
    ``digest`` is the identity of what is sent, for the baseline. ``draw`` None draws them in turn.
    """

    inputs: tuple[Any, ...]
    bodies: tuple[Body, ...]
    digest: str
    draw: Uniform | Zipf | None = None
    wire: Wire = REST_JSON
    requests: tuple[httpx.Request, ...] = ()
    builder: RequestBuilder | None = None

    def bare(self) -> Payload:
        """The same to send, without what no other process needs to know, or can."""
        return replace(self, inputs=(), builder=None)

    def messages(self, host: str, port: int, path: str) -> tuple[bytes, ...]:
        """Complete requests for a server at this address; ``httpx.Request`` objects keep their own path and headers."""
        if self.wire.protocol == "grpc":
            from pytest_mlpatterns.wire.open_inference_grpc import call_message

            return tuple(call_message(body.parts, model_in(path)) for body in self.bodies)
        name = f"[{host}]" if ":" in host else host
        if not self.bodies:
            return tuple(_message_of(request, f"{name}:{port}") for request in self.requests)
        first = f"POST {path} HTTP/1.1\r\nhost: {name}:{port}\r\n"
        return tuple(b"".join([_head(first, body), *body.parts]) for body in self.bodies)

    def order(self) -> bytes:
        """The order in which requests are drawn, as :class:`pytest_mlpatterns.loadgen.messages.Job` takes it."""
        return b"" if self.draw is None else self.draw.order(len(self.bodies or self.requests))

    def first(self, path: str) -> dict[str, Any]:
        """The first request as arguments of ``httpx.Client.request``, for a functional check before the load."""
        if self.bodies:
            body = self.bodies[0]
            return {"method": "POST", "url": path, "content": body.joined(), "headers": dict(body.headers)}
        return arguments_of(self.requests[0])


def arguments_of(request: httpx.Request) -> dict[str, Any]:
    """A request as arguments of ``httpx.Client.request``, to be sent to wherever that client is bound."""
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _FRAMING}
    url = request.url.raw_path.decode("ascii")
    return {"method": request.method, "url": url, "content": request.read(), "headers": headers}


def read_payload(
    given: object, wire: Wire = REST_JSON, path: str = "", builder: RequestBuilder | None = None
) -> Payload:
    """Turn what ``perf_payload`` or ``payload=`` gave into bodies of requests, one input each.

    Args:
        given: a non-empty list, array or other collection of inputs (Python values, or numpy arrays and scalars) or of
            ``httpx.Request``; a function that yields them, of which the first 10,000 are taken; a path of a file with
            one JSON value a line; or one of these in :class:`Uniform` or :class:`Zipf`, to draw from it at random
            instead of in turn.
        wire: how inputs are encoded.
        path: where they are sent to; empty for our own servers.
        builder: makes a request of each input instead of the wire.

    Raises:
        SettingError: empty, nothing that can be gone through again and again, an input that the wire cannot hold, both
            kinds mixed, or over 256 MiB.
    """
    draw, given = (given, given.inputs) if isinstance(given, Uniform | Zipf) else (None, given)
    inputs = _inputs_of(given)
    if not inputs:
        raise SettingError("perf_payload is empty, expected at least one input; return a list such as [[5.1, 3.5]]")
    requests = [is_request(item) for item in inputs]
    if wire.protocol == "grpc" and (all(requests) or builder is not None):
        raise SettingError("perf_payload comes to httpx.Request objects, which grpc cannot send; give inputs alone")
    if all(requests):
        return Payload(inputs, (), _digest(draw, map(_signature, inputs)), draw, wire, inputs)
    if builder is not None:
        made = tuple(map(builder, inputs))
        _check_size(sum(len(request.read()) for request in made), len(made) - 1, len(made))
        return Payload(inputs, (), _digest(draw, map(_signature, made)), draw, wire, made, builder)
    if any(requests):
        raise SettingError(
            "perf_payload mixes inputs and httpx.Request objects, expected one kind; "
            f"the first {'input' if requests[0] else 'request'} is item {requests.index(not requests[0])}"
        )
    bodies = []
    size = 0
    for number, item in enumerate(inputs):
        try:
            body = encode_request(wire, [item], path)
        except WireError as error:
            raise SettingError(
                f"perf_payload item {number} is {type(item).__name__}, which cannot be sent over {wire}: {error}; "
                "give numbers, text, lists, dictionaries or numpy arrays"
            ) from error
        bodies.append(Body((body.joined(),), body.headers))
        size += body.size
        _check_size(size, number, len(inputs))
    return Payload(inputs, tuple(bodies), _digest(draw, (body.joined() for body in bodies)), draw, wire)


def _check_size(size: int, number: int, count: int) -> None:
    if size > MAX_PAYLOAD_BYTES:
        raise SettingError(
            f"perf_payload makes over {MAX_PAYLOAD_BYTES >> 20} MiB of requests by item {number} of {count}; "
            "give a sample of the inputs"
        )


def _digest(draw: Uniform | Zipf | None, texts: Iterable[bytes]) -> str:
    """SHA-256 over what is sent and how it is drawn, 16 hexadecimal digits of it."""
    sha = hashlib.sha256()
    if draw is not None:
        sha.update(str(draw).encode())
    for text in texts:
        sha.update(len(text).to_bytes(8, "little"))
        sha.update(text)
    return f"sha256:{sha.hexdigest()[:16]}"


def _head(first: str, body: Body) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in body.headers)
    return f"{first}{headers}content-length: {body.size}\r\n\r\n".encode("ascii")


def _inputs_of(given: object) -> tuple[Any, ...]:
    if isinstance(given, Path):
        return tuple(_read_lines(given))
    if callable(given) and not isinstance(given, type):
        produced = given()
        found = f"perf_payload is a function that returns {type(produced).__name__}"
        return tuple(itertools.islice(_gone_through(produced, found, "one that yields inputs"), MAX_PRODUCED))
    found = f"perf_payload is {type(given).__name__}"
    if isinstance(given, Iterator):
        raise SettingError(f"{found}, which the first test would use up; return a list, or the function that yields")
    expected = "a list of inputs, one for each request; wrap a single input in a list, a file name in pathlib.Path"
    return tuple(_gone_through(given, found, expected))


def _gone_through(given: object, found: str, expected: str) -> Iterable[Any]:
    """What yields inputs, if it does; a data frame yields the names of its columns."""
    if hasattr(given, "columns"):
        raise SettingError(f"{found}, expected its rows; return frame.to_dict('records') or frame.values.tolist()")
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        raise SettingError(f"{found}, expected {expected}")
    return given


def _read_lines(path: Path) -> Iterator[Any]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # text in JSON may hold what else ends lines
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"perf_payload {path} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                yield json.loads(line)
        except ValueError as error:
            raise SettingError(f"perf_payload {path} line {number} is not JSON: {error}") from None


def _signature(request: httpx.Request) -> bytes:
    return b"%s %s\n%s" % (request.method.encode(), request.url.raw_path, request.read())


def _message_of(request: httpx.Request, address: str) -> bytes:
    if request.method in ("HEAD", "CONNECT"):
        raise SettingError(
            f"perf_payload holds a {request.method} request, whose answer has no body to wait for; use another method"
        )
    body = request.read()
    head = b"%s %s HTTP/1.1\r\n" % (request.method.encode("ascii"), request.url.raw_path)
    headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"transfer-encoding"]
    if not request.url.host:  # a relative address, as in a client that is bound
        headers = [(b"Host", address.encode("ascii")), *((name, value) for name, value in headers if name != b"Host")]
    if body and not any(name.lower() == b"content-length" for name, _ in headers):
        headers.append((b"Content-Length", b"%d" % len(body)))
    return head + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n" + body
