"""The loop that drives the load: one thread, one selector, connections that call back.

It follows a :class:`~pytest_mlpatterns.load.job.Job` from warm-up through the measured window until every request has
ended, and returns what was recorded. It must not know processes, pipes or numpy.

The order of an iteration: answers first, then requests that are due, then (every 50 ms) time-outs, the end of the
warm-up, and a sign of life. In a closed loop the answer itself sends the next request.
"""

from __future__ import annotations

import selectors
from array import array
from collections import deque
from statistics import median
from time import perf_counter_ns, process_time_ns
from typing import TYPE_CHECKING

from pytest_mlpatterns.load.alarm import Alarm
from pytest_mlpatterns.load.connection import Connection
from pytest_mlpatterns.load.job import Balance, Failure, Progress, Recorded, WindowOpened
from pytest_mlpatterns.load.recording import Answers, Recording
from pytest_mlpatterns.load.schedule import ClosedLoop, Stages
from pytest_mlpatterns.load.source import NEVER_NS, source_of
from pytest_mlpatterns.load.steady import (
    MIN_WINDOW_REQUESTS,
    WARMUP_CAP_NS,
    WINDOW_NS,
    WarmupWindow,
    is_steady,
)
from pytest_mlpatterns.records import GeneratorReport, Warmup, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.load.job import Job

__all__ = ["MAX_OPEN_LOOP_CONNECTIONS", "LoadLoop"]

TICK_NS = 50_000_000
MAX_OPEN_LOOP_CONNECTIONS = 1024
"""An open loop opens connections as it needs them, up to this many over all addresses."""
_PROGRESS_TICKS = 5


class LoadLoop:
    """Runs one job.

    Args:
        job: what to do.
        tell: takes :class:`WindowOpened` and :class:`Progress` as they happen.
    """

    def __init__(self, job: Job, tell: Callable[[WindowOpened | Progress], None]) -> None:
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self.recording = Recording()
        self.connect_ns = array("q")
        self.answers = Answers(job.keep_answers) if job.keep_answers else None
        self.messages: Sequence[bytes] = job.messages
        self.stopped_early = False
        self._job = job
        self._tell = tell
        self._alarm = Alarm(self.selector)
        self._pool = _Pool(self, job)
        self._scheduled = job.schedule.length_ns is not None
        self._source = source_of(ClosedLoop(1) if self._scheduled else job.schedule, self.send_next)
        self._source_since_ns = 0
        self._order = array("I", job.order)
        self._drawn = -1
        self._stop_ns = NEVER_NS
        self._start_ns = 0
        self._warmup: Warmup | None = None
        self._warmup_windows: list[WarmupWindow] = []
        self._warmup_row = 0
        self._warmup_since_ns = 0
        self._window_row = 0
        self._window_start_ns = 0
        self._window_cpu_ns = 0
        self._loop_lag_ns = 0
        self._report: GeneratorReport | None = None

    def run(self) -> Recorded:
        """Drive the load to its end."""
        try:
            self._drive()
        finally:
            self._pool.close()
            self._alarm.close()
            self.selector.close()
        assert self._warmup is not None
        assert self._report is not None
        return Recorded(
            columns=self.recording.columns(),
            window=Window(self._window_start_ns, self._stop_ns),
            warmup=self._warmup,
            generator=self._report,
            answers=self.answers.kept if self.answers is not None else [],
            stopped_early=self.stopped_early,
        )

    def stop(self) -> None:
        """End the load now: the window closes, requests under way are given up. Callable from another thread."""
        self.stopped_early = True

    def send_next(self, due_ns: int | None = None) -> None:
        """Send the next prepared request over a free connection, or let it wait for one."""
        self._drawn = drawn = self._drawn + 1
        request = self._order[drawn % len(self._order)] if self._order else drawn % len(self.messages)
        self._pool.send(request, due_ns)

    def completed(self, connection: Connection, now_ns: int, *, failed: bool) -> None:
        """A connection is free again."""
        self._pool.release(connection)
        if now_ns < self._stop_ns and connection.due_ns >= self._source_since_ns:
            self._source.answered(now_ns, failed=failed)

    def _drive(self) -> None:
        select, clock, pool = self.selector.select, perf_counter_ns, self._pool
        self._start_ns = self._warmup_since_ns = now = clock()
        pool.open()
        self._source.start(now)
        next_tick = now + TICK_NS
        ticks = 0
        while True:
            due_ns = self._source.next_due_ns
            if due_ns < next_tick:
                self._alarm.set(due_ns)
            for key, mask in select(max(0, min(next_tick, due_ns) - now) / 1e9):
                key.data(mask)
            now = clock()
            if now >= self._source.next_due_ns:
                self._source.send_due(min(now, self._stop_ns))
            if now < next_tick:
                continue
            self._loop_lag_ns = max(self._loop_lag_ns, now - next_tick)
            next_tick = now + TICK_NS
            ticks += 1
            pool.expire(now - self._job.timeout_ns)
            self._advance(now)
            if ticks % _PROGRESS_TICKS == 0:
                self._report_progress(now)
            if self._report is not None and (self.stopped_early or not pool.outstanding):
                return

    def _advance(self, now: int) -> None:
        """Move from warm-up to window to drain, as far as it is time."""
        if self.stopped_early and self._report is None:
            if self._warmup is None:
                self._open_window(now, steady=False)
            self._close_window(now)
        elif self._warmup is None:
            if self._job.warmup_ns is not None:
                if now - self._start_ns >= self._job.warmup_ns:
                    self._open_window(now, steady=None)
            elif self._look_for_steady_state(now):
                self._open_window(now, steady=True)
            elif now - self._start_ns >= WARMUP_CAP_NS:
                self._open_window(now, steady=False)
        elif self._report is None and now >= self._stop_ns:
            self._close_window(now)
        if self._report is None and now < self._stop_ns:
            self._source.tick(now)

    def _look_for_steady_state(self, now: int) -> bool:
        elapsed, count = now - self._warmup_since_ns, len(self.recording) - self._warmup_row
        if elapsed < WINDOW_NS or count < MIN_WINDOW_REQUESTS:
            return False
        median = self.recording.median_latency_ns(self._warmup_row)
        if median is not None:
            self._warmup_windows.append(WarmupWindow(count * 1e9 / elapsed, median))
        self._warmup_row, self._warmup_since_ns = len(self.recording), now
        return is_steady(self._warmup_windows)

    def _open_window(self, now: int, *, steady: bool | None) -> None:
        self._warmup = Warmup(now - self._start_ns, len(self.recording), steady)
        self._window_start_ns = now
        self._window_row = len(self.recording)
        self._window_cpu_ns = process_time_ns()
        self._stop_ns = now + self._job.duration_ns
        self._loop_lag_ns = 0
        if self.answers is not None:
            self.answers.clear()
        if self._scheduled:  # the warm-up was one caller; the schedule as a whole is the window
            self._source.finish()
            self._source = source_of(self._job.schedule, self.send_next)
            self._source_since_ns = now
            self._source.start(now)
        self._tell(WindowOpened(now))

    def _close_window(self, now: int) -> None:
        self._stop_ns = min(self._stop_ns, now)
        self._source.finish()
        self._report = GeneratorReport(
            cpu_ns=process_time_ns() - self._window_cpu_ns,
            wall_ns=now - self._window_start_ns,
            completed=len(self.recording) - self._window_row,
            connections=self._pool.connections,
            connect_ns=int(median(self.connect_ns)) if self.connect_ns else None,
            loop_lag_ns=self._loop_lag_ns,
            connection_limit_reached=self._pool.limit_reached,
        )

    def _report_progress(self, now: int) -> None:
        recent = max(self._window_row, len(self.recording) - 1000)
        self._tell(Progress(now - self._start_ns, len(self.recording), self.recording.median_latency_ns(recent)))


