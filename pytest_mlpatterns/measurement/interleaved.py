"""Two sides measured in the same minutes: deployments of anything, loaded in short blocks that take turns.

A paired launch starts both sides, warms each up, and loads them in rounds of blocks A B B A, one side at a time while
the other stays up; then both are closed. The next launch begins with the other side. What comes out are log ratios;
what they mean is judged elsewhere. This module must not know limits, baselines or pytest.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from pytest_mlpatterns.analysis.log_ratio import (
    LogRatio,
    PairedCapacity,
    PairedLaunch,
    paired_log_ratio,
    wants_more_pairs,
)
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.measurement.block_plan import BlockDesign
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.measurement.variant import Variant, VariantRun, naming
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.units import format_rate
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.records.addressing import Progress
    from pytest_mlpatterns.records.launch import Capacity, Launch
    from pytest_mlpatterns.serving.deployment import Deployment

__all__ = ["InterleavedRun", "Variant"]

_Found = TypeVar("_Found")


class _Running:
    """Deployments that end with the context, all at once: to end takes each of them a while, and nobody's time."""

    def __init__(self) -> None:
        self.deployments: list[Deployment] = []

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *_exception: object) -> None:
        with ThreadPoolExecutor(max_workers=2) as closing:
            done = [closing.submit(deployment.close) for deployment in self.deployments]
        for one in done:
            one.result()


class InterleavedRun:
    """Measures two sides in paired launches, which it keeps.

    Args:
        first: the side below the line of the ratio.
        second: the side above it.
        generator: the process that sends, to one side at a time.
        on_progress: takes a sign of life some times a second.
        rhythm: how a launch spends its time; None for the usual.

    Attributes:
        launches: every paired launch so far.
        second_launches: those of the second side alone, the blocks of each joined.
        capacities: every pair of capacity searches so far.
        spent_s: seconds spent on both.
    """

    def __init__(
        self,
        first: Variant,
        second: Variant,
        generator: Generator,
        on_progress: Callable[[Progress], None],
        rhythm: BlockDesign | None = None,
    ) -> None:
        self.launches: list[PairedLaunch] = []
        self.second_launches: list[Launch] = []
        self.capacities: list[PairedCapacity] = []
        self.spent_s = 0.0
        self._sides = (first, second)
        self._generator = generator
        self._on_progress = on_progress
        self._rhythm = rhythm or BlockDesign()

    @property
    def names(self) -> tuple[str, str]:
        """How the sides are called."""
        first, second = self._sides
        return first.name, second.name

    @property
    def in_flight(self) -> int | None:
        """How many requests each side has in flight at any time, where the load keeps them so."""
        schedule = self._sides[0].plan.schedule
        return schedule.concurrency if isinstance(schedule, ClosedLoop) else None

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
            budget_ns: time that all measuring of this pairing may take; the launches before the first verdict are
                measured whatever they take.
            max_launches: most launches.
            min_launches: launches before the first verdict.

        Returns:
            What the last verdict came to.

        Raises:
            DeploymentError: a side did not start, or died; it is named.
            InvalidResultError: too many requests failed, or the load generator was the limit; the side is named.
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
            if len(found) >= undecided.start and (self.spent_s + each_s) * 1e9 > budget_ns:
                return outcome
            started = time.perf_counter()
            try:
                measure()
            finally:
                self.spent_s += time.perf_counter() - started

    def _measure(self, rhythm: BlockDesign) -> None:
        """One paired launch."""
        began = len(self.launches) % 2
        with _Running() as running:
            started = time.perf_counter()
            turns = []
            for side in self._in_order(began):
                with naming(side):
                    deployment = side.start()
                running.deployments.append(deployment)
                turns.append(VariantRun(side, deployment, self._generator, self._on_progress))
            paces = [turn.warm_up(rhythm.warmup_ns) for turn in turns]
            blocks = rhythm.blocks(paces, time.perf_counter() - started)
            _load(turns, blocks.lengths_ns, blocks.rounds)
            while len(turns[0].rtm_ns) < 4 * blocks.rounds and wants_more_pairs(_disturbed(turns)):
                _load(turns, blocks.lengths_ns, 1)
            for turn in turns:
                turn.end()
            first, second = reversed(turns) if began else turns
            second_launch = second.launch()
        cpu, disturbed = None, _disturbed(turns)
        if all([*first.cpu_ns_per_request, *second.cpu_ns_per_request]):
            cpu = paired_log_ratio(first.cpu_ns_per_request, second.cpu_ns_per_request, disturbed)
        self.second_launches.append(second_launch)
        self.launches.append(
            PairedLaunch(
                rtm=paired_log_ratio(first.rtm_ns, second.rtm_ns, disturbed),
                throughput=paired_log_ratio(first.throughput_rps, second.throughput_rps, disturbed),
                cpu_per_request=cpu,
                first=first.figures(),
                second=second.figures(),
                pairs=len(first.rtm_ns),
                second_began=bool(began),
                repeated=first.repeated + second.repeated,
                disturbed=sum(disturbed),
            )
        )

    def _measure_capacities(self, budget_ns: int) -> None:
        """Both sides started, and searched one after the other for so long each."""
        began = len(self.capacities) % 2
        found: list[Capacity] = []
        with ExitStack() as running:
            benches = []
            for side in self._in_order(began):
                bench = LaunchRunner(side.start, side.plan, self._generator, self._on_progress)
                running.callback(bench.close)
                with naming(side):
                    _ = bench.deployment
                benches.append((side, bench))
            for side, bench in benches:
                with naming(side):
                    capacity = bench.search(lambda _value: False, None, budget_ns)
                if capacity.at_least or capacity.nmrt.value <= 0:
                    raise InvalidResultError(
                        f"{side.name}: NMRT is at least {format_rate(capacity.nmrt.value)}, "
                        f"but not known: {capacity.stopped}"
                    )
                found.append(capacity)
        first, second = reversed(found) if began else found
        value = math.log(second.nmrt.value / first.nmrt.value)
        error = math.hypot(first.nmrt.relative_error, second.nmrt.relative_error)
        self.capacities.append(PairedCapacity(LogRatio(value, error), first, second))

    def _in_order(self, began: int) -> Sequence[Variant]:
        return self._sides[::-1] if began else self._sides


def _load(turns: Sequence[VariantRun], lengths_ns: Sequence[int], rounds: int) -> None:
    """So many rounds of blocks A B B A."""
    for number in range(2 * rounds):
        drawn = max(turn.drawn for turn in turns)  # both go on from the same input
        for place in (0, 1) if number % 2 == 0 else (1, 0):
            turns[place].load(lengths_ns[place], drawn, number)


def _disturbed(turns: Sequence[VariantRun]) -> list[bool]:
    """Which pairs of blocks somebody else disturbed."""
    first, second = turns
    return [one or other for one, other in zip(first.disturbed, second.disturbed, strict=True)]
