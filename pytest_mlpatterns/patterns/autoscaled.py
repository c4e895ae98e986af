"""The pattern ``Autoscaled``: replicas that start and end with the load, and the layer before them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol, cast

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import plain_number, set_whole
from pytest_mlpatterns.patterns.arguments import NO_VARIABLES, set_variables
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.pattern import MAX_PROCESSES, LayerNode, Node, Pattern, ProcessGroup, build
from pytest_mlpatterns.patterns.replica_rule import ReplicaRule
from pytest_mlpatterns.patterns.request_clock import QUEUE_WAIT, charge
from pytest_mlpatterns.patterns.stream import when_over
from pytest_mlpatterns.units import parse_duration
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from pytest_mlpatterns.patterns.layer import Handler, Resources
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["AutoscaleLayer", "Autoscaled", "ReplicaChange", "ReplicaEvent", "ScaledHandler"]

_LARGEST_TARGET = 1000
"""Largest target; no replica has more requests in flight at once for a reason."""
_SHORTEST_WINDOW_NS = 10_000_000
"""Shortest window over which the demand is averaged, in nanoseconds: a load generator's request takes a millisecond."""
_DECISIONS = 5
"""Decisions in one window."""
_OSCILLATION_NS = 60_000_000_000
"""Longest time after a scale-in in which a scale-out takes it back: in Knative a replica without work lives as long."""


@dataclass(frozen=True, slots=True)
class Autoscaled(Pattern):
    """Replicas follow the load: a gateway counts the requests in flight, and has replicas started and ended.

    A replica gets requests as soon as it has loaded its model, and ends after the last of its requests is answered.
    Each request goes to the replica with the fewest in flight.

    Args:
        min: smallest number of replicas, 0..63. With 0 the first request waits for a cold start.
        max: largest number of replicas, 1..63.
        target: requests in flight that each replica should have, as a share of what it takes at once: one request, or
            with ``Batched``, ``Continuous`` or ``Limited`` inside as many as these take. Above 1 requests wait, and the
            number of replicas may oscillate.
        window: time over which the requests in flight are averaged, at least 10 ms.
        stable: time for which fewer replicas must have been enough before one ends; ``"0s"``: none.
        env: environment variables of each replica.

    Raises:
        SettingError: a number out of range, ``min`` above ``max``, or impossible variables.
        UnitError: a time without a unit.
    """

    min: int = 1
    max: int = 4
    target: float = 0.7
    window: str = "1s"
    stable: str = "10s"
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        set_whole(self, "max", least=1, most=MAX_PROCESSES - 1)
        set_whole(self, "min", least=0, most=MAX_PROCESSES - 1)
        if self.min > self.max:
            raise SettingError(f"Autoscaled(min={self.min}, max={self.max}), expected min= of at most max=")
        target = plain_number(self.target)
        if target is None or not 0 < target <= _LARGEST_TARGET:
            raise SettingError(
                f"Autoscaled(target={shown(self.target)}), expected a share of what a replica takes at once, above 0 "
                f"and at most {_LARGEST_TARGET:,}; write target=0.7"
            )
        object.__setattr__(self, "target", target)
        window_ns = parse_duration(self.window, name="Autoscaled(window=...)")
        if window_ns < _SHORTEST_WINDOW_NS:
            raise SettingError(f'Autoscaled(window={shown(self.window)}), expected at least 10ms; write window="1s"')
        parse_duration(self.stable, name="Autoscaled(stable=...)")

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the gateway's layer before the replicas, each with the rest of the composition.

        Raises:
            SettingError: the rest scales too.
        """
        if inner := next((one for one in rest if isinstance(one, Autoscaled)), None):
            raise SettingError(
                f"{self} | … | {inner}, expected one Autoscaled in a composition: a replica that ends would take those "
                "inside it along; leave one out"
            )
        replicas = ProcessGroup(build(position + 1, rest), "replica", position, self.min, most=self.max, env=self.env)
        return LayerNode(self, position, (replicas,))

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer that counts the requests in flight before the replicas inside."""
        return AutoscaleLayer(self, cast("ScaledHandler", inside[0]), tally)


class ReplicaEvent(Enum):
    """What has happened to a replica: it is ready, has ended as asked, has died, or could not start."""

    STARTED = "started"
    ENDED = "ended"
    DIED = "died"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ReplicaChange:
    """A change of the replicas.

    Args:
        took_ns: time since it was asked for, in nanoseconds; 0 if the replica died.
        reason: why a replica could not start; else empty.
    """

    event: ReplicaEvent
    took_ns: int = 0
    reason: str = ""


class ScaledHandler(Protocol):
    """The handler of a process group whose replicas come and go."""

    @property
    def in_flight(self) -> int:
        """Number of requests that a replica takes at once."""
        ...

    @property
    def ready(self) -> int:
        """Number of replicas that get requests."""
        ...

    @property
    def starting(self) -> int:
        """Number of replicas that were asked for and are not ready."""
        ...

    def follow(self, on_change: Callable[[ReplicaChange], None]) -> None:
        """Report each change from now on, on the event loop that runs."""
        ...

    def scale(self, replicas: int) -> None:
        """Ask for the replicas that are missing for this number, and let surplus ones finish their requests and end."""
        ...

    def __call__(self, instances: list[Any], /) -> Awaitable[Sequence[Any]]:
        """Send the inputs to a replica that is ready, of which there must be one.

        Raises:
            LostError: in the awaitable: the replica ended during the request.
        """
        ...


