"""Which pattern to choose: the patterns of one test in order, with what excludes them and how sure the order is.

The framework's selection step (Emanuilov & Dimov 2025): requirements exclude first, and so does an invalid result;
the remaining patterns are scored. A requirement whose interval contains the limit is reported and excludes nothing; a
requirement on an unknown metric excludes the pattern.

With ``x_ij`` the value of metric j under pattern i and ``b_j`` the best value among the patterns,

    r_ij = b_j / x_ij where lower is better, x_ij / b_j where higher is better     (0 < r_ij <= 1)
    s_i  = product over j of r_ij ** w_j,  with the weights w_j summing to 1       (0 < s_i <= 1)

which is the weighted product model (Bridgman 1922; Miller & Starr 1969), a weighted geometric mean of shares of the
best. The ratio of two scores holds the values of these two patterns only: it changes neither with the units nor with
which other patterns were measured, where min-max normalisation and sums of it flip orders when an alternative is added.
For the same reason geometric means are the ones that summarise normalised benchmarks (Fleming & Wallace, CACM 1986).
The price: a score is a bargain, not a quantity; what may not be bargained away is a requirement. Values below what a
comparison takes seriously (5 µs, a share of 1 %) count as that: nothing is infinitely better for being nearly zero.

How sure: every metric's interval over launches is drawn from again, 4,000 times, as Student's t of its logarithm. The
metrics of one pattern move together, since a slow launch is slow in all of them; a search for NMRT, which is another
measurement, by itself. The patterns were measured one after the other while the machine drifts, so each draw moves a
pattern as a whole by 2.5 % more (:data:`DRIFT_SD`). The first is surely ahead of another if it is in 97.5 % of draws.
Of simulated pairs with that drift, two that are the same are separated in 2 to 5 %, and two that differ by a fifth in
everything in 95 to 99 %, with one to four launches.

Pure. Draws are seeded by the id of the test: the same values give the same ranking, and the draws of
one pattern do not depend on the other patterns.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.capacity.scaling import why_unknown
from pytest_mlpatterns.analysis.choice.criteria import Requirement, SelectionCriteria
from pytest_mlpatterns.analysis.metrics.definitions import metric_named, objectives_of, priced_metric
from pytest_mlpatterns.analysis.metrics.metric import AtNmrt, Metric, Nmrt
from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE, PRIOR_DEGREES, t_quantile
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_limit, why_too_many_failed
from pytest_mlpatterns.records.launch import Capacity, Estimate
from pytest_mlpatterns.records.result import RankedPattern, Ranking, TestResult
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.units import Unit
from pytest_mlpatterns.wording import listed

_GENERATOR = (
    "the load generator was the limit, so it may be better than its figures; share the load: perf(generators=2)"
)
"""Doubt on a pattern whose figures show the load generator."""


class Unmeasured(Struct, frozen=True):
    """A test that failed before it gave a result: its id, its group's, and its pattern."""

    test: str
    group: str
    pattern: str


def rank(
    results: Sequence[TestResult], criteria: SelectionCriteria, unmeasured: Sequence[Unmeasured] = ()
) -> tuple[Ranking, ...]:
    """Rank the patterns of every test that was measured under several.

    ``results``: of a whole run; of one test that ran more than once, the last counts. Returns one ranking for each test
    with at least two patterns, in the order in which the tests ran.
    """
    groups: dict[str, dict[str, TestResult]] = defaultdict(dict)
    absent: dict[str, dict[str, Unmeasured]] = defaultdict(dict)
    for result in results:
        groups[result.definition.group][result.test] = result
    for one in unmeasured:
        if one.test not in groups[one.group]:
            absent[one.group][one.test] = one
    return tuple(
        _rank_group(group, tuple(members.values()), criteria, absent=tuple(absent[group].values()))
        for group, members in groups.items()
        if len(members) + len(absent[group]) > 1
    )


class _Candidate(Struct, frozen=True):
    """A pattern before it is ranked."""

    name: str
    result: TestResult
    costs: Mapping[str, Cost]
    excluded: str | None
    open_requirements: tuple[str, ...]
    doubts: tuple[str, ...]

    def total(self, weights: Mapping[str, float]) -> float:
        """The logarithm of one over the score, up to a constant that all patterns share."""
        return sum(weight * self.costs[name].value for name, weight in weights.items())


