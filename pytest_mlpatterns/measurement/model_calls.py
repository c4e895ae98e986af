"""What the models of a deployment did between two readings of its statistics: calls, and waits of coroutines. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.patterns.request_clock import CALLS
from pytest_mlpatterns.profiling.layers import MODEL
from pytest_mlpatterns.records.await_chains import AWAITS, awaited_times

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_mlpatterns.records.await_chains import AwaitedTime
    from pytest_mlpatterns.records.telemetry import PatternStats

__all__ = ["awaits_in", "calls_in"]

_LAYER = "split"


def calls_in(stats: PatternStats) -> dict[str, float]:
    """Calls of all models together, by the name of their boundary in a stack; empty if the deployment counts none.

    A stack does not say which stage or model of a process it belongs to, so their calls are added.

    Args:
        stats: of the time in question.
    """
    layers = [layer for layer in stats.layers if layer.layer == _LAYER]
    counters = [(name, value) for layer in layers for name, value in layer.counters.items()]
    calls = sum(value for name, value in counters if name.rpartition("/")[2] == CALLS)
    return {MODEL: float(calls)} if layers else {}


def awaits_in(stats: PatternStats) -> Iterator[AwaitedTime]:
    """Where coroutines of models waited."""
    for layer in stats.layers:
        if layer.layer == AWAITS:
            yield from awaited_times(layer.counters)
