"""HTTP client of functional requests: a time limit holds for the whole answer, and no answer is read without bound.

httpx applies its time-outs to each read, so a server that sends a byte now and then is waited for without end; and it
reads bodies of any size whole. A deadline between the chunks of ``client.stream()`` is not enough: a head, interim
answers and the size of a chunk dribble without end too, and no chunk comes. This transport is httpx's own with httpcore
streams that know when the request must be over. No load goes this way.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from pytest_mlpatterns.units import format_duration, format_size
from pytest_mlpatterns.wire.stream_request import names_stream

MAX_ANSWER_BYTES = 256 * 2**20  # Most bytes of a functional answer, decompressed
_MAX_PAGE_BYTES = 16 * 2**20  # Largest page that is read of a service, such as its description: taste
PIECES = "pieces"  # Name of the response extension that has the :class:`Pieces` of the body
_MAX_BYTES = "max_bytes"  # Name of the request extension that sets another bound
ON_WAIT = "on_wait"
"""Name of the request extension that has a function to call while an answer is waited for; it may raise."""
_LOOK_S = 0.5  # Interval of these calls, in seconds
_MAX_HEAD = "100 KiB"  # Bound that httpcore puts on a head
_PIECE_BYTES = 1 << 16  # Bytes of a request that are sent under one time limit
_TAIL_BYTES = 64  # End of an answer that is looked at for its last event, with what may follow it
_STALLED = 0.5
"""Share of the time of an answer that passed without a byte, from which it has stalled rather than gone on for ever."""
_HTTPCORE_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)
"""Errors of httpcore that become httpx's."""


@dataclass(slots=True)
class Pieces:
    """How the body of an answer came."""

    count: int = 0  # pieces, which are about the chunks of HTTP in chunked transfer
    first_s: float = 0.0  # when the first of them came, on the monotonic clock
    last_s: float = 0.0

    def note(self) -> None:
        """Note one that has come now."""
        self.last_s = time.monotonic()
        self.first_s = self.first_s or self.last_s
        self.count += 1


class EndlessAnswerError(httpx.ReadTimeout):
    """An answer has begun, and has not ended within its time limit or within the bound on its size."""

    def __init__(self, message: str, *, request: httpx.Request, is_over_bound: bool) -> None:
        super().__init__(message, request=request)
        self.is_over_bound = is_over_bound


def get_page(
    client: httpx.Client, url: str, timeout_s: float, *, on_wait: Callable[[], None] | None = None
) -> httpx.Response:
    """Get a page that is expected to be short, such as a health check or metrics.

    ``on_wait``: called while the answer is waited for; may raise.

    Raises httpx.HTTPError: there is no answer; an :class:`EndlessAnswerError` if it does not end, or is over 16 MiB.
    """
    headers = {"accept-encoding": "identity"}
    return client.get(
        url, timeout=timeout_s, headers=headers, extensions={_MAX_BYTES: _MAX_PAGE_BYTES, ON_WAIT: on_wait}
    )


def describe_error(error: httpx.HTTPError) -> str:
    """Why a request has no answer, for a message."""
    return str(error) if isinstance(error, EndlessAnswerError) else f"{type(error).__name__}: {error}"


class BoundedTransport(httpx.BaseTransport):
    """The transport of an httpx client whose ``read`` time-out holds for the whole answer; httpx's context if None."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=_Backend(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and read the head of its answer.

        Raises httpx.TransportError: there is no answer within the time limit.
        """
        exchange = _Exchange(request)
        sent = httpcore.Request(
            request.method,
            httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions={**request.extensions, "timeout": exchange.limits()},
        )
        with exchange.errors():
            answer = self._pool.handle_request(sent)
        answer.extensions[PIECES] = exchange.pieces
        response = _Response(answer, exchange)
        exchange.is_stream = names_stream(response.headers.get("content-type", ""))
        return response

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


