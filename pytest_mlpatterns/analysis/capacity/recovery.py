"""When a service is well again: the rule, the interval of the time that it takes, and the verdict on a limit.

After a load beyond the capacity, and after a step of a function beside the load. Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.units import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.records.samples import Samples, Window

__all__ = [
    "PIECE_REQUESTS",
    "RECOVERED",
    "Recovery",
    "recovery_estimate",
    "recovery_ns",
    "recovery_outcome",
    "unwell_since_ns",
]

PIECE_REQUESTS = 20
"""Requests of a moving share: one of them is 5 %."""
RECOVERED = 0.95
"""Share of the answers in time before that a recovered service has again."""
_LIKELY = 2.33
"""Standard deviations beyond which one measurement in a hundred lies, as the verdicts on other limits allow."""
_BY_CHANCE = 1e-4
"""Chance, with the share of late requests from before, of a number of them in a piece; a window has 1,000 pieces."""


class Recovery(Struct, frozen=True):
    """One observed recovery.

    Attributes:
        recovery_ns: time that it took; None if it did not happen while it was watched.
        watched_ns: how long it was watched.
        offered_rps: requests that were due per second meanwhile.
        leverage: by how many percent the time changes if the capacity changes by one.
    """

    recovery_ns: float | None
    watched_ns: float
    offered_rps: float
    leverage: float


def recovery_ns(samples: Samples, after: Window, limit_ns: float, *, before_ratio: float) -> float | None:
    """Time from the begin of a window after which requests are answered in time as before; None if that never was.

    It is when the first request in time was due from which on the next 20 requests, and all that follow, have 95 % of
    the share in time before. So a single late request later on does not matter.

    Args:
        samples: requests.
        after: the window.
        limit_ns: an answer within this time is in time.
        before_ratio: share in time before.
    """
    due_ns, in_time = _in_order(samples, after, limit_ns)
    size = due_ns.size - PIECE_REQUESTS + 1
    if size < 1 or not before_ratio:
        return None
    wanted = RECOVERED * before_ratio
    sums = np.concatenate([[0], np.cumsum(in_time)])
    next_ones = _next_in_time(in_time) / PIECE_REQUESTS
    rest = (sums[-1] - sums[:size]) / (due_ns.size - np.arange(size))
    recovered = np.flatnonzero(in_time[:size] & (next_ones >= wanted) & (rest >= wanted))
    if not recovered.size:
        return None
    return float(due_ns[recovered[0]] - after.start_ns) if recovered[0] else 0.0


def unwell_since_ns(samples: Samples, within: Window, limit_ns: float, *, before_ratio: float) -> int | None:
    """When the first late request was due from which on surely more of the next 20 are late than before.

    Args:
        samples: requests; those up to 19 after the window count too.
        within: where to look.
        limit_ns: an answer within this time is in time.
        before_ratio: share in time before.

    Returns:
        Its time on the clock of the samples; None if there is none.
    """
    due_ns, in_time = _in_order(samples, within, limit_ns)
    if due_ns.size < PIECE_REQUESTS:
        return None
    late = PIECE_REQUESTS - _next_in_time(in_time)
    found = np.flatnonzero(~in_time[: late.size] & (late >= _fewest_late(1 - before_ratio)))
    return int(due_ns[found[0]]) if found.size else None


def recovery_estimate(found: Sequence[Recovery]) -> Estimate:
    """The time to recover in the worst measurement, with an interval for another one.

    A measurement resolves the time in which 20 requests come. A capacity that differs by one percent (launches:
    :data:`LAUNCH_SD`) changes the time by the leverage. The lower end is the second worst of several measurements.

    Args:
        found: at least one.

    Returns:
        Nanoseconds; infinite if the service did not recover while it was watched, for which the lower end is then the
        time of watching.
    """
    several = math.sqrt(len(found))
    lows, values, highs = [], [], []
    for one in found:
        resolution_ns = PIECE_REQUESTS / one.offered_rps * SECOND_NS if one.offered_rps else one.watched_ns
        factor = math.exp(_LIKELY * one.leverage * LAUNCH_SD / several)
        values.append(math.inf if one.recovery_ns is None else one.recovery_ns)
        lows.append(one.watched_ns if one.recovery_ns is None else max(one.recovery_ns / factor - resolution_ns, 0.0))
        highs.append(values[-1] * factor + resolution_ns)
    return Estimate(max(values), sorted(lows)[-2:][0], max(highs))


def recovery_outcome(found: Estimate, limit_ns: float) -> Outcome:
    """Whether a time to recover keeps a limit, by its interval."""
    if found.high < limit_ns:
        return Outcome.PASS
    return Outcome.FAIL if found.low >= limit_ns else Outcome.INCONCLUSIVE


def _in_order(samples: Samples, window: Window, limit_ns: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """When the requests of a window were due, ascending, and which of them were answered in time."""
    inside = samples.due_in(window)
    order = np.argsort(samples.due_ns[inside], kind="stable")
    in_time = samples.succeeded[inside] & (samples.latency_ns[inside] <= limit_ns)
    return samples.due_ns[inside][order], in_time[order]


def _next_in_time(in_time: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of 20 requests from each on are in time; of those that 19 others follow."""
    sums = np.concatenate([[0], np.cumsum(in_time)])
    counts: NDArray[np.int64] = sums[PIECE_REQUESTS:] - sums[:-PIECE_REQUESTS]
    return counts


def _fewest_late(ratio: float) -> int:
    """The fewest of 20 requests that are hardly ever late together, if each is with this chance."""
    for late in range(2, PIECE_REQUESTS):
        chances = (
            math.comb(PIECE_REQUESTS, number) * ratio**number * (1 - ratio) ** (PIECE_REQUESTS - number)
            for number in range(late, PIECE_REQUESTS + 1)
        )
        if sum(chances) < _BY_CHANCE:
            return late
    return PIECE_REQUESTS
