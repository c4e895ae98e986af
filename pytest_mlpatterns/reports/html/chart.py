"""A chart as a value: a table with a title, a summary and the kind of drawing. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.units import Unit as MetricUnit
from pytest_mlpatterns.units import format_count, format_duration, format_percent, format_size

Unit = Literal["duration", "rate", "ratio", "change", "size", "instructions", "count", "seconds", "text"]
Cell = float | str | None
Tone = Literal["worse", "better", "open"]
"""What a change is: one for the worse, for the better, or one that is not confirmed yet."""
_UNITS: Mapping[MetricUnit, Unit] = {
    MetricUnit.DURATION: "duration",
    MetricUnit.RATE: "rate",
    MetricUnit.TOKEN_RATE: "count",
    MetricUnit.RATIO: "ratio",
    MetricUnit.SIZE: "size",
    MetricUnit.INSTRUCTIONS: "instructions",
    MetricUnit.COST: "count",
    MetricUnit.PER_SECOND: "count",
    MetricUnit.COUNT: "count",
}
_TICKS: Mapping[Unit, MetricUnit] = {
    "duration": MetricUnit.DURATION,
    "ratio": MetricUnit.RATIO,
    "change": MetricUnit.RATIO,
    "size": MetricUnit.SIZE,
    "instructions": MetricUnit.INSTRUCTIONS,
}
_MOST_MOMENTS = 80  # Most points of a time series that a chart draws


class Column(Struct, frozen=True):
    """One column of a chart's table; its numbers are printed in ``unit``."""

    name: str
    unit: Unit


class ChangeMark(Struct, frozen=True):
    """A change on the horizontal axis."""

    at: int  # place after it; it is drawn between that and the one before
    label: str  # how much
    tone: Tone  # what it is


class Track(Struct, frozen=True):
    """One of several courses, drawn one below the other."""

    title: str  # what it is of
    unit: Unit  # of its values
    names: tuple[str, ...]  # of its lines
    rows: tuple[tuple[float, ...], ...]  # a place on the common axis and a value for each line
    note: str = ""  # more in words
    is_level: bool = False  # whether a value lasts until the next one


class Chart(Struct, frozen=True):
    """One chart."""

    kind: Literal["bars", "ranges", "tracks", "history", "histogram"]  # how it is drawn
    title: str  # its heading
    summary: str  # what it shows, in words
    columns: tuple[Column, ...] = ()  # of its table
    rows: tuple[tuple[Cell, ...], ...] = ()  # of its table
    marks: Mapping[str, float] = {}  # named values on the horizontal axis
    axis: str = ""  # name of the horizontal axis; empty for the first column's
    borders: tuple[tuple[int, str], ...] = ()  # places at which something else begins, each with the reason
    changes: tuple[ChangeMark, ...] = ()  # what changed, and where
    spans: tuple[tuple[float, float, str], ...] = ()  # named stretches of the horizontal axis, from and to
    tracks: tuple[Track, ...] = ()  # its courses; it has no rows then


def heading_of(metric: Metric, label: str = "") -> str:
    """A label, or the metric's, as a heading: ``Throughput``, but ``p95 latency`` and ``p95 TTFT``."""
    text = label or metric.label
    return text if metric.is_tail or metric.is_stream_tail else text[0].upper() + text[1:]


def unit_of(metric: str) -> Unit:
    """The unit in which a chart prints a metric."""
    return _UNITS[metric_named(metric).unit]


def thinned(moments: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """A time series reduced to what a chart has room for; the highest value of each interval remains."""
    each = max(1, math.ceil(len(moments) / _MOST_MOMENTS))
    parts = (moments[start : start + each] for start in range(0, len(moments), each))
    return [(part[-1][0], *(max(values) for values in list(zip(*part, strict=True))[1:])) for part in parts]


def tick_text(unit: Unit, value: float) -> str:
    """The value of a tick, without zeros behind its point."""
    if unit not in _TICKS:
        return f"{value:,g}{' s' if unit == 'seconds' else ''}"
    number, what = _TICKS[unit].parts(value)
    return f"{float(number.replace(',', '')):{'+' if unit == 'change' else ''},g} {what}"


def printed(unit: Unit, value: Cell) -> str:
    """A cell as text."""
    if value is None or isinstance(value, str):
        return value or "–"
    match unit:
        case "duration":
            return format_duration(value)
        case "ratio" | "change":
            return format_percent(value, signed=unit == "change")
        case "size":
            return format_size(value)
        case "seconds":
            return f"{value:.3g} s"
        case _:
            return f"{value:,.0f}" if float(value).is_integer() else format_count(value)
