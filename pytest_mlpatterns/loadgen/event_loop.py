"""The loop that drives load over our own connections: one thread, one selector, connections that call back.

The order of an iteration: all answers that are there, then the requests that follow them in a closed loop, then those
that are due by the clock, then (every 50 ms) time-outs and the course of the job. So no answer is noted late because
another was followed by a request. It must not know processes, pipes or numpy.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING

from pytest_mlpatterns.loadgen.connection_pool import ConnectionPool
from pytest_mlpatterns.loadgen.epoll import new_selector
from pytest_mlpatterns.loadgen.http1 import Http1
from pytest_mlpatterns.loadgen.load_run import TICK_NS, LoadRun
from pytest_mlpatterns.loadgen.messages import Transport
from pytest_mlpatterns.loadgen.timerfd import Alarm
from pytest_mlpatterns.wire.grpc_call import INFER_METHOD

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable

    from pytest_mlpatterns.loadgen.connection import Connection
    from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult
    from pytest_mlpatterns.loadgen.protocol import ClientProtocol

__all__ = ["LoadLoop"]


class LoadLoop:
    """Runs one job.

    Args:
        job: what to do.
        tell: takes each event as it happens.
    """

    def __init__(self, job: LoadJob, tell: Callable[[Event], None]) -> None:
        self.selector: selectors.BaseSelector = new_selector()
        self._timeout_ns = job.timeout_ns
        self._pool = ConnectionPool(self, job)
        self._next: list[Connection] = []
        self._course = LoadRun(job, self._pool.send, tell)
        self.recording = self._course.recording
        self.answers = self._course.answers
        self.connect_ns = self._course.connect_ns
        self.dialogue = _dialogues(job)

    def run(self) -> LoadResult:
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


def _dialogues(job: LoadJob) -> Callable[[tuple[str, int]], ClientProtocol]:
    """What begins a dialogue of the job's protocol with whoever is at an address."""
    keep = job.keep_answers > 0
    if job.spoken is Transport.HTTP1:
        return lambda address: Http1(job.messages, address[0], follow=job.follow, keep=keep)
    from pytest_mlpatterns.loadgen.http2 import Http2
    from pytest_mlpatterns.loadgen.http2_headers import HeaderReader, RequestBlocks

    blocks = {address: RequestBlocks.of(address, INFER_METHOD) for address in job.addresses}
    reader = HeaderReader()
    return lambda address: Http2(job.messages, blocks[address], reader, keep=keep)
