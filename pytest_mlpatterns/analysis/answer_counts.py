"""How many answers belong to a stretch of time, and at which moments a count may be cut without rounding.

A window of twenty requests must not be rounded to nineteen or twenty-one: a request that crosses an edge counts on each
side by the share of its time there. Pure; it must not know what is divided by the count.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AnswerCounts"]


class AnswerCounts:
    """The successful answers of one load, cumulative over time.

    With d the moment when a request was due and l its latency, the count until a moment t is in a closed loop ::

        C(t) = Σ clip((t - d) / l, 0, 1)

    A request of an open loop may wait behind others without being worked on, so it counts when its answer came.
    ``benchmarks/counter_simulation.py`` compares the rules.

    Args:
        due_ns: when each request was due, in the order of completion.
        done_ns: when its answer came, ascending.
        closed: whether it was a closed loop.
        weights: what each answer counts for, such as its tokens; None for 1.
    """

    def __init__(
        self,
        due_ns: NDArray[np.int64],
        done_ns: NDArray[np.int64],
        *,
        closed: bool,
        weights: NDArray[np.float64] | NDArray[np.int64] | None = None,
    ) -> None:
        self._due_ns = due_ns
        self._done_ns = done_ns
        self._closed = closed
        self._weights = np.ones(done_ns.size) if weights is None else weights.astype(np.float64)

    def by(self, moments_ns: NDArray[np.float64]) -> NDArray[np.float64]:
        """The count until each of these moments, which ascend."""
        ended = self._ended[np.searchsorted(self._done_ns, moments_ns, side="right")]
        return ended + self._in_flight(moments_ns) if self._closed else ended

    def cuts(self, edges_ns: NDArray[np.float64]) -> NDArray[np.float64]:
        """The moments at which the count is cut instead of at these edges: at the last completion before each.

        n completions then take exactly n intervals. An edge is not moved if the last completion before it is a block
        away: the time of a stall counts.

        Args:
            edges_ns: block edges, evenly spaced, one more than blocks.
        """
        if not self._done_ns.size:
            return edges_ns
        position = np.searchsorted(self._done_ns, edges_ns, side="right")
        last = self._done_ns[np.maximum(position - 1, 0)]
        close = (position > 0) & (edges_ns - last < edges_ns[1] - edges_ns[0])
        return np.where(close, last, edges_ns)

    @cached_property
    def _ended(self) -> NDArray[np.float64]:
        """What the first answers count for together: none, one, two, …"""
        return np.concatenate([[0.0], np.cumsum(self._weights)])

    def _in_flight(self, moments_ns: NDArray[np.float64]) -> NDArray[np.float64]:
        """The shares, at each moment, of the requests that were due before it and answered after it."""
        first = np.searchsorted(moments_ns, self._due_ns, side="right")
        crossed = np.maximum(np.searchsorted(moments_ns, self._done_ns, side="left") - first, 0)
        request = np.repeat(np.arange(crossed.size), crossed)
        moment = first[request] + np.arange(request.size) - np.repeat(np.cumsum(crossed) - crossed, crossed)
        due_ns, done_ns = self._due_ns[request], self._done_ns[request]
        shares = self._weights[request] * (moments_ns[moment] - due_ns) / (done_ns - due_ns)
        return np.bincount(moment, shares, minlength=moments_ns.size).astype(np.float64)
