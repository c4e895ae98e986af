"""What a million answers cost, at a price per core-hour and per GiB-hour. Pure.

Memory is paid at its peak for the whole time, since a machine has to hold that much ready. Cores are paid in one of two
ways. With ``p_core`` per core and nanosecond, and ``p_GiB`` per GiB and nanosecond, it is ::

    used:   10^6 · (p_core · CPU per request + p_GiB · peak memory / throughput)
    given:  10^6 · (p_core · cores           + p_GiB · peak memory) / throughput

What was used is the bill if other services pay for the time that is left. What was given is the bill of a pod that has
its cores to itself: two cores cost two cores, also while they are idle. The cores of the first are ASL times those of
the second, so what is given costs the least at the highest throughput. At NMRT, ASL and the
peak memory are those that the search saw at the knee.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.launch import LaunchValue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_mlpatterns.records.launch import Capacity
    from pytest_mlpatterns.records.price import Price

__all__ = ["cost_at_nmrt", "cost_of_a_million", "given_cost_at_nmrt"]

_REQUESTS = 1e6
_NS_PER_HOUR = 3.6e12
_BYTES_PER_GIB = 2.0**30


def cost_of_a_million(
    price: Price, core_ns: NDArray[np.float64], held_ns: NDArray[np.float64], *, memory_bytes: float
) -> NDArray[np.float64]:
    """One million times what each block of a launch cost; over its answers, it is the cost of a million of them.

    Args:
        price: per core-hour and per GiB-hour.
        core_ns: core time of each block that is paid: used, or given; shape ``(blocks,)``.
        held_ns: length of each block, for which the memory was held, shape ``(blocks,)``.
        memory_bytes: how much memory was held.
    """
    core_hours = core_ns / _NS_PER_HOUR
    gib_hours = held_ns / _NS_PER_HOUR * (memory_bytes / _BYTES_PER_GIB)
    return _REQUESTS * (price.per_core_hour * core_hours + price.per_gib_hour * gib_hours)


def cost_at_nmrt(capacity: Capacity, price: Price | None) -> LaunchValue | None:
    """Cost of a million answers at NMRT from the cores that were used; None if a part of it is not known."""
    return None if capacity.asl is None else _at_nmrt(capacity, price, capacity.asl)


def given_cost_at_nmrt(capacity: Capacity, price: Price | None) -> LaunchValue | None:
    """Cost of a million answers at NMRT from the cores that were given; None without a limit, and likewise."""
    return _at_nmrt(capacity, price, LaunchValue(1.0, 0.0)) if capacity.limited else None


def _at_nmrt(capacity: Capacity, price: Price | None, share: LaunchValue) -> LaunchValue | None:
    """The cost at NMRT, if a share of the cores is paid."""
    nmrt, cores, memory = capacity.nmrt, capacity.cores, capacity.peak_rss_bytes
    if price is None or cores is None or memory is None or capacity.at_least or nmrt.value <= 0:
        return None
    millions_per_hour = nmrt.value * (_NS_PER_HOUR / 1e9) / _REQUESTS
    of_cores = price.per_core_hour * share.value * cores / millions_per_hour
    cost = of_cores + price.per_gib_hour * (memory / _BYTES_PER_GIB) / millions_per_hour
    error = math.hypot(cost * nmrt.relative_error, of_cores * share.relative_error)
    return LaunchValue(cost, error / cost if cost else 0.0)
