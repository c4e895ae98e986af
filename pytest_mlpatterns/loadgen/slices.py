"""Two loads of one generator that alternate: one is sent for a moment, its answers are awaited, then the other one.

A host whose speed changes from one moment to the next slows down both alike, if slices are shorter than its moments.
Connections stay open in between, so that no slice begins with a handshake.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns, process_time_ns

from msgspec.structs import replace

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS, ClosedLoopArrivals
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.load_run import LoadRun
from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult
from pytest_mlpatterns.records.samples import Window


class SlicedRun(LoadRun):
    """A closed loop whose window is cut into slices; the first one opens it, and nothing warms up."""

    def __init__(self, job: LoadJob, send: Callable[[int, int | None], None], emit: Callable[[Event], None]) -> None:
        super().__init__(job, send, emit)
        self.slices: list[Window] = []
        self.draining: bool = False
        self._cpu_ns = self._wall_ns = self._began_cpu_ns = 0

    @property
    def next_due_ns(self) -> int:
        """The end of the slice, until it is seen."""
        return NEVER_NS if self.draining else self._stop_ns

    def start(self, now_ns: int) -> None:
        """Begin a slice: each caller sends a request."""
        self._began_cpu_ns = process_time_ns()
        self.draining = False
        if not self.slices:
            super().start(now_ns)
        else:
            assert isinstance(self._arrivals, ClosedLoopArrivals)
            self._stop_ns = now_ns + self._job.duration_ns
            self._last_tick_ns = now_ns
            self._arrivals.begin_again()
        self.slices.append(Window(now_ns, self._stop_ns))

    def send_due(self, now_ns: int) -> None:
        """End the slice if its time is up: callers that are answered send nothing more."""
        self._end_slice(now_ns)

    def tick(self, now_ns: int, connections: int, *, limit_reached: bool) -> None:
        """Let callers go on whose connection failed, unless the slice is over."""
        self._end_slice(now_ns)
        if self.draining:
            self._report_progress(now_ns)
        else:
            super().tick(now_ns, connections, limit_reached=limit_reached)

    def note_answered(self, now_ns: int) -> None:
        """Note that all answers of the slice have come."""
        self._cpu_ns += process_time_ns() - self._began_cpu_ns
        self._wall_ns += now_ns - self.slices[-1].start_ns

    def sliced_result(self, connections: int, *, limit_reached: bool) -> LoadResult:
        """The recording of all slices; the generator's figures are of its own slices."""
        self._close_window(self._stop_ns, connections, limit_reached=limit_reached)
        assert self._report is not None
        self._report = replace(self._report, cpu_ns=self._cpu_ns, wall_ns=self._wall_ns)
        return replace(self.result(), slices=tuple(self.slices))

    @property
    def _opens_at_once(self) -> bool:
        return True

    def _end_slice(self, now_ns: int) -> None:
        if self.stop_early or now_ns >= self._stop_ns:
            self.draining = True
            self._stop_ns = min(self._stop_ns, now_ns)


class _SlicedLoop(LoadLoop):
    """The connections of a load that alternates."""

    def __init__(self, job: LoadJob, emit: Callable[[Event], None]) -> None:
        super().__init__(job, emit, run_kind=SlicedRun)

    @property
    def sliced(self) -> SlicedRun:
        """What decides what is sent."""
        assert isinstance(self.load_run, SlicedRun)
        return self.load_run

    def result(self) -> LoadResult:
        """The recording of all slices."""
        connections, limit_reached = self.connected
        return self.sliced.sliced_result(connections, limit_reached=limit_reached)


class SlicedLoops:
    """Runs a job and the one beside it, slice by slice."""

    def __init__(self, job: LoadJob, emit: Callable[[Event], None]) -> None:
        assert job.beside is not None
        self._slices = job.slices
        self._timeout_ns = job.timeout_ns
        self._loops = (_SlicedLoop(replace(job, beside=None), emit), _SlicedLoop(job.beside, _ignore))
        self._stopped = False

    def run(self) -> LoadResult:
        """Run both loads to their end; they end early once an answer took as long as the time-out."""
        first, second = self._loops
        try:
            for loop in self._loops:
                loop.open()
            for _ in range(self._slices):
                if self._take(first) | (not self._stopped and self._take(second)):
                    break
            results = [loop.result() for loop in self._loops if loop.sliced.slices]
        finally:
            first.close()
            second.close()
        return replace(results[0], beside=results[1] if len(results) > 1 else None)

    def stop(self) -> None:
        """End the load, and abandon requests in flight. Thread-safe."""
        self._stopped = True
        for loop in self._loops:
            loop.stop()

    def _take(self, loop: _SlicedLoop) -> bool:
        """Let a load have a slice. Returns whether no further one follows, except the other load's."""
        began_ns = perf_counter_ns()
        loop.drive()
        now_ns = perf_counter_ns()
        loop.sliced.note_answered(now_ns)
        return self._stopped or now_ns - began_ns >= self._timeout_ns


def _ignore(_event: Event) -> None:
    """The first load reports for both."""
