"""Two sides measured in the same minutes: deployments of anything, loaded in short blocks that take turns.

A paired launch starts both sides, warms each up, and loads them in rounds of blocks A B B A, one side at a time while
the other stays up; then both are closed. The next launch begins with the other side. What comes out are log ratios;
what they mean is judged elsewhere. This module must not know limits, baselines or pytest.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pytest_mlpatterns.blocks import completions_between
from pytest_mlpatterns.errors import DeploymentError, UncountableResultError
from pytest_mlpatterns.load.job import Progress, describe_failures
from pytest_mlpatterns.load.samples import samples_of
from pytest_mlpatterns.load.schedule import ClosedLoop
from pytest_mlpatterns.measure import Bench, _job
from pytest_mlpatterns.metrics import why_limited
from pytest_mlpatterns.observe import Observer
from pytest_mlpatterns.ratio import LogRatio, PairedCapacity, PairedLaunch, SideFigures, paired_log_ratio
from pytest_mlpatterns.records import Outcome
from pytest_mlpatterns.rhythm import Pace, Rhythm, pace_of
from pytest_mlpatterns.units import format_percent, format_rate
from pytest_mlpatterns.verdict import MAX_ERROR_RATIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.load.generator import Generator
    from pytest_mlpatterns.load.job import Event, Recorded
    from pytest_mlpatterns.load.schedule import Schedule
    from pytest_mlpatterns.measure import LoadPlan
    from pytest_mlpatterns.records import Capacity, Samples
    from pytest_mlpatterns.serve.deployment import Deployment

__all__ = ["Pairing", "Side"]

_POLL_S = 0.1
_TRIES = 5
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: how messages call it, what starts it, and what is sent to it. A check of the plan is not made."""

    name: str
    start: Callable[[], Deployment]
    plan: LoadPlan


