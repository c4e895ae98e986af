"""Small pictures in characters: how latency is distributed beside what it is compared with, and load over time.

Pure: takes results, returns lines of at most 76 columns. Heights are those of a density over the logarithm of latency,
taken from percentiles, so that two distributions of which unlike many are known look alike where they are alike.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from math import exp, log
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.result import interpolated
from pytest_mlpatterns.units import format_duration, format_percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.result import Percentiles, TestResult

__all__ = ["latency_picture", "load_picture"]

_COLUMNS = 40
_BARS = " ▁▂▃▄▅▆▇█"
_LABEL = 10
_FEWEST_POINTS = 3
_MARGIN = 0.02


def latency_picture(result: TestResult) -> list[str]:
    """The distribution of latency, above it that of what the test is compared with; empty where too little is known."""
    rows = _shapes(result)
    if not rows or any(len(shape) < _FEWEST_POINTS for shape in rows.values()):
        return []
    edges = _edges(list(rows.values()))
    densities = {label: _density(shape, edges) for label, shape in rows.items()}
    highest = max(max(density) for density in densities.values())
    lines = [
        f"{label:<{_LABEL}}{_bars(densities[label], highest)}  {_said(shape)}".rstrip() for label, shape in rows.items()
    ]
    return [*lines, f"{'':<{_LABEL}}{_axis(edges)}"]


def load_picture(result: TestResult) -> list[str]:
    """The share of the machine that the deployment and all processes used, over the last window; empty if unknown."""
    course = result.load_over_time
    if not course:
        return []
    lines = []
    for label, position in (("service", 1), ("machine", 2)):
        shares = [moment[position] for moment in course]
        lines.append(f"{label:<{_LABEL}}{_bars(_fitted(shares), 1.0)}  mean {format_percent(fmean(shares))}")
    return [*lines, f"{'':<{_LABEL}}{_spread('0 s', f'{course[-1][0]:.3g} s')}  of 100 %"]


def _shapes(result: TestResult) -> dict[str, Percentiles]:
    """What is drawn, by how it is called: at percents that all of them know, without the slowest of all."""
    own = () if result.latency is None else result.latency.percentiles
    reference = result.reference
    if reference is None or not reference.latency_percentiles or not own:
        return {"now": _without_slowest(own)}
    present = _without_slowest(reference.present_latency_percentiles or own)
    reach = present[-1][0] if present else 0.0
    other = tuple(point for point in _without_slowest(reference.latency_percentiles) if point[0] <= reach)
    label = "baseline" if reference.kind == "baseline" else "revision"
    return {label: other, "now": tuple((percent, interpolated(present, percent)) for percent, _ in other)}


def _without_slowest(shape: Percentiles) -> Percentiles:
    """The slowest of many thousand would take the room of all others."""
    return tuple((percent, max(ns, 1.0)) for percent, ns in shape if percent < 100)


def _edges(shapes: Sequence[Percentiles]) -> list[float]:
    """Borders of the columns in nanoseconds, evenly spaced on the logarithm, wide enough for every shape."""
    low = log(min(shape[0][1] for shape in shapes)) - _MARGIN
    high = log(max(shape[-1][1] for shape in shapes)) + _MARGIN
    return [exp(low + (high - low) * column / _COLUMNS) for column in range(_COLUMNS + 1)]


def _density(shape: Percentiles, edges: Sequence[float]) -> list[float]:
    """The share of the requests in each column."""
    return [max(_below(shape, high) - _below(shape, low), 0.0) for low, high in pairwise(edges)]


def _below(shape: Percentiles, ns: float) -> float:
    """The percent of the requests that took at most so long, on straight lines over the logarithm of latency."""
    position = bisect_right([value for _, value in shape], ns)
    if position == 0:
        return 0.0
    if position == len(shape):
        return 100.0
    (before, low), (after, high) = shape[position - 1], shape[position]
    return before + (after - before) * log(ns / low) / log(high / low)


def _fitted(values: Sequence[float]) -> list[float]:
    """One value for each column; where there are more of them, neighbours are averaged."""
    if len(values) <= _COLUMNS:
        return [values[len(values) * column // _COLUMNS] for column in range(_COLUMNS)]
    borders = [len(values) * column // _COLUMNS for column in range(_COLUMNS + 1)]
    return [fmean(values[first:last]) for first, last in pairwise(borders)]


def _bars(heights: Sequence[float], highest: float) -> str:
    """One character for each height; what is above nothing is seen."""
    top = len(_BARS) - 1
    levels = [min(max(round(height / highest * top), 1 if height > highest / 500 else 0), top) for height in heights]
    return "".join(_BARS[level] for level in levels).ljust(_COLUMNS)


def _said(shape: Percentiles) -> str:
    """The 95th percentile, where that many are known."""
    return f"p95 {format_duration(dict(shape)[95])}" if 95 in dict(shape) else ""


def _axis(edges: Sequence[float]) -> str:
    middle = format_duration((edges[0] * edges[-1]) ** 0.5)
    return _spread(format_duration(edges[0]), middle, format_duration(edges[-1]))


def _spread(*labels: str) -> str:
    """Labels at the left end, the middle, where there are three, and the right end of a picture."""
    first, *between, last = labels
    row = first + f"{between[0] if between else '':^{_COLUMNS}}"[len(first) : _COLUMNS - len(last)] + last
    return row.rstrip()
