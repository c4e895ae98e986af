"""The selector loop of the load generator: one thread, one selector, connections that call back.

The order of an iteration: read and stamp all answers that are there, send the requests that follow them in a closed
loop, send the requests that are due, then (every 50 ms) expire requests and move the load run on. So no stamp waits for
another connection's next request. Answers that come in pieces are parsed after all are read, and a few at a time, so
that no stamp waits for many streams either. It must not know processes, pipes or numpy.

CPU time is not the reason for this loop: at 1, 16 and 64 connections it takes 1.25, 1.03 and 1.08 times what an
``asyncio.Protocol`` on uvloop takes per request. The reasons are that order, and the due times of an open loop: a
request leaves 69 µs from its due time, with the timers of uvloop 383 µs (``benchmarks/generator_parts.py``).
"""

from __future__ import annotations

import selectors
from collections import deque
from functools import cache, partial
from time import perf_counter_ns
from typing import TYPE_CHECKING

from pytest_mlpatterns.loadgen.added_addresses import AddedAddresses
from pytest_mlpatterns.loadgen.connection import Connection
from pytest_mlpatterns.loadgen.connection_pool import ConnectionPool
from pytest_mlpatterns.loadgen.http1 import Http1
from pytest_mlpatterns.loadgen.load_run import TICK_NS, LoadRun
from pytest_mlpatterns.loadgen.messages import Transport
from pytest_mlpatterns.loadgen.stream_connection import StreamConnection, StreamReading
from pytest_mlpatterns.loadgen.streamed_answer import answers_to
from pytest_mlpatterns.loadgen.timerfd import Alarm
from pytest_mlpatterns.wire.grpc_call import INFER_METHOD
from pytest_mlpatterns.wire.stream_form import StreamForm, usual_form

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult
    from pytest_mlpatterns.loadgen.protocol import ClientProtocol
    from pytest_mlpatterns.loadgen.recorder import ResponseSample, SampleRecorder
    from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer

__all__ = ["LoadLoop"]

_PARSED_AT_ONCE = 32
"""Connections whose bytes are parsed before the sockets are read again."""


