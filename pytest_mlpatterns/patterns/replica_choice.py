"""Which of several replicas gets a request: the rules that a process before them can apply.

``two-choices``: of two replicas drawn at random, the one with fewer requests in flight, which is nearly as even as the
least of all and never sends a burst to one replica (M. Mitzenmacher, "The Power of Two Choices in Randomized Load
Balancing", IEEE TPDS 2001).

``least-latency``: the least product of latency and requests in flight. The latency of a replica is a moving average
that rises at once to a longer time and falls slowly, the peak-EWMA of Finagle.

``prefix``: requests that begin in the same way go to the same replica, which may have stored what follows from the
beginning, as engines for language models do. Replicas lie on a ring of hashes, so that few beginnings move if a replica
goes or comes. A replica with more than its share of the requests in flight is passed over (V. Mirrokni, M. Thorup and
M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018).

The rules are pure: no clock and no loop. :class:`BalancedLayer`, the layer of ``Replicated``, applies them. Also:
``Balancer`` in ``records/addressing.py`` chooses by turns or by requests in flight for the load generator, an outer
process and ``Queued``.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from hashlib import blake2b
from itertools import islice
from math import ceil, exp, inf
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.layer import LostError, ProcessHandler
from pytest_mlpatterns.patterns.stream import when_over

if TYPE_CHECKING:
    from pytest_mlpatterns.patterns.replication import Replicated
    from pytest_mlpatterns.patterns.tally import Tally

_DECAY_NS = 10_000_000_000  # Time in which an old latency falls to a share of 1/e, in nanoseconds; Finagle's
_POINTS = 100  # Points of a replica on the ring; their shares of it then scatter by 10 %
_MOST_LOAD = 1.25
"""Most requests in flight at a replica, as a multiple of the mean over all; gateways for language models use it too."""
_REMEMBERED = 10_000  # Beginnings that are remembered of each replica; the cache of an engine holds fewer
_PROMPTS = ("prompt", "messages", "text")  # Fields of an input that hold a prompt, the first one that it has
_AFTER_LOSS_NS = 1_000_000_000
"""Time for which a replica that lost a request is asked last, in nanoseconds. One that has died fails at once, so it
would seem the idlest and the fastest until its death is known."""


class Rule(StrEnum):
    """How a process before the replicas chooses among them."""

    TWO_CHOICES = "two-choices"
    LEAST_LATENCY = "least-latency"
    PREFIX = "prefix"


class TwoChoices:
    """Of two replicas drawn at random, the one with fewer requests in flight."""

    def __init__(self, in_flight: Sequence[int], seed: int = 0) -> None:
        self._in_flight = in_flight
        self._random = random.Random(seed).random  # noqa: S311 - nothing is hidden by it

    def choose(self, places: Sequence[int], _instances: Sequence[Any]) -> int:
        """The place that wins."""
        count = len(places)
        number = int(self._random() * count)
        if count == 1:
            return places[0]
        first, second = places[number], places[(number + 1 + int(self._random() * (count - 1))) % count]
        return second if self._in_flight[second] < self._in_flight[first] else first


class PeakLatencies:
    """The latency of each replica: rises at once to a longer time, and falls slowly.

    With the time d since the last answer and w = exp(−d / 10 s), an answer that took t makes the latency
    max(t, w × latency + (1 − w) × t). Without answers it falls to w × latency, so that a slow replica is tried again.
    """

    def __init__(self, replicas: int) -> None:
        self._latency_ns = [-1.0] * replicas
        self._at_ns = [0] * replicas

    def at(self, place: int, now_ns: int) -> float | None:
        """The latency of a replica in nanoseconds; None before its first answer."""
        latency_ns = self._latency_ns[place]
        return None if latency_ns < 0 else latency_ns * self._weight(place, now_ns)

    def answered(self, place: int, took_ns: int, now_ns: int) -> None:
        """A replica has answered within this time."""
        weight = self._weight(place, now_ns)
        smoothed_ns = max(self._latency_ns[place], 0.0) * weight + took_ns * (1 - weight)
        self._latency_ns[place], self._at_ns[place] = max(float(took_ns), smoothed_ns), now_ns

    def outlasted(self, place: int, waited_ns: int, now_ns: int) -> None:
        """A replica has not answered within this time, after which its answer was no longer wanted."""
        if waited_ns > (self.at(place, now_ns) or 0.0):
            self._latency_ns[place], self._at_ns[place] = float(waited_ns), now_ns

    def _weight(self, place: int, now_ns: int) -> float:
        return exp(-max(now_ns - self._at_ns[place], 0) / _DECAY_NS)


class LeastLatency:
    """The replica with the least product of its latency and its requests in flight, the new one among them.

    A replica that has not answered yet gets one request, and more only if none has answered.
    """

    def __init__(self, in_flight: Sequence[int], latencies: PeakLatencies, clock_ns: Callable[[], int]) -> None:
        self._in_flight = in_flight
        self._latencies = latencies
        self._clock_ns = clock_ns
        self._last = -1

    def choose(self, places: Sequence[int], _instances: Sequence[Any]) -> int:
        """The place with the least cost; of several such the next in turn."""
        now_ns = self._clock_ns()
        costs = {place: self._cost(place, now_ns) for place in places}
        least = min(costs.values())
        ties = [place for place in places if costs[place] == least]
        self._last = next((place for place in ties if place > self._last), ties[0])
        return self._last

    def _cost(self, place: int, now_ns: int) -> tuple[float, int]:
        in_flight = self._in_flight[place]
        latency_ns = self._latencies.at(place, now_ns)
        if latency_ns is None:
            return (inf if in_flight else 0.0), in_flight
        return latency_ns * (in_flight + 1), 0


class ByPrefix:
    """The replica that has seen the beginning of a prompt, unless it has more than its share of the load.

    ``count``: takes the name of a counter: ``prefix_hits`` if the chosen replica had a request with the same beginning
    before, else ``prefix_misses``.
    """

    def __init__(self, in_flight: Sequence[int], chars: int, count: Callable[[str], object]) -> None:
        self._in_flight = in_flight
        self._chars = chars
        self._count = count
        points = sorted(
            (_hash(f"{place}:{number}".encode()), place) for place in range(len(in_flight)) for number in range(_POINTS)
        )
        self._hashes = [point for point, _ in points]
        self._owners = [place for _, place in points]
        self._seen: list[OrderedDict[int, None]] = [OrderedDict() for _ in in_flight]

    def choose(self, places: Sequence[int], instances: Sequence[Any]) -> int:
        """The first place on the ring, from the hash of the first input's beginning, that may get more."""
        key = _hash(beginning_of(instances[0], self._chars)) if len(instances) else 0
        total = sum(self._in_flight[place] for place in places) + 1
        most = ceil(_MOST_LOAD * total / len(places))
        found = next(place for place in self._from(key, frozenset(places)) if self._in_flight[place] < most)
        self._remember(found, key)
        return found

    def _from(self, key: int, places: Collection[int]) -> Iterator[int]:
        """The replicas in the order of the ring; one of them has less than its share."""
        start = bisect_left(self._hashes, key)
        for owners in (islice(self._owners, start, None), islice(self._owners, start)):
            yield from (place for place in owners if place in places)

    def _remember(self, place: int, key: int) -> None:
        seen = self._seen[place]
        self._count("prefix_hits" if key in seen else "prefix_misses")
        seen[key] = None
        seen.move_to_end(key)
        if len(seen) > _REMEMBERED:
            seen.popitem(last=False)


def beginning_of(given: Any, chars: int) -> bytes:
    """The beginning of an input: of its text, of the prompt or the messages that it holds, or of its elements."""
    if isinstance(given, Mapping):
        field = next((name for name in _PROMPTS if name in given), None)
        given = repr(given) if field is None else given[field]
        if field == "messages" and isinstance(given, list):
            given = "\n".join(_text_of(message) for message in given)
    if isinstance(given, bytes):
        return given[:chars]
    if getattr(given, "ndim", 0):
        given = given[:chars].tolist()
    if isinstance(given, list | tuple):
        return repr(given[:chars]).encode(errors="replace")
    return (given if isinstance(given, str) else repr(given))[:chars].encode(errors="replace")


def _text_of(message: Any) -> str:
    """The role and the text of a message of a chat."""
    return f"{message.get('role')}: {message.get('content')}" if isinstance(message, Mapping) else str(message)


def _hash(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


Choice = TwoChoices | LeastLatency | ByPrefix


class BalancedLayer:
    """Sends each request to one of several replicas.

    A replica that was lost gets no requests for a second, unless all were.

    Raises RequestError: when called: the replica answered with an error. Raises LostError: when called: the replica
    ended under the request, or cannot be reached.
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
