"""How often models were called between two readings of the statistics of a deployment. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.patterns.request_clock import CALLS
from pytest_mlpatterns.profiling.layers import MODEL

if TYPE_CHECKING:
    from pytest_mlpatterns.records.telemetry import PatternStats

__all__ = ["calls_between"]

_LAYER = "split"


def calls_between(before: PatternStats, after: PatternStats) -> dict[str, float]:
    """Calls of all models together, by the name of their boundary in a stack; empty if the deployment counts none.

    A stack does not say which stage or model of a process it belongs to, so their calls are added.

    Args:
        before: statistics since the start.
        after: the same, later.
    """
    layers = [layer for layer in after.since(before).layers if layer.layer == _LAYER]
    counters = [(name, value) for layer in layers for name, value in layer.counters.items()]
    calls = sum(value for name, value in counters if name.rpartition("/")[2] == CALLS)
    return {MODEL: float(calls)} if calls else {}
