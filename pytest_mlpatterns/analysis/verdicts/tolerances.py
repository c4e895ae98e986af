"""The largest acceptable worsening of every metric: defaults that fit its noise, and what a user set instead. Pure.

The median of few requests, or of two modes, jumps from launch to launch while the distribution stays where it is. So a
comparison of RTM, TTFT or TPOT judges the location of all their times, which messages call their mean. The median is
what people read and assert: the reason of the verdict has it too. On a busy machine, which stretches the upper half of
the times, launches know their median better than their location, and it is judged itself. The reference alone chooses,
before the present is looked at. An entry of an earlier version knows medians only. The TTFT of a service that no longer
streams is its whole answer's, the first content that its callers see.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import geometric_mean

from pytest_mlpatterns.analysis.metrics.definitions import (
    LOCATIONS,
    METRICS,
    comparable_metrics,
    is_known_metric,
    known_metric,
    leading_time,
    location_of,
    metric_named,
    own_metrics,
    which_metric,
)
from pytest_mlpatterns.analysis.metrics.metric import Location, Metric, Nmrt, Role, StreamPercentile, times_of
from pytest_mlpatterns.analysis.metrics.metric_makers import percentile_metric
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.intervals import estimate
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.verdict import Acceptance, Outcome, Verdict
from pytest_mlpatterns.units import Unit
from pytest_mlpatterns.wording import listed, shown

_TAIL_FACTOR = 2.0  # Factor of the tolerance of a tail, which varies twice as much
STORED_TAIL_FACTOR = 2.5
"""Factor on the tolerance of the tail against a stored baseline, unless a user set it.

The tail of an unchanged service on an idle machine moved by 45 % from one minute to the next. Interleaved with a
revision, both sides have the same tail.
"""


@dataclass(frozen=True, slots=True)
class Tolerances:
    """The tolerance of each metric.

    A number sets RTM, throughput, NMRT and CPU per request, the same of streams (TTFT, ITL, TPOT, output tokens), twice
    as much for percentiles beyond the median, and what else a test compares, but no guard such as memory, sizes or
    failures. A mapping sets the metrics that it names, and no other.
    """

    # a number, numbers by the name of the metric, or None for the defaults
    given: float | Mapping[str, float] | None = None
    source: str = field(default="tolerance", compare=False)  # where the numbers come from, for messages

    def __post_init__(self) -> None:
        named = self.given if isinstance(self.given, Mapping) else {"": self.given or 0.0}
        for name, value in named.items():
            if not isinstance(name, str):
                raise SettingError(f"{self.source} names {shown(name)}, expected the name of a metric such as 'rtm'")
            if name:
                _require_known(name, self.source)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                of = f"[{shown(name)}]" if name else ""
                raise SettingError(f"{self.source}{of} is {shown(value)}, expected a share such as 0.1 for 10 %")

    def names(self, metric: Metric) -> bool:
        """Whether a user set the tolerance of this very metric."""
        return isinstance(self.given, Mapping) and metric.name in self.given

    def of(self, metric: str | Metric) -> float:
        """The tolerance of a metric: relative, for the error rate in shares of all requests.

        NMRT under an objective has the tolerance of NMRT unless it is named itself, and a percentile that
        has no default that of p99.

        Raises KeyError: there is no such metric.
        """
        known = metric if isinstance(metric, Metric) else metric_named(metric)
        if isinstance(self.given, Mapping):
            for name in (known.name, _family(known)):
                if name in self.given:
                    return float(self.given[name])
        elif self.given is not None:
            if known.is_tail or known.is_stream_tail:  # ITL's too
                return _TAIL_FACTOR * float(self.given)
            if Role.ALWAYS_GUARD not in known.roles:
                return float(self.given)
        if isinstance(known.kind, StreamPercentile) and known.name != known.kind.quantity:
            return _TAIL_FACTOR * self.of(known.kind.quantity)
        return known.tolerance

    @property
    def usual(self) -> float:
        """The tolerance of RTM, from which other speeds' follow."""
        return self.of(leading_time(streams=False))


def can_more_than_double(metric: object) -> bool:
    """Whether a metric of this name can worsen by more than 100 %: times, sizes and system load can, rates cannot, nor
    can the error rate, whose change is a difference."""
    known = known_metric(str(metric))
    return known is not None and known.better == "lower" and not known.counts_failures


def _family(metric: Metric) -> str:
    """The name under which a metric has its default."""
    if isinstance(metric.kind, Nmrt):
        return "nmrt"
    return "p99" if metric.is_tail and not metric.of_streams and metric.name not in METRICS else metric.name


def _require_known(name: str, source: str) -> None:
    try:
        known = metric_named(name)
        if known.unit is not Unit.COST and not isinstance(known.kind, Location):
            return
    except KeyError:
        pass
    hint = which_metric(name, [*comparable_metrics(), *own_metrics()])
    raise SettingError(
        f"{source} names the metric {shown(name)}, {hint}expected some of {listed(list(comparable_metrics()), 'or')}"
    )


def accepted_ceiling(acceptance: Acceptance, metric: Metric) -> float | None:
    """The largest worsening of a metric that an acceptance allows; None if the acceptance is of another one.

    A time that may grow by c lets the rate of a closed loop fall by c / (1 + c).
    """
    if acceptance.metric == metric.name:
        return acceptance.ceiling
    return acceptance.ceiling / (1 + acceptance.ceiling) if acceptance.metric in times_of(metric) else None


