"""How much slower a machine makes a service: what its counters say was taken, and how long a fixed work takes.

Pure. An excuse explains at most what it can do: neighbours on x of n cores leave n - x, a host that takes a share s of
the time leaves 1 - s, and so does a limit. No counter inside a machine shows a host that slows everything down. A fixed
work at the end of each launch does. It varies by 2 %, and shows only that moment. This module must not know verdicts.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.launch import Launch, Taken

__all__ = ["CPU_FACTOR", "SLOWER", "ratio_of_medians", "ratio_of_sorting", "sorting_times_ns", "taken_factor"]

CPU_FACTOR = 1.5
"""Times as much CPU time as neighbours make a request need at most: they share caches and the two threads of a core."""
SLOWER = 1.06
"""Ratio of the fixed work's times from which the machine counts as slower. The times vary by 2 to 3 % between launches,
three against eight by 2 %. From 1.10, one in a hundred unchanged tests on machines up to twice as slow would fail."""
_LEAST_LEFT = 0.05
"""Share of the machine that is left at least, since counters of 10 ms may report that others used all of it."""


def taken_factor(now: Taken, then: Taken, cores: int) -> float:
    """Times as long a request takes at most because others have more of the machine than before; at least 1.

    ``n/(n-x) · 1/(1-s) · 1/(1-t)`` of now, divided by that of before: with x of n cores used by others, a share s of
    the time stolen and a share t throttled.

    Args:
        now: what was taken in the present launches.
        then: the same when the reference was recorded.
        cores: n, of the machine.
    """

    def left(taken: Taken) -> float:
        shares = (1 - taken.others_cores / cores, 1 - taken.steal_ratio, 1 - taken.throttled_ratio)
        free, given, running = (max(share, _LEAST_LEFT) for share in shares)
        return free * given * running

    return max(left(then) / left(now), 1.0)


def sorting_times_ns(launches: Sequence[Launch]) -> tuple[float, ...]:
    """CPU time of the fixed work at the end of each launch; empty if a launch has none."""
    times = tuple(launch.sorting_ns for launch in launches)
    return times if all(times) else ()


def ratio_of_sorting(now: Sequence[float], then: Sequence[float]) -> float | None:
    """How many times as long the fixed work takes as before, by its lower quartiles; None if one side is not known.

    Other guests of a host make the moment of one launch in five take up to a half longer; nothing makes one shorter.

    Args:
        now: its time at the end of each launch.
        then: the same of the launches of before.
    """
    return _lower_quartile(now) / _lower_quartile(then) if now and then else None


def ratio_of_medians(now: Sequence[float], then: Sequence[float]) -> float | None:
    """The same ratio by the medians, which include a disturbance of most launches.

    It suits a comparison that the recorded code settles: it explains more, and hides no change of the code.

    Args:
        now: its time at the end of each launch.
        then: the same of the launches of before.
    """
    return median(now) / median(then) if now and then else None


def _lower_quartile(values: Sequence[float]) -> float:
    """The second smallest of eight, and the smallest of up to four."""
    return sorted(values)[(len(values) - 1) // 4]