class Pairing:
    """Measures two sides in paired launches, which it keeps.

    Args:
        first: the side below the line of the ratio.
        second: the side above it.
        generator: the process that sends, to one side at a time.
        on_progress: takes a sign of life some times a second.
        rhythm: how a launch spends its time; None for the usual.

    Attributes:
        launches: every paired launch so far.
        capacities: every pair of capacity searches so far.
        spent_s: seconds spent on both.
    """

    def __init__(
        self,
        first: Side,
        second: Side,
        generator: Generator,
        on_progress: Callable[[Progress], None],
        rhythm: Rhythm | None = None,
    ) -> None:
        self.launches: list[PairedLaunch] = []
        self.capacities: list[PairedCapacity] = []
        self.spent_s = 0.0
        self._sides = (first, second)
        self._generator = generator
        self._on_progress = on_progress
        self._rhythm = rhythm or Rhythm()

    @property
    def names(self) -> tuple[str, str]:
        """How the sides are called."""
        first, second = self._sides
        return first.name, second.name

    def decide(
        self,
        judge: Callable[[Sequence[PairedLaunch]], Outcome],
        budget_ns: int,
        *,
        max_launches: int,
        min_launches: int = 3,
    ) -> Outcome:
        """Judge after every launch, and measure until that is decided, the budget is spent, or the last launch is done.

        Launches that are there already are judged first.

        Args:
            judge: judges all launches so far.
            budget_ns: time that all measuring of this pairing may take; one launch is measured whatever it takes.
            max_launches: most launches.
            min_launches: launches before the first judgement.

        Returns:
            What the last judgement came to; INCONCLUSIVE where the time was up before the first.

        Raises:
            DeploymentError: a side did not start, or died; it is named.
            UncountableResultError: too many requests failed, or the load generator was the limit; the side is named.
        """
        longest_ns = min(self._rhythm.launch_ns, budget_ns // min_launches)
        rhythm = replace(self._rhythm, launch_ns=longest_ns)
        return self._decide(
            self.launches, lambda: self._measure(rhythm), judge, budget_ns, range(min_launches, max_launches)
        )

    def decide_nmrt(
        self,
        judge: Callable[[Sequence[PairedCapacity]], Outcome],
        budget_ns: int,
        *,
        max_launches: int,
        min_launches: int = 2,
    ) -> Outcome:
        """As :meth:`decide`, over pairs of capacity searches."""
        search_ns = budget_ns // (2 * min_launches)
        return self._decide(
            self.capacities,
            lambda: self._measure_capacities(search_ns),
            judge,
            budget_ns,
            range(min_launches, max_launches),
        )

    def _decide(
        self,
        found: Sequence[_Found],
        measure: Callable[[], None],
        judge: Callable[[Sequence[_Found]], Outcome],
        budget_ns: int,
        undecided: range,
    ) -> Outcome:
        while True:
            outcome = judge(found) if len(found) >= undecided.start else Outcome.INCONCLUSIVE
            if outcome is not Outcome.INCONCLUSIVE or len(found) >= undecided.stop:
                return outcome
            each_s = self.spent_s / max(len(self.launches) + len(self.capacities), 1)
            if found and (self.spent_s + each_s) * 1e9 > budget_ns:
                return outcome
            started = time.perf_counter()
            try:
                measure()
            finally:
                self.spent_s += time.perf_counter() - started

    def _measure(self, rhythm: Rhythm) -> None:
        """One paired launch."""
        began = len(self.launches) % 2
        with ExitStack() as running:
            started = time.perf_counter()
            turns = []
            for side in self._in_order(began):
                with _naming(side):
                    deployment = side.start()
                running.callback(deployment.close)
                turns.append(_Turn(side, deployment, self._generator, self._on_progress))
            paces = [turn.warm_up(rhythm.warmup_ns) for turn in turns]
            blocks = rhythm.blocks(paces, time.perf_counter() - started)
            for number in range(2 * blocks.rounds):
                drawn = max(turn.drawn for turn in turns)  # both go on from the same input
                for place in (0, 1) if number % 2 == 0 else (1, 0):
                    turns[place].load(blocks.lengths_ns[place], drawn)
            for turn in turns:
                turn.end()
        first, second = reversed(turns) if began else turns
        cpu = None
        if all([*first.cpu_ns_per_request, *second.cpu_ns_per_request]):
            cpu = paired_log_ratio(first.cpu_ns_per_request, second.cpu_ns_per_request)
        self.launches.append(
            PairedLaunch(
                rtm=paired_log_ratio(first.rtm_ns, second.rtm_ns),
                throughput=paired_log_ratio(first.throughput_rps, second.throughput_rps),
                cpu_per_request=cpu,
                first=first.figures(),
                second=second.figures(),
                pairs=len(first.rtm_ns),
                second_began=bool(began),
                repeated=first.repeated + second.repeated,
            )
        )

    def _measure_capacities(self, budget_ns: int) -> None:
        """Both sides started, and searched one after the other for so long each."""
        began = len(self.capacities) % 2
        found: list[Capacity] = []
        with ExitStack() as running:
            benches = []
            for side in self._in_order(began):
                bench = Bench(side.start, side.plan, self._generator, self._on_progress)
                running.callback(bench.close)
                with _naming(side):
                    _ = bench.deployment
                benches.append((side, bench))
            for side, bench in benches:
                with _naming(side):
                    capacity = bench.search(lambda _value: False, None, budget_ns)
                if capacity.at_least or capacity.nmrt.value <= 0:
                    raise UncountableResultError(
                        f"{side.name}: NMRT is at least {format_rate(capacity.nmrt.value)}, "
                        f"but not known: {capacity.stopped}"
                    )
                found.append(capacity)
        first, second = reversed(found) if began else found
        value = math.log(second.nmrt.value / first.nmrt.value)
        error = math.hypot(first.nmrt.relative_error, second.nmrt.relative_error)
        self.capacities.append(PairedCapacity(LogRatio(value, error), first, second))

    def _in_order(self, began: int) -> Sequence[Side]:
        return self._sides[::-1] if began else self._sides


class _Turn:
    """One side while it runs: its blocks so far, and where in its inputs the next one begins."""

    def __init__(
        self, side: Side, deployment: Deployment, generator: Generator, on_progress: Callable[[Progress], None]
    ) -> None:
        self.drawn = 0
        self.repeated = 0
        self.rtm_ns: list[float] = []
        self.throughput_rps: list[float] = []
        self.cpu_ns_per_request: list[float] = []
        self._requests = 0
        self._failures: Counter[int] = Counter()
        self._side = side
        self._deployment = deployment
        self._generator = generator
        self._on_progress = on_progress
        self._observer = Observer(lambda: deployment.pids)
        plan = replace(side.plan, check=None, warmup_ns=0)
        self._job = _job(deployment, plan, deployment.messages(plan.payload))
        self._order = array("I", self._job.order) or array("I", range(len(self._job.messages)))

    def warm_up(self, shortest_ns: int) -> Pace:
        """Load the side for a while, and see how it answers."""
        schedule = self._job.schedule
        whole = schedule.length_ns is not None  # it is the course of a block, not of a warm-up
        length_ns = max(shortest_ns, self._side.plan.warmup_ns or 0)
        recorded = self._drive(ClosedLoop(1) if whole else schedule, length_ns, 0)
        samples = samples_of(recorded)
        if not samples.succeeded.any():
            self._refuse(samples)
        latency_ns = (samples.done_ns - samples.due_ns)[samples.succeeded]
        return pace_of(schedule, float(np.median(latency_ns)))

    def load(self, length_ns: int, drawn: int) -> None:
        """Measure one block, from this input on.

        One in which the load generator was the limit is measured again, one in which every caller only waited for
        longer, both only so often.

        Raises:
            UncountableResultError: that did not help, or nothing succeeded.
        """
        for _ in range(_TRIES):
            self._observer.sample()
            recorded = self._drive(self._job.schedule, length_ns, drawn)
            self._observer.sample()
            samples = samples_of(recorded)
            inside = samples.due_in(recorded.window)
            good = inside & samples.succeeded
            if inside.any() and not good.any():
                self._refuse(samples)
            why = self._why_limited(recorded, samples, good)
            if why is None:
                break
            self.repeated += 1
            length_ns *= 1 if inside.any() else 2
        else:
            raise UncountableResultError(f"{self._side.name}: in {_TRIES} blocks in a row {why}")
        latency_ns = float(np.median((samples.done_ns - samples.due_ns)[good]))
        self.drawn = drawn + samples.outcome.size
        self._count(samples)
        edges = np.array([recorded.window.start_ns, recorded.window.end_ns], dtype=np.float64)
        counts, spans_ns = completions_between(samples.done_ns[samples.succeeded], edges)
        self.rtm_ns.append(latency_ns)
        answered = counts[0] / spans_ns[0] if counts[0] else good.sum() / recorded.window.duration_ns
        self.throughput_rps.append(float(answered * 1e9))
        usage = self._observer.usage()
        used_ns = 0 if usage is None else int(usage.cpu_ns[-1] - usage.cpu_ns[-2])
        self.cpu_ns_per_request.append(used_ns / int(samples.succeeded.sum()))

    def end(self) -> None:
        """After the last block: see that the side is alive, and that not too much of what it was asked failed.

        Raises:
            DeploymentError: one of its processes died.
            UncountableResultError: over 5 % of the requests failed.
        """
        with _naming(self._side):
            self._deployment.stats()
        if self._failures.total() > MAX_ERROR_RATIO * self._requests:
            raise UncountableResultError(
                f"{self._side.name}: {self._failures.total():,} of {self._requests:,} requests failed "
                f"({describe_failures(self._failures)}); "
                f"over {format_percent(MAX_ERROR_RATIO)} the others say nothing about the service"
            )

    def figures(self) -> SideFigures:
        """What is reported of this side."""
        cpu_ns = median(self.cpu_ns_per_request)
        return SideFigures(
            rtm_ns=median(self.rtm_ns),
            throughput_rps=median(self.throughput_rps),
            cpu_ns_per_request=cpu_ns or None,
            requests=self._requests,
            failed=self._failures.total(),
        )

    def _drive(self, schedule: Schedule, length_ns: int, drawn: int) -> Recorded:
        def on_poll(event: Event | None) -> None:
            if isinstance(event, Progress):
                self._on_progress(event)

        start = drawn % len(self._order)
        order = (self._order[start:] + self._order[:start]).tobytes()
        job = replace(self._job, schedule=schedule, duration_ns=length_ns, order=order)
        return self._generator.run(job, poll_s=_POLL_S, on_poll=on_poll, processes=self._side.plan.generators)

    def _why_limited(self, recorded: Recorded, samples: Samples, good: NDArray[np.bool_]) -> str | None:
        """Why a block says nothing about the side; None where it does."""
        if not good.any():
            return "no request was due; measure with more load"
        latency_ns = samples.done_ns - samples.due_ns
        lag_ns = None
        if not self._job.schedule.closed:
            lag_ns = (samples.sent_ns - samples.due_ns)[samples.due_in(recorded.window)]
        ceiling = self._generator.ceiling_rps if self._job.remote is None else None
        report = replace(recorded.generator, ceiling_rps=ceiling)
        limited = why_limited(report, send_lag_ns=lag_ns, latency_ns=float(np.median(latency_ns[good])))
        return limited and f"{limited}; lower the load, or share it: perf(generators=2)"

    def _count(self, samples: Samples) -> None:
        self._requests += samples.outcome.size
        self._failures.update(samples.outcome[~samples.succeeded].tolist())

    def _refuse(self, samples: Samples) -> None:
        """Say why a block in which requests failed and nothing succeeded supports no verdict."""
        self._count(samples)
        self.end()
        failures = Counter(samples.outcome[~samples.succeeded].tolist())
        raise UncountableResultError(
            f"{self._side.name}: nothing succeeded in a block, {failures.total():,} failed "
            f"({describe_failures(failures)})"
        )


@contextmanager
def _naming(side: Side) -> Iterator[None]:
    """A deployment that fails says which side it is."""
    try:
        yield
    except DeploymentError as error:
        raise type(error)(f"{side.name}: {error}") from error
