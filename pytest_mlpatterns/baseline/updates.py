"""New entries of the baseline file: what they hold, what got worse, and slow drift since the anchor.

An update compares each metric with the entry that it replaces. The anchor stays while updates change little, so that
many small steps in one direction become visible; after a larger step the new entry is its own anchor.

A disturbed measurement is repeated, and the disturbance is stored if the measurement is recorded nevertheless. A wide
entry decides little by itself; the code that it was recorded from decides then.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import metric_named, objectives_of, with_locations, with_role
from pytest_mlpatterns.analysis.metrics.distribution_summary import stored_percentiles, without_body
from pytest_mlpatterns.analysis.metrics.metric import Metric, Role
from pytest_mlpatterns.analysis.statistics.alpha_spending import BASELINE_ALPHA, CONFIRMING_LAUNCHES, looks_beside_entry
from pytest_mlpatterns.analysis.statistics.intervals import estimate, launch_deviation
from pytest_mlpatterns.analysis.verdicts.launch_kinds import (
    Side,
    TwoKinds,
    judge_by_kind,
    side_of,
    two_kinds,
    wants_more_launches,
)
from pytest_mlpatterns.analysis.verdicts.tolerances import (
    Tolerances,
    can_more_than_double,
    judged_statistic,
    with_medians,
)
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change
from pytest_mlpatterns.records.baseline_entry import Anchor, Entry, Level, Update
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.result import State, TestResult
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.units import Unit, format_percent

_DRIFT_UPDATES = 2  # Least updates since the anchor from which a slow drift is reported
_NARROW_SHARE = 1 / 3
"""Half the width of an entry that decides by itself, of the tolerance: beside launches of the same scatter, twice that
width is left of a change, and a third of the tolerance is room for it."""
_MAX_FAILED_SHARE = 0.001  # Largest share of failed requests that is no disturbance
UPDATE_LAUNCHES = 8
"""Launches that a baseline is recorded from, since it is compared with many times: eight that differ by 1.7 % make it
known to ±1.7 %."""
_WIDE = 4.0
"""Smallest change that an entry sees, of the tolerance, beyond which it decides little alone; where launches differ by
4 %, as on many quiet machines, it is two to three times the tolerance."""
_SEEN = 0.95  # Share of runs in which a change fails that an entry sees


class RunFacts(Struct, frozen=True):
    """What all entries of one run have in common."""

    versions: Mapping[str, str]
    commit: str | None  # short hash of the present commit; None outside git
    date: str
    tree: str = ""  # digest of the files that were measured; empty outside git


def update_at_level(result: TestResult, before: Entry | None, facts: RunFacts, *, level: Level) -> Update:
    """The new entry of one test with the values of the last runs of a history; everything else is of the present run.

    The mean latency and whatever else a history does not keep is left out: it would be of one run. What disturbed the
    present run is not noted, since the others outweigh it.

    ``before``: the entry that it replaces; None if there is none.
    """
    launches = {
        name: tuple((one.value, one.relative_error) for one in values) for name, values in level.metrics.items()
    }
    found = update_of(replace(result, measured=replace(result.measured, launches=launches)), before, facts)
    return replace(found, after=replace(found.after, disturbed=()))


def update_of(result: TestResult, before: Entry | None, facts: RunFacts) -> Update:
    """The new entry of one test. ``before``: the entry that it replaces; None if there is none."""
    entry = _entry_of(result, facts)
    seen = seen_from(result)
    is_wide = seen is not None and seen > _WIDE * result.definition.tolerance
    found = Update(result.test, before, entry, seen_from=seen, is_wide=is_wide)
    if before is None:
        return found
    if differences := before.differences(result.setup, facts.versions):
        return replace(found, differences=differences)
    also = with_role(Role.RECORDED)
    compared = {*_primary(result), *also, *objectives_of(entry.metrics)}
    names = [name for name in entry.metrics if name in compared]
    verdicts = [verdict for name in names if (verdict := _judge(name, result, before.metrics))]
    worse = tuple(verdict for verdict in verdicts if _is_worse(verdict, _tolerance(verdict.metric, result)))
    stepped = any(
        verdict in worse or _is_better(verdict, _tolerance(verdict.metric, result))
        for verdict in verdicts
        if verdict.metric not in also
    )
    anchored = anchor_of(before)
    anchor = replace(anchored, updates=anchored.updates + 1)
    after = entry if stepped else replace(entry, anchor=anchor)
    return replace(found, after=after, worse=worse)


def _entry_of(result: TestResult, facts: RunFacts) -> Entry:
    return Entry(
        setup=result.setup,
        metrics={
            name: tuple(_launches(metric, result))
            for name in result.measured.launches
            if (metric := metric_named(name)).unit is not Unit.COST  # it follows from others and from a setting
        },
        versions=facts.versions,
        commit=facts.commit,
        date=facts.date,
        latency=stored_percentiles(result.measured.latency),
        counts=tuple(map(without_body, result.measured.counts)),
        disturbed=disturbances(result),
        facts=result.conditions.facts,
        split=result.causes.split,
        tree=facts.tree,
        taken=result.conditions.taken,
        accepted=tuple(text for text, ended in result.judged.accepted.items() if not ended),
        sorting_ns=result.conditions.sorting_ns,
        work=None if result.causes.work is None else result.causes.work.now,
    )


def drift_notes(result: TestResult, entry: Entry) -> list[str]:
    """A note for each metric that is worse than the anchor of its entry, but not worse than the entry.

    The entries must be three or more, of at least two days.
    """
    notes, anchor = [], anchor_of(entry)
    if anchor.updates < _DRIFT_UPDATES or entry.date <= anchor.date:  # a step between two runs is no drift
        return []
    for name in _primary(result):
        against_entry, against_anchor = (_judge(name, result, old) for old in (entry.metrics, anchor.metrics))
        if not against_entry or not against_anchor or against_entry.outcome is Outcome.FAIL:
            continue
        if against_anchor.outcome is Outcome.FAIL and against_anchor.change is not None:
            change = format_percent(against_anchor.change.value)
            label = metric_named(against_anchor.figure).label
            notes.append(f"{label} {change} worse than on {anchor.recorded_at}, little by little")
    return notes


def anchor_of(entry: Entry) -> Anchor:
    """The entry that slow drift is measured from; an entry without an anchor is its own."""
    if entry.anchor is not None:
        return entry.anchor
    names = with_locations(with_role(Role.PRIMARY))
    return Anchor({name: entry.metrics[name] for name in names if name in entry.metrics}, entry.commit, entry.date)


def _primary(result: TestResult) -> dict[str, Metric]:
    """The metrics whose slow drift is reported, and whose steps begin a new anchor, as NMRT's do."""
    return with_role(Role.PRIMARY, streams=result.stream is not None)


