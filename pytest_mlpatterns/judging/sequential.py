"""Sequential measurement of one test: its launches, searches and further loads, until a verdict is decided.

An open verdict gets another launch until it is decided, the budget is spent, or the largest number of launches is
reached. A failing verdict that rests on one launch gets a second, even beyond the budget. A launch that does not count
(:mod:`pytest_mlpatterns.judging.dropped_launches`) is measured again while the budget allows.

A rate is known no better than launches differ: of one launch to 15 % at best, of two to 6 %, of three to 4 %, however
long it is searched for (:func:`pytest_mlpatterns.analysis.statistics.intervals.estimate`). So the budget is shared by
three short searches, each of a launch of its own, and a failure is confirmed by the second. An update of the baseline
measures until its entry is narrow. This module must not know limits or comparisons.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pytest_mlpatterns.analysis.health.machine import why_busy
from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import CONFIRMING_LAUNCHES, FEWEST_PAIRS, MOST_LOOKS
from pytest_mlpatterns.analysis.verdicts.few_samples import with_needed_budget
from pytest_mlpatterns.analysis.verdicts.verdicts import why_invalid
from pytest_mlpatterns.baseline.updates import UPDATE_LAUNCHES, is_narrow, may_be_of_two_kinds, reasons_not_to_record
from pytest_mlpatterns.errors import GeneratorLimitError, InvalidResultError, TooFewSamplesError
from pytest_mlpatterns.judging.budget import (
    LAUNCHES,
    LEAST_SEARCH_NS,
    PAIRS,
    Budget,
    Cost,
    Forecast,
    Spending,
    forecast,
    share_of,
)
from pytest_mlpatterns.judging.dropped_launches import is_disturbed, why_dropped
from pytest_mlpatterns.judging.loop import Ruling, Supply, Want, decide, ruling_of
from pytest_mlpatterns.measurement.launch import Interrupted, LaunchRunner
from pytest_mlpatterns.records.launch import Launch, LaunchValue, SearchEnd
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.samples import ResourceTrack
from pytest_mlpatterns.records.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.capacity.overload import OfferedLoad, OverloadPlan
    from pytest_mlpatterns.measurement.further_load import FollowedGrowth
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun

_FEWEST_IN_TIME = 3  # Launches that a limit on time does not reduce further
_LEAST_GROWTH_NS = 2_000_000_000  # Load that follows a suspected growth, if less is left of the budget


class SequentialMeasurement:
    """Measures as many launches as the verdicts of one test need.

    ``runner``: of its deployments. ``spending``: of the test's time. ``overload``: whether the service is meant to
    refuse requests and to stay behind. ``price``: of cores and memory; None if there is no cost. ``announce``: takes
    what the test may take, after each launch and pair.

    For reports, ``dropped``: launches that do not count because the load generator was the limit. ``growth``: what the
    last long load found; None without one. ``forecast``: what was announced last; None before the first launch.
    """

    def __init__(
        self,
        runner: LaunchRunner,
        spending: Spending,
        max_launches: int,
        *,
        overload: bool = False,
        price: Price | None = None,
        announce: Callable[[Forecast], None] = lambda _forecast: None,
    ) -> None:
        self.runner: LaunchRunner = runner
        self.spending: Spending = spending
        self.cost: Cost = Cost(launched_ns=spending.budget.spent_ns)  # of a start
        self.dropped: int = 0
        self.growth: FollowedGrowth | None = None
        self.forecast: Forecast | None = None
        self._max_launches = max_launches
        self._may_overload = overload
        self._excuses_failures = False  # whether an assertion on a step judges failed and late requests
        self._judged_ns = 0.0  # latency that is judged, beside which a lag of the generator matters; 0: that measured
        self._found = Metrics((), price=price)
        self._announce = announce

    @property
    def metrics(self) -> Metrics:
        """The metrics over everything so far; the first access measures a launch."""
        self.measure_at_least(1)
        return self._found

    @property
    def so_far(self) -> Metrics | None:
        """The metrics over everything so far; None before the first launch."""
        return self._found if self._found.launches else None

    @property
    def budget(self) -> Budget:
        """What the test may take, and what it has taken."""
        return self.spending.budget

    @property
    def took_ns(self) -> int:
        """The time that everything took, also what is beside the budget."""
        return self.budget.spent_ns + self.spending.beside_ns

    def launches_with(self, metric: Metric) -> int:
        """The launches that a verdict on a metric rests on so far."""
        return max(len(self.metrics.launch_values(metric)), 1)

    def excuse_failures(self) -> None:
        """Failed and late requests make no measurement invalid from now on: an assertion on a step judges them."""
        self._excuses_failures = True

    def allow_lag_beside(self, judged_ns: float) -> None:
        """From now on a launch is repeated only if the generator's lag matters beside a latency that is judged."""
        self._judged_ns = judged_ns

    def require_valid(self, *, errors_count: bool = True, judged_ns: float = 0.0) -> None:
        """Refuse a measurement that supports no verdict."""
        metrics, excused = self.metrics, self._excuses_failures
        errors_count = errors_count and not excused
        why = why_invalid(metrics, errors_count=errors_count, may_refuse=self._may_overload, judged_ns=judged_ns)
        if why is not None:
            raise why.error()
        if not self._may_overload and not excused and (lags := metrics.not_sustained):
            if busy := why_busy(metrics.launches):
                raise GeneratorLimitError(f"{lags}, while {busy}; measure again when the machine is quieter")
            raise InvalidResultError(f"{lags}; if the test is meant to overload it, write perf(overload=True)")

    def measure_at_least(self, launches: int) -> None:
        """Measure until there are this many launches or the planned time is spent, but at least one launch."""

        def look() -> Ruling:
            return Ruling("launch" if len(self._found.launches) < launches else None, fewest=1)

        decide(look, {"launch": self._supply}, lambda: self.budget.planned)

    def measure_again(self, least: int, *, steady: bool = True, is_enough: Callable[[], bool] = lambda: True) -> None:
        """Measure once more as many launches as were disturbed, at least one, and drop the disturbed ones."""
        disturbed = sum(is_disturbed(launch, steady=steady) for launch in self._found.launches)
        for _ in range(max(disturbed, 1)):
            if self.may_launch_again():
                self.launch_again()
        everything = self._found.launches
        quiet = tuple(one for one in everything if one.silence or not is_disturbed(one, steady=steady))
        if len(quiet) >= least:
            self.adopt(launches=quiet)
            if not is_enough():
                self.adopt(launches=everything)

    def take(self, run: InterleavedRun) -> None:
        """Adopt the second side of an interleaved run if there is no launch yet, so that nothing is measured twice."""
        if not self._found.launches and run.second_launches:
            self.cost = self.cost.plus(launches=len(run.second_launches), launched_ns=round(run.spent_s * 1e9))
            starts_ns = (*self._found.starts_ns, *run.second_starts_ns)
            self.adopt(launches=tuple(run.second_launches), starts_ns=starts_ns)

    def watch(self, run: InterleavedRun) -> None:
        """Announce what the test may take after each pair of an interleaved run."""

        def foresee() -> None:
            done = len(run.launches) + len(run.capacities)
            self._foresee(done, run.spent_s * 1e9 / done, fewest=FEWEST_PAIRS, what=PAIRS)

        run.watch(foresee)
        if run.launches or run.capacities:  # made for an earlier comparison of the test
            foresee()
        elif self.cost.launches:  # a pair takes about as long: its sides start side by side
            self._foresee(0, self.cost.launch_ns, fewest=FEWEST_PAIRS, what=PAIRS)

    def time_of(self, run: InterleavedRun) -> int:
        """The time that an interleaved run of the test may take in all: what it took, and what the budget has left."""
        return round(run.spent_s * 1e9) + self.budget.left_ns

    def adopt(self, **found: Any) -> None:
        """Note figures of the same test: fields of its metrics, such as counted instructions or scalability indices."""
        self._found = dataclasses.replace(self._found, **found)

    def decide(
        self,
        judge: Callable[[], Sequence[Verdict]],
        more: Callable[[], None] | None = None,
        *,
        more_s: float | None = None,
        is_sure: Callable[[], bool] = lambda: False,
    ) -> Sequence[Verdict]:
        """Judge, and measure more until a verdict fails or none is open, as far as the budget allows.

        ``more``: measures more; None for another launch. ``more_s``: least time that ``more`` needs after a launch;
        None for what it took so far. ``is_sure``: whether a failure is so clear that only the planned time confirms it.
        """
        wants: Want = "launch" if more is None else "search"
        fewest = self.confirming if more is None else 0

        def look() -> Ruling:
            try:
                verdicts = judge()
                has_time = self.budget.planned.allows(self.cost.each_ns)
                is_clear = any(one.outcome is Outcome.FAIL for one in verdicts) and is_sure()
                is_confirmed = self.is_confirmed or (not has_time and is_clear)
                found = ruling_of(verdicts, wants, is_confirmed=is_confirmed, fewest=fewest)
                return replace(found, is_clear=is_clear)
            except TooFewSamplesError as error:
                return Ruling(wants, fewest=fewest, why_not=error)

        return self.rule(look, more, more_s=more_s).verdicts

    @property
    def is_confirmed(self) -> bool:
        """Whether a failure rests on two launches."""
        return len(self._found.launches) >= CONFIRMING_LAUNCHES

    @property
    def confirming(self) -> int:
        """Launches and starts until a failure is confirmed, beside those that do not count so far."""
        return CONFIRMING_LAUNCHES + self._supply.done() - len(self._found.launches)

    def rule(
        self, look: Callable[[], Ruling], more: Callable[[], object] | None = None, *, more_s: float | None = None
    ) -> Ruling:
        """Measure what a look wants, as far as the budget allows; the last look. Arguments as above."""
        limited: list[str] = []

        def again() -> None:
            limited[:] = filter(None, [self.launch_again()])

        launches = replace(self._supply, measure=again)
        searches = replace(launches, measure=more or again)
        if more_s is not None:
            searches = replace(searches, each_ns=lambda: self.cost.launch_ns + more_s * 1e9)
        starts = replace(launches, measure=self._start_again, each_ns=lambda: self._last_start_ns)
        ruling = decide(look, {"launch": launches, "search": searches, "start": starts}, lambda: self.budget)
        if ruling.why_not is not None:
            raise with_needed_budget(ruling.why_not, self._found.launches, self.budget.spent_ns) from None
        if ruling.wants and ruling.fewest and limited:
            raise GeneratorLimitError(f"no further launch can confirm the failure: {limited[0]}")
        return ruling

    def search(
        self,
        objective: Objective | None,
        decided: Callable[[LaunchValue], bool] = lambda _value: False,
        *,
        shares: bool = False,
    ) -> None:
        """Search for the capacity of the deployment; a second search for the same objective has a fresh deployment.

        The first one has the time that every search needs, also if the assertions before it left less; a further one
        has it while the budget does.

        ``objective``: latency objective to keep; None for throughput alone.
        """
        self.spending.keep(0)
        ended = [one for one in self._found.capacities if one.objective == objective]
        if any(not one.at_least or one.end is SearchEnd.GENERATOR for one in ended):
            self.launch_again()
        planned = self.budget.planned
        left_ns = max(planned.left_ns, min(self.budget.left_ns, LEAST_SEARCH_NS))
        if not self._found.capacities:
            left_ns = max(left_ns, min(planned.limit_ns // 2, LEAST_SEARCH_NS))
        if objective is not None and shares:
            most = self._max_launches - len(ended)
            left_ns = share_of(left_ns, self.cost.launch_ns, most, climbs=all(one.at_least for one in ended))
        with self._further():
            found = self.runner.search(decided, objective, left_ns)
        self.adopt(capacities=(*self._found.capacities, found))

    @property
    def reachable_launches(self) -> int:
        """Launches, one at least, that the planned time has room for in all, as far as the test allows them."""
        done, most = len(self.metrics.launches), self._max_launches
        return forecast(self.budget.planned, done, self.cost.launch_ns, fewest=done, most=most, what=LAUNCHES).number

    def may_launch_again(self, fewest: int = 0) -> bool:
        """Whether the budget has time for another launch; ``fewest`` are measured in any case."""
        return self._supply.may_go_on(self.budget, fewest)

    def launch_again(self) -> str:
        """Measure another launch, whose deployment later searches and loads use.

        Returns why it was dropped, if the load generator was the limit of it and of those that replaced it; else empty.
        """
        launch = self._launch()
        while (limited := why_dropped(launch, self._judged_ns)) and self.may_launch_again():
            self.dropped += 1
            launch = self._launch()
        if limited and self._found.launches:
            self.dropped += 1
            return limited
        self.adopt(launches=(*self._found.launches, launch))
        return ""

    @property
    def _last_start_ns(self) -> float:
        last = [*(one.cold_start_ns for one in self._found.launches), *self._found.starts_ns][-1]
        return math.inf if last is None else last

    def _start_again(self) -> None:
        """Start the deployment again without a load, and note how long that took."""
        with self._further():
            start_ns = self.runner.start_again()
        if start_ns is not None:
            self.adopt(starts_ns=(*self._found.starts_ns, start_ns))

    def offer_overload(self, plan: OverloadPlan, nmrt_rps: float) -> tuple[OfferedLoad, ...]:
        """Offer loads beyond the NMRT to the running deployment."""
        with self._further():
            return self.runner.offer_overload(plan, nmrt_rps)

    def follow_growth(
        self, longest_ns: int, is_decided: Callable[[ResourceTrack], bool], *, is_asked: bool = False
    ) -> FollowedGrowth:
        """Load the running deployment until the growth of what it holds is decided.

        ``is_asked``: whether the test asks for such a load, which then takes its time in any case.
        """
        most_ns = longest_ns if is_asked else min(longest_ns, max(self.budget.left_ns, _LEAST_GROWTH_NS))
        with self.spending.counted():
            self.growth = self.runner.follow_growth(most_ns, is_decided)
        return self.growth

    @property
    def _supply(self) -> Supply:
        """Further launches; after one that fell silent there are none, since the test fails and none changes that."""

        def started() -> int:
            is_silent = any(launch.silence for launch in self._found.launches)
            return self._max_launches if is_silent else self.cost.launches + len(self._found.starts_ns)

        return Supply(self.launch_again, started, self._max_launches, lambda: self.cost.each_ns)

    def _launch(self) -> Launch:
        began = self.spending.clock()
        with self.spending.counted():
            try:
                return self.runner.measure()
            except Interrupted as stop:
                self.adopt(launches=(*self._found.launches, stop.launch))
                raise
            finally:
                self.cost = self.cost.plus(launches=1, launched_ns=self.spending.clock() - began)
                self._foresee(self._supply.done(), self.cost.each_ns, fewest=1, most=self._max_launches)

    def _foresee(
        self, done: int, each_ns: float, *, fewest: int, most: int = MOST_LOOKS, what: tuple[str, str] = LAUNCHES
    ) -> None:
        self.forecast = forecast(self.budget, done, each_ns, fewest=fewest, most=most, what=what)
        self._announce(self.forecast)

    @contextmanager
    def _further(self) -> Iterator[None]:
        """Count the time of what follows a launch."""
        began = self.spending.clock()
        with self.spending.counted():
            try:
                yield
            finally:
                self.cost = self.cost.plus(further_ns=self.spending.clock() - began)


_LAUNCHES_OF_TWO_KINDS = 12
"""Launches of an update that settle in one of two ways: of twelve, chance leaves each way three in nearly all runs."""
_FEWEST_UPDATE_LAUNCHES = 3  # Launches of a measurement that is repeated before it is recorded
_UPDATE_NS = 12_000_000_000
"""Time for these launches; beyond it there are fewer, if they make the entry narrow enough. If a service settles in one
of two ways at even chances, four launches miss one of them in 12 % of entries, and eight in 0.8 %."""


def measure_for_the_baseline(
    measurement: SequentialMeasurement, result: Callable[[], TestResult | None], *, steady: bool
) -> None:
    """Measure what an update records, in the planned time; what should not be recorded is measured once more.

    So an update takes no longer than a comparison which the file leaves open. An entry that is still wide decides
    little by itself; the code that it was recorded from decides then.
    """

    def shows(reason: Callable[[TestResult], object]) -> bool:
        found = result()
        return found is not None and bool(reason(found))

    def lacks() -> bool:
        return shows(lambda found: not is_narrow(found)) or shows(may_be_of_two_kinds)

    def may_launch_within(limit_ns: int) -> bool:
        return replace(measurement.budget, limit_ns=limit_ns).allows(measurement.cost.each_ns)

    def look() -> Ruling:
        done = len(measurement.metrics.launches)
        in_time = done < _FEWEST_IN_TIME or may_launch_within(_UPDATE_NS)
        is_short = done < UPDATE_LAUNCHES and (in_time or shows(lambda found: not is_narrow(found)))
        wants_more = is_short or (done < _LAUNCHES_OF_TWO_KINDS and shows(may_be_of_two_kinds))
        budget = measurement.budget if done < CONFIRMING_LAUNCHES else measurement.budget.planned
        return Ruling("launch" if wants_more and may_launch_within(budget.limit_ns) else None)

    measurement.rule(look)
    if shows(reasons_not_to_record):
        is_known = not lacks()
        measurement.measure_again(_FEWEST_UPDATE_LAUNCHES, steady=steady, is_enough=lambda: not is_known or not lacks())
