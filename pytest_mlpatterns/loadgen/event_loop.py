"""The selector loop of the load generator: one thread, one selector, connections that call back.

The order of an iteration: read and stamp all answers that are there, send the requests that follow them in a closed
loop, send the requests that are due, then (every 50 ms) expire requests and move the load run on. So no stamp waits for
another connection's next request. Answers that come in pieces are parsed after all are read, and a few at a time, so
that no stamp waits for many streams either. It must not know processes, pipes or numpy.

CPU time is not the reason for this loop: at 1, 16 and 64 connections it takes 1.25, 1.03 and 1.08 times what an
``asyncio.Protocol`` on uvloop takes per request. The reasons are that order, and the due times of an open loop: a
request leaves 69 µs from its due time, with the timers of uvloop 383 µs (``benchmarks/generator_parts.py``).

``epoll`` rounds its time-out up to whole milliseconds, which is longer than many models take to answer. On Linux a
timer descriptor wakes the loop instead: at 400 requests/s a request leaves 69 µs from its due time, with the time-out
717 µs (``benchmarks/generator_parts.py``), for about 30 µs more CPU per request. On other systems the selector's own
time-out is fine-grained.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import sys
from collections import deque
from functools import cache, partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.loadgen.connection import Connection, StreamConnection, StreamReading
from pytest_mlpatterns.loadgen.connection_pool import ConnectionPool, PassedAddresses
from pytest_mlpatterns.loadgen.http1 import Http1
from pytest_mlpatterns.loadgen.load_run import TICK_NS, LoadRun
from pytest_mlpatterns.loadgen.messages import Transport
from pytest_mlpatterns.loadgen.streamed_answer import answers_to
from pytest_mlpatterns.wire.grpc_call import INFER_METHOD
from pytest_mlpatterns.wire.stream_form import StreamForm, usual_form

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from pytest_mlpatterns.loadgen.connection import ClientProtocol
    from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult
    from pytest_mlpatterns.loadgen.recorder import ResponseSample, SampleRecorder
    from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer

__all__ = ["Alarm", "LoadLoop"]

_PARSED_AT_ONCE = 32
"""Connections whose bytes are parsed before the sockets are read again."""
_CLOCK_MONOTONIC = 1
"""Number of the clock of ``perf_counter`` (time.h of Linux)."""
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC if sys.platform != "win32" else 0
_ABSOLUTE = 1
"""Flag of a timer that is set to a time, not to an interval (TFD_TIMER_ABSTIME)."""


class LoadLoop:
    """Runs one job over the generator's own connections."""

    def __init__(self, job: LoadJob, emit: Callable[[Event], None], *, run_kind: type[LoadRun] = LoadRun) -> None:
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._timeout_ns = job.timeout_ns
        self._pool = ConnectionPool(self, job)
        self._next: list[Connection] = []
        self._arrived: deque[StreamConnection] = deque()
        self.load_run: LoadRun = run_kind(job, self._pool.send, emit)
        self.recording: SampleRecorder = self.load_run.recording
        self.answers: ResponseSample | None = self.load_run.answers
        self.connect_ns: array[int] = self.load_run.connect_ns
        self.waited_ns: array[int] = self.load_run.waited_ns
        self.protocol: Callable[[tuple[str, int]], ClientProtocol] = _protocol_factory(job)
        self.new_connection: Callable[[tuple[str, int], int], Connection] = (
            partial(Connection, self) if not job.stream else self._stream_connections(job)
        )
        self._added = PassedAddresses(self.selector, self._pool.add)
        self._removed = PassedAddresses(self.selector, self._pool.remove)
        self._alarm = Alarm(self.selector)

    @property
    def connected(self) -> tuple[int, bool]:
        """Number of connections, and whether their limit was reached."""
        return self._pool.connections, self._pool.limit_reached

    def run(self) -> LoadResult:
        """Run the load to its end."""
        try:
            self.open()
            self.drive()
        finally:
            self.close()
        return self.load_run.result()

    def open(self) -> None:
        """Connect ahead of the load."""
        self._pool.open()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
        self._added.close()
        self._removed.close()
        self._alarm.close()
        self.selector.close()

    def open_at(self, at_ns: int) -> None:
        """Open the window of a shared load at this time. Thread-safe."""
        self.load_run.open_at(at_ns)

    def add_address(self, address: tuple[str, int]) -> None:
        """Balance the load over one more server from now on. Thread-safe."""
        self._added.add(address)

    def remove_address(self, address: tuple[str, int]) -> None:
        """Send a server no further request. Thread-safe."""
        self._removed.add(address)

    def stop(self) -> None:
        """End the load: close the window and abandon requests in flight. Thread-safe."""
        self.load_run.stop_early = True

    def completed(self, connection: Connection, now_ns: int, *, failed: bool) -> None:
        """Called by a connection that is idle again."""
        again = self.load_run.answered(connection.due_ns, now_ns, failed=failed)
        if not again:
            self._pool.release(connection)
        elif self._pool.several or self._pool.waiting:
            self._pool.release(connection)
            self._pool.send(self.load_run.next_request(), None)
        else:  # the usual case of a closed loop
            self._next.append(connection)

    def expired(self, due_ns: int, now_ns: int) -> None:
        """Called for a request that no connection became free for in time; its caller, if it has one, goes on later."""
        self.load_run.answered(due_ns, now_ns, failed=True)

    def _stream_connections(self, job: LoadJob) -> Callable[[tuple[str, int], int], Connection]:
        """The function that creates connections that read answers in pieces."""
        from pytest_mlpatterns.loadgen.http1 import Http1Pieces, Http1Stream

        keep, follow = job.keep_answers > 0, job.endpoint.polled
        http1 = Http1Pieces if usual_form(job.endpoint.stream) is StreamForm.CHUNKS else Http1Stream

        def protocol(address: tuple[str, int], answer: StreamedAnswer) -> ClientProtocol:
            if job.transport is not Transport.HTTP1:
                return self.protocol(address)
            return http1(job.messages, address[0], follow=follow, keep=keep, answer=answer)

        reading = StreamReading(arrived=self._arrived, answer=answers_to(job), protocol=protocol)
        return partial(StreamConnection, self, reading=reading)

    def drive(self) -> None:
        """Send the load until its run drains, and await all answers."""
        select, clock, pool, load_run = self.selector.select, perf_counter_ns, self._pool, self.load_run
        alarm, answered, arrived, next_request = self._alarm, self._next, self._arrived, load_run.next_request
        now = clock()
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
        pool, load_run = self._pool, self.load_run
        pool.expire(now_ns - self._timeout_ns)
        load_run.tick(now_ns, pool.connections, limit_reached=pool.limit_reached)
        return load_run.draining and load_run.stop_early


