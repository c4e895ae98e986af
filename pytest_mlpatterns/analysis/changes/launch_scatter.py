"""By how much the launches of one test differ, as its history has seen it, to start the intervals of a verdict from.

Three launches know their scatter badly, so an interval starts from a prior deviation. The usual one is that of many
services on a shared machine. A test with a history has its own. Pure. This module must not know how verdicts are made.
"""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.changes.series import known_metric
from pytest_mlpatterns.analysis.statistics.log_ratio import RATIO_SD, USUAL_PRIOR, RatioPrior

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_mlpatterns.analysis.metrics.metric import Metric
    from pytest_mlpatterns.records.history import HistoryLine

FEWEST_RUNS = 5
"""Runs from which the scatter of a test is its own: fewer do not show by how much one day differs from another."""
FEWEST_DEGREES = 10
"""Degrees of freedom of launches within their runs, from which a deviation is known to about a quarter."""
OWN_DEGREES = 8.0
"""Degrees of freedom that a test's own deviation is worth in an interval: as the launches of an entry. The history
knows it better, but a machine is not as busy each day. If launches differ by 4 %, 85 instead of 76 of 100 changes of
20 % are found beside an entry of eight launches, and 0.2 instead of 0.9 of 100 that are exactly at the tolerance."""
_USUAL_DEGREES = 4
"""Degrees of freedom that the usual deviation keeps beside those of the history, so that few runs that happen to be
alike promise no accuracy that is not there."""
_LATEST_RUNS = 100  # Runs that count, the latest ones: a machine's neighbours change with the months
_MAD_TO_SD = 1.4826  # Standard deviation of normal scatter, in its median absolute deviations
_Launch = TypeVar("_Launch")


class LaunchScatter(Struct, frozen=True):
    """The deviations that a test's intervals start from, where its history knows them."""

    launches: Mapping[str, float] = {}  # relative standard deviation between launches, by the metric's name
    # standard deviation between the log ratios of paired launches, beyond that within a launch, by the same
    ratios: Mapping[str, float] = {}

    def of_launches(self, metric: Metric) -> Metric:
        """The metric with the test's own deviation between launches, if that is known and the metric has one at all."""
        own = self.launches.get(metric.name)
        return metric if own is None or not metric.launch_sd else replace(metric, launch_sd=own, sd_degrees=OWN_DEGREES)

    def of_ratios(self, metric: Metric) -> RatioPrior:
        """What the interval of paired launches starts from: the test's own deviation, else the usual one."""
        own = self.ratios.get(metric.name)
        return USUAL_PRIOR if own is None else RatioPrior(own, OWN_DEGREES)


USUAL_SCATTER = LaunchScatter()  # The scatter of a test without a history: that of many services


def scatter_in(lines: Sequence[HistoryLine]) -> LaunchScatter:
    """The deviations of one test, of the metrics of which there are enough launches.

    ``lines``: of one test, one machine and one set-up, in the order of their dates.
    """
    latest = lines[-_LATEST_RUNS:]
    launches = {
        name: _Runs(
            [[math.log(one.value) for one in run] for run in runs],
            fmean(one.relative_error**2 for run in runs for one in run),
        )
        for name, runs in _by_metric([line.values for line in latest]).items()
        if all(one.value > 0 for run in runs for one in run)
    }
    ratios = {
        name: _Runs(
            [[one.log_ratio for one in run] for run in runs], fmean(one.error**2 for run in runs for one in run)
        )
        for name, runs in _by_metric([line.ratios for line in latest]).items()
    }
    return LaunchScatter(
        {
            name: runs.deviation(metric.launch_sd)
            for name, runs in launches.items()
            if (metric := known_metric(name)) is not None and metric.launch_sd and runs.suffice
        },
        {name: runs.within(RATIO_SD) for name, runs in ratios.items() if runs.suffice},
    )


class _Runs(Struct, frozen=True):
    """The launches of some runs, on the logarithm."""

    logs: Sequence[Sequence[float]]  # of each run, at least one each
    within_launch: float  # mean square of the errors within a launch, which an interval adds itself

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the launches around the means of their runs."""
        return sum(len(run) - 1 for run in self.logs)

    @property
    def suffice(self) -> bool:
        """Whether they are enough."""
        return len(self.logs) >= FEWEST_RUNS and self.degrees >= FEWEST_DEGREES

    def within(self, usual: float) -> float:
        """The deviation of a launch around the mean of its run, drawn towards the usual one."""
        squares = sum((log - fmean(run)) ** 2 for run in self.logs for log in run)
        return _drawn(squares / self.degrees - self.within_launch, self.degrees, usual)

    def deviation(self, usual: float) -> float:
        """The deviation of a launch, or that which explains how much one run differs from the next, if that is more.

        A stored baseline is of another day. If days differ, the launches of one do not show it. Changes of the level
        count little, since the median of the differences of neighbouring runs is taken.
        """
        means = [fmean(run) for run in self.logs]
        steps = [abs(now - before) for before, now in pairwise(means)]
        of_mean = _MAD_TO_SD * median(steps) / math.sqrt(2)
        variance = of_mean**2 * fmean(map(len, self.logs)) - self.within_launch
        between = min(_drawn(variance, len(means) - 1, usual), usual)
        return max(self.within(usual), between)


def _drawn(variance: float, degrees: int, usual: float) -> float:
    """A deviation from a variance of some degrees of freedom and the usual deviation."""
    return math.sqrt((_USUAL_DEGREES * usual**2 + degrees * max(variance, 0.0)) / (_USUAL_DEGREES + degrees))


def _by_metric(runs: Iterable[Mapping[str, Sequence[_Launch]]]) -> dict[str, list[Sequence[_Launch]]]:
    """The launches of each run that has some, by metric."""
    found: dict[str, list[Sequence[_Launch]]] = {}
    for run in runs:
        for name, launches in run.items():
            if launches:
                found.setdefault(name, []).append(launches)
    return found
