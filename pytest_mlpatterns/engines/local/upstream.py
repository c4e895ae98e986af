"""The client of a service behind this process: predict requests over keep-alive connections.

The bytes are a public server's, so that a hop costs what it costs in a real deployment. The service behind reports its
own time in the standard header ``Server-Timing``, and when its model ended the call before. The hop time is the rest of
the round trip: without the work, and without the wait while the model worked for other requests.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from time import perf_counter_ns
from typing import Any, cast

import httptools

from pytest_mlpatterns.engines.local.messages import UpstreamNode
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.request_clock import (
    HOP,
    QUEUE_WAIT,
    RUN_QUEUE,
    WIRE,
    WOKEN,
    RequestClock,
    current_clock,
)
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.addressing import Balance, Balancer
from pytest_mlpatterns.serving.clocks import parts_in
from pytest_mlpatterns.wire import Body, WireError, decode_answer, encode_request
from pytest_mlpatterns.wire.kserve_v1 import ChunkReader, StreamError, decode_error, is_event_stream

_MOST_UNREAD = 64  # Most pieces of a stream that wait for a reader slower than the service; then it is read no further
_CLOSED = "the service behind closed the connection under a request; its process may have died"
_NOT_CHUNKS = "the service behind streamed something else than chunks: {}"


class Upstream:
    """Calls a service behind this process; the handler of a process group.

    Raises LostError: when called: the service closed the connection during the request, or cannot be reached.
    """

    def __init__(self, node: UpstreamNode, tally: Tally, of: str = "") -> None:
        self.parallelism: int = len(node.addresses)
        self.in_flight: int = node.in_flight
        self._wire = node.wire
        self._balancer = balancer = Balancer(len(node.addresses), node.balance)
        self._pools = [_Pool(address, node.path, balancer, place=place) for place, address in enumerate(node.addresses)]
        self._tally = tally
        self._of = of

    @property
    def replicas(self) -> tuple[Upstream, ...]:
        """One client for each replica; they share connections and tally with this one."""
        return tuple(map(self._only, self._pools))

    def _only(self, pool: _Pool) -> Upstream:
        single = copy.copy(self)
        single.parallelism = 1
        single._pools, single._balancer = [pool], Balancer(1, Balance.ROUND_ROBIN)
        return single

    async def __call__(self, instances: list[Any]) -> Any:
        """Request the outputs of these inputs, or a :class:`Stream`, whose hop time ends at its first chunk."""
        began = perf_counter_ns()
        try:
            body = encode_request(self._wire, instances)
        except WireError as error:
            raise RequestError(500, f"inputs of the service behind cannot be sent to it: {error}") from error
        pool = self._pools[self._balancer.choose()]
        started = perf_counter_ns()
        try:
            answer = await pool.ask(body)
            if answer.status != 200:
                raise RequestError(answer.status, decode_error(answer.body), answer.retry_after_s)
        except RequestError:
            self._tally.count("errors")
            raise
        self._tally.count("calls")
        waited_until = max(started, answer.free_ns)  # the clock is the machine's, the same in all processes
        answered = perf_counter_ns()
        hop_ns = max(answered - waited_until - answer.worked_ns, 0)
        self._tally.time("hop_ns", hop_ns)
        clock = current_clock()
        if clock is not None:
            parts = parts_in(answer.parts)
            woken_ns = min(parts.pop(WOKEN, 0), hop_ns)
            clock.take(parts, self._of)
            clock.take({HOP: hop_ns - woken_ns, RUN_QUEUE: woken_ns}, self._of)
            clock.take({QUEUE_WAIT: waited_until - started, WIRE: started - began}, self._of)
        if answer.is_stream:
            return Stream(_Chunks(pool, answer, self._tally, on_times=partial(self._charge, clock)))
        try:
            outputs = decode_answer(self._wire, answer.body, answer.headers)
        except WireError as error:
            raise RequestError(502, f"the service behind answered something else than predictions: {error}") from error
        if clock is not None:
            clock.take({WIRE: perf_counter_ns() - answered}, self._of)
        return outputs

    def _charge(self, clock: RequestClock | None, parts: bytes) -> None:
        """Charge the times that the service measured."""
        if clock is not None:
            clock.take(parts_in(parts), self._of)


class _Pool:
    """The connections to one replica."""

    def __init__(self, address: tuple[str, int], path: str, balancer: Balancer, *, place: int) -> None:
        self._address = address
        self._in_flight = balancer.in_flight
        self._place = place
        host, port = address
        self._head = f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\n".encode("ascii")
        self._idle: list[_Connection] = []

    async def ask(self, body: Body) -> _Connection:
        """Send one request; the returned connection holds the response until its next request."""
        self._in_flight[self._place] += 1
        try:
            connection = self._free_connection() or await self._connect()
            try:
                await connection.ask(self._message(body))
            except BaseException:
                connection.close()  # also if the caller has gone: a response may still arrive
                raise
        except BaseException:
            self._in_flight[self._place] -= 1
            raise
        if not connection.is_stream:
            self.release(connection)
        return connection

    def release(self, connection: _Connection) -> None:
        """The response on a connection is complete, or its stream has been closed."""
        self._in_flight[self._place] -= 1
        self._idle.append(connection)

    def _message(self, body: Body) -> bytes:
        headers = "".join(f"{name}: {value}\r\n" for name, value in body.headers)
        return b"".join([self._head, f"{headers}content-length: {body.size}\r\n\r\n".encode("ascii"), *body.parts])

    def _free_connection(self) -> _Connection | None:
        while self._idle:
            if not (connection := self._idle.pop()).is_closed:
                return connection
        return None

    async def _connect(self) -> _Connection:
        host, port = self._address
        try:
            _, connection = await asyncio.get_running_loop().create_connection(_Connection, host, port)
        except OSError as error:
            raise LostError(f"the service behind, at {host}:{port}, cannot be reached: {error}") from error
        return connection


class _Chunks(AsyncIterator[Any]):
    """The chunks of a stream from the service behind; its connection is used again if it ends well."""

    def __init__(
        self, pool: _Pool, connection: _Connection, tally: Tally, *, on_times: Callable[[bytes], None]
    ) -> None:
        self._pool = pool
        self._on_times = on_times
        self._connection: _Connection | None = connection
        self._tally = tally
        self._reader = ChunkReader()
        self._ready: deque[Any] = deque()

    async def __anext__(self) -> Any:
        while not self._ready:
            if self._connection is None:
                raise StopAsyncIteration
            try:
                data = await self._connection.more()
                self._ready.extend(self._reader.feed(data))
                if not data and not self._reader.is_done and not self._ready:
                    raise LostError("the service behind ended a stream without its last event")
            except (LostError, ValueError) as error:
                self._tally.count("errors")
                await self.aclose()
                raise error if isinstance(error, LostError) else RequestError(502, _NOT_CHUNKS.format(error)) from error
            if not data:
                self._on_times(self._reader.times)
                await self.aclose()
        chunk = self._ready.popleft()
        if isinstance(chunk, StreamError):
            self._tally.count("errors")
            raise RequestError(500, str(chunk))
        return chunk

    async def aclose(self) -> None:
        """End the stream; a service that has not sent all of it sees its client go away."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if not connection.is_complete:
                connection.close()
            self._pool.release(connection)


