"""How much slower the machine was in a launch than in earlier ones, by what the load generator used for a request.

Pure. With a closed loop the generator does the same work for every request, in turn with the service. A host that slows
down everything slows down both, which no counter of the machine tells. A slower service alone changes the generator's
cost little: it waits longer, and finds its caches colder. This module must not know verdicts.
"""

from __future__ import annotations

from statistics import geometric_mean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.launch import Launch
    from pytest_mlpatterns.records.setup import LoadDescription

__all__ = ["SLOWER", "generator_costs_ns", "slowdowns"]

SLOWER = 1.15
"""Ratio of CPU times for the same work from which a launch counts as slowed down by the machine."""
_LEAST_RATE_RPS = 50.0
"""Below this the generator's own ticks, 20 a second, are too much of its CPU time."""
_LEAST_REQUESTS = 20
_NEW_CONNECTIONS = 0.1
"""Share of requests that open a connection from which the cost of opening them counts."""


def generator_costs_ns(launches: Sequence[Launch], load: LoadDescription) -> tuple[float, ...]:
    """CPU time of the load generator per request in each launch; empty if that does not tell the machine's speed.

    It does not for a paced load, where the generator waits actively for the moment of each request, and with few
    requests or many new connections.

    Args:
        launches: of one test.
        load: what was offered in them.
    """
    costs = () if load.paced else tuple(_cost_ns(launch) for launch in launches)
    return costs if all(costs) else ()


def slowdowns(now: Sequence[float], then: Sequence[float]) -> tuple[float, ...]:
    """How many times as long the same work took in each launch as it took before; empty if one side is not known.

    Args:
        now: cost of the same work in each launch.
        then: the same in the launches of before.
    """
    if not now or not then:
        return ()
    usual = geometric_mean(then)
    return tuple(cost / usual for cost in now)


def _cost_ns(launch: Launch) -> float:
    report = launch.generator
    few = report.completed < _LEAST_REQUESTS or report.rate_rps < _LEAST_RATE_RPS
    if few or report.connections > _NEW_CONNECTIONS * report.completed:
        return 0.0
    return report.cpu_ns / report.completed
