"""The layer of ``Replicated``: chooses a replica for each request by a balance that the load generator does not know.

The rules are in :mod:`pytest_mlpatterns.patterns.replica_choice`.
"""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.layer import LostError
from pytest_mlpatterns.patterns.replica_choice import (
    ByPrefix,
    Choice,
    LeastLatency,
    LeastOutstanding,
    PeakLatencies,
    RoundRobin,
    Rule,
    TwoChoices,
)
from pytest_mlpatterns.patterns.stream import when_over

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.patterns.layer import ProcessHandler
    from pytest_mlpatterns.patterns.replication import Replicated
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["BalancedLayer"]

_AFTER_LOSS_NS = 1_000_000_000
"""Time for which a replica that lost a request is asked last, in nanoseconds. One that has died fails at once, so it
would seem the idlest and the fastest until its death is known."""


class BalancedLayer:
    """Sends each request to one of several replicas.

    A replica that was lost gets no requests for a second, unless all were.

    Raises:
        RequestError: when called: the replica answered with an error.
        LostError: when called: the replica ended under the request, or cannot be reached.
    """

    needs_loop = True

    def __init__(
        self,
        pattern: Replicated,
        replicas: ProcessHandler,
        tally: Tally,
        *,
        clock_ns: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self._replicas = tuple(replicas.replicas)
        self.parallelism: int = len(self._replicas)
        self._tally = tally
        self._clock_ns = clock_ns
        self._in_flight = [0] * self.parallelism
        self._places = tuple(range(self.parallelism))
        self._latencies = PeakLatencies(self.parallelism)
        self._choice = self._choice_of(pattern)
        self._away_until_ns: dict[int, int] = {}

    def _choice_of(self, pattern: Replicated) -> Choice:
        match Rule(pattern.balance):
            case Rule.ROUND_ROBIN:
                return RoundRobin()
            case Rule.LEAST_OUTSTANDING:
                return LeastOutstanding(self._in_flight)
            case Rule.TWO_CHOICES:
                return TwoChoices(self._in_flight)
            case Rule.LEAST_LATENCY:
                return LeastLatency(self._in_flight, self._latencies, self._clock_ns)
            case Rule.PREFIX:
                return ByPrefix(self._in_flight, pattern.prefix_chars, self._tally.count)

    async def __call__(self, instances: list[Any]) -> Any:
        """The outputs of a replica, or its stream."""
        return await self._ask(self._choose(instances), instances)

    def _choose(self, instances: list[Any]) -> int:
        """A replica that is there, if there is one."""
        places: Sequence[int] = self._places
        if self._away_until_ns:
            now_ns = self._clock_ns()
            self._away_until_ns = {place: until for place, until in self._away_until_ns.items() if until > now_ns}
            places = [place for place in places if place not in self._away_until_ns] or places
        return self._choice.choose(places, instances)

    async def _ask(self, place: int, instances: list[Any]) -> Any:
        """Ask one replica; its request is in flight until the answer is complete."""
        self._tally.observe("ahead", self._in_flight[place])
        self._in_flight[place] += 1
        began_ns = self._clock_ns()
        try:
            answer = self._replicas[place](instances)
            outputs: Any = await answer if inspect.isawaitable(answer) else answer
        except BaseException as error:
            self._leave(place)
            now_ns = self._clock_ns()
            if isinstance(error, LostError):
                self._away_until_ns[place] = now_ns + _AFTER_LOSS_NS
            elif isinstance(error, asyncio.CancelledError):
                self._latencies.outlasted(place, now_ns - began_ns, now_ns)
            raise
        now_ns = self._clock_ns()
        self._latencies.answered(place, now_ns - began_ns, now_ns)
        self._tally.time("replica_ns", now_ns - began_ns)
        self._tally.time(f"replica:{place + 1}", now_ns - began_ns)
        return when_over(outputs, partial(self._leave, place))

    def _leave(self, place: int) -> None:
        self._in_flight[place] -= 1