def _judge(name: str, result: TestResult, before: Mapping[str, Sequence[LaunchValue]]) -> Verdict | None:
    """The verdict on one metric at the test's tolerance; None if one of the two does not hold it."""
    if name not in before or name not in result.measured.launches:
        return None
    metric, in_flight = metric_named(name), result.setup.load.in_flight

    def deviation(of: Metric) -> float:
        return launch_deviation(before.get(of.name, ())) if of.name in result.measured.launches else math.inf

    judged = judged_statistic(metric, deviation)
    judge = partial(judge_change, judged, tolerance=_tolerance(name, result), in_flight=in_flight)
    now = side_of(_launches(judged, result), lambda other: _launches(other, result))
    then = side_of(before[judged.name], lambda other: before.get(other.name, ()))
    verdict = judge_by_kind(judged, judge, present=now, reference=then)
    return with_medians(verdict, metric, before=before[name], now=_launches(metric, result))


def _tolerance(name: str, result: TestResult) -> float:
    """The tolerance that follows from the RTM tolerance; a rate gets the inverse: 4 × RTM is a quarter of the rate."""
    implied = Tolerances(result.definition.tolerance).of(name)
    return implied if implied <= 1 or can_more_than_double(name) else implied / (1 + implied)


def _is_worse(verdict: Verdict, tolerance: float) -> bool:
    """Whether the measured change is worse than the tolerance, and the whole interval worse than no change."""
    change = verdict.change
    if change is None or verdict.outcome is Outcome.PASS:
        return False
    return change.value > tolerance and change.low > 0


def _is_better(verdict: Verdict, tolerance: float) -> bool:
    """Whether the whole interval of the change is better than the tolerance."""
    return verdict.change is not None and verdict.change.high < -tolerance


def reasons_not_to_record(result: TestResult) -> tuple[str, ...]:
    """Why to repeat a measurement before it is recorded, a phrase each; empty if it was sound and the test passed."""
    failed = ("the test failed",) if result.outcome is State.FAILED and not result.advisory else ()
    return (*failed, *disturbances(result))


def is_narrow(result: TestResult) -> bool:
    """Whether what a comparison judges first is known to a third of the tolerance, so that the entry can decide.

    Judged is the scatter of the launches, since a comparison knows no more of an entry.
    """
    return all(
        _half_width(name, result) <= _NARROW_SHARE * result.definition.tolerance for name in _judged_metrics(result)
    )


def may_be_of_two_kinds(result: TestResult) -> bool:
    """Whether the launches may be of two kinds, one of them with too few launches for a comparison."""
    known = [_launches(_statistic(name, result), result) for name in _judged_metrics(result)]
    return any(wants_more_launches(launches) for launches in known if launches)


def disturbances(result: TestResult) -> tuple[str, ...]:
    """What was wrong with a measurement that may be recorded nevertheless, a phrase each.

    These are: noise of the machine, a load that was not steady, failed requests, an interval wider than the tolerance,
    and verdicts that stayed open. They are committed with the baseline, so an error is named by its class: its text may
    quote an input.
    """
    found = (
        *(one.what for one in result.conditions.noise),
        *result.conditions.unsteady,
        *_failures(result),
        *filter(None, [next((why for name in _judged_metrics(result) if (why := _too_wide(name, result))), "")]),
        *(f"undecided: {verdict.reason}" for verdict in result.verdicts if verdict.outcome is Outcome.INCONCLUSIVE),
    )
    if (first := result.measured.first_failure) is None:
        return found
    return tuple(text.replace(str(first), str(first.without_text)) for text in found)


