"""A chart as a value: a table with a title, a summary and the kind of drawing. Pure.

The page draws a chart from its table alone, and shows the table on demand. Nothing here depends on HTML.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.records.json_text import rounded
from pytest_mlpatterns.units import Unit as MetricUnit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.analysis.metrics.metric import Metric

__all__ = ["Cell", "ChangeMark", "Chart", "Column", "Tone", "Unit", "heading_of", "thinned", "unit_of"]

Unit = Literal["duration", "rate", "ratio", "change", "size", "count", "percentile", "seconds", "text"]
Cell = float | str | None
Tone = Literal["worse", "better", "open"]
"""What a change is: one for the worse, for the better, or one that is not confirmed yet."""
_UNITS: Mapping[MetricUnit, Unit] = {
    MetricUnit.DURATION: "duration",
    MetricUnit.RATE: "rate",
    MetricUnit.TOKEN_RATE: "count",
    MetricUnit.RATIO: "ratio",
    MetricUnit.SIZE: "size",
    MetricUnit.COST: "count",
    MetricUnit.PER_SECOND: "count",
    MetricUnit.COUNT: "count",
}
_MOST_MOMENTS = 240
"""Most points of a time series that a chart draws."""


class Column(Struct, frozen=True):
    """One column of a chart's table; its numbers are printed in ``unit``."""

    name: str
    unit: Unit


class ChangeMark(Struct, frozen=True):
    """A change on the horizontal axis.

    Attributes:
        start: place before it.
        end: place after it; further away than the next place for a change in small steps.
        label: how much.
        tone: what it is.
    """

    start: int
    end: int
    label: str
    tone: Tone


class Chart(Struct, frozen=True):
    """One chart.

    ``marks`` are named values to mark on an axis. ``points`` are further places in each row, which the table leaves
    out. ``axis`` names the horizontal axis, for a kind of chart that does not name it. ``borders`` are places on it at
    which something else begins, each with the reason, and ``changes`` what changed there. ``spans`` are named stretches
    of it, from and to.
    """

    kind: str
    title: str
    summary: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marks: Mapping[str, float] = {}
    points: tuple[tuple[float, ...], ...] = ()
    axis: str = ""
    borders: tuple[tuple[int, str], ...] = ()
    changes: tuple[ChangeMark, ...] = ()
    spans: tuple[tuple[float, float, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, numbers to five digits."""
        return {
            "kind": self.kind,
            "columns": [[column.name, column.unit] for column in self.columns],
            "rows": [[_brief(cell) for cell in row] for row in self.rows],
            **({"marks": {name: _brief(value) for name, value in self.marks.items()}} if self.marks else {}),
            **({"points": [[_brief(place) for place in row] for row in self.points]} if self.points else {}),
            **({"axis": self.axis} if self.axis else {}),
            **({"borders": [list(border) for border in self.borders]} if self.borders else {}),
            **({"changes": [msgspec.to_builtins(change) for change in self.changes]} if self.changes else {}),
            **(
                {"spans": [[_brief(begin), _brief(end), name] for begin, end, name in self.spans]} if self.spans else {}
            ),
        }


def heading_of(metric: Metric, label: str = "") -> str:
    """A label, or that of the metric, as a heading: ``Throughput``, but ``p95 latency`` and ``p95 TTFT``."""
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


def _brief(cell: Cell) -> Cell | int:
    if not isinstance(cell, float):
        return cell
    if not math.isfinite(cell):
        return None
    return rounded(cell)