class LoadLoop:
    """Runs one job over the generator's own connections.

    Args:
        job: the load to generate.
        emit: receives each event as it happens.
    """

    def __init__(self, job: LoadJob, emit: Callable[[Event], None]) -> None:
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._timeout_ns = job.timeout_ns
        self._pool = ConnectionPool(self, job)
        self._next: list[Connection] = []
        self._arrived: deque[StreamConnection] = deque()
        self._load_run = LoadRun(job, self._pool.send, emit)
        self.recording: SampleRecorder = self._load_run.recording
        self.answers: ResponseSample | None = self._load_run.answers
        self.connect_ns: array[int] = self._load_run.connect_ns
        self.waited_ns: array[int] = self._load_run.waited_ns
        self.protocol: Callable[[tuple[str, int]], ClientProtocol] = _protocol_factory(job)
        self.new_connection: Callable[[tuple[str, int], int], Connection] = (
            partial(Connection, self) if not job.in_pieces else self._stream_connections(job)
        )
        self._added = AddedAddresses(self.selector, self._pool.add)

    def run(self) -> LoadResult:
        """Run the load to its end."""
        alarm = Alarm(self.selector)
        try:
            self._drive(alarm)
        finally:
            self._pool.close()
            self._added.close()
            alarm.close()
            self.selector.close()
        return self._load_run.result()

    def open_at(self, at_ns: int) -> None:
        """Open the window of a shared load at this time. Thread-safe."""
        self._load_run.open_at(at_ns)

    def add_address(self, address: tuple[str, int]) -> None:
        """Balance the load over one more server from now on. Thread-safe."""
        self._added.add(address)

    def stop(self) -> None:
        """End the load: close the window and abandon requests in flight. Thread-safe."""
        self._load_run.stop_early = True

    def completed(self, connection: Connection, now_ns: int, *, failed: bool) -> None:
        """Called by a connection that is idle again."""
        again = self._load_run.answered(connection.due_ns, now_ns, failed=failed)
        if not again:
            self._pool.release(connection)
        elif self._pool.several or self._pool.waiting:
            self._pool.release(connection)
            self._pool.send(self._load_run.next_request(), None)
        else:  # the usual case of a closed loop
            self._next.append(connection)

    def _stream_connections(self, job: LoadJob) -> Callable[[tuple[str, int], int], Connection]:
        """The function that creates connections that read answers in pieces."""
        from pytest_mlpatterns.loadgen.http1_stream import Http1Pieces, Http1Stream

        assert self.recording.streams is not None
        keep, follow = job.keep_answers > 0, job.endpoint.polled
        http1 = Http1Pieces if usual_form(job.endpoint.stream) is StreamForm.CHUNKS else Http1Stream

        def protocol(address: tuple[str, int], answer: StreamedAnswer) -> ClientProtocol:
            if job.transport is not Transport.HTTP1:
                return self.protocol(address)
            return http1(job.messages, address[0], follow=follow, keep=keep, answer=answer)

        reading = StreamReading(
            arrived=self._arrived,
            columns=self.recording.streams,
            cancellations=self._load_run.cancellations,
            answer=answers_to(job),
            protocol=protocol,
        )
        return partial(StreamConnection, self, reading=reading)

    def _drive(self, alarm: Alarm) -> None:
        select, clock, pool, load_run = self.selector.select, perf_counter_ns, self._pool, self._load_run
        answered, arrived, next_request = self._next, self._arrived, load_run.next_request
        now = clock()
        pool.open()
        load_run.start(now)
        next_tick = now + load_run.first_tick_ns
        due_ns = load_run.next_due_ns
        while not load_run.draining or pool.outstanding:
            wake_ns = next_tick
            if due_ns < next_tick:
                alarm.set(due_ns)
                wake_ns = due_ns
            for key, mask in select((wake_ns - now) / 1e9 if wake_ns > now and not arrived else 0):
                key.data(mask)
            if arrived:
                self._parse_some()
            if answered:  # all available responses are stamped before the next request is sent
                for connection in answered:
                    connection.send(next_request())
                answered.clear()
            now = clock()
            due_ns = load_run.next_due_ns
            if now >= due_ns:
                load_run.send_due(now)
                due_ns = load_run.next_due_ns
            if now < next_tick:
                continue
            next_tick = now + TICK_NS
            if self._tick(now):
                return
            due_ns = load_run.next_due_ns

    def _parse_some(self) -> None:
        """Parse what has arrived on some connections."""
        arrived = self._arrived
        for _ in range(min(len(arrived), _PARSED_AT_ONCE)):
            arrived.popleft().parse()

    def _tick(self, now_ns: int) -> bool:
        """Expire requests and move the load run on. Returns whether it was stopped and has ended."""
        pool, load_run = self._pool, self._load_run
        pool.expire(now_ns - self._timeout_ns)
        load_run.tick(now_ns, pool.connections, limit_reached=pool.limit_reached)
        return load_run.draining and load_run.stop_early


def _protocol_factory(job: LoadJob) -> Callable[[tuple[str, int]], ClientProtocol]:
    """The function that creates the job's client protocol for an address."""
    keep = job.keep_answers > 0
    if job.transport is Transport.HTTP1:
        return lambda address: Http1(job.messages, address[0], follow=job.endpoint.polled, keep=keep)
    from pytest_mlpatterns.loadgen.http2 import Http2
    from pytest_mlpatterns.loadgen.http2_headers import HeaderReader, RequestBlocks

    blocks = cache(lambda address: RequestBlocks.of(address, INFER_METHOD))
    reader = HeaderReader()
    return lambda address: Http2(job.messages, blocks(address), reader, keep=keep)
