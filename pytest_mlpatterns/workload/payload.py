"""The payload: the user's inputs, or complete ``httpx`` requests, encoded as HTTP/1.1 messages.

Each input is encoded once before the load, so that sending costs no encoding. This module opens no socket.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wire import REST_JSON, Body, NotFiniteError, Wire, WireError, encode_request, path_of
from pytest_mlpatterns.wire.grpc_call import model_in
from pytest_mlpatterns.wire.openai import NO_MODEL, with_model
from pytest_mlpatterns.workload.conversations import Conversations, conversation_requests, is_conversation
from pytest_mlpatterns.workload.input_order import InOrder, Shuffled, Uniform, Zipf
from pytest_mlpatterns.workload.prompts import Prompts
from pytest_mlpatterns.workload.request_builder import RequestBuilder, checked_request, describe_headers, is_request
from pytest_mlpatterns.workload.text_file import read_json_lines

if TYPE_CHECKING:
    import httpx


MAX_PAYLOAD_BYTES = 256 * 2**20  # Largest total size of the encoded requests of one test
MAX_PRODUCED = 10_000  # Largest number of inputs taken from a function that yields them, because it may never end
MAX_INPUTS = 4_000_000
"""Largest number of inputs in a collection, such as a ``range``, which may be longer than fits into memory."""
_FRAMING = ("host", "content-length", "transfer-encoding")

_Draw = Shuffled | Uniform | Zipf | None


class Payload(Struct, frozen=True):
    """Inputs, and the encoded request of each."""

    inputs: tuple[Any, ...]
    bodies: tuple[Body, ...]  # the encoded body of each input; empty if ``requests`` is used
    # hash of the requests, and of the law by which they are drawn, which identifies the payload in the baseline
    digest: str
    draw: _Draw = None  # the random order; None sends the inputs as they are listed
    wire: Wire = REST_JSON
    requests: tuple[httpx.Request, ...] = ()  # complete requests, from the user or from ``builder``
    builder: RequestBuilder | None = None  # the function that made ``requests`` from the inputs
    headers: str = ""  # the headers of ``requests``, which identify them in the baseline; see :func:`describe_headers`
    # the path of each body, if the inputs decide it; empty if all go to the path of the target
    paths: tuple[str, ...] = ()
    # which requests follow each other; None if the inputs have no ``turns``. Then ``inputs`` has one for each
    # turn
    conversations: Conversations | None = None
    origins: tuple[int, ...] = ()  # for each request of conversations the index of the input as the user gave it

    def bare(self) -> Payload:
        """The payload without the parts that the generator processes do not need, or cannot unpickle."""
        return replace(self, inputs=(), builder=None)

    def at(self, path: str, builder: RequestBuilder | None = None) -> Payload:
        """The inputs in their order for another service; requests of the user's own stay as they are.

        ``path``: of the other service; empty for a server of this package. ``builder``: makes the request for each
        input; None: the wire does.
        """
        if (self.requests and self.builder is None) or self.wire.protocol == "client":
            return self
        if builder is not None:
            made = tuple(map(builder, self.inputs))
            return replace(self, bodies=(), requests=made, builder=builder, paths=())
        own_paths = self.wire.protocol == "openai"
        paths = tuple(path_of(self.wire, item, path) if own_paths else path for item in self.inputs)
        bodies = _encoded(self.inputs, self.wire, paths, name=self.name_of)
        return replace(self, bodies=bodies, requests=(), builder=None, headers="", paths=paths if own_paths else ())

    @property
    def is_shuffled(self) -> bool:
        """Whether each input is sent once in a fixed random order, and then all again."""
        return isinstance(self.draw, Shuffled)

    @property
    def beginnings(self) -> int:
        """Inputs of a round: the requests of each once, or the conversations."""
        return len(array("I", self.order(all_requests=False))) or len(self.bodies or self.requests)

    @property
    def needs_model(self) -> bool:
        """Whether a request has to name the model of the server, and does not."""
        return bool(self.paths) and any(body.parts[0][: len(NO_MODEL)] == NO_MODEL for body in self.bodies)

    def messages(
        self, host: str, port: int, path: str, *, model: str = "", prefix: str = "", accepts: str = ""
    ) -> tuple[bytes, ...]:
        """The complete requests for a server at this address; ``httpx.Request`` objects keep their path and headers.

        ``accepts``: ``accept-encoding`` of those that name none; empty for none.
        """
        if self.wire.protocol == "grpc":
            from pytest_mlpatterns.wire.open_inference_grpc import call_message

            return tuple(call_message(body.parts, model_in(path)) for body in self.bodies)
        if self.wire.protocol == "client":
            return tuple(body.joined() for body in self.bodies)
        name = f"[{host}]" if ":" in host else host
        if not self.bodies:
            to = f"{name}:{port}"
            return tuple(_message_of(one, to, prefix=prefix, accepts=accepts) for one in self.requests)
        host_line = f"host: {name}:{port}\r\n"
        if accepts and self.wire.compression is None:
            host_line += f"accept-encoding: {accepts}\r\n"
        if self.paths:
            named = [Body((with_model(body.joined(), model),), body.headers) for body in self.bodies]
            heads = [f"POST {prefix}{own} HTTP/1.1\r\n{host_line}" for own in self.paths]
            return tuple(_head(head, body) + body.joined() for head, body in zip(heads, named, strict=True))
        first = f"POST {prefix}{path} HTTP/1.1\r\n{host_line}"
        return tuple(b"".join([_head(first, body), *body.parts]) for body in self.bodies)

    def order(self, *, all_requests: bool = True) -> bytes:
        """The indices of the requests in order, as a ``LoadJob`` takes them; empty if they are sent as listed.

        ``all_requests``: whether all turns of conversations are in the order, else only the first of each.
        """
        if self.conversations is None:
            return b"" if self.draw is None else self.draw.order(len(self.bodies or self.requests))
        drawn = b"" if self.draw is None else self.draw.order(self.origins[-1] + 1)
        return self.conversations.order(drawn, all_requests=all_requests)

    def name_of(self, request: int) -> str:
        """The input of a request, for messages."""
        if self.conversations is None:
            return f"perf_payload item {request}"
        origin = self.origins[request]
        return f"perf_payload item {origin} turn {request - self.origins.index(origin)}"

    def request(self, path: str, number: int, *, model: str = "") -> dict[str, Any]:
        """The request of an input as arguments of ``httpx.Client.request``; arguments as of :meth:`messages`."""
        if self.bodies:
            body, url = self.bodies[number], self.paths[number] if self.paths else path
            content = with_model(body.joined(), model) if self.paths else body.joined()
            return {"method": "POST", "url": url, "content": content, "headers": dict(body.headers)}
        return arguments_of(self.requests[number])


def arguments_of(request: httpx.Request) -> dict[str, Any]:
    """A request as arguments of ``httpx.Client.request``, without its host."""
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _FRAMING}
    url = request.url.raw_path.decode("ascii")
    return {"method": request.method, "url": url, "content": request.read(), "headers": headers}


def read_payload(
    given: object, wire: Wire = REST_JSON, path: str = "", *, builder: RequestBuilder | None = None
) -> Payload:
    """Encode the value of ``perf_payload`` or ``payload=``, one request per input.

    ``given``: a non-empty list, array or other collection of inputs (Python values, or numpy arrays and scalars) or of
    ``httpx.Request``; a function that yields them (the first 10,000 are used); the path of a file with one JSON value
    per line; or one of these in :class:`InOrder`, :class:`Uniform` or :class:`Zipf`. ``path``: path of the target;
    empty for a server of this package.
    """
    read = _read(given.inputs if isinstance(given, InOrder | Uniform | Zipf) else given)
    inputs, draw = read.inputs, _draw_of(given, len(read.inputs))
    if not inputs:
        raise SettingError("perf_payload is empty, expected at least one input; return a list such as [[5.1, 3.5]]")
    requests = [is_request(item) and wire.protocol != "client" for item in inputs]
    if wire.protocol == "grpc" and (all(requests) or builder is not None):
        raise SettingError(
            "perf_payload contains httpx.Request objects, which cannot be sent over gRPC; return plain inputs"
        )
    if all(requests):
        return _payload_of_requests(inputs, wire, draw)
    if builder is not None:
        made = tuple(map(builder, inputs))
        _check_size(sum(len(request.read()) for request in made), len(made) - 1, len(made))
        digest = _digest(draw, map(_signature, made))
        return Payload(inputs, (), digest, draw, wire, made, builder, headers=describe_headers(made))
    if any(requests):
        raise SettingError(
            "perf_payload mixes inputs and httpx.Request objects, expected one kind; "
            f"the first {'input' if requests[0] else 'request'} is item {requests.index(not requests[0])}"
        )
    if wire.protocol == "openai":
        return _openai_payload(read, wire, path, draw=draw)
    bodies = _encoded(inputs, wire, (path,) * len(inputs), name=read.name)
    return Payload(inputs, bodies, _digest(draw, (body.joined() for body in bodies)), draw, wire)


def _draw_of(given: object, count: int) -> _Draw:
    """The random order of a payload of ``count`` inputs; functions and ``Prompts`` decide their order themselves."""
    if isinstance(given, Uniform | Zipf):
        return given
    return None if count == 1 or isinstance(given, InOrder | Prompts) or callable(given) else Shuffled()


def _payload_of_requests(requests: tuple[httpx.Request, ...], wire: Wire, draw: _Draw) -> Payload:
    """The payload of complete requests."""
    sent = tuple(checked_request(one, f"perf_payload item {number}") for number, one in enumerate(requests))
    digest = _digest(draw, map(_signature, sent))
    return Payload(requests, (), digest, draw, wire, sent, headers=describe_headers(sent))


class _Read(Struct, frozen=True):
    """The inputs that were given, and a function that names one by its index, for messages."""

    inputs: tuple[Any, ...]
    name: Callable[[int], str]


def _read(given: object) -> _Read:
    if not isinstance(given, Path):
        return _Read(_inputs_of(given), lambda number: f"perf_payload item {number}")
    lines = list(read_json_lines(given, MAX_PAYLOAD_BYTES))
    name = f"perf_payload {given} line"
    return _Read(tuple(value for _, value in lines), lambda number: f"{name} {lines[number][0]}")


def _openai_payload(read: _Read, wire: Wire, path: str, *, draw: _Draw) -> Payload:
    """The payload of the wire ``openai``, whose inputs decide their path, and may be conversations."""
    talks = conversation_requests(read.inputs, read.name) if any(map(is_conversation, read.inputs)) else None
    inputs, name = read.inputs, read.name
    shape: tuple[bytes, ...] = ()
    if talks is not None:
        draw = None if isinstance(draw, Shuffled) else draw
        origins = talks.origins
        inputs, name, shape = talks.requests, lambda number: read.name(origins[number]), (talks.conversations.think_ns,)
    paths = tuple(path_of(wire, item, path) for item in inputs)
    bodies = _encoded(inputs, wire, paths, name=name)
    digest = _digest(draw, itertools.chain(shape, (body.joined() for body in bodies)))
    payload = Payload(inputs, bodies, digest, draw, wire, paths=paths)
    return payload if talks is None else replace(payload, conversations=talks.conversations, origins=talks.origins)


def _encoded(
    inputs: Sequence[Any], wire: Wire, paths: Sequence[str], *, name: Callable[[int], str]
) -> tuple[Body, ...]:
    """The body of each input, in one piece; ``name`` names one by its index, for messages."""
    bodies = []
    size = 0
    for number, (item, path) in enumerate(zip(inputs, paths, strict=True)):
        try:
            body = encode_request(wire, [item], path)
        except NotFiniteError as error:
            raise SettingError(f"{name(number)} {error.reason}") from None
        except WireError as error:
            advice = (
                ""
                if wire.protocol in ("openai", "client")
                else "; give numbers, text, lists, dictionaries or numpy arrays"
            )
            found = f"is {type(item).__name__}, which cannot be sent"
            raise SettingError(f"{name(number)} {found} over {wire}: {error}{advice}") from error
        exact = bytes(memoryview(body.joined()))  # the encoder's has up to four times the memory of its content
        bodies.append(Body((exact,), body.headers))
        size += body.size
        _check_size(size, number, len(inputs))
    return tuple(bodies)


def _check_size(size: int, number: int, count: int) -> None:
    if size > MAX_PAYLOAD_BYTES:
        raise SettingError(
            f"perf_payload makes over {MAX_PAYLOAD_BYTES >> 20} MiB of requests by item {number} of {count}; "
            "give a sample of the inputs"
        )


def _digest(draw: _Draw, texts: Iterable[bytes]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the requests, and of the law by which they are drawn."""
    sha = hashlib.sha256()
    if draw is not None and not isinstance(draw, Shuffled):  # the set-up names that order itself
        sha.update(str(draw).encode())
    for text in texts:
        sha.update(len(text).to_bytes(8, "little"))
        sha.update(text)
    return f"sha256:{sha.hexdigest()[:16]}"


