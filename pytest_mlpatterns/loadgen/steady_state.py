"""Steady-state detection: the rule that ends an automatic warm-up, as a pure function over finished windows.

A load is steady if neither throughput nor median latency varied by more than a tenth of its middle value over the last
three windows (the rule of Triton's perf_analyzer).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MIN_WINDOW_REQUESTS", "WARMUP_CAP_NS", "WINDOW_NS", "WarmupWindow", "is_steady"]

WINDOW_NS = 100_000_000
"""Shortest window of the warm-up."""
MIN_WINDOW_REQUESTS = 8
"""Smallest number of completed requests in a window."""
WARMUP_CAP_NS = 3_000_000_000
"""Longest warm-up; the result records whether the load was steady by then."""
_WINDOWS = 3
_SPREAD = 0.10


@dataclass(frozen=True, slots=True)
class WarmupWindow:
    """A finished window of the warm-up: throughput and median latency."""

    throughput_rps: float
    median_ns: float


def is_steady(windows: Sequence[WarmupWindow]) -> bool:
    """Whether throughput and median latency of the last three windows agree within a tenth."""
    last = windows[-_WINDOWS:]
    if len(last) < _WINDOWS:
        return False
    return _agree([window.throughput_rps for window in last]) and _agree([window.median_ns for window in last])


def _agree(values: list[float]) -> bool:
    middle = sorted(values)[len(values) // 2]
    return max(values) - min(values) <= _SPREAD * middle
