"""The loop that drives load over our own connections: one thread, one selector, connections that call back.

The order of an iteration: all answers that are there, then the requests that follow them in a closed loop, then those
that are due by the clock, then (every 50 ms) time-outs and the course of the job. So no answer is noted late because
another was followed by a request. It must not know processes, pipes or numpy.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter_ns
from typing import TYPE_CHECKING

from pytest_mlpatterns.load.alarm import Alarm
from pytest_mlpatterns.load.connection import Connection
from pytest_mlpatterns.load.course import TICK_NS, Course
from pytest_mlpatterns.load.http1 import Http1
from pytest_mlpatterns.load.job import Spoken
from pytest_mlpatterns.load.poller import new_selector
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.wire.grpc_call import INFER_METHOD
from pytest_mlpatterns.workload.schedule import ClosedLoop, Stages

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable

    from pytest_mlpatterns.load.dialogue import Dialogue
    from pytest_mlpatterns.load.job import Event, Job, Recorded

__all__ = ["MAX_OPEN_LOOP_CONNECTIONS", "LoadLoop"]

MAX_OPEN_LOOP_CONNECTIONS = 1024
"""An open loop opens connections as it needs them, up to this many over all addresses."""


class LoadLoop:
    """Runs one job.

    Args:
        job: what to do.
        tell: takes each event as it happens.
    """

    def __init__(self, job: Job, tell: Callable[[Event], None]) -> None:
        self.selector: selectors.BaseSelector = new_selector()
        self._timeout_ns = job.timeout_ns
        self._pool = _Pool(self, job)
        self._next: list[Connection] = []
        self._course = Course(job, self._pool.send, tell)
        self.recording = self._course.recording
        self.answers = self._course.answers
        self.connect_ns = self._course.connect_ns
        self.dialogue = _dialogues(job)

    def run(self) -> Recorded:
        """Drive the load to its end."""
        alarm = Alarm(self.selector)
        try:
            self._drive(alarm)
        finally:
            self._pool.close()
            alarm.close()
            self.selector.close()
        return self._course.recorded()

    def open_at(self, at_ns: int) -> None:
        """Open the window at this time, where the load is shared. Callable from another thread."""
        self._course.open_at(at_ns)

    def stop(self) -> None:
        """End the load now: the window closes, requests under way are given up. Callable from another thread."""
        self._course.stop_early = True

    def completed(self, connection: Connection, now_ns: int, *, failed: bool) -> None:
        """A connection is free again."""
        again = self._course.answered(connection.due_ns, now_ns, failed=failed)
        if not again:
            self._pool.release(connection)
        elif self._pool.several or self._pool.waiting:
            self._pool.release(connection)
            self._pool.send(self._course.next_request(), None)
        else:  # as in a closed loop nearly always
            self._next.append(connection)

    def _drive(self, alarm: Alarm) -> None:
        select, clock, pool, course = self.selector.select, perf_counter_ns, self._pool, self._course
        answered, next_request = self._next, course.next_request
        now = clock()
        pool.open()
        course.start(now)
        next_tick = now + course.first_tick_ns
        due_ns = course.next_due_ns
        while True:
            wake_ns = next_tick
            if due_ns < next_tick:
                alarm.set(due_ns)
                wake_ns = due_ns
            for key, mask in select((wake_ns - now) / 1e9 if wake_ns > now else 0):
                key.data(mask)
            if answered:  # all answers that are there are noted before the first of them is followed by a request
                for connection in answered:
                    connection.send(next_request())
                answered.clear()
            now = clock()
            due_ns = course.next_due_ns
            if now >= due_ns:
                course.send_due(now)
                due_ns = course.next_due_ns
            if course.draining and not pool.outstanding:
                return
            if now < next_tick:
                continue
            next_tick = now + TICK_NS
            pool.expire(now - self._timeout_ns)
            course.tick(now, pool.connections, limit_reached=pool.limit_reached)
            due_ns = course.next_due_ns
            if course.draining and (course.stop_early or not pool.outstanding):
                return


def _dialogues(job: Job) -> Callable[[tuple[str, int]], Dialogue]:
    """What begins a dialogue of the job's protocol with whoever is at an address."""
    keep = job.keep_answers > 0
    if job.spoken is Spoken.HTTP1:
        return lambda address: Http1(job.messages, address[0], follow=job.follow, keep=keep)
    from pytest_mlpatterns.load.headers import HeaderReader, RequestBlocks
    from pytest_mlpatterns.load.http2 import Http2

    blocks = {address: RequestBlocks.of(address, INFER_METHOD) for address in job.addresses}
    reader = HeaderReader()
    return lambda address: Http2(job.messages, blocks[address], reader, keep=keep)