def _rank_group(
    group: str, results: Sequence[TestResult], criteria: SelectionCriteria, *, absent: Sequence[Unmeasured]
) -> Ranking:
    wires = len({result.setup.wire for result in results}) > 1
    candidates = [_candidate(result, criteria, named_by_wire=wires) for result in results]
    able = [one for one in candidates if one.excluded is None]
    unknown = [name for name in criteria.weights if not any(name in one.costs for one in able)] if able else []
    weights = {name: weight for name, weight in criteria.weights.items() if name not in unknown}
    weights = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    candidates = [_with_gaps_excluded(one, weights) for one in candidates]
    ranked = _ordered([one for one in candidates if one.excluded is None], weights)
    rows = [row for row, _ in ranked]
    level = [row.pattern for row, may_lead in ranked if may_lead]
    rows += [
        RankedPattern(one.result.test, one.name, None, None, {}, one.excluded, one.doubts)
        for one in candidates
        if one.excluded is not None
    ]
    missing = "not measured: its test failed"
    rows += [RankedPattern(one.test, one.pattern, None, None, {}, missing) for one in absent]
    return Ranking(
        group=group,
        weights=weights,
        requirements=tuple(requirement.text for requirement in criteria.requirements),
        sentence=_sentence(rows, level, {one.name: one.open_requirements for one in candidates}),
        rows=tuple(rows),
        notes=_notes(unknown, candidates),
    )


def _notes(unknown: Sequence[str], candidates: Sequence[_Candidate]) -> tuple[str, ...]:
    notes = []
    if unknown:
        labels = ", ".join(metric_named(name).label for name in unknown)
        reasons = ["pytest --perf-rank searches for NMRT"] if objectives_of(unknown) else []
        first = candidates[0].result
        reasons += [f"{metric_named(name).label}: {why}" for name in unknown if (why := _why_unknown(first, name))]
        said = f"not known under any pattern, and left out of the weights: {labels}"
        notes.append("; ".join([said, *reasons]))
    prices = {candidate.result.definition.price for candidate in candidates if any(map(_is_cost, candidate.costs))}
    if len(prices) > 1:
        notes.append(f"the costs are of different prices ({listed(sorted(map(str, prices)))}), so they do not compare")
    if noisy := [one.name for one in candidates if one.result.conditions.noise]:
        names = "all" if len(noisy) == len(candidates) else listed(noisy)
        notes.append(
            f"the machine was disturbed while {names} {'were' if noisy[1:] else 'was'} measured; "
            "measure again when it is quiet before you choose"
        )
    return tuple(notes)


def _candidate(result: TestResult, criteria: SelectionCriteria, *, named_by_wire: bool) -> _Candidate:
    """One pattern, with why it cannot be chosen and what may or may not hold."""
    failures, doubts = [_why_excluded(result)], [_GENERATOR] if result.generator_limited else []
    open_requirements = []
    for requirement in criteria.requirements:
        outcome, reason = _check(result, requirement)
        if outcome is Outcome.FAIL:
            failures.append(reason)
        elif outcome is Outcome.INCONCLUSIVE:
            open_requirements.append(requirement.text)
            doubts.append(reason)
    costs = {name: cost for name in criteria.weights if (cost := _cost(result, name)) is not None}
    doubts += [f"{_open_end(result, name)}; it counts as that much" for name, cost in costs.items() if cost.at_most]
    setup = result.setup
    return _Candidate(
        name=f"{setup.pattern}, {setup.wire}" if named_by_wire else str(setup.pattern),
        result=result,
        costs=costs,
        excluded="; ".join(filter(None, failures)) or None,
        open_requirements=tuple(open_requirements),
        doubts=tuple(doubts),
    )


def _with_gaps_excluded(candidate: _Candidate, weights: Mapping[str, float]) -> _Candidate:
    """A pattern without a weighted metric cannot be ranked against patterns that have it."""
    gaps = [_unknown(candidate.result, name) for name in weights if name not in candidate.costs]
    if candidate.excluded is not None or (weights and not gaps):
        return candidate
    return replace(candidate, excluded=f"not known: {', '.join(gaps) or 'any of the weighed metrics'}")


