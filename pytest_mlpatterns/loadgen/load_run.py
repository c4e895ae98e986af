"""The course of one job: warm-up, measured window, drain. What is sent, and when the next phase begins.

Every way of driving load shares it: the driver tells the time and what was answered, the course says when to send, and
at the end what was recorded. It must not know sockets.
"""

from __future__ import annotations

from array import array
from statistics import median
from time import process_time_ns
from typing import TYPE_CHECKING

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS, Arrivals, arrivals_of
from pytest_mlpatterns.loadgen.messages import LoadResult, Warm, WindowOpened
from pytest_mlpatterns.loadgen.recorder import ResponseSample, SampleRecorder
from pytest_mlpatterns.loadgen.steady_state import (
    MIN_WINDOW_REQUESTS,
    WARMUP_CAP_NS,
    WINDOW_NS,
    WarmupWindow,
    is_steady,
)
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.launch import GeneratorReport, Warmup
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_mlpatterns.loadgen.messages import Event, LoadJob
    from pytest_mlpatterns.workload.schedule import Schedule

__all__ = ["TICK_NS", "LoadRun"]

TICK_NS = 50_000_000
"""How often a driver calls :meth:`LoadRun.tick`."""
_SETTLE_NS = 15_000_000
_PROGRESS_TICKS = 5