class _Connection(asyncio.Protocol):
    """One keep-alive connection, with at most one request on it."""

    def __init__(self) -> None:
        self.is_stream = self.is_complete = False
        self._arrived: asyncio.Event = asyncio.Event()
        self.status = 0
        self.body = b""
        self.headers: dict[str, str] = {}
        self.worked_ns = 0
        self.free_ns = 0
        self.parts = b""
        self.retry_after_s: int | None = None
        self.is_closed = False
        self._chunks: list[bytes] = []
        self._answer: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has its methods, but is not a subclass
        self._parser = httptools.HttpResponseParser(self)

    async def ask(self, message: bytes) -> None:
        """Send a request and wait for its complete response."""
        self._chunks.clear()
        self.headers = {}
        self.worked_ns = self.free_ns = 0
        self.parts = b""
        self.retry_after_s = None
        self.is_stream = self.is_complete = False
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        await self._answer

    async def more(self) -> bytes:
        """What has arrived of a stream since the last call; empty at its end."""
        if not self._chunks and not self.is_complete and not self.is_closed:
            self._arrived.clear()
            await self._arrived.wait()
        if not self._chunks and not self.is_complete:
            raise LostError(_CLOSED)
        data = b"".join(self._chunks)
        self._chunks.clear()
        if not self.is_closed:
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        self.is_closed = True
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the service behind sent a response that is not HTTP: {error}")
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_closed = True
        self._arrived.set()
        self._fail(_CLOSED)

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"server-timing":
            times, _, self.parts = value.partition(b";parts=")
            worked_ms, _, free_ns = times.rpartition(b"dur=")[2].partition(b";free=")
            self.worked_ns, self.free_ns = int(float(worked_ms) * 1e6), int(free_ns or 0)
        elif name == b"retry-after" and value.isdigit():
            self.retry_after_s = int(value)
        else:
            self.headers[name.decode("latin-1")] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._answer is not None and not self._answer.done() and is_event_stream(self.headers):
            self.status = self._parser.get_status_code()
            self.is_stream = True
            self._answer.set_result(None)

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        if self.is_stream:
            self._arrived.set()
            if len(self._chunks) > _MOST_UNREAD:
                self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.is_stream and not self.is_complete:
            self.is_complete = True
            self._arrived.set()
            if not self._parser.should_keep_alive():
                self.close()
            return
        if self._answer is None or self._answer.done():
            self.close()  # a response without a request: the next one could be mistaken for it
            return
        self.status = self._parser.get_status_code()
        self.body = b"".join(self._chunks)
        if not self._parser.should_keep_alive():
            self.close()
        self._answer.set_result(None)

    def _fail(self, text: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(LostError(text))