class AutoscaleLayer:
    """Counts requests in flight, asks for replicas, and lets requests wait while there is none.

    A stream is in flight until it has ended.

    Args:
        pattern: the numbers.
        replicas: the handler of the replicas.
        tally: counts what :mod:`pytest_mlpatterns.records.package_layers` names for autoscaling.

    Attributes:
        parallelism: largest number of replicas.

    Raises:
        RequestError: when called: no replica could be started, or the request's own error.
        LostError: when called: the replica ended during the request.
    """

    needs_loop = True

    def __init__(self, pattern: Autoscaled, replicas: ScaledHandler, tally: Tally) -> None:
        self.parallelism: int = pattern.max
        self._replicas = replicas
        self._tally = tally
        window_ns = parse_duration(pattern.window)
        self._rule = ReplicaRule(
            least=pattern.min,
            most=pattern.max,
            target=pattern.target * replicas.in_flight,
            window_ns=window_ns,
            stable_ns=parse_duration(pattern.stable),
        )
        self._interval_s = window_ns / _DECISIONS / 1e9
        self._wanted = pattern.min
        self._ready: int | None = None
        self._scaled_in_ns: int | None = None
        self._in_flight = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._decisions: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Decide from now on how many replicas are wanted."""
        self._replicas.follow(self._on_change)
        self._note_ready()
        self._tally.level("wanted", self._wanted)
        self._rule.observe(perf_counter_ns(), 0)
        self._decisions = asyncio.create_task(self._decide_for_ever())

    async def close(self) -> None:
        """Decide no more."""
        if self._decisions is not None:
            self._decisions.cancel()

    async def __call__(self, instances: list[Any]) -> Any:
        """The outputs of a replica, or its stream, after a wait for the first one if there is none."""
        self._count_in_flight(1)
        hurt = self._is_short
        counter = "waited" if hurt else "unhurt"
        try:
            outputs = await self._answer(instances)
        except BaseException as error:
            self._tally.count("failed" if isinstance(error, LostError | _NoReplicaError) else counter)
            self._count_in_flight(-1)
            raise
        self._tally.count(counter)
        return when_over(outputs, partial(self._count_in_flight, -1))

    @property
    def _is_short(self) -> bool:
        """Whether a request has to wait for a replica that starts: all places of the others are taken."""
        replicas = self._replicas
        return not replicas.ready or (replicas.starting > 0 and self._in_flight > replicas.ready * replicas.in_flight)

    async def _answer(self, instances: list[Any]) -> Sequence[Any]:
        arrived_ns = perf_counter_ns()
        while not self._replicas.ready:
            await self._await_replica()
            charge(QUEUE_WAIT, perf_counter_ns() - arrived_ns)
            arrived_ns = perf_counter_ns()
        return await self._replicas(instances)

    async def _await_replica(self) -> None:
        """Wait until a replica is ready.

        Raises:
            RequestError: none could be started.
        """
        self._decide()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(place)
        try:
            await place
        finally:
            self._waiting.discard(place)

    def _count_in_flight(self, more: int) -> None:
        self._in_flight += more
        self._rule.observe(perf_counter_ns(), self._in_flight)

    async def _decide_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            self._decide()

    def _decide(self) -> None:
        """Ask for as many replicas as are wanted now."""
        now_ns = perf_counter_ns()
        wanted = self._rule.wanted(now_ns, self._wanted)
        if wanted > self._wanted:
            self._tally.count("scale_outs")
            if self._scaled_in_ns is not None and now_ns - self._scaled_in_ns < _OSCILLATION_NS:
                self._tally.count("oscillations")
            self._scaled_in_ns = None
        elif wanted < self._wanted:
            self._tally.count("scale_ins")
            self._scaled_in_ns = now_ns
        if wanted != self._wanted:
            self._wanted = wanted
            self._tally.level("wanted", wanted)
        self._replicas.scale(wanted)
        self._note_ready()

    def _on_change(self, change: ReplicaChange) -> None:
        """Count a change of the replicas, and let waiting requests go on or fail."""
        if change.event is ReplicaEvent.STARTED:
            self._tally.time("out_ns", change.took_ns)
        elif change.event is ReplicaEvent.ENDED:
            self._tally.time("in_ns", change.took_ns)
        else:
            self._tally.count(change.event.value + "_replicas")
        if self._replicas.ready:
            self._release(None)
        elif change.event is ReplicaEvent.FAILED and not self._replicas.starting:
            self._release(change.reason)
        if change.event is not ReplicaEvent.FAILED:  # a request that comes asks for another try
            self._decide()

    def _release(self, reason: str | None) -> None:
        """Let all waiting requests go on, or fail for a reason."""
        for place in self._waiting:
            if place.done():
                continue
            if reason is None:
                place.set_result(None)
            else:
                place.set_exception(_NoReplicaError(reason))

    def _note_ready(self) -> None:
        if self._ready != self._replicas.ready:
            self._ready = self._replicas.ready
            self._tally.level("replicas", self._ready)


class _NoReplicaError(RequestError):
    """A request waited for a replica that could not be started."""

    def __init__(self, reason: str) -> None:
        super().__init__(503, f"no replica could be started: {reason}", retry_after_s=1)
