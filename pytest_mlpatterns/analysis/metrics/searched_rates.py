"""The rate that several searches under one objective give together, and the pauses of the service that they met.

Pure. A pause that one search met may be one of the machine; if it is one of the service, further searches meet more.
Until then the rate lies between that of a service that stops more often than was seen, and of one that does so less
often. A search of a few seconds may also lie between two pauses, so a PASS of p99 rests on two of them.
"""

import math
from collections.abc import Callable, Sequence
from operator import attrgetter

from pytest_mlpatterns.records.launch import Capacity, Estimate, LaunchValue
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.units import format_duration, format_rate
from pytest_mlpatterns.wording import count

_CLIMB_ERROR = 1.1  # Largest factor by which the capacity of a launch is above the climb's
_RARE = 0.01 + 1e-9  # Allowed share of late requests up to which a PASS rests on two searches


def known_rate(searches: Sequence[Capacity], rate_of: Callable[[Sequence[LaunchValue]], Estimate]) -> Estimate | None:
    """The rate of several searches under one objective, with its interval; None if no rate keeps it.

    With pauses it reaches from the rate of a service that makes more of them than were met to that of one with fewer.
    It ends at the capacity, which a climb before the first search found.
    """
    found = rate_of(counted_rates(searches))
    if not _met_by_chance(searches):
        least, most = (
            rate_of([one.nmrt if one.pauses is None else of(one.pauses) for one in searches])
            for of in (attrgetter("least"), attrgetter("most"))
        )
        found = Estimate(found.value, least.low, most.high)
    climbed = [_CLIMB_ERROR * step.rate_rps for one in searches for step in one.ladder]
    highest = max(found.value, min(found.high, max(climbed, default=math.inf)))
    return Estimate(found.value, found.low, highest) if highest > 0 else None


def counted_rates(searches: Sequence[Capacity]) -> list[LaunchValue]:
    """The rate of each search: with the pauses that it met, unless they were chance."""
    is_chance = _met_by_chance(searches)
    return [one.pauses.without if one.pauses is not None and is_chance else one.nmrt for one in searches]


def searches_needed(searches: Sequence[Capacity], objective: Objective) -> int:
    """Searches that a PASS rests on: a pause in a hundred seconds breaks a p99, and one search may be between two."""
    is_rare = min(bound.allowed for bound in objective.bounds) <= _RARE
    return (2 if is_rare else 1) + _met_by_chance(searches)


def describe_pauses(searches: Sequence[Capacity]) -> str:
    """The pauses that searches met, and what they mean: ``2 of 6 windows had a pause of up to 203 ms: …``."""
    met = [(one, one.pauses) for one in searches if one.pauses is not None]
    if not met:
        return ""
    windows = f"{sum(one.windows for _, one in met)} of {count(sum(one.of for _, one in met), 'window')}"
    seen = f"{windows} had a pause of up to {format_duration(max(one.longest_ns for _, one in met))}"
    if _met_by_chance(searches):
        return f"{seen}, and a further search none, so it does not count"
    last, pauses = met[-1]
    rate = format_rate(last.nmrt.value) if last.nmrt.value > 0 else "no rate"
    return f"{seen}: with pauses {rate} keeps the objective, without them {format_rate(pauses.without.value)}"


def _met_by_chance(searches: Sequence[Capacity]) -> bool:
    """Whether one window of one search had a pause, and no further search met any."""
    met = [0 if one.pauses is None else one.pauses.windows for one in searches]
    return sum(met) == 1 and not met[-1]
