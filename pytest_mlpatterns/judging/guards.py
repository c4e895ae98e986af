"""The verdict on one guard: the tail, failed requests, memory, start and sizes of two samples of launches.

The samples come from a baseline entry, the launches of a test, or those of another revision. A launch gives one start
and takes several times as long as it; so a comparison that only the start leaves open goes on with starts alone. This
module must not know how anything is started or measured.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS
from pytest_mlpatterns.analysis.metrics.metric import Metric, StreamPercentile
from pytest_mlpatterns.analysis.verdicts.count_comparison import (
    STORED_TAIL_ALPHA,
    TAIL_ALPHA,
    judge_failures,
    judge_tail,
    tail_ceiling,
)
from pytest_mlpatterns.analysis.verdicts.launch_kinds import judge_by_kind, side_of
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_guard
from pytest_mlpatterns.errors import PerfFailure
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_mlpatterns.analysis.metrics.metrics import Metrics
    from pytest_mlpatterns.judging.compared_metrics import ComparedMetric
    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.latency import RequestCounts
    from pytest_mlpatterns.records.launch import LaunchValue

_FURTHER_LAUNCHES = 2  # Launches that a comparison is worth only because a percentile has too few requests


class UnknownMetricError(Exception):
    """A sample has no value of a metric; the text is a predicate of the metric, such as ``is not recorded yet``."""


class AbsentMetricError(UnknownMetricError):
    """The same of a metric that this system never has, so that nothing is missing unless the test asks for it."""


class Sample(Protocol):
    """Launches of one side."""

    def counts_for(self, metric: Metric) -> Sequence[RequestCounts]:
        """The requests of each launch that a metric is of; empty if unknown."""

    def values(self, metric: Metric) -> Sequence[LaunchValue]:
        """The metric in each launch; empty if unknown."""


class EntrySample(Struct, frozen=True):
    """The launches of a baseline entry."""

    entry: Entry

    def counts_for(self, metric: Metric) -> Sequence[RequestCounts]:
        """The requests of each launch that a metric is of; empty in an entry of an older version."""
        return _counts_for(metric, self.entry.counts)

    def values(self, metric: Metric) -> Sequence[LaunchValue]:
        """The metric in each launch; empty if it was not recorded."""
        recorded: Mapping[str, Sequence[LaunchValue]] = self.entry.metrics
        return recorded.get(metric.name, ())


class MeasuredSample(Struct, frozen=True):
    """Measured launches."""

    metrics: Metrics

    def counts_for(self, metric: Metric) -> Sequence[RequestCounts]:
        """The requests of each launch that a metric is of."""
        return _counts_for(metric, self.metrics.request_counts)

    def values(self, metric: Metric) -> Sequence[LaunchValue]:
        """The metric in each launch that has one."""
        return self.metrics.comparable_values(metric)


def _counts_for(metric: Metric, launches: Sequence[RequestCounts]) -> Sequence[RequestCounts]:
    """The requests of each launch that a metric is of; empty if they are not known of all."""
    if not isinstance(metric.kind, StreamPercentile):
        return launches
    found = [one for launch in launches if (one := launch.of_streams(metric.kind.quantity)) is not None]
    return found if len(found) == len(launches) else ()


def left_out_by(error: Exception) -> LeftOut:
    """Why a metric is not compared: what :func:`judge_guarded` or another judgement raised."""
    return LeftOut(str(error), is_sentence=not isinstance(error, UnknownMetricError))


def not_judged(metric: Metric, why: LeftOut, reference: str) -> PerfFailure:
    """The failure of a test that requested a metric which cannot be compared."""
    return PerfFailure(f"assert_no_regression cannot judge {metric.label} against {reference}: {why.of('it')}")


def launches_for_tail(needed: int, found: int, launches: int) -> int:
    """Launches after which a percentile has enough requests; ``launches`` if that takes over two further ones.

    A few much slower requests show in the tail alone, so a comparison waits for it if that takes little.

    ``needed``: requests that the percentile needs.
    """
    wanted = math.ceil(needed * launches / max(found, 1))
    return wanted if launches < wanted <= launches + _FURTHER_LAUNCHES else launches


def judge_guarded(
    compared: ComparedMetric,
    reference: Sample,
    present: Sample,
    *,
    against: Literal["baseline", "revision"],
    in_flight: int | None,
) -> Verdict:
    """Judge one guard.

    Each look has the level of its rule (``GUARD_ALPHA``, ``COUNT_ALPHA``, ``TAIL_ALPHA``, ``STORED_TAIL_ALPHA``) for a
    change exactly at the tolerance. An unchanged metric is far from it; ``benchmarks/verdict_simulation.py`` counts the
    false alarms of all.
    """
    metric, tolerance = compared.metric, compared.tolerance
    if not metric.is_tail and not metric.counts_failures:
        judge = partial(judge_guard, metric, tolerance=tolerance, in_flight=in_flight)
        return replace(_judge_values(metric, reference, present, against=against, judge=judge), against=against)
    then, now = reference.counts_for(metric), present.counts_for(metric)
    if not then:
        raise UnknownMetricError("is not recorded yet")
    if not any(one.requests for one in now):
        raise AbsentMetricError("is not known")
    ceiling: float | None = None
    if metric.counts_failures:
        found = judge_failures(then, now, tolerance=tolerance)
    else:
        alpha = STORED_TAIL_ALPHA if against == "baseline" else TAIL_ALPHA
        found = judge_tail(then, now, metric=metric, tolerance=tolerance, alpha=alpha)
        usual = min(compared.usual_beside(against), tolerance)
        if found.outcome is not Outcome.PASS or usual < tolerance:  # otherwise it passes without an acceptance
            ceiling = tail_ceiling(then, now, metric=metric, tolerance=usual, alpha=alpha)
    value = found.present_value if math.isfinite(found.present_value) else None
    figures = (found.change, tolerance, found.reference_value, value)
    return Verdict(metric.name, against, found.outcome, found.reason, *figures, ceiling=ceiling)


def _judge_values(
    metric: Metric, reference: Sample, present: Sample, *, against: str, judge: Callable[..., Verdict]
) -> Verdict:
    """The verdict on a metric that each launch has one value of."""
    values = _values_of_both(metric, reference, present, against=against)
    if metric.name == START and against == "revision" and len(values[0]) == len(values[1]):
        return judge(*values, paired=True)  # both sides start side by side
    mine, other = (side_of(known, side.values) for known, side in zip(values, (present, reference), strict=True))
    return judge_by_kind(metric, judge, present=mine, reference=other)


def _values_of_both(
    metric: Metric, reference: Sample, present: Sample, *, against: str
) -> tuple[Sequence[LaunchValue], Sequence[LaunchValue]]:
    """The values of the present and of the reference."""
    if not reference.values(metric):
        recorded = against == "baseline" and metric.name not in GROWTHS  # short windows do not always know a growth
        raise UnknownMetricError("is not recorded yet") if recorded else AbsentMetricError("is not known of both sides")
    if not present.values(metric):
        raise AbsentMetricError("is not known")
    return present.values(metric), reference.values(metric)


START = "cold_start"  # Metric that each start of a deployment gives, loaded or not
MOST_STARTS = 20
"""Further starts of a test. Of starts that take 74 % longer (tolerance 50 %) and scatter by 10 %, 9 of 10 fail after 6;
where 20 do not decide, the change is at the tolerance."""


def is_left_to_starts(verdicts: Iterable[Verdict]) -> bool:
    """Whether the start is the only metric that is open, and no metric has failed.

    A start that is surely beyond its tolerance, and left open because the machine may explain it, needs a quieter
    machine and not another start.
    """
    found = {verdict.metric: verdict for verdict in verdicts if verdict.outcome is not Outcome.PASS}
    start = found.get(START)
    if len(found) != 1 or start is None or start.outcome is Outcome.FAIL:
        return False
    return start.change is None or start.change.low <= (start.tolerance or 0.0)


def without_start(verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
    """The verdicts that need launches under load: those on other metrics, if the start alone is open."""
    return [one for one in verdicts if one.metric != START] if is_left_to_starts(verdicts) else verdicts


def with_starts_named(verdict: Verdict, starts: int) -> Verdict:
    """The verdict on the start, with the number of further starts that it rests on."""
    if verdict.metric != START or not starts:
        return verdict
    return replace(verdict, reason=f"{verdict.reason}; with {count(starts, 'further start')} without load")
