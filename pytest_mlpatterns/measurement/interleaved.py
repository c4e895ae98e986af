"""An interleaved run: two variants measured in the same minutes, in short alternating blocks.

A paired launch starts both variants side by side, warms each up, and loads them in rounds of blocks A B B A. One
variant is loaded at a time while the other stays up; then both are closed. Where both are plain closed loops, the two
blocks of a pair are cut into slices of a few answers: a host whose speed changes from one moment to the next slows down
both alike. The next launch begins with the other variant. The results are log ratios. This module must not know limits,
baselines or pytest. Also: ``measurement/paired_blocks.py`` plans the length and number of the blocks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TypeVar

from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.statistics.alpha_spending import FEWEST_PAIRS
from pytest_mlpatterns.analysis.statistics.log_ratio import (
    LogRatio,
    PairedCapacity,
    PairedLaunch,
    wants_more_pairs,
)
from pytest_mlpatterns.errors import GeneratorLimitError, InvalidResultError
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.measurement.paired_blocks import BlockDesign, BlockPlan, block_ratios, own_part
from pytest_mlpatterns.measurement.variant import TRIES, Variant, VariantRun, named_errors, started_deployments
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.launch import Capacity, Launch, SearchEnd
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.units import format_rate
from pytest_mlpatterns.workload.schedule import ClosedLoop

__all__ = ["InterleavedRun", "Variant"]

_One = TypeVar("_One")
_FEWEST_SEARCHES = 2  # Searches of each variant that a budget has time for


class InterleavedRun:
    """Measures two variants in paired launches.

    Args:
        first: denominator of the ratio.
        second: numerator of the ratio.
        design: lengths and number of blocks; None for the default.
        look: called once with both deployments, in the order of the variants, when they run for the first time.

    Attributes:
        second_launches: launches of the second variant.
        second_starts_ns: of the second variant, start by start.
    """

    def __init__(
        self,
        first: Variant,
        second: Variant,
        generator: Generator,
        *,
        on_progress: Callable[[Progress], None],
        design: BlockDesign | None = None,
        look: Callable[[Deployment, Deployment], None] | None = None,
    ) -> None:
        self.launches: list[PairedLaunch] = []
        self.first_launches: list[Launch] = []
        self.second_launches: list[Launch] = []
        self.capacities: list[PairedCapacity] = []
        self.first_starts_ns: list[int] = []
        self.second_starts_ns: list[int] = []
        self.spent_s: float = 0.0
        self._on_launch: Callable[[], None] = lambda: None
        self._enough = 0
        self._variants = (first, second)
        self._generator = generator
        self._on_progress = on_progress
        self._design = design or BlockDesign()
        self._plan: BlockPlan | None = None
        self._look = look

    @property
    def names(self) -> tuple[str, str]:
        """Names of both variants."""
        first, second = self._variants
        return first.name, second.name

    @property
    def in_flight(self) -> int | None:
        """Requests in flight for each variant, as a closed loop keeps them; None for other loads."""
        schedule = self._variants[0].plan.schedule
        return schedule.concurrency if isinstance(schedule, ClosedLoop) else None

    def want_requests(self, enough: int) -> None:
        """A verdict needs this many requests of either side, which the first launches have if that takes little."""
        self._enough = enough

    @property
    def beyond_ns(self) -> int:
        """Time at the end of a budget that launches are not planned for."""
        return self._design.beyond_ns

    def watch(self, on_launch: Callable[[], None]) -> None:
        """Call a function after each paired launch and each pair of searches."""
        self._on_launch = on_launch

    def measure(self, budget_ns: int, fewest: int = FEWEST_PAIRS) -> None:
        """Measure one paired launch, of the ``fewest`` that a budget has time for."""
        self._timed(lambda: self._measure(self._design.within(budget_ns, fewest, self._enough)))
        self._on_launch()

    def search(self, budget_ns: int) -> None:
        """Search for the capacity of both variants once."""
        search_ns = max((budget_ns - self.beyond_ns) // (2 * _FEWEST_SEARCHES), self._design.least_ns)
        self._timed(lambda: self._measure_capacities(search_ns))
        self._on_launch()

    @property
    def start_ns(self) -> float:
        """The time of the last start of both variants side by side; infinite if that is not known."""
        known = (*self.first_starts_ns[-1:], *self.second_starts_ns[-1:])
        launches = (*self.first_launches[-1:], *self.second_launches[-1:])
        return max(known or [one.cold_start_ns or math.inf for one in launches], default=math.inf)

    def start_again(self) -> None:
        """Start both variants once more, side by side as for a launch, and close them without a load."""
        done = len(self.launches) + len(self.first_starts_ns)
        self._timed(lambda: self._start(second_began=bool(done % 2)))

    def _timed(self, measure: Callable[[], None]) -> None:
        started = time.perf_counter()
        try:
            measure()
        finally:
            self.spent_s += time.perf_counter() - started

    def _measure(self, design: BlockDesign) -> None:
        """One paired launch."""
        second_began = bool(len(self.launches) % 2)
        variants = _turned(self._variants, second_began)
        started = time.perf_counter()
        with started_deployments(variants) as running:
            started += self._look_once(*_turned(running, second_began))
            runs = [
                VariantRun(variant, deployment, self._generator, on_progress=self._on_progress)
                for variant, deployment in zip(variants, running, strict=True)
            ]
            paces = [run.warm_up(design.warmup_ns, design.longest_warmup_ns) for run in runs]
            blocks = self._plan or design.blocks(paces, time.perf_counter() - started, runs[0].inputs)
            self._plan = None if blocks.requests is None else blocks  # so that each launch has the same inputs
            _load(runs, blocks, blocks.rounds)
            while blocks.may_be_repeated(len(runs[0].disturbed)) and wants_more_pairs(_disturbed(runs)):
                _load(runs, blocks, 1)
            for run in runs:
                run.end()
            first, second = _turned(runs, second_began)
            launches = [run.launch(with_facts=not self.launches) for run in (first, second)]
        self.first_launches.append(launches[0])
        self.second_launches.append(launches[1])
        self.launches.append(_paired(first, second, second_began=second_began))

    def _start(self, *, second_began: bool) -> None:
        """Start both variants and close them; nothing is noted if the time of one is not known."""
        with started_deployments(_turned(self._variants, second_began)) as running:
            first, second = (deployment.cold_start_ns for deployment in _turned(running, second_began))
        if first is not None and second is not None:
            self.first_starts_ns.append(first)
            self.second_starts_ns.append(second)

    def _measure_capacities(self, budget_ns: int) -> None:
        """Start both variants, and search for the capacity of one after the other, each for ``budget_ns`` at most."""
        second_began = bool(len(self.capacities) % 2)
        found: list[Capacity] = []
        with ExitStack() as running:
            runners = []
            for variant in _turned(self._variants, second_began):
                runner = LaunchRunner(variant.start, variant.plan, self._generator, on_progress=self._on_progress)
                running.callback(runner.close)
                with named_errors(variant):
                    _ = runner.deployment
                runners.append((variant, runner))
            self._look_once(*_turned([runner.deployment for _, runner in runners], second_began))
            for variant, runner in runners:
                with named_errors(variant):
                    capacity = runner.search(lambda _value: False, None, budget_ns)
                if capacity.at_least or capacity.nmrt.value <= 0:
                    by_generator = capacity.end is SearchEnd.GENERATOR
                    raise (GeneratorLimitError if by_generator else InvalidResultError)(
                        f"{variant.name}: {METRICS['nmrt'].label} is at least {format_rate(capacity.nmrt.value)}, but "
                        f"not known: {capacity.stopped}"
                    )
                found.append(capacity)
        first, second = _turned(found, second_began)
        value = math.log(second.nmrt.value / first.nmrt.value)
        error = math.hypot(first.nmrt.relative_error, second.nmrt.relative_error)
        self.capacities.append(PairedCapacity(LogRatio(value, error), first, second))

    def _look_once(self, first: Deployment, second: Deployment) -> float:
        """Let the caller look at both deployments, the first time; the seconds that it took."""
        look, self._look = self._look, None
        began = time.perf_counter()
        if look is not None:
            look(first, second)
        return time.perf_counter() - began


def _turned(both: Sequence[_One], second_began: bool) -> Sequence[_One]:
    """From the order of the variants to the order in which they began, or back."""
    return both[::-1] if second_began else both


def _load(runs: Sequence[VariantRun], blocks: BlockPlan, rounds: int) -> None:
    """Load rounds of blocks A B B A; the blocks of a pair go in slices where both sides can."""
    in_slices = blocks.slices > 1 and runs[0].may_alternate_with(runs[1])
    for number in range(2 * rounds):
        position = max(run.position for run in runs)  # both continue with the same input
        pair = _turned(runs, bool(number % 2))
        lengths_ns = _turned(blocks.slice_ns if in_slices else blocks.lengths_ns, bool(number % 2))
        if in_slices:
            _load_in_slices(pair, lengths_ns, position, core=number, slices=blocks.slices)
            continue
        for run, length_ns in zip(pair, lengths_ns, strict=True):
            run.load(length_ns, position, number, requests=blocks.requests, stagger_ns=blocks.stagger_ns)


def _load_in_slices(
    runs: Sequence[VariantRun], lengths_ns: Sequence[int], position: int, *, core: int, slices: int
) -> None:
    """Measure a block of each variant. A pair in which one of them shows nothing is measured again.

    ``runs``: both, in the order of their slices.
    """
    first, second = runs
    lengths = list(lengths_ns)
    for _ in range(TRIES):
        for run in runs:
            run.begin_block(core)
        job, beside = (run.job_from(position, length_ns) for run, length_ns in zip(runs, lengths, strict=True))
        result = first.send(replace(job, beside=beside, slices=slices), on_window=second.read_usage)
        assert result.beside is not None
        blocks = first.seen(result), second.seen(result.beside)
        invalid = [(run, block) for run, block in zip(runs, blocks, strict=True) if block.why is not None]
        if not invalid:
            break
        lengths = [length_ns * block.length_factor for length_ns, block in zip(lengths, blocks, strict=True)]
    else:
        run, block = invalid[0]
        raise run.never_valid(block)
    for run, block, other in zip(runs, blocks, blocks[::-1], strict=True):
        recording = replace(block.recording, usage=own_part(block.recording, other.recording))
        run.keep(replace(block, recording=recording), position)


def _paired(first: VariantRun, second: VariantRun, *, second_began: bool) -> PairedLaunch:
    """The record of both variants after their last block."""
    disturbed = _disturbed((first, second))
    ratios = block_ratios(first.values, second.values, disturbed)
    return PairedLaunch(
        rtm=ratios.pop("rtm"),
        throughput=ratios.pop("throughput"),
        cpu_per_request=ratios.pop("cpu_per_request", None),
        latency_mean=ratios.pop("latency_mean"),
        streams=ratios,
        first=first.figures(),
        second=second.figures(),
        pairs=len(disturbed),
        second_began=second_began,
        repeated=first.repeated + second.repeated,
        disturbed=sum(disturbed),
        late=first.late or second.late,
    )


def _disturbed(runs: Sequence[VariantRun]) -> list[bool]:
    """For each pair of blocks, whether other processes disturbed one of them."""
    first, second = runs
    return [one or other for one, other in zip(first.disturbed, second.disturbed, strict=True)]