class _Pool:
    """The connections to every address, which of them is free, and the requests that wait for one."""

    def __init__(self, loop: LoadLoop, job: Job) -> None:
        self._loop = loop
        self._addresses = job.addresses
        self.several = len(job.addresses) > 1
        self._least_outstanding = job.balance is Balance.LEAST_OUTSTANDING
        self._idle: list[list[Connection]] = [[] for _ in job.addresses]
        self._all: list[Connection] = []
        self._outstanding = [0] * len(job.addresses)
        self.waiting: deque[tuple[int, int | None]] = deque()
        self._last_target = -1
        self._limit = MAX_OPEN_LOOP_CONNECTIONS
        if isinstance(job.schedule, ClosedLoop | Stages) and job.schedule.closed:
            self._limit = job.share.part_of(job.schedule.max_concurrency) * len(job.addresses)
        self._open_ahead = job.share.part_of(job.schedule.concurrency) if isinstance(job.schedule, ClosedLoop) else 1
        self.limit_reached = False

    @property
    def connections(self) -> int:
        return len(self._all)

    @property
    def outstanding(self) -> int:
        return sum(self._outstanding) + len(self.waiting)

    def open(self) -> None:
        """Start to connect ahead of the load: to each address as many as all callers together, or one."""
        for target in range(len(self._addresses)):
            for _ in range(self._open_ahead):
                connection = self._make(target)
                connection.open()
                self._idle[target].append(connection)

    def send(self, request: int, due_ns: int | None) -> None:
        target = self._choose() if self.several else 0
        idle = self._idle[target]
        if idle:
            connection = idle.pop()
        elif len(self._all) < self._limit:
            connection = self._make(target)
        else:
            self.limit_reached = True
            self.waiting.append((request, perf_counter_ns() if due_ns is None else due_ns))
            return
        self._outstanding[target] += 1
        connection.send(request, due_ns)

    def release(self, connection: Connection) -> None:
        if self.waiting:
            connection.send(*self.waiting.popleft())
        else:
            self._outstanding[connection.target] -= 1
            self._idle[connection.target].append(connection)

    def expire(self, due_before_ns: int) -> None:
        """Give up every request that was due before this time and is not answered."""
        while self.waiting and (self.waiting[0][1] or 0) < due_before_ns:
            request, due_ns = self.waiting.popleft()
            now = perf_counter_ns()
            self._loop.recording.add(due_ns or now, now, now, Failure.TIMEOUT, request, 0, 0)
        for connection in self._all:
            if connection.busy and connection.due_ns < due_before_ns:
                connection.fail(Failure.TIMEOUT)

    def close(self) -> None:
        for connection in self._all:
            connection.close()

    def _make(self, target: int) -> Connection:
        connection = Connection(self._loop, self._addresses[target], target)
        self._all.append(connection)
        return connection

    def _choose(self) -> int:
        count = len(self._addresses)
        if self._least_outstanding:
            return min(range(count), key=self._outstanding.__getitem__)
        self._last_target = (self._last_target + 1) % count
        return self._last_target
