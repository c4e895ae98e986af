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

The connections of a load: opened when needed, balanced over addresses, with the requests that wait for one.

An address can be added and removed while the load runs. A pipe then wakes the loop, since its own ticks are 50 ms
apart.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import sys
import threading
from array import array
from collections import deque
from collections.abc import Callable
from functools import cache, partial
from time import perf_counter_ns
from typing import Any

from pytest_mlpatterns.loadgen.connection import ClientProtocol, Connection, StreamConnection, StreamReading
from pytest_mlpatterns.loadgen.http1 import Http1
from pytest_mlpatterns.loadgen.load_run import TICK_NS, LoadRun
from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult, Transport
from pytest_mlpatterns.loadgen.recorder import ResponseSample, SampleRecorder
from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer, answers_to
from pytest_mlpatterns.records.addressing import Balancer
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.system.process_limits import allowed_connections
from pytest_mlpatterns.wire.grpc_call import INFER_METHOD
from pytest_mlpatterns.wire.stream_request import StreamForm, usual_form
from pytest_mlpatterns.workload.schedule import ClosedLoop, most_callers

__all__ = ["MAX_OPEN_LOOP_CONNECTIONS", "Alarm", "LoadLoop", "PassedAddresses"]

MAX_OPEN_LOOP_CONNECTIONS = 1024  # An open loop opens connections as it needs them, up to this many over all addresses


def _most_beside(callers: int) -> int:
    """Most connections of an open loop beside the callers'; fewer if the system allows fewer open files."""
    allowed = allowed_connections()
    if allowed is None:
        return MAX_OPEN_LOOP_CONNECTIONS
    return min(MAX_OPEN_LOOP_CONNECTIONS, max(allowed - callers, 1))


class ConnectionPool:
    """All connections to all addresses, the idle ones among them, and the requests that wait for a connection."""

    def __init__(self, loop: LoadLoop, job: LoadJob) -> None:
        self._loop = loop
        self._addresses = job.endpoint.addresses
        self.several: bool = len(job.endpoint.addresses) > 1
        self._idle: list[list[Connection]] = [[] for _ in job.endpoint.addresses]
        self._all: list[Connection] = []
        balancer = Balancer(len(job.endpoint.addresses), job.endpoint.balance)
        self._choose = balancer.choose
        self._outstanding = balancer.in_flight
        self._removed = balancer.removed
        self.waiting: deque[tuple[int, int, int]] = deque()
        self._released: list[Connection] = []
        self._releasing = False
        self._callers = job.share.part_of(most_callers(job.schedule))
        self._limit = self._callers * len(job.endpoint.addresses)
        self._is_closed = job.schedule.closed
        if not self._is_closed:
            self._limit += _most_beside(self._limit)
        self._open_ahead = self._callers if isinstance(job.schedule, ClosedLoop) and self._callers else 1
        self.limit_reached: bool = False

    @property
    def connections(self) -> int:
        return len(self._all)

    @property
    def outstanding(self) -> int:
        return sum(self._outstanding) + len(self.waiting)

    def open(self) -> None:
        """Connect ahead of the load: to each address as many connections as there are callers, or one."""
        for target in range(len(self._addresses)):
            self._open_to(target)

    def add(self, address: tuple[str, int]) -> None:
        """Balance over one more address from now on, as a load balancer does; requests in flight stay where they are.

        Connections to it are opened ahead, as to the others.
        """
        self._addresses = (*self._addresses, address)
        self.several = True
        self._idle.append([])
        self._outstanding.append(0)
        self._limit += self._callers
        self._open_to(len(self._addresses) - 1)

    def remove(self, address: tuple[str, int]) -> None:
        """Send no further request to an address; those in flight there are awaited. The last address stays."""
        targets = [place for place, known in enumerate(self._addresses) if known == address]
        left = [place for place in targets if place not in self._removed]
        if not left or len(self._removed) + 1 == len(self._addresses):
            return
        target = left[0]
        self._removed.add(target)
        self._limit -= self._callers
        for connection in self._idle[target]:
            self._drop(connection)
        self._idle[target].clear()

    def send(self, request: int, due_ns: int | None) -> None:
        """Send a request, over an idle connection or as soon as there is one."""
        target = self._choose() if self.several else 0
        idle = self._idle[target]
        if idle:
            connection = idle.pop()
        elif len(self._all) < self._limit:
            connection = self._make(target)
        else:
            self.limit_reached = not self._is_closed  # a caller has one as soon as its last answer is dealt with
            now = perf_counter_ns()
            self.waiting.append((request, now if due_ns is None else due_ns, now))
            return
        self._outstanding[target] += 1
        connection.send(request, due_ns)

    def release(self, connection: Connection) -> None:
        """Give the connection to the next waiting request. A request that fails at once releases it again, in here."""
        self._released.append(connection)
        if self._releasing:
            return
        self._releasing = True
        while self._released:
            connection = self._released.pop()
            if connection.target in self._removed:
                self._outstanding[connection.target] -= 1
                self._drop(connection)
                if self.waiting:
                    request, due_ns, _ready_ns = self.waiting.popleft()
                    self.send(request, due_ns)
            elif self.waiting:
                request, due_ns, ready_ns = self.waiting.popleft()
                connection.send(request, due_ns, ready_ns)
            else:
                self._outstanding[connection.target] -= 1
                self._idle[connection.target].append(connection)
        self._releasing = False

    def expire(self, due_before_ns: int) -> None:
        """Fail every unanswered request that was due before this time."""
        while self.waiting and self.waiting[0][1] < due_before_ns:
            request, due_ns, ready_ns = self.waiting.popleft()
            now = perf_counter_ns()
            self._loop.recording.add(due_ns, ready_ns, now, Failure.TIMEOUT, request, 0, 0)
            self._loop.expired(due_ns, now)
        for connection in self._all:
            if connection.busy and connection.due_ns < due_before_ns:
                connection.fail(Failure.TIMEOUT)

    def close(self) -> None:
        for connection in self._all:
            connection.close()

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._all.remove(connection)

    def _open_to(self, target: int) -> None:
        for _ in range(self._open_ahead):
            connection = self._make(target)
            connection.open()
            self._idle[target].append(connection)

    def _make(self, target: int) -> Connection:
        connection = self._loop.new_connection(self._addresses[target], target)
        self._all.append(connection)
        return connection


