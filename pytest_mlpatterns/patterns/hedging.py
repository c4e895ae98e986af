"""When a second replica is asked because the first is late: after a fixed time, or after a percentile of the latencies.

A request that is asked again after the 95th percentile adds 5 % to the load, and takes as long as the slowest only if
both replicas are slow (J. Dean and L. A. Barroso, "The Tail at Scale", CACM 2013). The percentile is that of the last
answers, so it follows a service that gets slower. Latencies may jump, so a budget bounds the extra load as well, as
Finagle's backup requests and the hedges of gRPC have one: when a service is slow as a whole, twice the load would make
it slower. A fixed time has no such bound.

Pure: no clock and no loop.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from datetime import timedelta
from typing import Protocol

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.units import parse_duration, parse_number
from pytest_mlpatterns.wording import shown

__all__ = ["FixedHedge", "Hedge", "PercentileHedge", "hedge_of"]

_WINDOW = 1_000
"""Latest answers from which the percentile is taken; the share above it then has a standard error of 0.7 points."""
_ENOUGH = 100
"""Answers without which there is no percentile."""
_SPARE = 1.1
"""Most second requests, as a multiple of those that the percentile implies."""
_SAVED = 10.0
"""Most second requests that are saved up for a moment in which many are late."""
_LEAST_PERCENTILE = 50.0
"""Lowest percentile; below it most requests would be asked twice."""


class Hedge(Protocol):
    """Decides when a request is late."""

    def delay_ns(self) -> int | None:
        """Time after which a request is late, in nanoseconds; None: not known yet. Called once for each request."""
        ...

    def spend(self) -> bool:
        """Whether a second replica may be asked now; if so, it will be."""
        ...

    def waited(self, took_ns: int) -> None:
        """The replica that was asked first has answered in this time, or has not and is no longer asked."""
        ...


class FixedHedge:
    """After a fixed time.

    Args:
        delay_ns: the time in nanoseconds.
    """

    def __init__(self, delay_ns: int) -> None:
        self._delay_ns = delay_ns

    def delay_ns(self) -> int:
        """The time."""
        return self._delay_ns

    def spend(self) -> bool:
        """Always."""
        return True

    def waited(self, took_ns: int) -> None:
        """Learn nothing."""


class PercentileHedge:
    """After a percentile of the latest latencies, within a budget.

    Of a replica that is no longer asked only the time is known in which it did not answer. It was late, so it lies
    above the percentile in any case.

    Args:
        percentile: such as 95.
    """

    def __init__(self, percentile: float) -> None:
        self._share = percentile / 100
        self._latest: deque[int] = deque()
        self._ordered: list[int] = []
        self._saved = 0.0

    def delay_ns(self) -> int | None:
        """The percentile; None until there are enough answers."""
        self._saved = min(self._saved + _SPARE * (1 - self._share), _SAVED)
        count = len(self._ordered)
        return self._ordered[min(int(self._share * (count + 1)), count - 1)] if count >= _ENOUGH else None

    def spend(self) -> bool:
        """Whether the budget has a second request left."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True

    def waited(self, took_ns: int) -> None:
        """Learn a latency."""
        self._latest.append(took_ns)
        insort(self._ordered, took_ns)
        if len(self._latest) > _WINDOW:
            del self._ordered[bisect_left(self._ordered, self._latest.popleft())]


def hedge_of(value: object, name: str) -> Hedge:
    """Read ``"p95"``, ``"20ms"`` or a ``timedelta``.

    Args:
        value: what the user gave.
        name: of the argument, for messages.

    Raises:
        SettingError: neither a percentile from 50 to below 100 nor a time.
        UnitError: a time without a unit.
    """
    if isinstance(value, str) and value[:1] == "p":
        percentile = parse_number(value[1:], name=f"the percentile of {name}", example='hedge="p95"')
        if _LEAST_PERCENTILE <= percentile < 100:
            return PercentileHedge(percentile)
    elif isinstance(value, str | timedelta) and (delay_ns := parse_duration(value, name=name)):
        return FixedHedge(delay_ns)
    raise SettingError(
        f"{name} is {shown(value)}, expected a percentile of the latency from p{_LEAST_PERCENTILE:g} to below p100, or "
        'a time after which another replica is asked; write hedge="p95" or hedge="20ms"'
    )
