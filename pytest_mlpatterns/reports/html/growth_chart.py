"""The chart of a long load: resident memory over the requests, with the growth of the second half. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.html.chart import Cell, Chart, Column
from pytest_mlpatterns.units import format_size

if TYPE_CHECKING:
    from pytest_mlpatterns.records.resource_track import GrowthRecord
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["growth_chart"]


def growth_chart(result: TestResult) -> Chart | None:
    """Memory over the requests; None if the test had no long load."""
    growth = result.growth
    if growth is None or len(growth.requests) < 2:
        return None
    rows: list[tuple[Cell, ...]] = [
        (float(requests), float(size)) for requests, size in zip(growth.requests, growth.rss_bytes, strict=True)
    ]
    columns = [Column("requests", "count"), Column("resident memory", "size")]
    if growth.slope is not None:
        columns.append(Column("growth of the second half", "size"))
        rows = [(*row, level) for row, level in zip(rows, _levels(growth, growth.slope[0]), strict=True)]
    return Chart("growth", "Memory over requests", _summary(growth), tuple(columns), tuple(rows))


def _summary(growth: GrowthRecord) -> str:
    first, last = growth.rss_bytes[0], growth.rss_bytes[-1]
    text = f"resident {format_size(first)} to {format_size(last)}"
    if growth.slope is None:
        return text
    value, low, high = growth.slope
    text += f"; {format_size(value)} (±{format_size((high - low) / 2)}) per request in the second half"
    if low <= 0:
        return text
    return f"{text}, {'levelling off' if growth.levels_off else 'not levelling off'}"


def _levels(growth: GrowthRecord, slope: float) -> list[float | None]:
    """The line of the growth at each reading of the second half; None before."""
    middle = (growth.requests[0] + growth.requests[-1]) / 2
    second = [place for place, requests in enumerate(growth.requests) if requests >= middle]
    base = median(growth.rss_bytes[place] - slope * growth.requests[place] for place in second)
    return [base + slope * requests if requests >= middle else None for requests in growth.requests]