def changes_to_accept(verdicts: Sequence[Verdict]) -> list[tuple[str, float]]:
    """Metrics to accept and the ceiling that each needs, without those that follow from another one.

    ``verdicts``: of comparisons, at most one of a metric.
    """
    changes = [(one.metric, needed) for one in verdicts if (needed := one.needed_ceiling) is not None]
    names = {name for name, _ in changes}
    times = {name: times_of(metric_named(name)) for name in names if is_known_metric(name)}
    return [(name, needed) for name, needed in changes if names.isdisjoint(times.get(name, ()))]


_CLEARLY = 0.95
"""Factor by which launches must know the median better than the location: in quiet launches both are known alike, and a
comparison should not name one today and the other tomorrow. On a busy machine it is 0.75."""
_SUSPICION = 0.90
"""Confidence of the interval of a location above no change with which it is suspected: 5 % are beyond each end."""


def judge_time(
    metric: Metric,
    deviation: Callable[[Metric], float],
    *,
    judge: Callable[[Metric], Verdict],
    ratio: Callable[[Metric, float], Estimate],
) -> Verdict:
    """The verdict by the statistic that the reference chooses; a metric without a location is judged itself.

    A part of the requests that became slower moves the location and leaves the median. So what the median passes is
    judged by the location if that is suspected: beyond its tolerance, and with 95 % slower at all.

    ``deviation``: as for :func:`judged_statistic`. ``judge``: gives the verdict by a statistic. ``ratio``: of the
    present to the reference in a statistic, with its interval at a confidence.
    """
    location, judged = location_of(metric), judged_statistic(metric, deviation)
    found = judge(judged)
    if location is None or judged is not metric or found.outcome is not Outcome.PASS or math.isinf(deviation(location)):
        return found
    suspicion, by_location = ratio(location, _SUSPICION), judge(location)
    allowed = location.allowed(by_location.tolerance or 0.0, by_location.reference_value or math.inf)
    return by_location if suspicion.low > 1 and suspicion.value > 1 + allowed else found


def judged_statistic(metric: Metric, deviation: Callable[[Metric], float]) -> Metric:
    """The metric that a comparison of this one judges: the location of the same times, or the metric itself.

    ``deviation``: by how much a launch of the reference deviates in a metric; infinite if it is not known of both
    sides. See :func:`knows_the_median_better`.
    """
    location = location_of(metric)
    if location is None or math.isinf(whole := deviation(location)):
        return metric
    return metric if knows_the_median_better(deviation(metric), whole) else location


def knows_the_median_better(median_deviation: float, location_deviation: float) -> bool:
    """Whether launches know the median of their times clearly better than their location.

    A comparison judges the location, but the median if this holds of the reference: neighbours on a busy machine
    stretch the upper half of the times, which moves a mean and leaves the median. The present has no part in the
    choice: a mode that only it has would choose the median, which does not see it. The same answer counts for both
    sides.
    """
    return median_deviation < _CLEARLY * location_deviation


def with_medians(
    verdict: Verdict, metric: Metric, *, before: Sequence[LaunchValue], now: Sequence[LaunchValue]
) -> Verdict:
    """A verdict on a location, with the medians of both sides at the end of its reason; any other as it is."""
    if not verdict.judged_by or not before or not now:
        return verdict
    values = [estimate(side, metric.launch_sd).value for side in (before, now)]
    if not all(map(math.isfinite, values)):
        return verdict
    return verdict.saying(f"{metric.label} {' → '.join(map(metric.show, values))}")


def present_values(present: Metrics, metric: Metric, before: Sequence[LaunchValue]) -> Sequence[LaunchValue]:
    """A metric in the launches of the present; of a service that no longer streams, TTFT is whole answers'.

    ``before``: the metric in the launches of the reference; empty if it is not known.
    """
    found = present.comparable_values(metric)
    whole = _of_whole_answers(metric)
    return present.comparable_values(whole) if not found and before and whole is not None else found


def noted(verdict: Verdict, metric: Metric, present: Metrics) -> Verdict:
    """A verdict with a note if it judges the TTFT of a service that no longer streams."""
    if present.streams or _of_whole_answers(metric) is None:
        return verdict
    return verdict.saying("the answers no longer stream, so the first content is the whole answer")


def failed_by_whole_answers(verdicts: Sequence[Verdict], entry: Entry, present: Metrics) -> frozenset[str]:
    """Names of the metrics that fail on any machine, since the answers no longer stream.

    These are the TTFT verdicts for which the whole answers of the baseline itself took too long.
    """
    if present.streams:
        return frozenset()
    return frozenset(
        verdict.metric
        for verdict in verdicts
        if verdict.metric == leading_time(streams=True).name
        and (whole := _of_whole_answers(metric_named(verdict.figure))) is not None
        and (values := [one.value for one in entry.metrics.get(whole.name, ()) if one.value > 0])
        and geometric_mean(values) > (verdict.reference_value or 0.0) * (1 + (verdict.tolerance or 0.0))
    )


def _of_whole_answers(metric: Metric) -> Metric | None:
    """The same figure of whole answers, if it is one of TTFT; None for other metrics."""
    first = leading_time(streams=True).name
    match metric.kind:
        case Location(stands_for) if stands_for == first:
            return LOCATIONS[leading_time(streams=False).name]
        case StreamPercentile(quantity, percentile) if quantity == first:
            return percentile_metric(percentile)
    return None
