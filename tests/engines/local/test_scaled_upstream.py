"""The gateway's client of replicas that come and go: which one is asked, which one leaves, and what is reported."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from support.scenarios import run, settle

from pytest_mlpatterns.engines.local.messages import (
    EndReplica,
    ReplicaDied,
    ReplicaEnded,
    ReplicaFailed,
    ReplicaStarted,
    StartReplicas,
    UpstreamNode,
)
from pytest_mlpatterns.engines.local.scaled_upstream import ReplicaLink, ScaledUpstream
from pytest_mlpatterns.patterns.autoscaled import ReplicaChange, ReplicaEvent
from pytest_mlpatterns.patterns.layer import LostError
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pytest_mlpatterns.engines.local.messages import ReplicaNews, ReplicaWish

GROUP = 3
FIRST, SECOND, THIRD = (("127.0.0.1", port) for port in (1, 2, 3))


class Client:
    """A client of one replica, which answers when the test says so."""

    def __init__(self) -> None:
        self.open: list[asyncio.Future[Any]] = []

    async def __call__(self, instances: list[Any]) -> Any:
        self.open.append(asyncio.get_running_loop().create_future())
        return await self.open[-1]


class Gateway:
    """A scaled upstream whose parent and replicas are the test."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.wishes: list[ReplicaWish] = []
        self.changes: list[ReplicaChange] = []
        self.link = ReplicaLink(self.wishes.append)
        node = UpstreamNode(addresses, "/p", 0, in_flight=2, scaled=GROUP)
        self.upstream = ScaledUpstream(node, Tally(0, "hop"), "", link=self.link)
        self.clients: dict[tuple[str, int], Client] = {}
        self.upstream.follow(self.changes.append)
        self.adopt()

    def adopt(self) -> None:
        """Give each replica that has none a client of the test."""
        for address, replica in self.upstream._live.items():
            self.clients.setdefault(address, Client())
            replica.client = self.clients[address]  # type: ignore[assignment]

    async def hear(self, news: ReplicaNews) -> None:
        await asyncio.to_thread(self.link.receive, news)
        await settle()
        self.adopt()

    async def ask(self, times: int = 1) -> list[asyncio.Task[Any]]:
        tasks = [asyncio.ensure_future(self.upstream([number])) for number in range(times)]
        await settle()
        return tasks

    def loads(self) -> dict[tuple[str, int], int]:
        return {address: sum(not one.done() for one in client.open) for address, client in self.clients.items()}

    async def answer(self, address: tuple[str, int], value: Any = 0) -> None:
        next(one for one in self.clients[address].open if not one.done()).set_result(value)
        await settle()

    @property
    def events(self) -> list[ReplicaEvent]:
        return [change.event for change in self.changes]


def test_each_request_goes_to_the_replica_with_the_fewest_in_flight_and_of_those_to_the_next() -> None:
    async def scenario() -> None:
        gateway = Gateway(FIRST, SECOND, THIRD)
        assert (gateway.upstream.in_flight, gateway.upstream.ready) == (2, 3)
        await gateway.ask(4)
        assert gateway.loads() == {FIRST: 2, SECOND: 1, THIRD: 1}
        await gateway.answer(SECOND)
        await gateway.ask()
        assert gateway.loads() == {FIRST: 2, SECOND: 1, THIRD: 1}
        for address in (FIRST, FIRST, SECOND, THIRD):
            await gateway.answer(address)

    run(scenario())


def test_missing_replicas_are_asked_for_once() -> None:
    async def scenario() -> None:
        gateway = Gateway(FIRST)
        gateway.upstream.scale(3)
        gateway.upstream.scale(3)
        assert gateway.wishes == [StartReplicas(GROUP, 2)]
        assert (gateway.upstream.ready, gateway.upstream.starting) == (1, 2)
        await gateway.hear(ReplicaStarted(GROUP, SECOND))
        await gateway.hear(ReplicaFailed(GROUP, "no memory"))
        assert (gateway.upstream.ready, gateway.upstream.starting) == (2, 0)
        assert gateway.events == [ReplicaEvent.STARTED, ReplicaEvent.FAILED]
        assert gateway.changes[1].reason == "no memory"
        assert all(change.took_ns > 0 for change in gateway.changes)

    run(scenario())


def test_a_replica_that_leaves_is_the_idlest_gets_no_request_and_ends_after_its_last_one() -> None:
    async def scenario() -> None:
        gateway = Gateway(FIRST, SECOND)
        tasks = await gateway.ask(3)
        assert gateway.loads() == {FIRST: 2, SECOND: 1}
        gateway.upstream.scale(1)
        tasks += await gateway.ask()
        assert gateway.loads() == {FIRST: 3, SECOND: 1}
        assert gateway.wishes == []
        await gateway.answer(SECOND, "last")
        assert gateway.wishes == [EndReplica(GROUP, SECOND)]
        await gateway.hear(ReplicaEnded(GROUP, SECOND))
        assert gateway.events == [ReplicaEvent.ENDED]
        for _ in range(3):
            await gateway.answer(FIRST)
        assert [await task for task in tasks] == [0, "last", 0, 0]

    run(scenario())


def test_an_idle_replica_ends_at_once_and_of_several_the_youngest() -> None:
    async def scenario() -> None:
        gateway = Gateway(FIRST, SECOND, THIRD)
        gateway.upstream.scale(1)
        assert gateway.wishes == [EndReplica(GROUP, THIRD), EndReplica(GROUP, SECOND)]

    run(scenario())


def test_a_replica_ends_after_its_streams() -> None:
    async def chunks() -> AsyncIterator[Any]:
        yield 1

    async def scenario() -> None:
        gateway = Gateway(FIRST)
        (task,) = await gateway.ask()
        await gateway.answer(FIRST, Stream(chunks()))
        stream = await task
        gateway.upstream.scale(0)
        await settle()
        assert gateway.wishes == []
        assert [chunk async for chunk in stream] == [1]
        await settle()
        assert gateway.wishes == [EndReplica(GROUP, FIRST)]

    run(scenario())


@pytest.mark.parametrize("leaves", [False, True])
def test_a_replica_that_dies_gets_no_request_and_is_not_ended(leaves: bool) -> None:
    async def scenario() -> None:
        gateway = Gateway(FIRST, SECOND)
        (task,) = await gateway.ask()
        gateway.upstream.scale(1 if leaves else 2)
        await gateway.hear(ReplicaDied(GROUP, FIRST))
        await gateway.hear(ReplicaDied(GROUP, SECOND))
        assert gateway.upstream.ready == 0
        assert gateway.events == [ReplicaEvent.DIED, ReplicaEvent.DIED]
        wishes = list(gateway.wishes)
        await gateway.answer(FIRST)
        assert await task == 0
        assert gateway.wishes == wishes

    run(scenario())


def test_a_replica_that_lost_a_request_is_asked_after_the_others() -> None:
    async def scenario() -> None:
        gateway = Gateway(FIRST, SECOND)
        (lost,) = await gateway.ask()
        gateway.clients[FIRST].open[0].set_exception(LostError("it died"))
        with pytest.raises(LostError):
            await lost
        await gateway.ask(3)
        assert gateway.loads() == {FIRST: 0, SECOND: 3}
        for _ in range(3):
            await gateway.answer(SECOND)

    run(scenario())


def test_news_after_the_end_of_the_loop_are_dropped() -> None:
    gateway: list[Gateway] = []

    async def scenario() -> None:
        gateway.append(Gateway(FIRST))

    run(scenario())
    gateway[0].link.receive(ReplicaDied(GROUP, FIRST))
    assert gateway[0].upstream.ready == 1
