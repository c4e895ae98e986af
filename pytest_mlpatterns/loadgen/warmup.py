"""How long the warm-up of a load lasts, if the test gives neither a time nor a number of requests.

It ends when the load is steady: neither throughput nor median latency varied by more than a tenth of its middle value
over the last three windows (the rule of Triton's perf_analyzer). A slow service gives too few answers for these
windows, so its warm-up ends by the number of answers. This module must not know how requests are sent.

Also: a load of a service that is warm already has a constant beside it, in ``loadgen/ceiling.py``,
``measurement/{capacity,counted_pass,further_load,held_memory,scaling,variant}.py`` and ``judging/cause_search.py``, or
the formula in ``analysis/capacity/objective_search.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from pytest_mlpatterns.workload.window_plan import SLOW_INTERVAL_NS

WINDOW_NS = 100_000_000  # Shortest window of the warm-up
MIN_WINDOW_REQUESTS = 8  # Smallest number of completed requests in a window
WARMUP_CAP_NS = 3_000_000_000
"""Longest warm-up of a service that answers by then; the result records whether the load was steady."""
_WINDOWS = 3  # Windows that have to agree, as in Triton's perf_analyzer
_ENOUGH_ANSWERS = 8
"""Answers after which a slow service is warm, steady or not: as many as one window has of a fast one."""
_SPREAD = 0.10  # Largest spread of the windows, as a share of the middle value, as in Triton's perf_analyzer


class WarmupWindow(Struct, frozen=True):
    """A finished window of the warm-up: throughput and median latency."""

    throughput_rps: float
    median_ns: float


def is_steady(windows: Sequence[WarmupWindow]) -> bool:
    """Whether throughput and median latency of the last three windows agree within a tenth."""
    last = windows[-_WINDOWS:]
    if len(last) < _WINDOWS:
        return False
    return _agree([window.throughput_rps for window in last]) and _agree([window.median_ns for window in last])


def _agree(values: Sequence[float]) -> bool:
    middle = sorted(values)[len(values) // 2]
    return max(values) - min(values) <= _SPREAD * middle


class WarmupAnswers:
    """The answers of a warm-up, which end it if they are slow.

    A cycle is one answer of each caller, at least two answers. A slow service is warm after two cycles that took the
    same time to a tenth, after eight answers and two cycles, or if another cycle would last beyond the longest warm-up.
    """

    def __init__(self, callers: int, start_ns: int, *, closed: bool = True) -> None:
        self.count: int = 0
        self.is_steady: bool = False
        self._callers = callers
        self._closed = closed
        self._cycle = max(callers, 2)
        self._start_ns = self._since_ns = self._first_cycle_ns = self._latest_ns = start_ns
        self._last_ns: int | None = None

    def add(self, now_ns: int) -> bool:
        """Note an answer. Returns whether the service is slow, and warm."""
        self.count += 1
        self._latest_ns = now_ns
        if self.count % self._cycle == 0:
            before_ns, self._last_ns = self._last_ns, now_ns - self._since_ns
            self._since_ns = now_ns
            if before_ns is None:
                self._first_cycle_ns = now_ns
            else:
                self.is_steady = self._closed and _agree([before_ns, self._last_ns])
        if self._last_ns is not None and self._last_ns < self._cycle * SLOW_INTERVAL_NS:
            return False
        if self.is_steady or self.count >= max(_ENOUGH_ANSWERS, 2 * self._cycle):
            return True
        elapsed_ns = now_ns - self._start_ns
        is_slow = elapsed_ns >= self.count * SLOW_INTERVAL_NS
        another_ns = elapsed_ns if self._last_ns is None else self._last_ns
        return is_slow and self.count >= self._callers and elapsed_ns + another_ns > WARMUP_CAP_NS

    @property
    def interval_ns(self) -> float | None:
        """Mean time between two answers, after the first cycle if there are more; None without an answer."""
        if self.count > self._cycle:
            return (self._latest_ns - self._first_cycle_ns) / (self.count - self._cycle)
        return (self._latest_ns - self._start_ns) / self.count if self.count else None