class _Pool:
    """The connections to every address, which of them is free, and the requests that wait for one."""

    def __init__(self, loop: LoadLoop, job: Job) -> None:
        self._loop = loop
        self._addresses = job.addresses
        self._least_outstanding = job.balance is Balance.LEAST_OUTSTANDING
        self._idle: list[list[Connection]] = [[] for _ in job.addresses]
        self._all: list[Connection] = []
        self._outstanding = [0] * len(job.addresses)
        self._waiting: deque[tuple[int, int | None]] = deque()
        self._last_target = -1
        self._limit = MAX_OPEN_LOOP_CONNECTIONS
        if isinstance(job.schedule, ClosedLoop | Stages) and job.schedule.closed:
            self._limit = job.schedule.max_concurrency * len(job.addresses)
        self._open_ahead = job.schedule.concurrency if isinstance(job.schedule, ClosedLoop) else 1
        self.limit_reached = False

    @property
    def connections(self) -> int:
        return len(self._all)

    @property
    def outstanding(self) -> int:
        return sum(self._outstanding) + len(self._waiting)

    def open(self) -> None:
        """Start to connect ahead of the load: to each address as many as all callers together, or one."""
        for target in range(len(self._addresses)):
            for _ in range(self._open_ahead):
                connection = self._make(target)
                connection.open()
                self._idle[target].append(connection)

    def send(self, request: int, due_ns: int | None) -> None:
        target = self._choose()
        idle = self._idle[target]
        if idle:
            connection = idle.pop()
        elif len(self._all) < self._limit:
            connection = self._make(target)
        else:
            self.limit_reached = True
            self._waiting.append((request, perf_counter_ns() if due_ns is None else due_ns))
            return
        self._outstanding[target] += 1
        connection.send(request, due_ns)

    def release(self, connection: Connection) -> None:
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._outstanding[connection.target] -= 1
            self._idle[connection.target].append(connection)

    def expire(self, due_before_ns: int) -> None:
        """Give up every request that was due before this time and is not answered."""
        while self._waiting and (self._waiting[0][1] or 0) < due_before_ns:
            request, due_ns = self._waiting.popleft()
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
        if count == 1:
            return 0
        if self._least_outstanding:
            return min(range(count), key=self._outstanding.__getitem__)
        self._last_target = (self._last_target + 1) % count
        return self._last_target
