"""Random arrivals whose bursts are typical, so that a short window says what a long one would.

How many requests wait long in a few seconds of random arrivals is mostly chance: whether the arrivals have one burst
more or less. Of many seeds, this module chooses one whose arrivals make as many requests wait in a reference queue as
arrivals of this rate do on average. The reference serves ``servers`` requests at a time, each for the same time. The
arrivals of each seed are random as they are; which of them is chosen depends on nothing that is measured.

The curve of a search is fitted to the same arrivals (:mod:`pytest_mlpatterns.analysis.objective_search`), so this
matters where late requests are few: for p99 of a service of 10 ms it cuts the standard error of a search of 7 s from 5
to 2 %.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.reference_queue import ReferenceQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_mlpatterns.records.samples import Window

__all__ = ["SEEDS", "typical_seed"]

SEEDS = 64
"""Seeds that are tried; each window of a search takes those after the ones of the window before."""
_MOST_ARRIVALS = 150_000
_LEVELS = (2.0, 1.0, 0.5)
"""Tails that are compared, in shares of the one that matters."""


def typical_seed(
    arrivals_of: Callable[[int], Iterator[int]],
    rate_rps: float,
    reference: ReferenceQueue,
    *,
    window: Window,
    tail: float,
    first_seed: int,
) -> int:
    """The seed with the most typical arrivals.

    Args:
        arrivals_of: arrivals of a seed, in nanoseconds from the start, ascending and without end.
        rate_rps: their mean rate.
        reference: the queue in which they are compared.
        window: the measured window, from the start of the arrivals.
        tail: share of requests whose wait matters, such as 0.05 for p95.
        first_seed: the first seed that is tried.
    """
    mean = rate_rps * window.end_ns / 1e9
    count = int(mean + 5 * math.sqrt(mean) + 10)
    seeds = min(SEEDS, max(_MOST_ARRIVALS // count, 1))
    if seeds == 1:
        return first_seed
    due = np.array(
        [
            np.fromiter(arrivals_of(seed), dtype=np.float64, count=count)
            for seed in range(first_seed, first_seed + seeds)
        ]
    )
    servers = max(1, min(reference.servers, count // 10))
    latency = ReferenceQueue(reference.capacity_rps, servers).latency_ns(due)
    inside = (due >= window.start_ns) & (due < window.end_ns)
    if not inside.any():  # of a service so slow that no arrival falls into the window, each seed is as typical
        return first_seed
    tails = np.minimum(np.array(_LEVELS) * tail, 0.9)
    limits = np.quantile(latency[inside], 1 - tails)
    over = np.array([((latency > limit) & inside).sum(axis=1) for limit in limits])
    shares = over / np.maximum(inside.sum(axis=1), 1) / tails[:, None]
    return first_seed + int(np.argmin(np.abs(shares - 1).sum(axis=0)))
