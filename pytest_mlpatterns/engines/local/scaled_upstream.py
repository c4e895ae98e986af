"""The client of replicas that come and go, in the gateway process before them.

The gateway asks its parent to start and end replicas, since every process of a deployment is a child of that one. This
module must not know when a replica is wanted, which :mod:`pytest_mlpatterns.patterns.autoscaled` decides.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import replace
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.engines.local.messages import (
    EndReplica,
    ReplicaDied,
    ReplicaEnded,
    ReplicaFailed,
    ReplicaStarted,
    StartReplicas,
)
from pytest_mlpatterns.engines.local.upstream import Upstream
from pytest_mlpatterns.patterns.autoscaled import ReplicaChange, ReplicaEvent
from pytest_mlpatterns.patterns.layer import AFTER_LOSS_NS, LostError
from pytest_mlpatterns.patterns.stream import when_over
from pytest_mlpatterns.records.addressing import Balance

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.engines.local.messages import ReplicaNews, ReplicaWish, UpstreamNode
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["ReplicaLink", "ScaledUpstream"]

_Address = tuple[str, int]


class ReplicaLink:
    """Connects the scaled groups behind a process with its parent.

    Args:
        send: sends a wish to the parent.
    """

    def __init__(self, send: Callable[[ReplicaWish], None]) -> None:
        self.send: Callable[[ReplicaWish], None] = send
        self._groups: dict[int, Callable[[ReplicaNews], None]] = {}

    def connect(self, group: int, on_news: Callable[[ReplicaNews], None]) -> None:
        """From now on pass news of this group on, on the event loop that runs."""
        loop = asyncio.get_running_loop()

        def pass_on(news: ReplicaNews) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the process is about to
                loop.call_soon_threadsafe(on_news, news)

        self._groups[group] = pass_on

    def receive(self, news: ReplicaNews) -> None:
        """Pass news on; called in the thread that reads messages of the parent, after the gateway's first wish."""
        self._groups[news.group](news)


class ScaledUpstream:
    """Calls the replica with the fewest requests in flight; fulfils
    :class:`pytest_mlpatterns.patterns.autoscaled.ScaledHandler`.

    Args:
        node: the group, with the replicas that are ready when the gateway starts.
        tally: counts the hops.
        of: the stage or model that the group is, for the clock of a request; empty if it is none.
        link: to the parent.

    Attributes:
        in_flight: number of requests that a replica takes at once.
    """

    def __init__(self, node: UpstreamNode, tally: Tally, of: str, *, link: ReplicaLink) -> None:
        assert node.scaled is not None
        self.in_flight: int = node.in_flight
        self._node = node
        self._group = node.scaled
        self._tally = tally
        self._of = of
        self._link = link
        self._calls = 0
        self._on_change: Callable[[ReplicaChange], None] = lambda _: None
        self._asked_ns: deque[int] = deque()
        self._leaving: dict[_Address, _Replica] = {}
        self._live: dict[_Address, _Replica] = {}
        for address in node.addresses:
            self._add(address)

    @property
    def ready(self) -> int:
        """Number of replicas that get requests."""
        return len(self._live)

    @property
    def starting(self) -> int:
        """Number of replicas that were asked for and are not ready."""
        return len(self._asked_ns)

    def follow(self, on_change: Callable[[ReplicaChange], None]) -> None:
        """Report each change from now on, on the event loop that runs."""
        self._on_change = on_change
        self._link.connect(self._group, self._take)

    def scale(self, replicas: int) -> None:
        """Ask for the replicas that are missing for this number, and let surplus ones finish their requests and end."""
        now_ns = perf_counter_ns()
        missing = replicas - self.ready - self.starting
        if missing > 0:
            self._asked_ns.extend([now_ns] * missing)
            self._link.send(StartReplicas(self._group, missing))
        while self.ready > replicas:
            leaving = min(reversed(self._live.values()), key=lambda one: one.in_flight)
            del self._live[leaving.address]
            self._leaving[leaving.address] = leaving
            leaving.left_ns = now_ns
            self._end_if_idle(leaving)

    async def __call__(self, instances: list[Any]) -> Any:
        """The outputs of the replica with the fewest requests in flight, of several such the one that waits longest."""
        now_ns = perf_counter_ns()
        replica = min(self._live.values(), key=lambda one: (one.shunned_ns > now_ns, one.in_flight, one.last_call))
        self._calls += 1
        replica.last_call = self._calls
        replica.in_flight += 1
        try:
            outputs = await replica.client(instances)
        except BaseException as error:
            if isinstance(error, LostError):
                replica.shunned_ns = perf_counter_ns() + AFTER_LOSS_NS
            self._answered(replica)
            raise
        return when_over(outputs, partial(self._answered, replica))

    def _answered(self, replica: _Replica) -> None:
        replica.in_flight -= 1
        self._end_if_idle(replica)

    def _end_if_idle(self, replica: _Replica) -> None:
        """Ask for the end of a replica that is to leave, as soon as it has no request."""
        if not replica.in_flight and self._leaving.get(replica.address) is replica:
            self._link.send(EndReplica(self._group, replica.address))

    def _add(self, address: _Address) -> None:
        node = replace(self._node, addresses=(address,), balance=Balance.ROUND_ROBIN)
        self._live[address] = _Replica(address, Upstream(node, self._tally, self._of))

    def _take(self, news: ReplicaNews) -> None:
        """Note news of the parent, and report them."""
        now_ns = perf_counter_ns()
        match news:
            case ReplicaStarted(address=address):
                self._add(address)
                self._on_change(ReplicaChange(ReplicaEvent.STARTED, now_ns - self._asked_ns.popleft()))
            case ReplicaFailed(reason=reason):
                took_ns = now_ns - self._asked_ns.popleft()
                self._on_change(ReplicaChange(ReplicaEvent.FAILED, took_ns, reason))
            case ReplicaEnded(address=address):
                left_ns = self._leaving.pop(address).left_ns
                self._on_change(ReplicaChange(ReplicaEvent.ENDED, now_ns - left_ns))
            case ReplicaDied(address=address):
                self._live.pop(address, None)
                self._leaving.pop(address, None)
                self._on_change(ReplicaChange(ReplicaEvent.DIED))


class _Replica:
    """A replica, as its gateway knows it.

    ``last_call`` is the number of its last request, ``left_ns`` the time at which it was to leave. Until ``shunned_ns``
    it only gets requests if all others are shunned too.
    """

    __slots__ = ("address", "client", "in_flight", "last_call", "left_ns", "shunned_ns")

    def __init__(self, address: _Address, client: Upstream) -> None:
        self.address = address
        self.client = client
        self.in_flight = 0
        self.last_call = 0
        self.left_ns = 0
        self.shunned_ns = 0
