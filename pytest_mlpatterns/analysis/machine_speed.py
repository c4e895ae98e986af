"""How much slower a machine makes a service: what its counters say was taken, and what the load generator needed.

Pure. An excuse explains at most what it can do: neighbours on x of n cores leave n - x, a host that takes a share s of
the time leaves 1 - s, and so does a limit. No counter inside a machine shows a host that slows everything down. Work
that is always the same shows it. The load generator's is, with a closed loop: it does the same for every request, in
turn with the service, but varies by 16 % between launches. A fixed work at the end of each launch varies by 2 %, and
shows only that moment. This module must not know verdicts.
"""

from __future__ import annotations

from statistics import geometric_mean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.launch import Launch, Taken
    from pytest_mlpatterns.records.setup import LoadDescription

__all__ = ["CPU_FACTOR", "generator_costs_ns", "ratio_of_costs", "ratio_of_sorting", "sorting_times_ns", "taken_factor"]

CPU_FACTOR = 1.5
"""Times as much CPU time as neighbours make a request need at most: they share caches and the two threads of a core."""
_LEAST_LEFT = 0.05
"""Share of the machine that is left at least, since counters of 10 ms may report that others used all of it."""
_LEAST_RATE_RPS = 50.0
"""Below this the generator runs too rarely to tell how fast the machine is while the service computes."""
_LEAST_REQUESTS = 20
_NEW_CONNECTIONS = 0.1
"""Share of requests that open a connection from which the cost of opening them counts."""


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


def generator_costs_ns(launches: Sequence[Launch], load: LoadDescription) -> tuple[float, ...]:
    """CPU time of the load generator per request in each launch, without its ticks; empty if it is no measure.

    It is none of the machine's speed for a paced load, where the generator waits actively for the moment of each
    request, and with few requests or many new connections. Between launches of unchanged code on a quiet machine it
    varies by up to 1.2. A slower service alone raises it by its 0.4th power, since the generator finds its caches
    colder; more pieces per answer by up to three times.

    Args:
        launches: of one test.
        load: what was offered in them.
    """
    costs = () if load.paced else tuple(_cost_ns(launch) for launch in launches)
    return costs if all(costs) else ()


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


def ratio_of_costs(now: Sequence[float], then: Sequence[float]) -> float | None:
    """How many times as much the generator needs per request as before; None if one side is not known.

    Args:
        now: its cost per request in each launch.
        then: the same in the launches of before.
    """
    return geometric_mean(now) / geometric_mean(then) if now and then else None


def _lower_quartile(values: Sequence[float]) -> float:
    """The second smallest of eight, and the smallest of up to four."""
    return sorted(values)[(len(values) - 1) // 4]


def _cost_ns(launch: Launch) -> float:
    report = launch.generator
    few = report.completed < _LEAST_REQUESTS or report.rate_rps < _LEAST_RATE_RPS
    if few or report.connections > _NEW_CONNECTIONS * report.completed:
        return 0.0
    return (report.cpu_ns - report.ticks_cpu_ns) / report.completed
