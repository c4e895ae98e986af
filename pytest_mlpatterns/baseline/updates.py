"""New entries of the baseline file: what they hold, what got worse, and slow drift since the anchor.

An update compares each metric with the entry that it replaces. The anchor stays while updates change little, so that
many small steps in one direction become visible; after a larger step the new entry is its own anchor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.compared_statistic import judged_statistic, with_medians
from pytest_mlpatterns.analysis.intervals import launch_deviation
from pytest_mlpatterns.analysis.kind_verdicts import judge_by_kind
from pytest_mlpatterns.analysis.latency_distribution import stored_percentiles, without_body
from pytest_mlpatterns.analysis.launch_kinds import side_of
from pytest_mlpatterns.analysis.metric_definitions import metric_named, objectives_of
from pytest_mlpatterns.analysis.tolerances import Tolerances, can_more_than_double
from pytest_mlpatterns.analysis.verdicts import judge_change
from pytest_mlpatterns.baseline.record_rules import disturbances
from pytest_mlpatterns.records.baseline_entry import Entry, Update
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.units import Unit, format_percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.analysis.metric import Metric
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["RunFacts", "drift_notes", "update_of"]

_ANCHORED = ("rtm", "throughput")
"""Metrics whose slow drift is reported, and whose steps begin a new anchor, as NMRT's do."""
_ANCHORED_OF_STREAMS = ("ttft", "tpot", "output_tokens")
"""In place of those, where answers stream: their whole time follows from these and from their length."""
_DRIFT_UPDATES = 2
"""Least updates since the anchor from which a slow drift is reported."""
_ALSO_COMPARED = ("p95", "p99", "ttft:p95", "ttft:p99", "cpu_per_request", "peak_memory")
"""Metrics that an update compares too; a change of these leaves the anchor as it is."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What all entries of one run have in common.

    Attributes:
        versions: of the installed packages.
        commit: short hash of the present commit; None outside git.
        date: ISO date of the run.
        tree: digest of the files that were measured; empty outside git.
    """

    versions: Mapping[str, str]
    commit: str | None
    date: str
    tree: str = ""


def update_of(result: TestResult, before: Entry | None, facts: RunFacts) -> Update:
    """The new entry of one test.

    Args:
        result: what was measured.
        before: the entry that it replaces; None if there is none.
        facts: what the entries of this run have in common.
    """
    entry = Entry(
        setup=result.setup,
        metrics={
            name: _values(launches)
            for name, launches in result.launches.items()
            if metric_named(name).unit is not Unit.COST  # it follows from others and from a setting
        },
        versions=facts.versions,
        commit=facts.commit,
        date=facts.date,
        latency=stored_percentiles(result.latency),
        counts=tuple(map(without_body, result.counts)),
        disturbed=disturbances(result),
        facts=result.facts,
        split=result.split,
        tree=facts.tree,
        taken=result.taken,
        accepted=tuple(text for text, ended in result.accepted.items() if not ended),
        sorting_ns=result.sorting_ns,
    )
    if before is None:
        return Update(result.test, None, entry)
    if differences := before.differences(result.setup, facts.versions):
        return Update(result.test, before, entry, differences)
    compared = {*_anchored(result), *_ALSO_COMPARED, *objectives_of(entry.metrics)}
    names = [name for name in entry.metrics if name in compared]
    verdicts = [verdict for name in names if (verdict := _judge(name, result, before.metrics))]
    worse = tuple(verdict for verdict in verdicts if _is_worse(verdict, _tolerance(verdict.metric, result)))
    stepped = any(
        verdict in worse or _is_better(verdict, _tolerance(verdict.metric, result))
        for verdict in verdicts
        if verdict.metric not in _ALSO_COMPARED
    )
    anchor = replace(before.anchored, updates=before.anchored.updates + 1)
    return Update(result.test, before, entry if stepped else replace(entry, anchor=anchor), worse=worse)


def drift_notes(result: TestResult, entry: Entry) -> list[str]:
    """A note for each metric that is worse than the anchor of its entry, but not worse than the entry.

    The entries must be three or more, of at least two days.

    Args:
        result: what was measured.
        entry: a comparable entry of the test.
    """
    notes, anchor = [], entry.anchored
    if anchor.updates < _DRIFT_UPDATES or entry.date <= anchor.date:  # a step between two runs is no drift
        return []
    for name in _anchored(result):
        against_entry, against_anchor = (_judge(name, result, old) for old in (entry.metrics, anchor.metrics))
        if not against_entry or not against_anchor or against_entry.outcome is Outcome.FAIL:
            continue
        if against_anchor.outcome is Outcome.FAIL and against_anchor.change is not None:
            change = format_percent(against_anchor.change.value)
            label = metric_named(against_anchor.figure).label
            notes.append(f"{label} {change} worse than on {anchor.recorded_at}, little by little")
    return notes


def _anchored(result: TestResult) -> tuple[str, ...]:
    """The metrics whose slow drift is reported."""
    return _ANCHORED if result.stream is None else _ANCHORED_OF_STREAMS


def _judge(name: str, result: TestResult, before: Mapping[str, Sequence[LaunchValue]]) -> Verdict | None:
    """The verdict on one metric at the test's tolerance; None if one of the two does not hold it."""
    if name not in before or name not in result.launches:
        return None
    metric, in_flight = metric_named(name), result.setup.load.in_flight

    def deviation(of: Metric) -> float:
        return launch_deviation(before.get(of.name, ()), _values(result.launches.get(of.name, ())))

    judged = judged_statistic(metric, deviation)
    judge = partial(judge_change, judged, tolerance=_tolerance(name, result), in_flight=in_flight)
    now = side_of(_values(result.launches[judged.name]), lambda other: _values(result.launches.get(other.name, ())))
    then = side_of(before[judged.name], lambda other: before.get(other.name, ()))
    verdict = judge_by_kind(judged, judge, present=now, reference=then)
    return with_medians(verdict, metric, before=before[name], now=_values(result.launches[name]))


def _tolerance(name: str, result: TestResult) -> float:
    """The tolerance of a metric, as that of the test's RTM implies it: four times the RTM is a quarter of a rate."""
    implied = Tolerances(result.tolerance).of(name)
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


def _values(launches: Sequence[tuple[float, float]]) -> tuple[LaunchValue, ...]:
    return tuple(LaunchValue(value, error) for value, error in launches)
