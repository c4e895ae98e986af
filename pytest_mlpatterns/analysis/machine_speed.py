"""How much slower the machine was in a launch than in earlier ones, by what the load generator used for a request.

Pure. With a closed loop the generator does the same work for every request, in turn with the service. A host that slows
down everything slows down both, and no counter of the machine shows it. The generator is the more sensitive: between
launches of unchanged code on a disturbed host its cost doubled where the service took a third longer. A slower service
alone makes it wait longer and find its caches colder: a service of twice the time raises the cost by a third. So only a
large change counts, and what it explains is less than itself. This module must not know verdicts.
"""

from __future__ import annotations

from statistics import geometric_mean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.launch import Launch
    from pytest_mlpatterns.records.setup import LoadDescription

__all__ = ["SLOWER", "explained_slowdown", "generator_costs_ns", "slowdowns"]

SLOWER = 1.3
"""Ratio of the generator's costs from which the machine slowed down a launch; 1.2 occurs on a quiet machine."""
_OF_SERVICE = 0.8
"""A service slows down at most by this power of the generator's ratio."""
_LEAST_RATE_RPS = 50.0
"""Below this the generator runs too rarely to tell how fast the machine is while the service computes."""
_LEAST_REQUESTS = 20
_NEW_CONNECTIONS = 0.1
"""Share of requests that open a connection from which the cost of opening them counts."""


def generator_costs_ns(launches: Sequence[Launch], load: LoadDescription) -> tuple[float, ...]:
    """CPU time of the load generator per request in each launch, without its ticks; empty if it is no measure.

    It is none of the machine's speed for a paced load, where the generator waits actively for the moment of each
    request, and with few requests or many new connections.

    Args:
        launches: of one test.
        load: what was offered in them.
    """
    costs = () if load.paced else tuple(_cost_ns(launch) for launch in launches)
    return costs if all(costs) else ()


def slowdowns(now: Sequence[float], then: Sequence[float]) -> tuple[float, ...]:
    """Ratio of the generator's cost in each launch to its mean in those of before; empty if one side is not known.

    Args:
        now: its cost per request in each launch.
        then: the same in the launches of before.
    """
    if not now or not then:
        return ()
    usual = geometric_mean(then)
    return tuple(cost / usual for cost in now)


def explained_slowdown(ratios: Sequence[float]) -> float:
    """How many times as long a service takes at most because the machine is slower; at least 1.

    Args:
        ratios: of the generator's costs in each launch, see :func:`slowdowns`.
    """
    return float(max(geometric_mean(ratios), 1.0) ** _OF_SERVICE)


def _cost_ns(launch: Launch) -> float:
    report = launch.generator
    few = report.completed < _LEAST_REQUESTS or report.rate_rps < _LEAST_RATE_RPS
    if few or report.connections > _NEW_CONNECTIONS * report.completed:
        return 0.0
    return (report.cpu_ns - report.ticks_cpu_ns) / report.completed
