"""A limit of requests in flight: who is let in, who waits, who is refused, and what is counted."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scenarios import PATIENCE_S, counts, run, settle
from support.synthetic import FEW

from pytest_mlpatterns import Limited, UnitError
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.limited import LimitLayer
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.package_layers import derived_metrics
from pytest_mlpatterns.records.telemetry import PatternStats


class Model:
    """A model that answers what the test tells it, when the test tells it."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.most = 0
        self.open: list[asyncio.Future[Sequence[Any]]] = []

    async def __call__(self, instances: list[Any]) -> Sequence[Any]:
        self.given.append(instances[0])
        answer: asyncio.Future[Sequence[Any]] = asyncio.get_running_loop().create_future()
        self.open.append(answer)
        self.most = max(self.most, len(self.open))
        try:
            return await answer
        finally:
            self.open.remove(answer)


def limited(model: Any, **arguments: Any) -> tuple[LimitLayer, Tally]:
    tally = Tally(0, "limited")
    return LimitLayer(Limited(**arguments), model, tally), tally


async def test_beyond_the_limit_requests_wait_and_beyond_those_they_are_refused_at_once() -> None:
    model = Model()
    ask, tally = limited(model, max_in_flight=2, max_waiting=1, status=429, retry_after="1500ms")
    tasks = [asyncio.create_task(ask([number])) for number in range(3)]  # type: ignore[arg-type]
    await settle()
    assert model.given == [0, 1]
    with pytest.raises(RequestError, match=r"too many requests: 2 in flight and 1 request waiting") as refused:
        await ask([3])
    assert (refused.value.status, refused.value.retry_after_s) == (429, 2)
    model.open[0].set_result(["first"])
    await settle()
    assert model.given == [0, 1, 2]  # the waiting one is let in
    for answer in model.open:
        answer.set_result(["later"])
    assert [list(outputs) for outputs in await asyncio.gather(*tasks)] == [["first"], ["later"], ["later"]]
    assert counts(tally) == {"admitted": 3, "rejected": 1}
    figures = derived_metrics(PatternStats(layers=(tally.snapshot(),)))
    assert figures["admitted_share"].value == 0.75


async def test_nobody_waits_if_nobody_may() -> None:
    model = Model()
    ask, _ = limited(model, max_in_flight=1, max_waiting=0, retry_after=None)
    first = asyncio.create_task(ask([0]))  # type: ignore[arg-type]
    await settle()
    with pytest.raises(RequestError, match="0 requests waiting") as refused:
        await ask([1])
    assert (refused.value.status, refused.value.retry_after_s) == (503, None)
    model.open[0].set_result(["done"])
    assert await first == ["done"]


@FEW
@given(st.data())
def test_the_limit_is_never_exceeded_and_requests_keep_their_order(data: st.DataObject) -> None:
    limit, waiting = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 4))
    actions = data.draw(st.lists(st.sampled_from(["ask", "answer", "fail", "leave"]), max_size=40))

    async def scenario() -> None:
        model, asked = Model(), 0
        ask, tally = limited(model, max_in_flight=limit, max_waiting=waiting)
        tasks: list[asyncio.Task[Any]] = []
        for action in actions:
            if action == "ask":
                tasks.append(asyncio.create_task(ask([asked])))  # type: ignore[arg-type]
                asked += 1
            elif action == "leave" and tasks:
                tasks[data.draw(st.integers(0, len(tasks) - 1))].cancel()
            elif model.open and action == "answer":
                model.open[0].set_result(["ok"])
            elif model.open:
                model.open[0].set_exception(ValueError("the model's own error"))
            await settle()
        while model.open:
            model.open[0].set_result(["ok"])
            await settle()
        assert model.most <= limit
        assert model.given == sorted(model.given)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        refused = sum(isinstance(one, RequestError) for one in outcomes)
        assert counts(tally).get("rejected", 0) == refused
        free = [asyncio.create_task(ask([100 + number])) for number in range(limit)]  # type: ignore[arg-type]
        await settle()
        assert len(model.open) == limit  # no place was lost
        for answer in list(model.open):
            answer.set_result(["ok"])
        await asyncio.gather(*free)

    run(scenario())


async def test_a_request_that_goes_just_when_it_is_let_in_gives_its_place_back() -> None:
    model = Model()
    ask, _ = limited(model, max_in_flight=1)
    first, second, third = (asyncio.create_task(ask([number])) for number in range(3))  # type: ignore[arg-type]
    await settle()
    model.open[0].set_result(["done"])
    while not first.done():
        await asyncio.sleep(0)
    second.cancel()  # its turn has come, and it has not run yet
    await settle()
    assert model.given[-1] == 2
    model.open[0].set_result(["done"])
    assert await third == ["done"]


async def test_a_plain_model_runs_in_a_thread_so_that_others_are_refused_meanwhile() -> None:
    may_end, threads = threading.Event(), []

    def model(instances: list[int]) -> list[int]:
        threads.append(threading.current_thread().name)
        assert may_end.wait(PATIENCE_S)
        return [2 * one for one in instances]

    ask, _ = limited(model, max_in_flight=1, max_waiting=0)
    first = asyncio.create_task(ask([4]))  # type: ignore[arg-type]
    await settle()
    with pytest.raises(RequestError):
        await ask([5])
    may_end.set()
    assert await first == [8]
    assert threads == ["limited model"]


async def later() -> AsyncIterator[int]:
    yield 1
    yield 2


async def streamed(_instances: list[Any]) -> Any:
    return Stream(later())


def yielded(_instances: list[Any]) -> Any:
    yield from (1, 2)


@pytest.mark.parametrize("model", [streamed, yielded, lambda _instances: later(), lambda _instances: [later()]])
async def test_a_stream_is_in_flight_until_it_ends(model: Any) -> None:
    ask, _ = limited(model, max_in_flight=1, max_waiting=0)
    stream: Any = await ask([0])
    with pytest.raises(RequestError):
        await ask([1])
    assert [chunk async for chunk in stream] == [1, 2]
    await settle()
    assert await ask([2])


def test_a_time_needs_its_unit() -> None:
    with pytest.raises(UnitError, match="retry_after"):
        Limited(retry_after="1")