def _protocol_factory(job: LoadJob) -> Callable[[tuple[str, int]], ClientProtocol]:
    """The function that creates the job's client protocol for an address."""
    keep = job.keep_answers > 0
    if job.transport is Transport.HTTP1:
        return lambda address: Http1(job.messages, address[0], follow=job.endpoint.polled, keep=keep)
    from pytest_mlpatterns.loadgen.http2 import HeaderReader, Http2, RequestBlocks

    blocks = cache(lambda address: RequestBlocks.of(address, INFER_METHOD))
    reader = HeaderReader()
    return lambda address: Http2(job.messages, blocks(address), reader, keep=keep)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """Wakes ``selector`` at the time set. On a system without timer descriptors it does nothing.

    Times are nanoseconds on the clock of ``time.perf_counter_ns``, which on Linux is CLOCK_MONOTONIC.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._descriptor = -1
        self._due_ns = -1
        if sys.platform == "linux":
            self._descriptor = _create_timer()
            selector.register(self._descriptor, selectors.EVENT_READ, self._drain)

    def set(self, due_ns: int) -> None:
        """Wake the loop at this time."""
        if self._descriptor >= 0 and due_ns != self._due_ns:
            self._due_ns = due_ns
            _set_timer(self._descriptor, due_ns)

    def close(self) -> None:
        """Close the descriptor. The selector is closed by its owner."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _drain(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)


def _create_timer() -> int:
    if hasattr(os, "timerfd_create"):  # Python 3.13 and newer
        return int(os.timerfd_create(_CLOCK_MONOTONIC, flags=_NONBLOCK_CLOEXEC))
    return _checked("timerfd_create", _CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)


def _set_timer(descriptor: int, due_ns: int) -> None:
    if hasattr(os, "timerfd_settime_ns"):
        os.timerfd_settime_ns(descriptor, flags=_ABSOLUTE, initial=due_ns)
    else:
        at = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(due_ns, 1_000_000_000)))
        _checked("timerfd_settime", descriptor, _ABSOLUTE, ctypes.byref(at), None)


def _checked(name: str, *arguments: Any) -> int:
    """Call a function of the C library."""
    result: int = getattr(_libc(), name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
