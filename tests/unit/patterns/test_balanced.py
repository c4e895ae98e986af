"""The layer before replicas: which one answers, and what is cancelled, counted and released."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.caching import Clock
from support.each_row import each_row
from support.scenarios import run, settle
from support.synthetic import FEW

from pytest_mlpatterns import Batched, Cached, Replicated
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.pattern import LayerNode, ProcessGroup
from pytest_mlpatterns.patterns.replica_choice import BalancedLayer
from pytest_mlpatterns.patterns.request_clock import MODEL_CPU, charge
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.package_layers import derived_metrics
from pytest_mlpatterns.records.telemetry import PatternStats

MS = 1_000_000


class Replica:
    """A replica that answers what the test tells it, when the test tells it."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.open: list[asyncio.Future[Any]] = []
        self.asked_by: dict[asyncio.Future[Any], Any] = {}
        self.cancelled = 0

    async def __call__(self, instances: list[Any]) -> Any:
        self.given.append(instances[0])
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.open.append(answer)
        self.asked_by[answer] = instances[0]
        try:
            outputs = await answer
            charge(MODEL_CPU, 5)
            return outputs
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open.remove(answer)

    def say(self, outputs: Any) -> None:
        """Answer the oldest request; an error is raised."""
        if isinstance(outputs, Exception):
            self.open[0].set_exception(outputs)
        else:
            self.open[0].set_result(outputs)


class Group:
    """The processes of a group."""

    in_flight = 1

    def __init__(self, count: int) -> None:
        self.replicas: list[Any] = [Replica() for _ in range(count)]

    async def __call__(self, instances: list[Any]) -> Sequence[Any]:
        raise AssertionError("the layer chooses")


def balanced(replicas: int = 2, balance: str = "least-latency", **arguments: Any) -> tuple[Any, Any, Tally]:
    """The layer, its replicas and what it counts."""
    group, tally = Group(replicas), Tally(0, "replicated")
    clock = arguments.pop("clock", Clock())
    layer = BalancedLayer(Replicated(replicas, balance, **arguments), group, tally, clock_ns=clock)
    return layer, group.replicas, tally


def task_of(layer: Any, *inputs: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(layer(list(inputs)))


@each_row("balance", ["two-choices", "least-latency", "prefix"])
async def test_every_balance_returns_the_answer_of_the_replica_that_it_asked(balance: str) -> None:
    layer, replicas, tally = balanced(3, balance)
    tasks = {text: task_of(layer, text) for text in ("a", "b", "c", "d")}
    await settle()
    assert sorted(one for replica in replicas for one in replica.given) == ["a", "b", "c", "d"]
    for replica in replicas:
        for given_, answer in zip(list(replica.given), list(replica.open), strict=True):
            answer.set_result([given_.upper()])
    for text, task in tasks.items():
        assert await task == [text.upper()]
    assert layer._in_flight == [0, 0, 0]
    figures = derived_metrics(PatternStats(layers=(tally.snapshot(),)))
    assert ("prefix_hits" in figures) == (balance == "prefix")
    assert {"requests_ahead", "replica_time"} <= set(figures)


async def test_a_replica_that_was_lost_rests_for_a_second() -> None:
    clock = Clock()
    layer, (first, second), _ = balanced(2, clock=clock)
    lost = task_of(layer, 0)
    await settle()
    first.say(LostError("it died"))
    with pytest.raises(LostError, match="it died"):
        await lost
    for number in range(1, 4):
        task = task_of(layer, number)
        await settle()
        second.say(["ok"])
        assert await task == ["ok"]
    assert (first.given, second.given) == ([0], [1, 2, 3])
    clock.now_ns += 1001 * MS
    task = task_of(layer, 4)
    await settle()
    first.say(["well again"])
    assert await task == ["well again"]


async def test_if_all_were_lost_they_are_asked_all_the_same() -> None:
    layer, replicas, _ = balanced(2)
    for number in range(4):
        task = task_of(layer, number)
        await settle()
        next(replica for replica in replicas if replica.open).say(LostError("gone"))
        with pytest.raises(LostError):
            await task
    assert [replica.given for replica in replicas] == [[0, 2], [1, 3]]


class Chunks:
    """A stream of three chunks that knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = False
        self.stream = Stream(self._chunks())

    async def _chunks(self) -> AsyncIterator[int]:
        try:
            for number in range(3):
                charge(MODEL_CPU, 1)
                yield number
        finally:
            self.closed = True


class TestStreams:
    async def test_a_stream_is_in_flight_until_it_ends(self) -> None:
        layer, (first, _), _ = balanced()
        task = task_of(layer, "x")
        await settle()
        first.say(Chunks().stream)
        stream = await task
        assert layer._in_flight == [1, 0]
        assert [chunk async for chunk in stream] == [0, 1, 2]
        assert layer._in_flight == [0, 0]


ACTIONS = st.tuples(st.sampled_from(["ask", "answer", "fail", "lose", "leave"]), st.integers(0, 29))
"""What happens next, and which of those whom it may concern it happens to."""


@FEW
@given(st.sampled_from(["two-choices", "least-latency", "prefix"]), st.lists(ACTIONS, min_size=1, max_size=30))
def test_answers_are_never_mixed_up_and_nothing_stays_in_flight(balance: str, actions: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        layer, replicas, _ = balanced(3, balance)
        tasks: dict[int, asyncio.Task[Any]] = {}
        for number, (action, which) in enumerate(actions):
            busy = [replica for replica in replicas if replica.open]
            if action == "ask":
                tasks[number] = task_of(layer, number)
            elif action == "leave" and tasks:
                list(tasks.values())[which % len(tasks)].cancel()
            elif busy:
                answer_oldest(busy[which % len(busy)], ERRORS.get(action))
            await settle()
        await answer_all(replicas)
        outcomes = await asyncio.gather(*tasks.values(), return_exceptions=True)
        for number, outcome in zip(tasks, outcomes, strict=True):
            assert outcome == [f"answer to {number}"] or isinstance(outcome, RequestError | asyncio.CancelledError)
        await settle()
        assert layer._in_flight == [0, 0, 0]

    run(scenario())


ERRORS = {"fail": RequestError(500, "no"), "lose": LostError("gone")}
"""Errors of a replica by what the test does with it."""


async def answer_all(replicas: Sequence[Replica]) -> None:
    while busy := [replica for replica in replicas if replica.open]:
        for replica in busy:
            answer_oldest(replica, None)
        await settle()


def answer_oldest(replica: Replica, error: Exception | None) -> None:
    """Answer the oldest open request with what belongs to its input, or fail it."""
    answer = replica.open[0]
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result([f"answer to {replica.asked_by[answer]}"])


class TestTrees:
    def test_a_gateway_stands_before_the_replicas(self) -> None:
        pattern = Replicated(3, "prefix") | Batched()
        root = pattern.plan()
        assert (root.role, root.replicas, root.takes_load) == ("service", 1, False)
        layer = root.inside
        assert isinstance(layer, LayerNode)
        assert layer.pattern == Replicated(3, "prefix")
        (group,) = layer.inside
        assert isinstance(group, ProcessGroup)
        assert (group.role, group.replicas, group.takes_load) == ("replica", 3, False)

    def test_inside_a_composition_the_process_before_them_chooses(self) -> None:
        root = (Cached() | Replicated(2, "prefix")).plan()
        assert isinstance(root.inside, LayerNode)
        (inner,) = root.inside.inside
        assert isinstance(inner, LayerNode)
        assert isinstance(inner.inside[0], ProcessGroup)
