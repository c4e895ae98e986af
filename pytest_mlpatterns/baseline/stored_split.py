"""The split of a latency as it stands in the baseline file: short, of five digits, and read back as it was.

``{latency: {"mean": ns, "median": ns, "requests": n, "calls": {model: calls per request}, "parts": {"STAGE/PART": [mean
ns, median ns, standard error ns]}}}``. A part that this version does not know is left out when it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, get_args

from pytest_mlpatterns.records.latency_split import PARTS, LatencySplit, SplitMetric, SplitPart
from pytest_mlpatterns.reports.files.json_layout import rounded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.records.latency_split import LatencySplits

__all__ = ["plain_splits", "read_splits"]


def plain_splits(splits: LatencySplits) -> dict[str, Any]:
    """Plain values of the splits of one entry."""
    return {metric: _plain(split) for metric, split in splits.items()}


def read_splits(data: Mapping[str, Any]) -> LatencySplits:
    """The inverse of :func:`plain_splits`, of data that the schema allows; a latency that is unknown is left out."""
    known = (cast("SplitMetric", metric) for metric in data if metric in get_args(SplitMetric))
    return {metric: _read(metric, data[metric]) for metric in known}


def _plain(split: LatencySplit) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "mean": rounded(split.mean_ns),
        "median": rounded(split.median_ns),
        "requests": split.requests,
        "parts": {
            f"{part.of}/{part.name}" if part.of else part.name: [
                rounded(part.mean_ns),
                rounded(part.median_ns),
                rounded(part.error_ns, 2),
            ]
            for part in split.parts
        },
    }
    if split.calls:
        plain["calls"] = {of: rounded(calls) for of, calls in split.calls.items()}
    return plain


def _read(metric: SplitMetric, data: Mapping[str, Any]) -> LatencySplit:
    order = {name: place for place, name in enumerate(PARTS)}
    parts = []
    for key, (mean, median, error) in data["parts"].items():
        of, _, name = key.rpartition("/")
        if name in PARTS:
            parts.append(SplitPart(name, of, float(mean), float(median), float(error)))
    parts.sort(key=lambda part: order[part.name])
    return LatencySplit(
        metric, float(data["mean"]), float(data["median"]), data["requests"], tuple(parts), dict(data.get("calls", {}))
    )
