"""The layer of ``Queued`` on Ray Serve: refusals, redelivery and what it counts."""

import asyncio
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from support.fake_serve import FakeHandle, fake_serve
from support.scenarios import counts

from pytest_mlpatterns import Queued
from pytest_mlpatterns.engines.ray.messages import HandleAnswer, HandleNode
from pytest_mlpatterns.engines.ray.remote.handle_upstream import HandleUpstream
from pytest_mlpatterns.engines.ray.remote.replica import ServeQueueLayer
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.queued import MAX_ATTEMPTS
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally


@pytest.fixture(autouse=True)
def errors(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    return fake_serve(monkeypatch)


def layer_of(handle: FakeHandle, *, workers: int = 1) -> tuple[ServeQueueLayer, Tally]:
    node, tally = HandleNode("worker-1", position=0, replicas=workers), Tally(0, "queued")
    upstream = HandleUpstream(node, handle, Tally(0, "hop"), machine="")
    return ServeQueueLayer(Queued(capacity=2, workers=workers), upstream, tally), tally


def in_turn(answers: Iterable[Any]) -> Callable[[list[Any]], Any]:
    """Each call gets the next answer; an error is raised."""
    left = iter(answers)

    def answer(_: list[Any]) -> Any:
        if isinstance(found := next(left), Exception):
            raise found
        return found

    return answer


def test_a_request_waits_for_a_worker_and_is_answered() -> None:
    layer, tally = layer_of(FakeHandle(answer=lambda instances: HandleAnswer(instances, worked_ns=10**12)), workers=3)
    assert asyncio.run(layer([1])) == [1]
    assert counts(tally) == {"accepted": 1, "answered": 1}
    assert tally.snapshot().histograms["wait_ns"] == {0: 1}
    assert layer.parallelism == 3


def test_a_full_queue_refuses_with_503_and_when_to_come_again(errors: SimpleNamespace) -> None:
    layer, tally = layer_of(FakeHandle(answer=in_turn([errors.BackPressureError()])))
    with pytest.raises(RequestError, match="the queue is full: 2 requests wait") as caught:
        asyncio.run(layer([1]))
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)
    assert counts(tally) == {"rejected": 1}


def test_a_request_whose_worker_died_is_delivered_again(errors: SimpleNamespace) -> None:
    layer, tally = layer_of(FakeHandle(answer=in_turn([errors.ActorDiedError("killed"), HandleAnswer([2])])))
    assert asyncio.run(layer([1])) == [2]
    assert counts(tally) == {"accepted": 1, "redelivered": 1, "answered": 1}


def test_a_request_that_kills_every_worker_is_lost(errors: SimpleNamespace) -> None:
    handle = FakeHandle(answer=in_turn([errors.ActorDiedError("killed")] * MAX_ATTEMPTS))
    layer, tally = layer_of(handle)
    with pytest.raises(LostError):
        asyncio.run(layer([1]))
    assert len(handle.calls) == MAX_ATTEMPTS
    assert counts(tally) == {"accepted": 1, "redelivered": MAX_ATTEMPTS - 1, "lost": 1}


def test_an_accepted_request_that_finds_the_queue_full_again_is_lost(errors: SimpleNamespace) -> None:
    answers = [errors.ActorDiedError("killed"), errors.BackPressureError()]
    layer, tally = layer_of(FakeHandle(answer=in_turn(answers)))
    with pytest.raises(RequestError, match="the queue is full"):
        asyncio.run(layer([1]))
    assert counts(tally) == {"accepted": 1, "redelivered": 1, "lost": 1}


def test_an_error_of_the_model_is_an_answer() -> None:
    layer, tally = layer_of(FakeHandle(answer=in_turn([HandleAnswer(status=500, text="the model raised it")])))
    with pytest.raises(RequestError, match="the model raised it"):
        asyncio.run(layer([1]))
    assert counts(tally) == {"accepted": 1, "answered": 1}


async def test_depth_is_what_waits_beyond_the_requests_in_flight() -> None:
    end = asyncio.Event()

    async def answer() -> HandleAnswer:
        await end.wait()
        return HandleAnswer([0])

    layer, tally = layer_of(FakeHandle(answer=lambda _: answer()), workers=2)
    calls = [asyncio.create_task(layer([number])) for number in range(5)]
    await asyncio.sleep(0)
    assert layer.depth == 3
    end.set()
    await asyncio.gather(*calls)
    assert counts(tally) == {"accepted": 5, "answered": 5}
    assert layer.depth == 0


async def test_a_caller_that_leaves_is_not_answered() -> None:
    layer, tally = layer_of(FakeHandle(answer=lambda _: asyncio.sleep(3600)))
    call = asyncio.create_task(layer([1]))
    await asyncio.sleep(0)
    assert layer.outstanding == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert counts(tally) == {"accepted": 1}
    assert layer.outstanding == 0


async def test_a_stream_keeps_its_worker_until_it_ends() -> None:
    handle = FakeHandle(answer=lambda _: HandleAnswer(streams=True), pieces=(("a", None), ("b", None)))
    layer, tally = layer_of(handle)
    stream = await layer([1])
    assert isinstance(stream, Stream)
    assert layer.outstanding == 1
    assert [chunk async for chunk in stream] == ["a", "b"]
    assert layer.outstanding == 0
    assert counts(tally) == {"accepted": 1, "answered": 1}
