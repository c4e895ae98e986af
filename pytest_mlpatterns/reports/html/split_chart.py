"""Charts of where the time of requests goes: a bar of the parts of a latency, beside that of the reference. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.records.latency_split import SERVICE_PARTS
from pytest_mlpatterns.reports.html.chart import Cell, Chart, Column
from pytest_mlpatterns.reports.html.latency_charts import other_name
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.records.latency_split import LatencySplit, SplitMetric
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["split_charts"]

_TITLES: Mapping[SplitMetric, str] = {
    "rtm": "Where the time of a median request goes",
    "ttft": "Where the time to a median first token goes",
    "tpot": "Where the time of a median token goes",
}


def split_charts(result: TestResult) -> tuple[Chart, ...]:
    """A chart of the median latency, or of streams of their first and further tokens; none of what is not known."""
    reference = result.reference
    now = result.split if reference is None or not reference.present_split else reference.present_split
    before = {} if reference is None else reference.split
    metrics: tuple[SplitMetric, ...] = ("rtm",) if result.stream is None else ("ttft", "tpot")
    return tuple(
        _chart(result, now[metric], before.get(metric)) for metric in metrics if metric in now and now[metric].parts
    )


def _chart(result: TestResult, now: LatencySplit, before: LatencySplit | None) -> Chart:
    parts = {(part.name, part.of): part.label for split in (now, before) if split is not None for part in split.parts}
    rows: list[tuple[Cell, ...]] = []
    for (name, of), label in parts.items():
        sides = [split and split.part(name, of) for split in ((now,) if before is None else (now, before))]
        times = [part.median_ns if part else 0.0 for part in sides]
        rows.append((label, *times, "worked on" if name in SERVICE_PARTS else "waits"))
    columns = [Column("part", "text"), Column("this run", "duration")]
    if before is not None:
        columns.append(Column(other_name(result), "duration"))
    return Chart("stacked", _TITLES[now.metric], _summary(now, before), (*columns, Column("kind", "text")), tuple(rows))


def _summary(now: LatencySplit, before: LatencySplit | None) -> str:
    largest = max(now.parts, key=lambda part: part.median_ns)
    whole = format_duration(now.median_ns)
    if before is not None:
        whole = f"{format_duration(before.median_ns)} → {whole}"
    return f"{whole}; most of it: {largest.label}, {format_duration(largest.median_ns)}"