def _why_excluded(result: TestResult) -> str:
    """Why a result is invalid, or why its own test excludes it; empty if neither."""
    if result.judged.interrupted:
        return "interrupted"
    failures = {int(code): count for code, count in result.measured.failed_requests.items()}
    first, may_refuse = result.measured.first_failure, result.definition.overload
    if why := why_too_many_failed(failures, result.measured.requests, first, may_refuse=may_refuse):
        return why
    fails = [verdict for verdict in result.verdicts if verdict.outcome is Outcome.FAIL]
    if limits := [verdict.reason for verdict in fails if verdict.against == "limit"]:
        return f"its test failed: {'; '.join(limits)}"
    return "" if result.judged.passed or fails else "its test failed"


def _check(result: TestResult, requirement: Requirement) -> tuple[Outcome, str]:
    """Whether a result meets a requirement, and the reason."""
    metric = priced_metric(requirement.metric, result.definition.price)
    if metric.name in result.metrics:
        verdict = judge_limit(metric, Estimate(*result.metrics[metric.name]), requirement.limit)
        return verdict.outcome, verdict.reason
    if (found := _at_least(result, metric.name)) is not None:
        enough = found.nmrt.value >= requirement.limit
        known = f"{_open_end(result, metric.name)}; {requirement.text} may or may not hold"
        return Outcome.PASS if enough else Outcome.INCONCLUSIVE, known
    return Outcome.FAIL, f"{_unknown(result, metric.name)} is not known, and {requirement.text} is required"


def _unknown(result: TestResult, name: str) -> str:
    """The label of a metric that is not known, and the reason if there is more to say."""
    label, why = metric_named(name).label, _why_unknown(result, name)
    return f"{label} ({why})" if why else label


def _why_unknown(result: TestResult, name: str) -> str:
    """What to measure or set for a metric that is not known, or why it cannot be; empty if there is nothing to say."""
    if _is_cost(name) and result.definition.price is None:
        return "the test has no price; set perf_price"
    if not isinstance(metric_named(name).kind, AtNmrt):
        return why_unknown(name, result.limits.missing_indices)
    if (found := _at_least(result, "nmrt")) is not None:
        return f"NMRT is only known as a lower bound: {found.stopped}"
    return "" if result.limits.capacities else "the test does not search for NMRT; call perf.measure_nmrt() in it"


def _is_cost(name: str) -> bool:
    return metric_named(name).unit is Unit.COST


def _at_least(result: TestResult, name: str) -> Capacity | None:
    """The largest capacity without degradation, if no search found where the deployment degrades; None otherwise."""
    kind = metric_named(name).kind
    if not isinstance(kind, Nmrt):
        return None
    found = [one for one in result.limits.capacities if one.objective == kind.objective]
    return max(found, key=lambda one: one.nmrt.value) if found and all(one.at_least for one in found) else None


def _open_end(result: TestResult, name: str) -> str:
    found = _at_least(result, name)
    assert found is not None
    metric = metric_named(name)
    return f"{metric.label} is at least {metric.show(found.nmrt.value)}, more is not known ({found.stopped})"


def _cost(result: TestResult, name: str) -> Cost | None:
    """A metric as a cost; None if it is unknown."""
    metric, launches = metric_named(name), len(result.measured.launches.get(name, ()))
    if name in result.metrics:
        return cost_of(metric, result.metrics[name], launches)
    if (found := _at_least(result, name)) is not None:
        return cost_of(metric, (found.nmrt.value,) * 3, launches, at_least=True)
    return None


def _sentence(
    rows: Sequence[RankedPattern], level: Sequence[str], open_requirements: Mapping[str, Sequence[str]]
) -> str:
    """``cached first, if it keeps rtm<20ms; then batched and replicated; single excluded``."""
    chosen = [row.pattern for row in rows if row.rank is not None]
    excluded = [row.pattern for row in rows if row.excluded is not None]
    if not chosen:
        return "no pattern can be chosen"
    others = [name for name in chosen if name not in level]
    first = f"{listed(level)} first" if others or not level[1:] else listed(level)
    first += f"{',' if others else ''} not distinguishable" if level[1:] else ""
    held = [
        f"{name if level[1:] else 'it'} keeps {listed(open_requirements[name])}"
        for name in level
        if open_requirements[name]
    ]
    first += f", if {listed(held)}" if held else ""
    said = [first, *([f"then {listed(others)}"] if others else [])]
    return "; ".join([*said, *([f"{listed(excluded)} excluded"] if excluded else [])])


