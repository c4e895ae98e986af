"""How searches under a latency objective share the budget of a test.

A rate is known no better than launches differ: of one launch to 15 % at best, of two to 6 %, of three to 4 %, however
long it is searched for (:func:`pytest_mlpatterns.analysis.intervals.estimate`). So three short searches, of a launch
each, know it better than a long one, and a failure is confirmed by a second launch on the way. Pure.
"""

from __future__ import annotations

__all__ = ["share_of"]

_SEARCHES = 3
"""Searches that share the time that is left, each of a launch of its own."""
_CLIMB_NS = 3_000_000_000
"""Time of the climb to the capacity, which only the first search needs."""
_SHORTEST_NS = 4_000_000_000
"""Three windows of a second: a search with less is not made shorter for a further one."""
_SPARED = 0.95
"""Part of its share that a search plans with, so that what takes longer does not cost the last one its time."""


def share_of(left_ns: int, per_launch_ns: int, most: int, *, climbs: bool) -> int:
    """The time of the next search, which leaves time for further launches and searches.

    Args:
        left_ns: time that is left of the budget.
        per_launch_ns: time of a launch, without a search.
        most: searches that there may still be, this one included.
        climbs: whether the search climbs to the capacity first.
    """
    climb_ns = _CLIMB_NS if climbs else 0
    for planned in range(min(_SEARCHES if climbs else _SEARCHES - 1, most), 1, -1):
        share_ns = (left_ns - climb_ns - (planned - 1) * per_launch_ns) / planned
        if share_ns >= _SHORTEST_NS:
            return round(climb_ns + _SPARED * share_ns)
    return left_ns
