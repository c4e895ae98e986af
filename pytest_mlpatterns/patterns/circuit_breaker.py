"""A circuit breaker: whether a service that fails too often is asked at all. Pure; the clock is an argument.

Nygard describes the states (*Release It!*, 2nd edition, 2018, chapter 5). Libraries such as Resilience4j and Polly have
added the sliding window and the least number of calls.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BreakerRule", "BreakerState", "CircuitBreaker", "Permit"]

_PARTS = 10
"""Parts of a window, each counted as one, so that a window costs the same at any rate."""

Permit = int
"""Admission of one call: the number of the period between two changes of the state in which it began."""


class BreakerState(IntEnum):
    """The state of a breaker; its value is what the chart over time shows."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a breaker opens and tries again.

    Args:
        failed_share: share of failed calls within the window that opens it.
        least_calls: number of calls within the window before which it stays closed.
        window_ns: length of the sliding window, in nanoseconds.
        rest_ns: time after which an open breaker admits a probe, in nanoseconds.
    """

    failed_share: float
    least_calls: int
    window_ns: int
    rest_ns: int


@dataclass(slots=True)
class _Part:
    """Calls that ended within one part of the window, and those of them that failed."""

    began_ns: int
    calls: int = 0
    failed: int = 0


class CircuitBreaker:
    """Admits calls while they succeed.

    Closed, it admits all calls and counts those that failed in a sliding window. When their share reaches the limit it
    opens: no call is admitted. After a rest it is half-open: one call is admitted as a probe. If the probe succeeds it
    closes with an empty window, else it is open for another rest. The end of a call counts only if no change of the
    state lies between it and the beginning.

    Args:
        rule: the limits.
        clock: the time in nanoseconds.
        on_change: called with every new state.

    Attributes:
        state: the state; an open breaker is half-open from its first probe on.
    """

    def __init__(
        self,
        rule: BreakerRule,
        clock: Callable[[], int],
        on_change: Callable[[BreakerState], None] = lambda _state: None,
    ) -> None:
        self.state: BreakerState = BreakerState.CLOSED
        self._rule = rule
        self._clock = clock
        self._on_change = on_change
        self._period = 0
        self._parts: deque[_Part] = deque()
        self._calls = self._failed = 0
        self._opened_ns = 0
        self._is_probing = False

    def admit(self) -> Permit | None:
        """Admit a call, whose end is then given to :meth:`end` or :meth:`forget`; None: it may not begin."""
        if self.state is BreakerState.OPEN and self._clock() - self._opened_ns >= self._rule.rest_ns:
            self._change(BreakerState.HALF_OPEN)
        if self.state is BreakerState.CLOSED:
            return self._period
        if self.state is BreakerState.OPEN or self._is_probing:
            return None
        self._is_probing = True
        return self._period

    def end(self, permit: Permit, *, failed: bool) -> None:
        """A call has ended."""
        if permit != self._period:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._change(BreakerState.OPEN if failed else BreakerState.CLOSED)
            return
        self._count(failed=failed)
        is_enough = self._calls >= self._rule.least_calls
        if failed and is_enough and self._failed >= self._rule.failed_share * self._calls:
            self._change(BreakerState.OPEN)

    def forget(self, permit: Permit) -> None:
        """A call has ended without a result, because its caller has gone; a probe makes room for the next one."""
        if permit == self._period:
            self._is_probing = False

    def _count(self, *, failed: bool) -> None:
        now_ns = self._clock()
        if not self._parts or now_ns - self._parts[-1].began_ns >= self._rule.window_ns / _PARTS:
            self._parts.append(_Part(now_ns))
        while now_ns - self._parts[0].began_ns >= self._rule.window_ns:
            old = self._parts.popleft()
            self._calls -= old.calls
            self._failed -= old.failed
        last = self._parts[-1]
        last.calls += 1
        last.failed += failed
        self._calls += 1
        self._failed += failed

    def _change(self, state: BreakerState) -> None:
        self.state = state
        self._period += 1
        self._is_probing = False
        self._parts.clear()
        self._calls = self._failed = 0
        if state is BreakerState.OPEN:
            self._opened_ns = self._clock()
        self._on_change(state)
