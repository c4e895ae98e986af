"""The layer of ``Replicated``: chooses a replica for each request, and a second one if the first is late.

It serves the balances that the load generator does not know, and hedged requests. The rules are in
:mod:`pytest_mlpatterns.patterns.replica_choice` and :mod:`pytest_mlpatterns.patterns.hedging`.
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.hedging import hedge_of
from pytest_mlpatterns.patterns.layer import AFTER_LOSS_NS, LostError
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
from pytest_mlpatterns.patterns.request_clock import QUEUE_WAIT, RequestClock, current_clock, set_clock
from pytest_mlpatterns.patterns.stream import Stream, when_over

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.patterns.hedging import Hedge
    from pytest_mlpatterns.patterns.layer import ProcessHandler
    from pytest_mlpatterns.patterns.replication import Replicated
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["BalancedLayer"]


class BalancedLayer:
    """Sends each request to one of several replicas, and with a hedge to a second one if the first is late.

    The first answer counts, and the other request is cancelled. A request that fails while another replica is asked has
    that one's answer. With a hedge a replica that dies under a request has another one asked at once; without one the
    request fails. A replica that was lost gets no requests for a second, unless all were.

    Args:
        pattern: has the balance and the hedge.
        replicas: the handler of the process group.
        tally: counts what :mod:`pytest_mlpatterns.records.package_layers` names for replicas.
        clock_ns: reads a clock in nanoseconds.

    Attributes:
        parallelism: number of replicas.

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
        self._hedge: Hedge | None = None if pattern.hedge is None else hedge_of(pattern.hedge, "hedge")
        self._away_until_ns: dict[int, int] = {}
        self._given_up: set[asyncio.Task[Any]] = set()

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
        if self._hedge is None:
            return await self._ask(self._choose(instances), instances)
        return await self._ask_in_time(self._hedge, instances)

    def _choose(self, instances: list[Any], asked: int | None = None) -> int:
        """A replica that is there and has not been asked, if there is one."""
        places: Sequence[int] = self._places
        if asked is not None:
            places = [place for place in places if place != asked]
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
                self._away_until_ns[place] = now_ns + AFTER_LOSS_NS
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

    async def _ask_in_time(self, hedge: Hedge, instances: list[Any]) -> Any:
        """Ask a replica, and another one if it is late or lost."""
        delay_ns = hedge.delay_ns()
        attempts, taken = [self._begin(instances)], None
        first = attempts[0]
        try:
            await asyncio.wait({first.task}, timeout=None if delay_ns is None else delay_ns / 1e9)
            is_late = not first.task.done() and hedge.spend()
            if not is_late and not first.task.done():
                await asyncio.wait({first.task})
            self._tally.count("hedged" if is_late else "failed_over" if first.is_lost else "asked_once")
            if is_late or first.is_lost:
                attempts.append(self._begin(instances, first.place))
            taken = await _first_answer(attempts)
        finally:
            for attempt in attempts:
                if attempt is not taken:
                    self._give_up(attempt.task)
        if taken.has_answered and not first.is_lost:
            hedge.waited(self._clock_ns() - first.began_ns)
        return _answer_of(taken, since_ns=first.began_ns)

    def _begin(self, instances: list[Any], asked: int | None = None) -> _Attempt:
        clock, place = RequestClock(), self._choose(instances, asked)

        async def attempt() -> Any:
            set_clock(clock)
            return await self._ask(place, instances)

        return _Attempt(asyncio.create_task(attempt()), place, clock, self._clock_ns())

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        """Cancel a request to a replica if it still runs; what it answers in spite of that is dropped."""
        task.cancel()
        self._given_up.add(task)
        task.add_done_callback(self._drop)

    def _drop(self, task: asyncio.Task[Any]) -> None:
        self._given_up.discard(task)
        if not task.cancelled() and task.exception() is None and isinstance(stream := task.result(), Stream):
            stream.discard()


@dataclass(slots=True, eq=False)
class _Attempt:
    """A request to one replica, with a clock of its own."""

    task: asyncio.Task[Any]
    place: int
    clock: RequestClock
    began_ns: int

    @property
    def is_lost(self) -> bool:
        """Whether the replica was lost."""
        return self.task.done() and not self.task.cancelled() and isinstance(self.task.exception(), LostError)

    @property
    def has_answered(self) -> bool:
        """Whether there is an answer, and no error."""
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None


async def _first_answer(attempts: Sequence[_Attempt]) -> _Attempt:
    """The first attempt with an answer; if all fail, the last one."""
    running = {attempt.task for attempt in attempts}
    while running and not any(attempt.has_answered for attempt in attempts):
        _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    return next((attempt for attempt in attempts if attempt.has_answered), attempts[-1])


def _answer_of(attempt: _Attempt, *, since_ns: int) -> Any:
    """The outputs of an attempt, with its times charged to the request; raises its error.

    Args:
        since_ns: when the first replica was asked; until this one was, the request waited.
    """
    clock, own = current_clock(), attempt.clock
    if clock is None:
        return attempt.task.result()
    clock.take({QUEUE_WAIT: attempt.began_ns - since_ns})
    clock.take(own.report())
    outputs = attempt.task.result()
    return Stream(outputs, partial(_take_rest, clock, own)) if isinstance(outputs, Stream) else outputs


def _take_rest(clock: RequestClock, own: RequestClock) -> None:
    """Charge what a stream took after its first chunk."""
    clock.take(own.report())
