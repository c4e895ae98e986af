"""Is the load steady yet? The rule that ends an automatic warm-up, as a pure function over finished windows.

Steady means: over the last three windows neither throughput nor median latency moved by more than a tenth of its
middle value (the rule of Triton's perf_analyzer). This module reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MIN_WINDOW_REQUESTS", "WARMUP_CAP_NS", "WINDOW_NS", "WarmupWindow", "is_steady"]

WINDOW_NS = 200_000_000
"""Shortest window of the warm-up."""
MIN_WINDOW_REQUESTS = 8
"""A window goes on until so many requests completed in it."""
WARMUP_CAP_NS = 5_000_000_000
"""The warm-up ends after this time, steady or not, and the result says which."""
_WINDOWS = 3
_SPREAD = 0.10


@dataclass(frozen=True, slots=True)
class WarmupWindow:
    """One finished window of the warm-up: its throughput and its median latency."""

    throughput_rps: float
    median_ns: float


def is_steady(windows: Sequence[WarmupWindow]) -> bool:
    """Whether the last three windows agree within a tenth, in throughput and in median latency."""
    last = windows[-_WINDOWS:]
    if len(last) < _WINDOWS:
        return False
    return _agree([window.throughput_rps for window in last]) and _agree([window.median_ns for window in last])


def _agree(values: list[float]) -> bool:
    middle = sorted(values)[len(values) // 2]
    return max(values) - min(values) <= _SPREAD * middle
