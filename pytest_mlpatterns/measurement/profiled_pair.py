"""One more interleaved pair with a profiler at the serving processes of both sides: where their time goes.

Both variants start side by side and are warmed up. Then follow rounds of blocks A B B A, in which the profiler looks at
the processes of the side that is loaded. Before the first and after the last round each side is loaded without it,
which shows how much it slows a request down. A side that ran alone has rounds of one block. Nothing here enters a
verdict.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from statistics import fmean, variance

import psutil
from msgspec import Struct

from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE, t_quantile
from pytest_mlpatterns.errors import ProfilerError
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement.paired_blocks import ResponsePace
from pytest_mlpatterns.measurement.variant import Variant, VariantRun, named_errors, started_deployments
from pytest_mlpatterns.patterns.request_clock import CALLS
from pytest_mlpatterns.profiling.frame_names import MODEL, SourceNames
from pytest_mlpatterns.profiling.py_spy import PySpy, PySpyRecording
from pytest_mlpatterns.profiling.stack_times import SERVER, SampledStacks, awaited_stacks, balanced, sampled_stacks
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.profile import ProfiledBlock, ProfiledRun, StackTime
from pytest_mlpatterns.records.telemetry import AWAITS, AwaitedTime, PatternStats, awaited_times
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.system.thread_times import thread_owners
from pytest_mlpatterns.units import format_duration

_TRIES = 3  # Attempts to record one block; the load repeats a block in which the load generator was the limit
_LAYER = "split"


class ProfilingPlan(Struct, frozen=True):
    """How long and how often a pair is recorded."""

    # time from the start of the deployments to the end of the last round; the fewest rounds are kept
    most_s: float = 6.5
    rounds: int = 4
    fewest: int = 3
    block_ns: int = 200_000_000
    answers: int = 20  # answers that a block should have; blocks get longer for it, as far as there is time
    warmup_ns: int = 100_000_000
    rate_hz: int = 500  # looks a second at the only process of a side
    shared_hz: int = 1_000  # looks a second at all processes of a side together, if it has several
    least_hz: int = 100  # looks a second at each of them, at least

    def rate_of(self, processes: int) -> int:
        """Looks a second at each of this many processes."""
        return self.rate_hz if processes == 1 else max(self.shared_hz // max(processes, 1), self.least_hz)

    def lengths_ns(self, paces: Sequence[ResponsePace], left_s: float) -> list[int]:
        """The length of the blocks of each side. ``left_s``: seconds that are left for all blocks."""
        blocks = 2 * self.fewest + 2  # of each side, with the two without the profiler
        room_ns = max(left_s, self.most_s / 4) * 1e9 / (blocks * len(paces))
        lengths = []
        for pace in paces:
            if (pace.length_ns or 0) > room_ns:
                raise ProfilerError(
                    f"a turn of its load takes {format_duration(pace.length_ns or 0)}, and {blocks} of them are more "
                    f"than the {self.most_s:g} s that a profile may take"
                )
            wanted = max(self.block_ns, min(self.answers * pace.interval_ns, room_ns))
            lengths.append(pace.length_ns or int(max(wanted, 2 * pace.cycle_ns)))
        return lengths


class ProfiledSide(Struct, frozen=True):
    """One side of the pair."""

    variant: Variant
    names: SourceNames


class ProfiledPair:
    """Records a pair of variants, or one alone. ``before``: the reference; None without one."""

    def __init__(
        self,
        now: ProfiledSide,
        before: ProfiledSide | None,
        *,
        generator: Generator,
        profiler: PySpy,
        on_progress: Callable[[Progress], None],
        plan: ProfilingPlan | None = None,
    ) -> None:
        self._sides = [now] if before is None else [before, now]
        self._generator = generator
        self._profiler = profiler
        self._on_progress = on_progress
        self._plan = plan or ProfilingPlan()

    def run(self) -> ProfiledRun:
        """Start the sides, record them, and close them."""
        started = time.perf_counter()
        with started_deployments([side.variant for side in self._sides]) as running:
            sides = [
                _Recorded(
                    side,
                    deployment,
                    VariantRun(side.variant, deployment, self._generator, on_progress=self._on_progress),
                    profiler=self._profiler,
                    plan=self._plan,
                )
                for side, deployment in zip(self._sides, running, strict=True)
            ]
            paces = [side.run.warm_up(self._plan.warmup_ns) for side in sides]
            lengths = self._plan.lengths_ns(paces, self._plan.most_s - (time.perf_counter() - started))
            _load_each(sides, lengths)
            for done in range(self._plan.rounds):
                each_s = (time.perf_counter() - started) / (done + 1)  # the start counts as a round
                if done >= self._plan.fewest and time.perf_counter() - started + each_s > self._plan.most_s:
                    break
                _record_round(sides, lengths)
            _load_each(reversed(sides), reversed(lengths))
            for side in sides:
                side.run.end()
            return self._found(sides)

    def _found(self, sides: Sequence[_Recorded]) -> ProfiledRun:
        """What was recorded; the processes still run."""
        found = [side.blocks(blocks) for side, blocks in zip(sides, balanced([s.sampled for s in sides]), strict=True)]
        return ProfiledRun(
            now=found[-1],
            before=found[0] if len(found) > 1 else (),
            profiler=self._profiler.name,
            rate_hz=sides[-1].rate_hz,
            slowdown=_slowdown([side.run.values["rtm"] for side in sides]),
            notes=tuple(dict.fromkeys(note for side in sides for note in side.notes)),
            libraries=sides[-1].libraries(),
        )


class _Recorded:
    """One side while it is recorded. ``rate_hz``: looks a second at each process, in the last block."""

    def __init__(
        self, side: ProfiledSide, deployment: Deployment, run: VariantRun, *, profiler: PySpy, plan: ProfilingPlan
    ) -> None:
        self.run = run
        self.rate_hz = 0
        self.notes: list[str] = []
        self._side = side
        self._deployment = deployment
        self._profiler = profiler
        self._plan = plan
        self._unreadable: set[int] = set()
        self.sampled: list[SampledStacks] = []
        self._requests: list[int] = []
        self._stats_of: list[PatternStats] = []

    def record(self, length_ns: int, position: int, core: int) -> None:
        """Load one block while the profiler looks."""
        error = ProfilerError(f"{self._side.variant.name}: {_TRIES} turns in a row had to be repeated")
        for _ in range(_TRIES):
            repeated = self.run.repeated
            with ExitStack() as recordings:
                looking = self._looking(recordings)
                before = self._stats()
                self.run.load(length_ns, position, core)
                after = self._stats()
                for recording in looking:
                    recording.request_stop()
                try:
                    found = [recording.stop() for recording in looking]
                except ProfilerError as ended:
                    error = ended
                    continue
            if self.run.repeated == repeated:
                break
        else:
            raise error
        self.sampled.append(sampled_stacks(found, self._deployment.roles, self._side.names))
        self._requests.append(max(self.run.position - position, 1))
        self._stats_of.append(after.since(before))

    def blocks(self, balanced: Sequence[SampledStacks]) -> tuple[ProfiledBlock, ...]:
        """The recorded blocks, with these stacks."""
        recorded = zip(balanced, self._requests, self._stats_of, strict=True)
        return tuple(
            ProfiledBlock(
                (*sampled.stacks, *self._waits(stats)),
                requests,
                calls_in(stats),
                sampled.samples,
                sampled.lost,
                sampled.cpu_ns,
                None if sampled.native is None else sampled.native.cpu_ns,
                0 if sampled.native is None else len(sampled.native.busy),
            )
            for sampled, requests, stats in recorded
        )

    def libraries(self) -> tuple[str, ...]:
        """What started the busy threads without Python code, the most threads first; read while no load runs."""
        busy = {one for sampled in self.sampled if sampled.native is not None for one in sampled.native.busy}
        found: Counter[str] = Counter()
        for pid in {pid for pid, _ in busy}:
            found.update(thread_owners(pid, [thread for one, thread in sorted(busy) if one == pid]).values())
        return tuple(name for name, _ in found.most_common())

    def _waits(self, stats: PatternStats) -> Iterator[StackTime]:
        """The waits of coroutines, in the process of the model, which was started first."""
        role = next(iter(self._deployment.roles.values()), SERVER)
        return awaited_stacks(awaits_in(stats), role, self._side.names)

    def _stats(self) -> PatternStats:
        with named_errors(self._side.variant):
            return self._deployment.stats()

    def _looking(self, recordings: ExitStack) -> list[PySpyRecording]:
        """Recordings of all processes that can be read, which look."""
        pids = [pid for pid in _python_processes(self._deployment.pids) if pid not in self._unreadable]
        self.rate_hz = self._plan.rate_of(len(pids))
        started = []
        for pid in pids:
            recording = self._profiler.start(pid, self.rate_hz)
            recordings.callback(recording.abandon)
            started.append((pid, recording))
        looking = []
        error = ProfilerError(f"{self._side.variant.name} has no process that runs Python")
        for pid, recording in started:
            try:
                recording.await_start()
            except ProfilerError as refusal:
                error = refusal
                self._unreadable.add(pid)
                self.notes.append(str(refusal))
            else:
                looking.append(recording)
        if not looking:
            raise error
        return looking


def _load_each(sides: Iterable[_Recorded], lengths_ns: Iterable[int]) -> None:
    """Load a block of each side without the profiler."""
    for side, length_ns in zip(sides, lengths_ns, strict=True):
        side.run.load(length_ns, side.run.position)


def _record_round(sides: Sequence[_Recorded], lengths_ns: Sequence[int]) -> None:
    """Record blocks A B B A."""
    for number in (0, 1):
        position = max(side.run.position for side in sides)  # both continue with the same input
        for index in range(len(sides)) if number == 0 else reversed(range(len(sides))):
            sides[index].record(lengths_ns[index], position, number)


def _python_processes(roots: Sequence[int]) -> list[int]:
    """The processes below these that run Python, the roots included."""
    found: dict[int, None] = {}
    for root in roots:
        try:
            process = psutil.Process(root)
            for one in (process, *process.children(recursive=True)):
                if _runs_python(one):
                    found[one.pid] = None
        except psutil.Error:  # it has ended: the load finds that out
            continue
    return [*found]


def _runs_python(process: psutil.Process) -> bool:
    try:
        return "python" in process.exe().rpartition("/")[2].lower()
    except psutil.Error:
        return False


def _slowdown(latencies: Sequence[Sequence[float]]) -> Estimate | None:
    """Latency with the profiler over that without it, which is in the first and the last block of each side."""
    if any(len(blocks) < 4 for blocks in latencies):
        return None
    logs = [[math.log(one) for one in blocks] for blocks in latencies]
    value = fmean(fmean(blocks[1:-1]) - fmean((blocks[0], blocks[-1])) for blocks in logs)
    spread = fmean(variance(blocks[1:-1]) for blocks in logs)
    profiled = sum(len(blocks) - 2 for blocks in logs)
    error = math.sqrt(spread * (1 / profiled + 1 / (2 * len(logs))))
    half = t_quantile(CONFIDENCE, profiled - len(logs)) * error
    return Estimate(math.exp(value), math.exp(value - half), math.exp(value + half))


def calls_in(stats: PatternStats) -> dict[str, float]:
    """Calls of all models together, by the name of their boundary in a stack; empty if the deployment counts none.

    A stack does not show which stage or model of a process it belongs to, so their calls are added.
    """
    layers = [layer for layer in stats.layers if layer.layer == _LAYER]
    counters = [(name, value) for layer in layers for name, value in layer.counters.items()]
    calls = sum(value for name, value in counters if name.rpartition("/")[2] == CALLS)
    return {MODEL: float(calls)} if layers else {}


def awaits_in(stats: PatternStats) -> Iterator[AwaitedTime]:
    """Where coroutines of models waited."""
    for layer in stats.layers:
        if layer.layer == AWAITS:
            yield from awaited_times(layer.counters)
