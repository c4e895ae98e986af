"""Which statistic of its times a comparison judges: their location, or the median where that is better known. Pure.

The median of few requests, or of two modes, jumps from launch to launch while the distribution stays where it is. So a
comparison of RTM, TTFT or TPOT judges the location of all their times, which messages call their mean. The median is
what people read and assert: the reason of the verdict has it too. On a busy machine, which stretches the upper half of
the times, the launches know their median better than their location, and it is judged itself. An entry of an earlier
version knows medians only.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.intervals import estimate
from pytest_mlpatterns.analysis.metric_definitions import LOCATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.analysis.metric import Metric
    from pytest_mlpatterns.records.launch import LaunchValue
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["judged_statistic", "knows_the_median_better", "median_text", "with_medians"]

_CLEARLY = 0.95
"""Factor by which launches must know the median better than the location: in quiet launches both are known alike, and a
comparison should not name one today and the other tomorrow. On a busy machine it is 0.75."""


def judged_statistic(metric: Metric, deviation: Callable[[Metric], float]) -> Metric:
    """The metric that a comparison of this one judges: the location of the same times, or the metric itself.

    Args:
        metric: which one is compared.
        deviation: by how much a launch of either side deviates in a metric; infinite if it is not known of both. See
            :func:`knows_the_median_better`.
    """
    location = LOCATIONS.get(metric.name)
    if location is None or math.isinf(whole := deviation(location)):
        return metric
    return metric if knows_the_median_better(deviation(metric), whole) else location


def knows_the_median_better(median_deviation: float, location_deviation: float) -> bool:
    """Whether the launches of a comparison know the median of their times clearly better than their location.

    A comparison judges the location, but the median if this holds: neighbours on a busy machine stretch the upper half
    of the times, which moves a mean and leaves the median. The same answer counts for both sides.

    Args:
        median_deviation: of the medians of the launches of both sides, as
            :func:`pytest_mlpatterns.analysis.intervals.launch_deviation` gives it.
        location_deviation: likewise of their locations.
    """
    return median_deviation < _CLEARLY * location_deviation


def median_text(metric: Metric, figures: str) -> str:
    """The medians of both sides with their name: ``RTM 4.10 ms → 4.20 ms``, ``median TTFT 359 ms → 640 ms``."""
    return f"{'median ' if metric.stream else ''}{metric.label} {figures}"


def with_medians(
    verdict: Verdict, metric: Metric, *, before: Sequence[LaunchValue], now: Sequence[LaunchValue]
) -> Verdict:
    """A verdict on a location, with the medians of both sides at the end of its reason; any other as it is.

    Args:
        verdict: on the metric.
        metric: of the medians.
        before: the median in each launch of the reference.
        now: likewise of the present.
    """
    if not verdict.judged_by or not before or not now:
        return verdict
    values = [estimate(side, metric.launch_sd).value for side in (before, now)]
    if not all(map(math.isfinite, values)):
        return verdict
    return replace(verdict, reason=f"{verdict.reason}; {median_text(metric, ' → '.join(map(metric.show, values)))}")
