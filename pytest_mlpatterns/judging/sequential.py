"""Sequential measurement of one test: launches and capacity searches, until a verdict is decided.

An open verdict gets another launch until it is decided, the budget is spent, or the largest number of launches is
reached. A failing verdict that rests on one launch gets a second, even beyond the budget. A launch in which the load
generator was the limit is measured again while the budget allows, and dropped if there are others.

A rate is known no better than launches differ: of one launch to 15 % at best, of two to 6 %, of three to 4 %, however
long it is searched for (:func:`pytest_mlpatterns.analysis.statistics.intervals.estimate`). So the budget is shared by
three short searches, each of a launch of its own, and a failure is confirmed by the second. An update of the baseline
measures until its entry is narrow. This module must not know limits or comparisons.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.health.machine import why_busy
from pytest_mlpatterns.analysis.health.sustained import Fault
from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.metrics.pattern_metrics import NO_INDICES, ScalingIndices
from pytest_mlpatterns.analysis.statistics.alpha_spending import CONFIRMING_LAUNCHES
from pytest_mlpatterns.analysis.verdicts.verdicts import SampleSize, why_invalid
from pytest_mlpatterns.baseline.updates import UPDATE_LAUNCHES, is_narrow, may_be_of_two_kinds, reasons_not_to_record
from pytest_mlpatterns.errors import GeneratorLimitError, InvalidResultError, TooFewSamplesError
from pytest_mlpatterns.measurement.launch import Interrupted, LaunchRunner
from pytest_mlpatterns.records.launch import Capacity, Launch, LaunchValue, SearchEnd
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_mlpatterns.analysis.capacity.overload import OfferedLoad, OverloadPlan
    from pytest_mlpatterns.analysis.metrics.metric import Metric
    from pytest_mlpatterns.measurement.further_load import FollowedGrowth
    from pytest_mlpatterns.records.objective import Objective
    from pytest_mlpatterns.records.price import Price
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.samples import ResourceTrack

_FEWEST_IN_TIME = 3  # Launches that a limit on time does not reduce further
_MOST_IN_VAIN = 3
"""Launches beyond the budget in which the load generator was the limit, until a failure stays unconfirmed."""


class SequentialMeasurement:
    """Measures as many launches as the verdicts of one test need.

    ``price``: of cores and memory; None if there is no cost.

    ``spent_s``: seconds spent on launches and searches so far. ``interleaved_s``: seconds spent on interleaved runs and
    long loads of the same test. ``dropped``: launches that do not count because the load generator was the limit.
    ``growth``: what the last long load found; None without one.
    """

    def __init__(
        self,
        runner: LaunchRunner,
        budget_ns: int,
        max_launches: int,
        *,
        overload: bool = False,
        price: Price | None = None,
    ) -> None:
        self._runner = runner
        self._budget_ns = budget_ns
        self._max_launches = max_launches
        self._max_confirming = min(CONFIRMING_LAUNCHES, max_launches)
        self._overload = overload
        self._excused = False
        self._judged_ns = 0.0
        self._in_vain: list[str] = []
        self._price = price
        self._reserved_ns = 0
        self._launches: list[Launch] = []
        self._capacities: list[Capacity] = []
        self._metrics: Metrics | None = None
        self._indices = NO_INDICES
        self._starts_ns: list[int] = []
        self._tries = 0
        self._launched_s = 0.0
        self.spent_s: float = 0.0
        self.interleaved_s: float = 0.0
        self.dropped: int = 0
        self.growth: FollowedGrowth | None = None

    @property
    def metrics(self) -> Metrics:
        """The metrics over everything so far; the first access measures a launch."""
        self.measure_at_least(1)
        assert self._metrics is not None
        return self._metrics

    @property
    def so_far(self) -> Metrics | None:
        """The metrics over everything so far; None before the first launch."""
        return self._metrics

    def sample_size(self, metric: Metric) -> SampleSize:
        """How much a verdict on a metric rests on so far."""
        return SampleSize(max(len(self.metrics.launch_values(metric)), 1), self.metrics.blocks)

    def excuse_failures(self) -> None:
        """Failed and late requests make no measurement invalid from now on: an assertion on a step judges them."""
        self._excused = True

    def allow_lag_beside(self, judged_ns: float) -> None:
        """From now on a launch is repeated only if the generator's lag matters beside a latency that is judged."""
        self._judged_ns = judged_ns

    def require_valid(self, *, errors_count: bool = True, judged_ns: float = 0.0) -> None:
        """Refuse a measurement that supports no verdict."""
        errors_count = errors_count and not self._excused
        why = why_invalid(self.metrics, errors_count=errors_count, may_refuse=self._overload, judged_ns=judged_ns)
        if why is not None:
            raise (GeneratorLimitError if why.fault is Fault.GENERATOR else InvalidResultError)(str(why))
        if not self._overload and not self._excused and (lags := self.metrics.not_sustained):
            if busy := why_busy(self.metrics.launches):
                raise GeneratorLimitError(f"{lags}, while {busy}; measure again when the machine is quieter")
            raise InvalidResultError(f"{lags}; if the test is meant to overload it, write perf(overload=True)")

    def measure_at_least(self, launches: int, within_ns: int | None = None) -> None:
        """Measure until there are this many launches or the budget is spent, but at least one launch."""

        def is_allowed() -> bool:
            per_launch = self.spent_s / max(self._tries, 1)
            in_time = within_ns is None or (self.spent_s + per_launch) * 1e9 <= within_ns
            return self.may_launch_again() and (in_time or len(self._launches) < _FEWEST_IN_TIME)

        while not self._launches or (len(self._launches) < launches and is_allowed()):
            self.launch_again()

    def measure_while(self, wants_more: Callable[[], bool], launches: int, budgets: int) -> None:
        """Measure one launch after the other while more are wanted."""
        budget_ns, self._budget_ns = self._budget_ns, budgets * self._budget_ns
        try:
            while len(self._launches) < launches and self.may_launch_again() and wants_more():
                self.launch_again()
        finally:
            self._budget_ns = budget_ns

    def measure_again(self, least: int, *, steady: bool = True, is_enough: Callable[[], bool] = lambda: True) -> None:
        """Measure once more as many launches as were disturbed, at least one, and drop the disturbed ones."""
        disturbed = sum(_is_disturbed(launch, steady=steady) for launch in self._launches)
        for _ in range(max(disturbed, 1)):
            if self.may_launch_again():
                self.launch_again()
        everything = list(self._launches)
        quiet = [one for one in everything if one.silence or not _is_disturbed(one, steady=steady)]
        if len(quiet) >= least:
            self._keep(quiet)
            if not is_enough():
                self._keep(everything)

    def take(self, launches: Sequence[Launch], starts_ns: Sequence[int] = (), *, spent_s: float = 0.0) -> None:
        """Adopt the launches of an interleaved run if there are none yet, so that nothing is measured twice.

        ``spent_s``: seconds that the run took.
        """
        self.interleaved_s += spent_s
        if not self._launches and launches:
            self._tries += len(launches)
            self._starts_ns += starts_ns
            self._add(*launches)

    def take_indices(self, indices: ScalingIndices) -> None:
        """Adopt the scalability indices of the same test, of all passes so far, for its metrics."""
        self._indices = indices
        self._add()

    def decide(
        self, judge: Callable[[], Verdict], more: Callable[[], None] | None = None, *, more_s: float | None = None
    ) -> Verdict:
        """As :meth:`decide_all`, for one verdict."""
        (verdict,) = self.decide_all(lambda: [judge()], more, more_s=more_s)
        return verdict

    def decide_all(
        self,
        judge: Callable[[], Sequence[Verdict]],
        more: Callable[[], None] | None = None,
        *,
        at_most: int | None = None,
        more_s: float | None = None,
    ) -> Sequence[Verdict]:
        """Judge, and measure more until a verdict fails or none is open, as far as the budget allows.

        ``more``: measures more; None for another launch. ``at_most``: launches after which open verdicts are returned,
        since something else decides them; None to go on. ``more_s``: least time that ``more`` needs after a launch;
        None for what it took so far.
        """
        while True:
            try:
                verdicts = judge()
            except TooFewSamplesError as error:
                if not self.may_launch_again(more_s):
                    raise with_needed_budget(error, self._launches, self.spent_s) from None
            else:
                outcomes = {verdict.outcome for verdict in verdicts}
                failed = Outcome.FAIL in outcomes
                unconfirmed = failed and len(self._launches) < CONFIRMING_LAUNCHES
                if not unconfirmed and (failed or Outcome.INCONCLUSIVE not in outcomes):
                    return verdicts
                confirms = unconfirmed and more is None and self._may_confirm()
                is_enough = at_most is not None and len(self._launches) >= at_most
                if not confirms and (is_enough or not self.may_launch_again(more_s)):
                    return verdicts
            (more or self.launch_again)()

    def reserve_for_search(self) -> None:
        """Leave half of the budget to the first search, which comes when all else is decided."""
        self._reserved_ns = self._budget_ns // 2

    def search(
        self,
        objective: Objective | None,
        decided: Callable[[LaunchValue], bool] = lambda _value: False,
        *,
        shares: bool = False,
    ) -> None:
        """Search for the capacity of the deployment; a second search for the same objective has a fresh deployment.

        The first one has half of the budget, also if the assertions before it left less.

        ``objective``: latency objective to keep; None for throughput alone.
        """
        if not self._capacities:  # at least half of the budget, also if earlier assertions left less
            self._budget_ns = max(self._budget_ns, round(self.spent_s * 1e9) + self._budget_ns // 2)
        self._reserved_ns = 0
        ended = [one for one in self._capacities if one.objective == objective]
        if any(not one.at_least or one.end is SearchEnd.GENERATOR for one in ended):
            self.launch_again()
        left_ns = max(self._budget_ns - round(self.spent_s * 1e9), 0)
        if objective is not None and shares:
            most = self._max_launches - len(ended)
            left_ns = share_of(
                left_ns, round(self._per_launch_s * 1e9), most, climbs=all(one.at_least for one in ended)
            )
        with self._counted_time():
            self._capacities.append(self._runner.search(decided, objective, left_ns))
        self._add()

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        return max(self._budget_ns / 1e9 - self.spent_s, 0.0)

    @property
    def reachable_launches(self) -> int:
        """Launches that the budget has time for in all, as far as the test allows them."""
        further = max(self.left_s - self._reserved_ns / 1e9, 0.0) / max(self._per_launch_s, 1e-3)
        return max(len(self._launches), min(self._max_launches, len(self._launches) + int(further)))

    def may_launch_again(self, further_s: float | None = None) -> bool:
        """Whether the budget has time for another launch.

        ``further_s``: time that is needed after it; None if each launch so far shows what one takes with all of it.
        """
        if self._is_silent:
            return False
        per_launch = self.spent_s / max(self._tries, 1) if further_s is None else self._per_launch_s + further_s
        budget_ns = self._budget_ns - self._reserved_ns
        return (self.spent_s + per_launch) * 1e9 <= budget_ns and self._started < self._max_launches

    def launch_again(self) -> None:
        """Measure another launch, whose deployment later searches and loads use."""
        launch = self._launch()
        while (limited := self._why_limited(launch)) and self.may_launch_again():
            self.dropped += 1
            launch = self._launch()
        if limited and self._launches:
            self.dropped += 1
            self._in_vain.append(limited)
        else:
            self._add(launch)

    def start_again(self) -> bool:
        """Start the deployment again without a load, and note how long that took.

        Returns False if the budget, or the largest number of launches, allows no further start, or none is known.
        """
        self.measure_at_least(1)
        starts = [*(one.cold_start_ns for one in self._launches), *self._starts_ns]
        if self._is_silent or self._started >= self._max_launches or (last_ns := starts[-1]) is None:
            return False
        if self.spent_s * 1e9 + last_ns > self._budget_ns - self._reserved_ns:
            return False
        with self._counted_time():
            start_ns = self._runner.start_again()
        if start_ns is not None:
            self._starts_ns.append(start_ns)
            self._add()
        return start_ns is not None

    def offer_overload(self, plan: OverloadPlan, nmrt_rps: float) -> tuple[OfferedLoad, ...]:
        """Offer loads beyond the NMRT to the running deployment."""
        with self._counted_time():
            return self._runner.offer_overload(plan, nmrt_rps)

    def follow_growth(self, longest_ns: int, is_decided: Callable[[ResourceTrack], bool]) -> FollowedGrowth:
        """Load the running deployment, beside the budget, until the growth of what it holds is decided."""
        with self.beside_budget():
            self.growth = self._runner.follow_growth(longest_ns, is_decided)
        return self.growth

    @contextmanager
    def beside_budget(self) -> Iterator[None]:
        """Count the time of what the same test measures beside its launches, which its budget does not limit."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.interleaved_s += time.perf_counter() - started

    @property
    def _per_launch_s(self) -> float:
        """Mean time of a launch without what follows it, such as a search."""
        return self._launched_s / max(self._tries, 1)

    @property
    def _is_silent(self) -> bool:
        """Whether a launch fell silent: the test fails, and no further launch changes that."""
        return any(launch.silence for launch in self._launches)

    @property
    def _started(self) -> int:
        """How often the deployment was started, with and without a load."""
        return self._tries + len(self._starts_ns)

    def _may_confirm(self) -> bool:
        """Whether another launch confirms a failure, even beyond the budget."""
        if self._tries - self.dropped >= self._max_confirming:
            return False
        if len(self._in_vain) >= _MOST_IN_VAIN:
            raise GeneratorLimitError(f"no further launch can confirm the failure: {self._in_vain[-1]}")
        return True

    def _why_limited(self, launch: Launch) -> str | None:
        return None if launch.silence else Metrics((launch,)).why_limited(self._judged_ns)

    def _launch(self) -> Launch:
        self._tries += 1
        started = time.perf_counter()
        with self._counted_time():
            try:
                return self._runner.measure()
            except Interrupted as stop:
                self._add(stop.launch)
                raise
            finally:
                self._launched_s += time.perf_counter() - started

    def _add(self, *launches: Launch) -> None:
        self._launches += launches
        self._metrics = Metrics(
            tuple(self._launches), tuple(self._capacities), self._price, self._indices, tuple(self._starts_ns)
        )

    def _keep(self, launches: Sequence[Launch]) -> None:
        """Forget all other launches."""
        self._launches = []
        self._add(*launches)

    @contextmanager
    def _counted_time(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s += time.perf_counter() - started


def _is_disturbed(launch: Launch, *, steady: bool) -> bool:
    """Whether neighbours took time that a launch needed, or its latency had no steady state.

    A warm-up that ended by its limit is no such sign: a service of two modes has no steady windows at all. What goes on
    after it shows as a trend.
    """
    return why_busy([launch]) is not None or (steady and LaunchBlocks(launch).trend() is not None)


SPARE_REQUESTS = 1.1  # Factor on the window that is recommended, since the number of requests varies


def with_needed_budget(error: TooFewSamplesError, launches: Sequence[Launch], spent_s: float) -> TooFewSamplesError:
    """The error with the time of a request and the budget that it takes, if a request is longer than the window.

    ``spent_s``: seconds that all of them took.
    """
    if not launches or launches[-1].given_window_ns is None or not error.found:
        return error
    needed_s = math.ceil(SPARE_REQUESTS * spent_s * error.needed / error.found)
    took = format_duration(launches[-1].longest_answer_ns)
    text = f'{error}; a request takes up to {took}, so give budget="{needed_s}s"'
    return TooFewSamplesError(text, needed=error.needed, found=error.found)


_SEARCHES = 3  # Searches that share the time that is left, each of a launch of its own
_CLIMB_NS = 3_000_000_000  # Time of the climb to the capacity, which only the first search needs
_SHORTEST_NS = 4_000_000_000  # Three windows of a second: a search with less is not made shorter for a further one
_SPARED = 0.95
"""Part of its share that a search plans with, so that what takes longer does not cost the last one its time."""


def share_of(left_ns: int, per_launch_ns: int, most: int, *, climbs: bool) -> int:
    """The time of the next search, which leaves time for further launches and searches."""
    climb_ns = _CLIMB_NS if climbs else 0
    for planned in range(min(_SEARCHES if climbs else _SEARCHES - 1, most), 1, -1):
        share_ns = (left_ns - climb_ns - (planned - 1) * per_launch_ns) / planned
        if share_ns >= _SHORTEST_NS:
            return round(climb_ns + _SPARED * share_ns)
    return left_ns


_LAUNCHES_OF_TWO_KINDS = 12
"""The same where launches settle in one of two ways: chance leaves each of them three of twelve in nearly all runs."""
_FEWEST_UPDATE_LAUNCHES = 3  # Launches of a measurement that is repeated before it is recorded
_UPDATE_NS = 12_000_000_000  # Time for these launches; beyond it there are fewer, if they make the entry narrow enough
_UPDATE_BUDGETS = 2
"""Budgets of the test that an update may take for an entry that is still wide: the default of 30 s twice is time for
eight launches of a service that answers four times a second; a comparison measures four of them."""


def measure_for_the_baseline(
    measurement: SequentialMeasurement, result: Callable[[], TestResult | None], *, steady: bool
) -> None:
    """Measure what an update records; what should not be recorded is measured once more."""

    def is_wide() -> bool:
        found = result()
        return found is not None and not is_narrow(found)

    measurement.measure_at_least(UPDATE_LAUNCHES, within_ns=_UPDATE_NS)

    def lacks_a_kind() -> bool:
        found = result()
        return found is not None and may_be_of_two_kinds(found)

    measurement.measure_while(is_wide, UPDATE_LAUNCHES, _UPDATE_BUDGETS)
    measurement.measure_while(lacks_a_kind, _LAUNCHES_OF_TWO_KINDS, _UPDATE_BUDGETS)
    found = result()
    if found is not None and reasons_not_to_record(found):
        is_known = not (is_wide() or lacks_a_kind())
        measurement.measure_again(
            _FEWEST_UPDATE_LAUNCHES, steady=steady, is_enough=lambda: not is_known or not (is_wide() or lacks_a_kind())
        )
