"""Profiled pairs for tests: a short plan, a profiler that is scripted, and a side over a load."""

from collections import Counter
from collections.abc import Callable

from pytest_mlpatterns import Deployment
from pytest_mlpatterns.errors import ProfilerError
from pytest_mlpatterns.measurement.profiled_pair import ProfiledSide, ProfilingPlan
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.profiling.frame_names import SourceNames
from pytest_mlpatterns.profiling.py_spy import RawFrame, RawStack, RawStacks
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop
from support import TESTS
from support.synthetic import MS, S

INPUTS = [[1], [2], [3]]
PLAN = LoadPlan(
    payload=read_payload(INPUTS), schedule=ClosedLoop(1), duration_ns=S, warmup_ns=0, timeout_ns=30 * S, check=None
)
SHORT = ProfilingPlan(most_s=0.0, rounds=3, fewest=1, block_ns=200 * MS, answers=2, warmup_ns=10 * MS)
"""One round, in which even a busy machine answers some requests of each block: otherwise it is recorded again."""


def profiled_side(name: str, start: Callable[[], Deployment]) -> ProfiledSide:
    """A side whose own code are the files of the tests."""
    return ProfiledSide(Variant(name, start, PLAN), SourceNames(TESTS))


class ScriptedProfiler:
    """Sees ten looks at one function of each process; ``refused`` are numbers of recordings that see nothing."""

    name = "scripted 1"

    def __init__(
        self,
        refused: frozenset[int] = frozenset(),
        on_start: Callable[["ScriptedRecording"], None] = lambda _: None,
        ends_early: int = 0,
    ) -> None:
        self.on_start = on_start
        self.ends_early = ends_early
        self.rates: Counter[tuple[int, int]] = Counter()
        self.running = 0
        self._refused = refused

    def start(self, pid: int, rate_hz: int) -> "ScriptedRecording":
        self.rates[pid, rate_hz] += 1
        self.running += 1
        return ScriptedRecording(self, pid, refuses=self.rates.total() in self._refused)


class ScriptedRecording:
    def __init__(self, profiler: ScriptedProfiler, pid: int, *, refuses: bool) -> None:
        self._profiler, self._pid, self._refuses = profiler, pid, refuses

    def await_start(self) -> None:
        self._profiler.on_start(self)
        if self._refuses:
            raise ProfilerError("cannot read process N")

    def request_stop(self) -> None:
        """Nothing runs."""

    def stop(self) -> RawStacks:
        if self._profiler.ends_early:
            self._profiler.ends_early -= 1
            raise ProfilerError("ended early")
        stack = RawStack(self._pid, "MainThread", (RawFrame("predict", __file__, 1),))
        return RawStacks(self._pid, 50 * MS, {stack: 10}, 2)

    def abandon(self) -> None:
        self._profiler.running -= 1
