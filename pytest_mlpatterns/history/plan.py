"""What this machine can see of each test: from unchanged launches to the smallest changes that fail reliably.

The launches come from runs that were made for it (:mod:`pytest_mlpatterns.history.trial_runs`), or from a history. A
tail is no value with a scatter: it is judged by counts of slow requests. So runs are drawn from measured launches, one
side takes longer by a factor, and the verdict itself is asked. This module must not know how launches were measured.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_mlpatterns.analysis.changes.visibility import (
    SEEN,
    Levels,
    Scatter,
    SimulatedRuns,
    differs_less,
    fewest_launches,
    room_of,
    runs_beside_entry,
    runs_of_pairs,
    runs_of_sides,
    scatter_of,
    seen_change,
    seen_tolerance,
)
from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named
from pytest_mlpatterns.analysis.metrics.metric import USUAL_TOLERANCE, Metric, Role
from pytest_mlpatterns.analysis.statistics.intervals import PRIOR_DEGREES, launch_deviation
from pytest_mlpatterns.analysis.statistics.log_ratio import RATIO_PRIOR_DEGREES, RATIO_SD
from pytest_mlpatterns.analysis.statistics.looks import (
    BASELINE_ALPHA,
    CONFIRMING_LAUNCHES,
    CONFIRMING_PAIRS,
    FEWEST_PAIRS,
    REVISION_ALPHA,
    looks_beside_entry,
    looks_of_pairs,
    looks_that_fit,
)
from pytest_mlpatterns.analysis.verdicts.count_comparison import TAIL_ALPHA, judge_tail
from pytest_mlpatterns.analysis.verdicts.tolerances import judged_statistic
from pytest_mlpatterns.analysis.verdicts.verdicts import GUARD_ALPHA
from pytest_mlpatterns.baseline.updates import UPDATE_LAUNCHES
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.records.latency import RequestCounts
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.plan import WANTED_CHANGES, Advice, Help, MetricPlan, Seen, TestPlan
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


__all__ = ["USUAL_LAUNCHES", "Sitting", "TestFacts", "is_judged", "plan_of", "seen_tail"]


Sitting = tuple[tuple[float, float], ...]
"""Launches, or paired ones, that were measured together: logarithm of the value or ratio, and its error."""
_MOST_LAUNCHES = 16
"""Launches beside a stored baseline up to which a budget is given: more hardly know a change better, since the launches
of the entry stay the same."""
_MOST_PAIRS = 24
"""Paired launches up to which a budget is given: the most looks that a comparison plans."""
_LONG_NS = 3_600_000_000_000
"""Budget that bounds no number of looks."""
USUAL_LAUNCHES = 8
"""Launches of a comparison whose time is not known: the most that a test takes by default."""
_WIDEST_ADVISED = 0.5
"""Largest tolerance that is advised; a wider one gates nothing."""
_MOSTLY = 0.5
"""Share of the variance between launches from which it comes from within them."""


@dataclass(frozen=True, slots=True)
class TestFacts:
    """What is known of a test.

    Attributes:
        test: its id.
        tolerances: of the metrics that a comparison judges, by name.
        launches: of each metric, sitting by sitting.
        pairs: ratios of paired launches of each metric, sitting by sitting; empty if none were measured.
        budget_ns: time that a comparison may measure; None if it is not known.
        most_launches: that a comparison with a stored baseline takes.
        recorded: launches of the baseline entry, or those that one will have.
        launch_s: seconds that a launch takes; None if that is not known.
        pair_s: seconds that a pair takes; None if that is not known.
        in_flight: requests that a closed loop keeps in flight; None for other loads.
        has_cores: whether the deployment has a fixed number of cores.
        undecided: runs of a history that were undecided, and all of them; None without a history.
        counts: requests of launches as a comparison with a revision measures them; empty if they are not known.
    """

    __test__ = False

    test: str
    tolerances: Mapping[str, float]
    launches: Mapping[str, tuple[Sitting, ...]]
    pairs: Mapping[str, tuple[Sitting, ...]] = field(default_factory=dict)
    budget_ns: int | None = None
    most_launches: int = USUAL_LAUNCHES
    recorded: int = UPDATE_LAUNCHES
    launch_s: float | None = None
    pair_s: float | None = None
    in_flight: int | None = None
    has_cores: bool = False
    undecided: tuple[int, int] | None = None
    counts: tuple[RequestCounts, ...] = ()

    @property
    def fitting_launches(self) -> int:
        """Launches beside a stored baseline that the budget has time for; a failure is confirmed even beyond it."""
        if self.budget_ns is None or not self.launch_s:
            return self.most_launches
        return min(max(int(self.budget_ns / 1e9 / self.launch_s), CONFIRMING_LAUNCHES), self.most_launches)

    @property
    def fitting_pairs(self) -> int:
        """Paired launches that the budget has time for; the first look needs three even beyond it."""
        if self.budget_ns is None or not self.pair_s:
            return USUAL_LAUNCHES
        return min(max(int(self.budget_ns / 1e9 / self.pair_s), FEWEST_PAIRS), _MOST_PAIRS)


def plan_of(facts: TestFacts) -> TestPlan | None:
    """What is seen of a test; None if no metric has a sitting of two launches."""
    judged = [one for name in facts.tolerances if (one := _judged(facts, name)) is not None]
    primary = sum(not one.is_guard for one in judged)
    found = [_metric_plan(facts, one, primary=max(primary, 1)) for one in judged]
    if not found:
        return None
    found += [tail for name in facts.tolerances if (tail := _tail_plan(facts, name)) is not None]
    planned = {one.metric for one in found}
    sittings = max((facts.launches[one.statistic.name] for one in judged), key=_count)
    return TestPlan(
        test=facts.test,
        budget_s=None if facts.budget_ns is None else facts.budget_ns / 1e9,
        recorded=facts.recorded,
        launch_s=facts.launch_s,
        pair_s=facts.pair_s,
        launches=_count(sittings),
        pairs=max((_count(one) for one in facts.pairs.values()), default=0),
        sittings=len(sittings),
        metrics=tuple(_with_other_metric(one, found) for one in found),
        left_out=tuple(name for name in facts.tolerances if name not in planned),
        undecided=facts.undecided,
    )


def _count(sittings: Sequence[Sitting]) -> int:
    return sum(map(len, sittings))


@dataclass(frozen=True, slots=True)
class _Judged:
    """A metric that is judged launch by launch.

    Attributes:
        metric: which one.
        statistic: what is judged in its place, such as the location of the same times; or the metric itself.
        tolerance: largest acceptable worsening.
        scatter: of the launches.
        before: geometric mean of the launches.
    """

    metric: Metric
    statistic: Metric
    tolerance: float
    scatter: Scatter
    before: float

    @property
    def is_guard(self) -> bool:
        """Whether it fails only if it is surely worse."""
        return Role.GUARD in self.metric.roles or Role.ALWAYS_GUARD in self.metric.roles

    @property
    def better(self) -> Literal["lower", "higher"]:
        """Which values are better."""
        return self.metric.better


def _judged(facts: TestFacts, name: str) -> _Judged | None:
    """The metric with its scatter; None if launches do not show it, or counts of requests are judged in its place."""
    if not is_known_metric(name):
        return None
    metric = metric_named(name)
    if metric.is_tail or metric.resource or metric.of is None or not metric.launch_sd or not facts.launches.get(name):
        return None
    statistic = judged_statistic(metric, lambda of: _deviation(facts.launches.get(of.name, ())))
    sittings = facts.launches[statistic.name]
    scatter = scatter_of(sittings, statistic.launch_sd, PRIOR_DEGREES)
    if scatter is None:
        return None
    before = math.exp(fmean(level for sitting in sittings for level, _ in sitting))
    return _Judged(metric, statistic, facts.tolerances[name], scatter, before)


def _deviation(sittings: Sequence[Sitting]) -> float:
    """By how much a launch deviates; infinite without launches."""
    if not sittings:
        return math.inf
    return launch_deviation(*[[LaunchValue(math.exp(level), error) for level, error in one] for one in sittings])


@dataclass(frozen=True, slots=True)
class _Comparison:
    """How one metric is judged in one kind of comparison.

    Attributes:
        runs: unchanged runs.
        launches: that today's budget has time for.
        levels: of a number of launches and a tolerance.
        counts: numbers of launches that a budget may be given for, at a tolerance.
        scatter: that the runs have.
        each_s: seconds that one of these launches takes; None if that is not known.
        known: margins that were computed.
    """

    runs: SimulatedRuns
    launches: int
    levels: Callable[[int, float], Levels]
    counts: Callable[[float], range]
    scatter: Scatter
    each_s: float | None
    known: dict[Levels, float] = field(default_factory=dict)

    def margin(self, launches: int, tolerance: float) -> float:
        """How far beyond its tolerance a change is seen."""
        levels = self.levels(launches, tolerance)
        if levels not in self.known:
            self.known[levels] = self.runs.margin(levels)
        return self.known[levels]

    def launches_for(self, room: float, tolerance: float) -> int | None:
        """The smallest number of launches with which that much room suffices; None if there is none."""
        if room <= 0:
            return None
        return fewest_launches(lambda launches: self.margin(launches, tolerance), room, self.counts(tolerance))


def _beside_entry(facts: TestFacts, judged: _Judged, alpha: float) -> _Comparison:
    """The comparison with a stored baseline."""
    runs = runs_beside_entry(
        judged.scatter, recorded=facts.recorded, launches=_MOST_LAUNCHES, prior_sd=judged.statistic.launch_sd
    )

    def levels(launches: int, _tolerance: float) -> Levels:
        if judged.is_guard:
            return Levels.of_guard(GUARD_ALPHA, launches, first=1, confirmed=CONFIRMING_LAUNCHES)
        looks = looks_beside_entry(facts.recorded, launches=max(launches, facts.most_launches), alpha=alpha)
        return Levels.of_plan(looks, launches, confirmed=CONFIRMING_LAUNCHES)

    launches = min(facts.fitting_launches, _MOST_LAUNCHES)
    counts = range(CONFIRMING_LAUNCHES, _MOST_LAUNCHES + 1)
    return _Comparison(runs, launches, levels, lambda _tolerance: counts, judged.scatter, facts.launch_s)


def _with_revision(facts: TestFacts, judged: _Judged, alpha: float) -> _Comparison:
    """The comparison with a revision: of paired launches, or of the launches of both sides."""
    if Role.PAIRED in judged.metric.roles:
        return _of_pairs(facts, judged, alpha)
    runs = runs_of_sides(judged.scatter, launches=_MOST_PAIRS, prior_sd=judged.statistic.launch_sd)

    def levels(launches: int, _tolerance: float) -> Levels:
        return Levels.of_guard(GUARD_ALPHA, launches, first=FEWEST_PAIRS, confirmed=FEWEST_PAIRS)

    counts = range(FEWEST_PAIRS, _MOST_PAIRS + 1)
    return _Comparison(runs, facts.fitting_pairs, levels, lambda _tolerance: counts, judged.scatter, facts.pair_s)


def _of_pairs(facts: TestFacts, judged: _Judged, alpha: float) -> _Comparison:
    scatter = _scatter_of_pairs(facts, judged) or judged.scatter.side_by_side()
    level = GUARD_ALPHA if judged.is_guard else alpha

    def levels(launches: int, tolerance: float) -> Levels:
        planned = looks_of_pairs(tolerance, level, _LONG_NS)
        looks = replace(looks_that_fit(planned, launches * 10**9, 1.0), pass_alpha=REVISION_ALPHA)
        return Levels.of_plan(looks, launches, confirmed=CONFIRMING_PAIRS, is_guard=judged.is_guard)

    def counts(tolerance: float) -> range:
        return range(FEWEST_PAIRS, looks_of_pairs(tolerance, level, _LONG_NS).last + 1)

    return _Comparison(
        runs_of_pairs(scatter, launches=_MOST_PAIRS), facts.fitting_pairs, levels, counts, scatter, facts.pair_s
    )


def _scatter_of_pairs(facts: TestFacts, judged: _Judged) -> Scatter | None:
    """The scatter of the ratios that were measured; None if there are too few.

    Few pairs may be alike by chance. So their prior is what the ratio of two launches differs by if they share nothing.
    It is the usual one if the pairs differ by less than chance explains: both sides then share what disturbs them.
    """
    name = judged.metric.name
    if not facts.pairs.get(name):
        return None
    statistic = judged_statistic(judged.metric, lambda of: _deviation(facts.pairs.get(of.name, ())))
    apart = math.sqrt(2 * max(judged.scatter.found**2 - judged.scatter.within**2, 0.0))
    pairs = facts.pairs[statistic.name]
    prior_sd = RATIO_SD if apart < RATIO_SD or differs_less(pairs, apart) else apart
    return scatter_of(pairs, prior_sd, RATIO_PRIOR_DEGREES)


def _metric_plan(facts: TestFacts, judged: _Judged, *, primary: int) -> MetricPlan:
    file = _beside_entry(facts, judged, BASELINE_ALPHA / primary)
    revision = _with_revision(facts, judged, REVISION_ALPHA / primary)
    seen = {kind: _seen(facts, judged, one) for kind, one in (("file", file), ("revision", revision))}
    if not seen["file"].sees(judged.tolerance):
        seen["file"] = _advised(
            facts, judged, file, seen=seen["file"], by_revision=seen["revision"].sees(judged.tolerance)
        )
    if not seen["revision"].sees(judged.tolerance):
        seen["revision"] = _advised(facts, judged, revision, seen=seen["revision"])
    return MetricPlan(judged.metric.name, judged.tolerance, file=seen["file"], revision=seen["revision"])


def _tail_plan(facts: TestFacts, name: str) -> MetricPlan | None:
    """What a revision shows of a percentile beyond the median; None if it has too few requests, is none, or is of a
    class of callers."""
    metric = metric_named(name) if is_known_metric(name) else None
    if metric is None or metric.percentile is None or not metric.is_tail or metric.caller_class:
        return None
    tolerance, launches = facts.tolerances[name], facts.fitting_pairs
    if not is_judged(facts.counts, metric.percentile, launches=launches, tolerance=tolerance):
        return None
    scatter = scatter_of(facts.launches.get(name, ()), metric.launch_sd, PRIOR_DEGREES)
    change = seen_tail(facts.counts, metric.percentile, launches=launches, tolerance=tolerance)
    seen = Seen(change, 0.0 if scatter is None else scatter.found, launches, None, ())
    if not seen.sees(tolerance):
        seen = replace(seen, advice=(Advice(Help.DURATION),))
    return MetricPlan(name, tolerance, file=None, revision=seen)


def _smallest(facts: TestFacts) -> float:
    """The smallest tolerance of the primary metrics, by which the looks of a comparison with a revision are planned."""
    primary = [
        tolerance
        for name, tolerance in facts.tolerances.items()
        if is_known_metric(name) and Role.PRIMARY in metric_named(name).roles
    ]
    return min(primary, default=USUAL_TOLERANCE)


def _seen(facts: TestFacts, judged: _Judged, comparison: _Comparison) -> Seen:
    """What a comparison sees today, and the launches that the wanted changes take."""

    def allowed(tolerance: float) -> float:
        return judged.metric.allowed(tolerance, judged.before, facts.in_flight)

    margin = comparison.margin(comparison.launches, _smallest(facts))
    needed = [
        comparison.launches_for(room_of(allowed(change / 2), change, judged.better), change / 2)
        for change in WANTED_CHANGES
    ]
    return Seen(
        change=seen_change(margin, allowed(judged.tolerance), judged.better),
        differs_by=comparison.scatter.found,
        launches=comparison.launches,
        seen_tolerance=seen_tolerance(margin, judged.better),
        needed=tuple(needed),
    )


def _advised(
    facts: TestFacts, judged: _Judged, comparison: _Comparison, *, seen: Seen, by_revision: bool = False
) -> Seen:
    """The same with what helps to see twice the tolerance, the surest first."""
    allowed = judged.metric.allowed(judged.tolerance, judged.before, facts.in_flight)
    room = room_of(allowed, 2 * judged.tolerance, judged.better)
    advice = [Advice(Help.REVISION)] if by_revision else []
    needed = comparison.launches_for(room, _smallest(facts))
    if needed is not None and needed > seen.launches:
        advice.append(_more_launches(facts, needed, comparison.each_s))
    is_within = comparison.scatter.within**2 > _MOSTLY * comparison.scatter.found**2
    if is_within:
        advice.append(Advice(Help.DURATION))
    elif not facts.has_cores:
        advice.append(Advice(Help.CORES))
    if seen.seen_tolerance is not None and seen.seen_tolerance <= _WIDEST_ADVISED:
        advice.append(Advice(Help.TOLERANCE, seen.seen_tolerance))
    return replace(seen, advice=tuple(advice))


def _more_launches(facts: TestFacts, needed: int, each_s: float | None) -> Advice:
    """More time for these launches, or more of them than the test allows."""
    if each_s is None or (each_s == facts.launch_s and needed > facts.most_launches):
        return Advice(Help.LAUNCHES, needed)
    return Advice(Help.BUDGET, math.ceil(needed * each_s))


def _with_other_metric(plan: MetricPlan, found: Sequence[MetricPlan]) -> MetricPlan:
    """The plan of a primary metric with the advice to judge another one that is seen, if there is one."""
    if Role.PRIMARY not in metric_named(plan.metric).roles:
        return plan
    others = [one for one in found if one.metric != plan.metric and Role.PAIRED in metric_named(one.metric).roles]

    def advised(seen: Seen | None, seen_of: Callable[[MetricPlan], Seen | None]) -> Seen | None:
        if seen is None or seen.sees(plan.tolerance):
            return seen
        better = [one.metric for one in others if (other := seen_of(one)) is not None and other.sees(one.tolerance)]
        if not better:
            return seen
        return replace(seen, advice=(*seen.advice, Advice(Help.METRIC, metric=better[0])))

    return replace(
        plan,
        file=advised(plan.file, lambda one: one.file),
        revision=advised(plan.revision, lambda one: one.revision),
    )


_RUNS = 40
"""Drawn runs; each verdict takes a few milliseconds."""
_STEPS = 7
"""Halvings of the range in which the change of a run is looked for: it is found to three percent."""
_WIDEST = 3.0
"""Logarithm of the largest factor that is looked for: 20."""
_SEED = 33
"""Seed of the draws, so that the same launches give the same answer."""


def is_judged(counts: Sequence[RequestCounts], percentile: float, *, launches: int, tolerance: float) -> bool:
    """Whether a run of this many launches has enough requests for the percentile.

    Args:
        counts: of launches that were measured; empty if they are not known.
        percentile: 99 for p99.
        launches: of each side.
        tolerance: largest acceptable worsening, as a share.
    """
    if not counts:
        return False
    side = [counts[number % len(counts)] for number in range(launches)]
    try:
        judge_tail(side, side, percentile=percentile, tolerance=tolerance)
    except InvalidResultError:  # also too few requests
        return False
    return True


def seen_tail(counts: Sequence[RequestCounts], percentile: float, *, launches: int, tolerance: float) -> float | None:
    """The smallest factor on all times, less 1, with which the percentile fails in 95 % of runs; None if none does.

    Args:
        counts: see :func:`is_judged`.
        percentile: see :func:`is_judged`.
        launches: of each side.
        tolerance: largest acceptable worsening, as a share.
    """
    draw = np.random.default_rng(_SEED)
    found = []
    for _ in range(_RUNS):
        first, second = ([counts[one] for one in draw.integers(0, len(counts), launches).tolist()] for _ in range(2))
        found.append(_fails_from(first, second, percentile, tolerance=tolerance))
    factor = float(np.quantile(found, SEEN, method="higher"))
    return math.expm1(factor) if factor < _WIDEST else None


def _fails_from(
    first: Sequence[RequestCounts], second: Sequence[RequestCounts], percentile: float, *, tolerance: float
) -> float:
    """The logarithm of the factor on the times of the second side from which it fails; infinite if none does."""

    def fails(factor: float) -> bool:
        slower = [_slower(one, math.exp(factor)) for one in second]
        found = judge_tail(first, slower, percentile=percentile, tolerance=tolerance, alpha=TAIL_ALPHA)
        return found.outcome is Outcome.FAIL

    low, high = 0.0, _WIDEST
    try:
        if not fails(high):
            return math.inf
    except InvalidResultError:  # the percentile of the drawn reference falls among its failed requests
        return math.inf
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    return high


def _slower(launch: RequestCounts, factor: float) -> RequestCounts:
    """The same launch with longer times."""
    latencies: Counter[int] = Counter()
    for latency, number in launch.latencies.items():
        latencies[round(latency * factor)] += number
    return RequestCounts(launch.requests, launch.failed, dict(latencies))
