"""Sparklines: the latency distribution, with the one it is compared with, and system load over time.

Pure: takes results, returns lines of at most 60 columns. A latency sparkline is the density over the logarithm of
latency, computed from percentiles, so that two equal distributions look equal even if one has more known percentiles.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from math import exp, log
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.latency import Percentiles, interpolated
from pytest_mlpatterns.reports.text.comparison import LATENCY, distributions_of
from pytest_mlpatterns.units import format_duration, format_percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.result import TestResult

_COLUMNS = 36  # Width of a sketch
_BARS = " ▁▂▃▄▅▆▇█"
_LABEL = 10  # Width of the labels of the rows
_FEWEST_POINTS = 3  # Fewest points of a distribution that has a shape
_MARGIN = 0.02  # Room at both ends of the axis, on the logarithm of the latency
_FLAT = 0.25  # Range of a load up to which its picture is flat: two of the eight heights of a bar
_SHORTEST_NS = 1_000.0
"""Shorter times are drawn as this one: tokens that arrive together are apart by nothing, which has no logarithm."""


def latency_picture(result: TestResult, quantity: str = LATENCY) -> list[str]:
    """A distribution, below that of the reference; empty if too few percentiles are known.

    ``quantity``: ``latency``, or a time of streams: ``ttft``, ``itl``, ``tpot``.
    """
    rows = _rows(result, quantity)
    if not rows or any(len(shape) < _FEWEST_POINTS for shape in rows.values()):
        return []
    edges = _edges(list(rows.values()))
    densities = {label: _density(shape, edges) for label, shape in rows.items()}
    highest = max(max(density) for density in densities.values())
    lines = [
        f"{label:<{_LABEL}}{_bars(densities[label], highest)}  {_p95(shape)}".rstrip() for label, shape in rows.items()
    ]
    return [*lines, f"{'':<{_LABEL}}{_axis(edges)}"]


def load_picture(result: TestResult) -> list[str]:
    """The share of the cores that the deployment and the whole machine used in the last window; empty if unknown."""
    series = result.conditions.load_over_time
    if not series:
        return []
    lines = []
    for label, position in (("service", 1), ("machine", 2)):
        shares = [moment[position] for moment in series]
        lines.append(f"{label:<{_LABEL}}{_bars(_fitted(shares), 1.0)}  mean {format_percent(fmean(shares))}")
    return [*lines, f"{'':<{_LABEL}}{_spaced('0 s', f'{series[-1][0]:.3g} s')}  of 100 %"]


def load_varies(result: TestResult) -> bool:
    """Whether the load of the last window went up or down, so that its picture is more than two flat lines."""
    shares = [[moment[position] for moment in result.conditions.load_over_time] for position in (1, 2)]
    return any(max(_fitted(one)) - min(_fitted(one)) > _FLAT for one in shares if one)


def _rows(result: TestResult, quantity: str) -> dict[str, Percentiles]:
    """The distributions to draw, by label: at the percents that are known of all, without the maximum."""
    found, reference = distributions_of(result, quantity), result.reference
    present = _without_slowest(found.present)
    if reference is None or not found.other or not present:
        return {"now": present}
    other = tuple(point for point in _without_slowest(found.other) if point[0] <= present[-1][0])
    label = "baseline" if reference.kind == "baseline" else "revision"
    return {label: other, "now": tuple((percent, interpolated(present, percent)) for percent, _ in other)}


def _without_slowest(shape: Percentiles) -> Percentiles:
    """Percentiles without the maximum, which would take most of the width."""
    return tuple((percent, max(ns, _SHORTEST_NS)) for percent, ns in shape if percent < 100)


def _edges(shapes: Sequence[Percentiles]) -> list[float]:
    """Borders of the columns in nanoseconds, evenly spaced on a log scale, wide enough for every distribution."""
    low = log(min(shape[0][1] for shape in shapes)) - _MARGIN
    high = log(max(shape[-1][1] for shape in shapes)) + _MARGIN
    return [exp(low + (high - low) * column / _COLUMNS) for column in range(_COLUMNS + 1)]


def _density(shape: Percentiles, edges: Sequence[float]) -> list[float]:
    """The share of the requests in each column."""
    return [max(_below(shape, high) - _below(shape, low), 0.0) for low, high in pairwise(edges)]


def _below(shape: Percentiles, ns: float) -> float:
    """The percent of the requests up to this latency, interpolated on a log scale of latency."""
    position = bisect_right([value for _, value in shape], ns)
    if position == 0:
        return 0.0
    if position == len(shape):
        return 100.0
    (before, low), (after, high) = shape[position - 1], shape[position]
    return before + (after - before) * log(ns / low) / log(high / low)


def _fitted(values: Sequence[float]) -> list[float]:
    """One value for each column; if there are more values, neighbours are averaged."""
    if len(values) <= _COLUMNS:
        return [values[len(values) * column // _COLUMNS] for column in range(_COLUMNS)]
    borders = [len(values) * column // _COLUMNS for column in range(_COLUMNS + 1)]
    return [fmean(values[first:last]) for first, last in pairwise(borders)]


def _bars(heights: Sequence[float], highest: float) -> str:
    """One character for each height; a small height above zero stays visible."""
    top = len(_BARS) - 1
    levels = [min(max(round(height / highest * top), 1 if height > highest / 500 else 0), top) for height in heights]
    return "".join(_BARS[level] for level in levels).ljust(_COLUMNS)


def _p95(shape: Percentiles) -> str:
    """The 95th percentile, if it is known."""
    return f"p95 {format_duration(dict(shape)[95])}" if 95 in dict(shape) else ""


def _axis(edges: Sequence[float]) -> str:
    middle = format_duration((edges[0] * edges[-1]) ** 0.5)
    return _spaced(format_duration(edges[0]), middle, format_duration(edges[-1]))


def _spaced(*labels: str) -> str:
    """Labels at the left end, in the middle if there are three, and at the right end."""
    first, *between, last = labels
    row = first + f"{between[0] if between else '':^{_COLUMNS}}"[len(first) : _COLUMNS - len(last)] + last
    return row.rstrip()