DRIFT_SD = 0.025
"""Relative standard deviation by which one deployment drifts within minutes: ±5 % was seen on a shared machine."""
_DRAWS = 4000  # Draws of a simulation; the share of wins is then known to half a percent
_AHEAD = 0.5 + CONFIDENCE / 2
_SMALLEST = {
    Unit.DURATION: 1_000.0,
    Unit.SIZE: 1.0,
    Unit.RATIO: 0.001,
    Unit.RATE: 0.001,
    Unit.TOKEN_RATE: 0.001,
    Unit.INSTRUCTIONS: 1.0,
    Unit.COST: 1e-9,
    Unit.PER_SECOND: 0.001,
    Unit.COUNT: 0.001,
}
"""Values are at least this or the metric's floor, whichever is larger, by the unit of the metric."""


class Cost(Struct, frozen=True):
    """The logarithm of one metric under one pattern, turned so that more is worse, with its 95 % interval.

    ``degrees`` of freedom belong to the interval. ``drifts`` means that the machine moves it, ``apart`` that it was
    measured by itself, ``at_most`` that the cost may be any smaller.
    """

    value: float
    low: float
    high: float
    degrees: int
    drifts: bool
    apart: bool
    at_most: bool


def cost_of(metric: Metric, values: tuple[float, float, float], launches: int, *, at_least: bool = False) -> Cost:
    """A metric as a cost. ``values``: value, low and high, in the metric's unit."""
    smallest = max(metric.floor, _SMALLEST[metric.unit])
    value, low, high = (math.log(max(number, smallest)) for number in values)
    if metric.better == "higher":
        value, low, high = -value, -high, -low
    return Cost(
        value=value,
        low=min(low, value),
        high=max(high, value),
        degrees=PRIOR_DEGREES + max(launches, 1) - 1,
        drifts=metric.launch_sd > 0,
        apart=metric.of is None,
        at_most=at_least,
    )


def _ordered(eligible: Sequence[_Candidate], weights: Mapping[str, float]) -> list[tuple[RankedPattern, bool]]:
    """The patterns in order, the best first, each with whether it is the first, or may be better than the first."""
    best = {name: min((one.costs[name].value for one in eligible), default=0.0) for name in weights}
    ideal = sum(weight * best[name] for name, weight in weights.items())
    ranked = sorted(eligible, key=lambda one: one.total(weights))
    draws = [_draws(one, weights) for one in ranked]
    found = []
    for place, (one, drawn) in enumerate(zip(ranked, draws, strict=True), start=1):
        totals = [float(total) for total in np.quantile(drawn, (_AHEAD, 1 - _AHEAD))]
        score, low, high = (math.exp(ideal - total) for total in (one.total(weights), *totals))
        row = RankedPattern(
            test=one.result.test,
            pattern=one.name,
            rank=place,
            score=(score, min(low, score), max(high, score)),
            parts={name: (math.exp(best[name] - one.costs[name].value), weight) for name, weight in weights.items()},
            doubts=one.doubts,
        )
        behind = float((draws[0] < drawn).mean()) >= _AHEAD
        # a pattern of which only a bound is known may be better
        found.append((row, not behind or any(cost.at_most for cost in one.costs.values())))
    return found


def _draws(candidate: _Candidate, weights: Mapping[str, float]) -> NDArray[np.float64]:
    """The pattern's total cost, drawn again: shape ``(4000,)``."""
    seed = zlib.crc32(candidate.result.test.encode())
    rng = np.random.default_rng(seed)
    together = rng.standard_normal(_DRAWS)
    drifting = sum(weight for name, weight in weights.items() if candidate.costs[name].drifts)
    total = drifting * rng.normal(0.0, DRIFT_SD, _DRAWS)
    for name, weight in weights.items():
        cost = candidate.costs[name]
        own = np.random.default_rng((seed, zlib.crc32(name.encode())))  # independent of the order of the weights
        normal = own.standard_normal(_DRAWS) if cost.apart else together
        t = normal / np.sqrt(own.chisquare(cost.degrees, _DRAWS) / cost.degrees)
        half = np.where(t > 0, cost.high - cost.value, cost.value - cost.low)
        total += weight * (cost.value + half * t / t_quantile(CONFIDENCE, cost.degrees))
    return total