def _judged_metrics(result: TestResult) -> list[str]:
    """The times that a comparison judges first."""
    metrics = _primary(result).items()
    return [name for name, metric in metrics if metric.unit is Unit.DURATION and name in result.metrics]


def _statistic(name: str, result: TestResult) -> Metric:
    """The statistic of a time that a comparison with its entry would judge: the one with the narrower interval."""

    def width(of: Metric) -> float:
        value, low, high = result.metrics.get(of.name, (1.0, 0.0, math.inf))
        return (high - low) / value if value else 0.0

    return judged_statistic(metric_named(name), width)


def _half_width(name: str, result: TestResult) -> float:
    """Half the relative width of a metric over the launches of an entry, as a comparison with it knows them."""
    metric = _statistic(name, result)
    values = _launches(metric, result)
    if not values or not all(math.isfinite(one.value) for one in values):
        return math.inf
    return max(
        map(_half, _of_each_kind(metric, values, two_kinds(Side(values))) or [estimate(values, metric.launch_sd)])
    )


def seen_from(result: TestResult) -> float | None:
    """The smallest change for the worse that fails beside the entry of a result in 95 % of runs, as a share.

    With s the standard deviation between launches as the n launches of the entry know it, and m launches of a run, the
    ratio of both has the error e = s sqrt(1/n + 1/m). The interval of the last look is t e wide on each side, and 95 %
    of ratios are at most another u e below the change. So it is (t + u) e beyond the tolerance, on the logarithm, with
    the quantiles t and u of Student's t that belong to the scatter of the entry. In simulation, of launches that differ
    by 0 to 8 %, 91 to 100 % of runs fail.

    Returns the interval of the time that is known worst, of those that a comparison judges first; None if none has one.
    """
    found = [_seen_from(name, result) for name in _judged_metrics(result)]
    return max((one for one in found if one is not None), default=None)


def _seen_from(name: str, result: TestResult) -> float | None:
    metric = judged_statistic(metric_named(name), lambda of: launch_deviation(_launches(of, result)))
    values, launches = _launches(metric, result), _launches_of_a_run(result)
    if not values or not all(0 < one.value < math.inf for one in values):
        return None
    looks = looks_beside_entry(len(values), launches=launches, alpha=BASELINE_ALPHA / len(_primary(result)))
    kinds = two_kinds(Side(values))
    margins = [
        sum(
            math.log(known.high / known.value)
            for confidence in (looks.confidence(launches), 2 * _SEEN - 1)
            for known in [estimate(sample, metric.launch_sd, confidence)]
        )
        for sample in ([values] if kinds is None else [kinds.of(values, high=high) for high in (False, True)])
    ]
    return (1 + _tolerance(name, result)) * math.exp(max(margins) * math.sqrt(1 + len(values) / launches)) - 1


def _launches_of_a_run(result: TestResult) -> int:
    """The launches beside an entry that the budget of the test has time for."""
    terms, measured = result.definition.terms, result.measured
    if terms is None:
        return UPDATE_LAUNCHES
    fitting = terms.budget_ns / 1e9 * measured.launch_count / measured.seconds_spent if measured.seconds_spent else 0
    return min(max(int(fitting), CONFIRMING_LAUNCHES), terms.launches)


def _launches(metric: Metric, result: TestResult) -> list[LaunchValue]:
    return [LaunchValue(value, error) for value, error in result.measured.launches.get(metric.name, ())]


def _of_each_kind(metric: Metric, values: Sequence[LaunchValue], kinds: TwoKinds | None) -> list[Estimate]:
    """An estimate of each kind of launches, since each is compared with itself; none if they are of one kind."""
    return [] if kinds is None else [estimate(kinds.of(values, high=high), metric.launch_sd) for high in (False, True)]


def _half(found: Estimate) -> float:
    return (found.high - found.low) / (2 * found.value) if found.value else 0.0


def _too_wide(name: str, result: TestResult) -> str:
    metric, tolerance = _statistic(name, result), result.definition.tolerance
    values = _launches(metric, result)
    kinds = two_kinds(Side(values))
    widest = max(_of_each_kind(metric, values, kinds) or [Estimate(*result.metrics[metric.name])], key=_half)
    half, value = _half(widest), widest.value
    if half <= tolerance:
        return ""
    why = (
        f"{metric.label} {metric.show(value)} is known to ±{format_percent(half)} only, "
        f"wider than the tolerance of {format_percent(tolerance)}"
    )
    return why if kinds is None else f"{why}; {kinds.describe(metric)}"


def _failures(result: TestResult) -> list[str]:
    measured = result.measured
    if measured.failed_count <= _MAX_FAILED_SHARE * measured.requests:
        return []
    return [f"{measured.failed_count:,} of {measured.requests:,} requests failed ({measured.failed_kinds})"]


def announcement(budget: object) -> str:
    """What an update takes, for the line at the start of the run; with the budget of a test as it was given."""
    return f"records up to {UPDATE_LAUNCHES} launches of a test, within its budget of {budget}"
