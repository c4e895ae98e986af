"""Launches that settle in one of two ways for their whole life, such as batches of 8 or of 16 inputs.

The mean of such launches says how often each way came, and its interval is as wide as the ways are apart. So the ways
are recognised, named by the figure of the layer that goes with them, and compared one by one. Pure; it must not know
limits or baselines. ``benchmarks/launch_kinds_simulation.py`` counts the errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.intervals import LAUNCH_SD
from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.units import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.analysis.metric import Metric
    from pytest_mlpatterns.records.launch import LaunchValue

__all__ = ["LayerFigure", "Side", "TwoKinds", "side_of", "two_kinds", "wants_more_launches"]

_FEWEST_LAUNCHES = 4
"""Fewest launches whose two kinds are distinguished from scatter."""
_FEWEST_OF_A_KIND = 2
"""Launches that make a kind; a single one that differs may have been disturbed."""
_LEAST_APART = 0.10
"""Smallest distance of two kinds, on the logarithm: closer ones are within the scatter of ordinary launches."""
_APART, _APART_PER_LAUNCH, _LEAST_DEVIATIONS = 11.4, 0.5, 6.4
"""Distance of two kinds in standard deviations within them: 9.4 for four launches, 6.4 from ten on. Less than 1 % of
samples of one kind that scatter by 1.7 to 8 % show it (by simulation, normal and with heavy tails)."""
_FIGURE_APART = 1.25
"""Least ratio of a layer's figure in two kinds for which it names them."""
_ENOUGH_OF_A_KIND = 3
"""Launches of each kind that a baseline should hold: fewer do not say how much launches of one kind differ."""
_WHOLE = 3
"""Count from which its decimals are left out."""
_NAMING = ("batch_size", "cache_hit_ratio")
"""Figures of a layer that name a kind, the first one that goes with it."""


@dataclass(frozen=True, slots=True)
class Side:
    """The launches of one side of a comparison: a metric in each, and figures of their layers by name."""

    values: Sequence[LaunchValue]
    figures: Mapping[str, Sequence[LaunchValue]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LayerFigure:
    """A figure of a layer that goes with the kinds: its metric, and its mean of the faster and the slower kind."""

    name: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TwoKinds:
    """Launches in two groups by a metric.

    Attributes:
        is_high: for each launch, whether it is of the kind with the higher values.
        low: geometric mean of the lower kind.
        high: of the higher kind.
        figure: what goes with them; None if nothing is known to.
    """

    is_high: tuple[bool, ...]
    low: float
    high: float
    figure: LayerFigure | None = None

    @property
    def distance(self) -> float:
        """How far the kinds are apart, on the logarithm."""
        return math.log(self.high / self.low)

    def count(self, *, high: bool) -> int:
        """Number of launches of one kind."""
        return self.is_high.count(high)

    def of(self, values: Sequence[LaunchValue], *, high: bool) -> list[LaunchValue]:
        """The launches of one kind."""
        return [value for value, is_high in zip(values, self.is_high, strict=True) if is_high is high]

    def describe(self, metric: Metric) -> str:
        """The kinds in words: ``launches settle in one of two ways: batches of 8 (22.0 ms) or 16 (16.0 ms)``."""
        low, high = metric.show(self.low), metric.show(self.high)
        if self.figure is None:
            return f"launches settle in one of two ways: {low} or {high}"
        named = METRICS[self.figure.name]
        shown = [
            f"{_round(named, figure)} ({value})"
            for figure, value in sorted([(self.figure.low, low), (self.figure.high, high)])
        ]
        label = "batches of" if self.figure.name == "batch_size" else named.label
        return f"launches settle in one of two ways: {label} {' or '.join(shown)}"


def side_of(values: Sequence[LaunchValue], read: Callable[[Metric], Sequence[LaunchValue]]) -> Side:
    """A side of a comparison.

    Args:
        values: a metric in each launch.
        read: gives any other metric of the same launches; empty if it is not known.
    """
    return Side(values, {name: read(METRICS[name]) for name in _NAMING})


def two_kinds(side: Side) -> TwoKinds | None:
    """The two kinds of launches of a sample; None if it may be of one.

    The launches are divided where the scatter within both groups is smallest. The groups are kinds if each has two
    launches, and the means of their logarithms are apart by ``11.4 - n/2`` standard deviations within them, n being the
    number of launches, and by 6.4 at least.
    """
    values = side.values
    if (is_high := _division(values, _FEWEST_OF_A_KIND)) is None:
        return None
    low, high = (
        math.exp(fmean(math.log(value.value) for value, one in zip(values, is_high, strict=True) if one is side))
        for side in (False, True)
    )
    return TwoKinds(is_high, low, high, _figure_of(is_high, side.figures))


def _figure_of(is_high: Sequence[bool], figures: Mapping[str, Sequence[LaunchValue]]) -> LayerFigure | None:
    """The figure of a layer that divides the launches as their kinds do; None if none does."""
    for name in _NAMING:
        values = [one.value for one in figures.get(name, ())]
        if len(values) != len(is_high):
            continue
        low, high = (
            [value for value, one in zip(values, is_high, strict=True) if one is side] for side in (False, True)
        )
        smaller, larger = sorted((low, high), key=fmean)
        if max(smaller) < min(larger) and fmean(larger) >= _FIGURE_APART * fmean(smaller):
            return LayerFigure(name, fmean(low), fmean(high))
    return None


def wants_more_launches(values: Sequence[LaunchValue]) -> bool:
    """Whether a baseline should be recorded from more launches: they may be of two kinds, and one of these has few.

    A single launch far from the others may be of a second kind, or disturbed.
    """
    is_high = _division(values, 1)
    return is_high is not None and min(is_high.count(False), is_high.count(True)) < _ENOUGH_OF_A_KIND


def _division(values: Sequence[LaunchValue], fewest: int) -> tuple[bool, ...] | None:
    """Which launches are of the higher kind; None if all may be of one.

    Args:
        values: a metric in each launch.
        fewest: launches of each kind.
    """
    size = len(values)
    if size < _FEWEST_LAUNCHES or min(value.value for value in values) <= 0:
        return None
    logs = [math.log(value.value) for value in values]
    ascending = sorted(logs)
    splits = range(fewest, size - fewest + 1)
    split = min(splits, key=lambda at: _scatter(ascending[:at]) + _scatter(ascending[at:]))
    below, above = ascending[:split], ascending[split:]
    within = math.sqrt((_scatter(below) + _scatter(above)) / (size - 2))
    apart = fmean(above) - fmean(below)
    deviations = max(_APART - _APART_PER_LAUNCH * size, _LEAST_DEVIATIONS)
    if above[0] <= below[-1] or apart < max(_LEAST_APART, deviations * max(within, LAUNCH_SD)):
        return None
    return tuple(log >= above[0] for log in logs)


def _scatter(logs: Sequence[float]) -> float:
    """Sum of squares around the mean."""
    mean = fmean(logs)
    return sum((log - mean) ** 2 for log in logs)


def _round(metric: Metric, value: float) -> str:
    return f"{value:.0f}" if metric.unit is Unit.COUNT and value >= _WHOLE else metric.show(value)