class _Exchange:
    """One request and its answer: when it must be over, and how much has arrived."""

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self._shown = f"{request.method} {request.url.path}"
        self._timeouts: dict[str, float | None] = request.extensions.get("timeout") or {}
        self._max_bytes: int = request.extensions.get(_MAX_BYTES, MAX_ANSWER_BYTES)
        self.on_wait: Callable[[], None] | None = request.extensions.get(ON_WAIT)
        self._began = time.monotonic()
        self._limit_s = self._timeouts.get("read")
        self._last = self._began
        self._tail = b""
        self.pieces = Pieces()
        self.received = 0
        self.is_stream = False

    def limits(self) -> dict[str, float | None]:
        """The time-outs for httpcore, which hands them to the streams."""
        return {kind: None if value is None else _Limit.of(value, self) for kind, value in self._timeouts.items()}

    def left_s(self) -> float:
        """Time left for the answer."""
        return float("inf") if self._limit_s is None else self._began + self._limit_s - time.monotonic()

    def note(self, data: bytes) -> None:
        """Count bytes that arrived."""
        if data:
            self.received += len(data)
            self._last = time.monotonic()
            self._tail = (self._tail + data)[-_TAIL_BYTES:]

    def bounded(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        """The parts of a decompressed body, up to the bound."""
        size = 0
        for part in parts:
            size += len(part)
            if size > self._max_bytes:
                raise self._endless(size, is_over_bound=True)
            yield part

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Raise errors of httpcore as httpx's, which have the same names."""
        try:
            yield
        except httpcore.ReadTimeout as error:
            if self.received:
                raise self._endless(self.received, is_over_bound=False) from None
            limit = "" if self._limit_s is None else f" after {format_duration(self._limit_s * 1e9)}"
            raise httpx.ReadTimeout(f"no answer{limit}") from error
        except _HTTPCORE_ERRORS as error:
            if str(error) == "Receive buffer too long":
                text = f"{self._shown} answers with over {_MAX_HEAD} of headers"
                raise EndlessAnswerError(text, request=self._request, is_over_bound=True) from None
            raise getattr(httpx, type(error).__name__)(str(error)) from error

    def _endless(self, size: int, *, is_over_bound: bool) -> EndlessAnswerError:
        return EndlessAnswerError(self._described(size), request=self._request, is_over_bound=is_over_bound)

    def _described(self, size: int) -> str:
        """What the answer did until now, and what to do."""
        now = time.monotonic()
        after, silent_s = format_duration((now - self._began) * 1e9), now - self._last
        is_asked = self.is_stream and self._request.method == "POST"
        if is_asked and b"[DONE]" in self._tail:
            return (
                f"{self._shown} sent [DONE] and did not end its HTTP response in {after}; end it after its last event"
            )
        if is_asked and silent_s > _STALLED * (now - self._began):
            came, silent = format_size(size), format_duration(silent_s * 1e9)
            advice = "raise its time limit, or mend the service"
            return f"{self._shown} stalls: {came} came, and nothing in the {silent} after; {advice}"
        advice = (
            "ask for a shorter answer, such as one of fewer tokens" if is_asked else "name a path that answers once"
        )
        return f"{self._shown} answers without end: {format_size(size)} after {after}; {advice}"


class _Limit(float):
    """A time-out in seconds, which never lasts longer than the exchange that it belongs to."""

    exchange: _Exchange

    @classmethod
    def of(cls, value: float, exchange: _Exchange) -> _Limit:
        limit = cls(value)
        limit.exchange = exchange
        return limit

    def left_s(self) -> float:
        return min(self, self.exchange.left_s())


class _Response(httpx.Response):
    """A response that stops at the bound on its size."""

    def __init__(self, answer: httpcore.Response, exchange: _Exchange) -> None:
        super().__init__(
            answer.status, headers=answer.headers, stream=_Body(answer, exchange), extensions=answer.extensions
        )
        self._exchange = exchange

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        return self._exchange.bounded(super().iter_bytes(chunk_size))


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response, exchange: _Exchange) -> None:
        self._answer = answer
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        with self._exchange.errors():
            for piece in self._answer.iter_stream():
                self._exchange.pieces.note()
                yield piece

    def close(self) -> None:
        self._answer.close()


class _Backend(httpcore.NetworkBackend):
    """The sockets of httpcore, with the time limits of exchanges."""

    def __init__(self) -> None:
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, *others: Any, **named: Any) -> _Stream:
        left_s = _left_s(timeout, httpcore.ConnectTimeout)
        return _Stream(self._sockets.connect_tcp(host, port, left_s, *others, **named))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not isinstance(timeout, _Limit):
            return self._stream.read(max_bytes, timeout)
        data, on_wait = None, timeout.exchange.on_wait
        while data is None:
            left_s = _left_s(timeout, httpcore.ReadTimeout)
            try:
                data = self._stream.read(max_bytes, left_s if on_wait is None else min(_LOOK_S, left_s or _LOOK_S))
            except httpcore.ReadTimeout:
                if on_wait is None:
                    raise
                on_wait()
        timeout.exchange.note(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE_BYTES):  # a piece that is sent in parts has the time limit for each
            left_s = _left_s(timeout, httpcore.WriteTimeout)
            self._stream.write(buffer[start : start + _PIECE_BYTES], left_s)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = _left_s(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left_s))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left_s(timeout: float | None, error: type[httpcore.TimeoutException]) -> float | None:
    """What is left of a time-out; raises the error if nothing is."""
    if not isinstance(timeout, _Limit):
        return timeout
    left_s = timeout.left_s()
    if left_s <= 0:
        raise error("timed out")
    return left_s