class PassedAddresses:
    """Passes addresses, that are to be added or removed, from another thread to a selector loop."""

    def __init__(self, selector: selectors.BaseSelector, take: Callable[[tuple[str, int]], None]) -> None:
        self._take = take
        self._added: deque[tuple[str, int]] = deque()
        self._closing = threading.Lock()
        self._closed = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        selector.register(self._reader, selectors.EVENT_READ, self._on_wake)

    def add(self, address: tuple[str, int]) -> None:
        """Add an address; nothing happens if the load has ended. Thread-safe."""
        with self._closing:
            if not self._closed:
                self._added.append(address)
                os.write(self._writer, b"a")

    def close(self) -> None:
        """Close the pipe. The selector is closed by its owner."""
        with self._closing:
            if not self._closed:
                self._closed = True
                os.close(self._reader)
                os.close(self._writer)

    def _on_wake(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 64)
        while self._added:
            self._take(self._added.popleft())


_PARSED_AT_ONCE = 32  # Connections whose bytes are parsed before the sockets are read again
_CLOCK_MONOTONIC = 1  # Number of the clock of ``perf_counter`` (time.h of Linux)
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC if sys.platform != "win32" else 0
_ABSOLUTE = 1  # Flag of a timer that is set to a time, not to an interval (TFD_TIMER_ABSTIME)


class LoadLoop:
    """Runs one job over the generator's own connections."""

    def __init__(self, job: LoadJob, emit: Callable[[Event], None], *, run_kind: type[LoadRun] = LoadRun) -> None:
        self.selector: selectors.BaseSelector = _selector_for(job)
        self._timeout_ns = job.timeout_ns
        self._pool = ConnectionPool(self, job)
        self._next: list[Connection] = []
        self._arrived: deque[StreamConnection] = deque()
        self.load_run: LoadRun = run_kind(job, self._pool.send, emit)
        self.recording: SampleRecorder = self.load_run.recording
        self.answers: ResponseSample | None = self.load_run.answers
        self.connect_ns: array[int] = self.load_run.connect_ns
        self.waited_ns: array[int] = self.load_run.waited_ns
        self.sent_again_ns: array[int] = self.load_run.sent_again_ns
        self.protocol: Callable[[tuple[str, int]], ClientProtocol] = _protocol_factory(job)
        self.new_connection: Callable[[tuple[str, int], int], Connection] = self._connections(job)
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
            self._pool.send(self.load_run.next_request(), self.load_run.due_after_answer_ns)
        else:  # the usual case of a closed loop
            self._next.append(connection)

    def expired(self, due_ns: int, now_ns: int) -> None:
        """Called for a request that no connection became free for in time; its caller, if it has one, goes on later."""
        self.load_run.answered(due_ns, now_ns, failed=True)

    def _connections(self, job: LoadJob) -> Callable[[tuple[str, int], int], Connection]:
        """The function that creates connections."""
        if job.client is not None:
            from pytest_mlpatterns.loadgen.client_connection import client_connections

            return client_connections(self, job, job.client)
        return self._stream_connections(job) if job.stream else partial(Connection, self)

    def _stream_connections(self, job: LoadJob) -> Callable[[tuple[str, int], int], Connection]:
        """The function that creates connections that read answers in pieces."""
        from pytest_mlpatterns.loadgen.http1 import Http1Pieces, Http1Stream

        keep, follow = job.keeps_answers, job.endpoint.polled
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
        figures = load_run.figures
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
            for connection in answered:  # all available responses are stamped before the next request is sent
                connection.send(next_request(), load_run.due_after_answer_ns)
            answered.clear()
            if figures is not None:
                figures.read()
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


def _selector_for(job: LoadJob) -> selectors.BaseSelector:
    """What waits for sockets, and for the answers of a client that is async."""
    if job.client is None or not job.client.is_async:
        return selectors.DefaultSelector()
    from pytest_mlpatterns.loadgen.client_connection import TaskSelector

    return TaskSelector(job.client)


def _protocol_factory(job: LoadJob) -> Callable[[tuple[str, int]], ClientProtocol]:
    """The function that creates the job's client protocol for an address."""
    keep = job.keeps_answers
    if job.transport is not Transport.GRPC:  # a client of the user's own needs none
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