def _head(first: str, body: Body) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in body.headers)
    return f"{first}{headers}content-length: {body.size}\r\n\r\n".encode("ascii")


def _inputs_of(given: object) -> tuple[Any, ...]:
    if callable(given) and not isinstance(given, type):
        produced = given()
        found = f"perf_payload is a function that returns {type(produced).__name__}"
        return tuple(itertools.islice(_collection(produced, found, "one that yields inputs"), MAX_PRODUCED))
    found = f"perf_payload is {type(given).__name__}"
    if isinstance(given, Iterator):
        raise SettingError(f"{found}, which can be read only once; return a list, or the generator function itself")
    expected = "a list of inputs, one for each request; wrap a single input in a list, a file name in pathlib.Path"
    inputs = tuple(itertools.islice(_collection(given, found, expected), MAX_INPUTS + 1))
    if len(inputs) > MAX_INPUTS:
        raise SettingError(f"{found} of more than {MAX_INPUTS:,} inputs, expected at most that; give a sample of them")
    return inputs


def _collection(given: object, found: str, expected: str) -> Iterable[Any]:
    """Check that a value is a collection of inputs; iterating a data frame gives the names of its columns."""
    if hasattr(given, "columns"):
        raise SettingError(f"{found}, expected its rows; return frame.to_dict('records') or frame.values.tolist()")
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        raise SettingError(f"{found}, expected {expected}")
    return given


def _signature(request: httpx.Request) -> bytes:
    return b"%s %s\n%s" % (request.method.encode(), request.url.raw_path, request.read())


def _message_of(request: httpx.Request, address: str, *, prefix: str, accepts: str) -> bytes:
    if request.method in ("HEAD", "CONNECT"):
        raise SettingError(
            f"perf_payload contains a {request.method} request, whose response has no body; use another method"
        )
    body = request.read()
    head = b"%s %s%s HTTP/1.1\r\n" % (request.method.encode("ascii"), prefix.encode("ascii"), request.url.raw_path)
    headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"transfer-encoding"]
    if not request.url.host:  # a relative address
        headers = [(b"Host", address.encode("ascii")), *((name, value) for name, value in headers if name != b"Host")]
    if accepts and "accept-encoding" not in request.headers:
        headers.append((b"Accept-Encoding", accepts.encode("ascii")))
    if body and not any(name.lower() == b"content-length" for name, _ in headers):
        headers.append((b"Content-Length", b"%d" % len(body)))
    return head + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n" + body