class LoadRun:
    """Follows one job.

    Args:
        job: what to do.
        send: sends the prepared request of this index; the due time is None for now.
        tell: takes each event as it happens.

    Attributes:
        next_request: gives the index of the request that is to be sent next.
        recording: one row per finished request.
        answers: the sample of answers, None where none was asked for.
        connect_ns: how long each opening of a connection took.
        next_due_ns: when :meth:`send_due` wants to be called.
        draining: the window is closed; only answers are awaited.
        stop_early: set it to end the job at the next tick.
    """

    def __init__(self, job: LoadJob, send: Callable[[int, int | None], None], tell: Callable[[Event], None]) -> None:
        self.recording = SampleRecorder()
        self.answers = ResponseSample(job.keep_answers) if job.keep_answers else None
        self.connect_ns = array("q")
        self.draining = False
        self.stop_early = False
        self._job = job
        self._send = send
        self._tell = tell
        self.next_request = _drawn(job).__next__
        self._has_length = job.schedule.length_ns is not None
        self._source = self._source_of(ClosedLoop(1) if self._has_length else job.schedule)
        self._source_since_ns = 0
        self._start_ns = 0
        self._stop_ns = NEVER_NS
        self._ticks = 0
        self._last_tick_ns = 0
        self._warmup: Warmup | None = None
        self._told_warm = False
        self._open_at_ns = NEVER_NS
        self._warmup_windows: list[WarmupWindow] = []
        self._warmup_row = 0
        self._warmup_since_ns = 0
        self._window_row = 0
        self._window_start_ns = 0
        self._window_cpu_ns = 0
        self._loop_lag_ns = 0
        self._report: GeneratorReport | None = None

    @property
    def next_due_ns(self) -> int:
        """When :meth:`send_due` wants to be called; far in the future where only answers matter."""
        due_ns = self._source.next_due_ns
        if self._warmup is None:
            return min(due_ns, self._open_at_ns)
        return due_ns if due_ns < self._stop_ns else NEVER_NS

    @property
    def first_tick_ns(self) -> int:
        """When the first tick is wanted, after the start: a job without a warm-up only takes a breath."""
        return TICK_NS if self._job.warmup_ns is None else min(TICK_NS, max(self._job.warmup_ns, _SETTLE_NS))

    def open_at(self, at_ns: int) -> None:
        """Open the window at this time, with all generators that share the load. Callable from another thread."""
        self._open_at_ns = at_ns

    def start(self, now_ns: int) -> None:
        """The warm-up begins."""
        self._start_ns = self._warmup_since_ns = self._last_tick_ns = now_ns
        self._source.start(now_ns)

    def answered(self, due_ns: int, now_ns: int, *, failed: bool) -> bool:
        """A request that was due then has ended and is recorded; whether :attr:`next_request` is to be sent now."""
        return (
            now_ns < self._stop_ns and due_ns >= self._source_since_ns and self._source.answered(now_ns, failed=failed)
        )

    def send_due(self, now_ns: int) -> None:
        """Send everything that is due by now."""
        if self._warmup is None and now_ns >= self._open_at_ns:
            self._open_window(self._open_at_ns)
        self._source.send_due(min(now_ns, self._stop_ns))

    def tick(self, now_ns: int, connections: int, *, limit_reached: bool) -> None:
        """Move on, as far as it is time; to be called every 50 ms.

        Args:
            now_ns: the time.
            connections: how many there are, for the report.
            limit_reached: whether requests had to wait for a connection, likewise.
        """
        self._loop_lag_ns = max(self._loop_lag_ns, now_ns - self._last_tick_ns - TICK_NS)
        self._last_tick_ns = now_ns
        self._ticks += 1
        if self._warmup is None and (self.stop_early or self._warm(now_ns)):
            if self._job.share.of == 1 or self.stop_early:
                self._open_window(now_ns)
            elif not self._told_warm:
                self._told_warm = True
                self._tell(Warm())
        if self._warmup is not None and not self.draining and (self.stop_early or now_ns >= self._stop_ns):
            self._close_window(now_ns, connections, limit_reached=limit_reached)
        if not self.draining:
            self._source.tick(now_ns)
        if self._ticks % _PROGRESS_TICKS == 0:
            recent = max(self._window_row, len(self.recording) - 1000)
            latency = self.recording.median_latency_ns(recent)
            self._tell(Progress(now_ns - self._start_ns, len(self.recording), latency))

    def recorded(self) -> LoadResult:
        """Everything, once the window is closed."""
        assert self._warmup is not None
        assert self._report is not None
        return LoadResult(
            columns=self.recording.columns(),
            window=Window(self._window_start_ns, self._stop_ns),
            warmup=self._warmup,
            generator=self._report,
            answers=self.answers.kept if self.answers is not None else [],
            stopped_early=self.stop_early,
        )

    def _source_of(self, schedule: Schedule) -> Arrivals:
        return arrivals_of(schedule, self._send_next, self._job.share)

    def _send_next(self, due_ns: int | None) -> None:
        self._send(self.next_request(), due_ns)

    def _warm(self, now_ns: int) -> bool:
        """Whether the warm-up is over: its time is up, or the data are steady."""
        elapsed = now_ns - self._start_ns
        if self._job.warmup_ns is not None:
            return elapsed >= self._job.warmup_ns
        since, count = now_ns - self._warmup_since_ns, len(self.recording) - self._warmup_row
        if since >= WINDOW_NS and count >= MIN_WINDOW_REQUESTS:
            latency = self.recording.median_latency_ns(self._warmup_row)
            if latency is not None:
                self._warmup_windows.append(WarmupWindow(count * 1e9 / since, latency))
            self._warmup_row, self._warmup_since_ns = len(self.recording), now_ns
        return is_steady(self._warmup_windows) or elapsed >= WARMUP_CAP_NS

    def _open_window(self, now_ns: int) -> None:
        steady = None if self._job.warmup_ns is not None else is_steady(self._warmup_windows)
        self._warmup = Warmup(now_ns - self._start_ns, len(self.recording), steady)
        self._window_start_ns, self._window_row = now_ns, len(self.recording)
        self._stop_ns = now_ns + self._job.duration_ns
        self._loop_lag_ns = 0
        if self.answers is not None:
            self.answers.clear()
        shared_clock = self._job.share.of > 1 and not self._job.schedule.closed
        if self._has_length or shared_clock:  # all generators of a load count its time from the same moment
            self._source.finish()
            self._source = self._source_of(self._job.schedule)
            self._source_since_ns = now_ns
            self._source.start(now_ns)
        self._window_cpu_ns = process_time_ns()
        self._tell(WindowOpened(now_ns))

    def _close_window(self, now_ns: int, connections: int, *, limit_reached: bool) -> None:
        self.draining = True
        self._stop_ns = min(self._stop_ns, now_ns)
        self._source.finish()
        self._report = GeneratorReport(
            cpu_ns=process_time_ns() - self._window_cpu_ns,
            wall_ns=now_ns - self._window_start_ns,
            completed=len(self.recording) - self._window_row,
            connections=connections,
            connection_limit_reached=limit_reached,
            connect_ns=int(median(self.connect_ns)) if self.connect_ns else None,
            loop_lag_ns=self._loop_lag_ns,
        )


def _drawn(job: LoadJob) -> Iterator[int]:
    """The indices of this generator's requests, one after the other, without end."""
    order = array("I", job.order) or range(len(job.messages))
    number, step, count = job.share.number, job.share.of, len(order)
    while True:
        yield order[number % count]
        number += step
