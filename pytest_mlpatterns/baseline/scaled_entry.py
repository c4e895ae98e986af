"""A baseline entry as it would be on a slower machine. This module must not know verdicts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import is_known_metric, metric_named
from pytest_mlpatterns.records.launch import LaunchValue

if TYPE_CHECKING:
    from pytest_mlpatterns.records.baseline_entry import Entry

__all__ = ["scaled"]


def scaled(entry: Entry, ratio: float) -> Entry:
    """What an entry would be on a machine that takes so many times as long: times multiplied, rates divided.

    Shares, sizes, counts and unknown metrics stay as they are, and so does the throughput of a paced load: an open
    loop, or a closed loop with think time.
    """
    metrics = {
        name: tuple(LaunchValue(launch.value * factor, launch.relative_error) for launch in launches)
        for name, launches in entry.metrics.items()
        for factor in [1.0 if entry.setup.load.paced and name == "throughput" else _factor(name, ratio)]
    }
    latency = tuple((percent, ns * ratio) for percent, ns in entry.latency)
    counts = tuple(
        replace(launch, latencies={round(ns * ratio): count for ns, count in launch.latencies.items()})
        for launch in entry.counts
    )
    return replace(
        entry,
        metrics=metrics,
        anchor=None,
        latency=latency,
        counts=counts,
        sorting_ns=tuple(ns * ratio for ns in entry.sorting_ns),
    )


def _factor(name: str, ratio: float) -> float:
    return metric_named(name).unit.scale(ratio) if is_known_metric(name) else 1.0
