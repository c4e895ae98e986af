"""The client of a deployment behind a replica: whole answers, errors, streams, and the hop time."""

import asyncio
from collections.abc import Callable
from time import perf_counter_ns
from types import SimpleNamespace
from typing import Any

import pytest
from support.each_row import each_row
from support.fake_serve import FakeHandle, fake_serve

from pytest_mlpatterns.engines.ray.messages import HandleAnswer, HandleNode
from pytest_mlpatterns.engines.ray.remote.handle_upstream import HandleUpstream
from pytest_mlpatterns.patterns.layer import DecodedInputs, LostError, RequestError
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally

HERE = "this machine"
NODE = HandleNode("service-1", position=1, replicas=3, in_flight=8)


@pytest.fixture(autouse=True)
def errors(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    return fake_serve(monkeypatch)


def upstream_of(handle: FakeHandle) -> tuple[HandleUpstream, Tally]:
    tally = Tally(1, "hop")
    return HandleUpstream(NODE, handle, tally, machine=HERE), tally


def answering(**values: Any) -> FakeHandle:
    return FakeHandle(answer=lambda instances: HandleAnswer(**{"outputs": instances, **values}))


def raising(error: Exception) -> FakeHandle:
    def fail(_: list[Any]) -> Any:
        raise error

    return FakeHandle(answer=fail)


async def chunks_of(stream: Stream) -> list[Any]:
    return [chunk async for chunk in stream]


def test_outputs_come_back_and_the_call_is_counted() -> None:
    upstream, tally = upstream_of(answering())
    assert asyncio.run(upstream([1, 2])) == [1, 2]
    found = tally.snapshot()
    assert dict(found.counters) == {"calls": 1}
    assert sum(found.histograms["hop_ns"].values()) == 1


def test_a_queue_and_a_batch_see_the_number_of_replicas() -> None:
    upstream, _ = upstream_of(answering())
    assert (upstream.parallelism, upstream.in_flight, len(upstream.replicas)) == (3, 8, 3)


@each_row(
    ("values", "hop"),
    ({"worked_ns": 10**12}, 0),
    ({"machine": HERE, "free_ns": 10**18}, 0),  # never in the past
)
def test_the_hop_is_the_round_trip_without_work_and_wait(values: dict[str, Any], hop: int) -> None:
    upstream, tally = upstream_of(answering(**values))
    asyncio.run(upstream([1]))
    assert tally.snapshot().histograms["hop_ns"] == {hop: 1}


def test_the_clock_of_another_machine_is_not_compared() -> None:
    upstream, tally = upstream_of(answering(machine="another", free_ns=perf_counter_ns() + 10**12))
    asyncio.run(upstream([1]))
    (hop,) = tally.snapshot().histograms["hop_ns"]
    assert hop > 0


def test_an_error_of_the_request_stays_one() -> None:
    upstream, tally = upstream_of(answering(status=429, text="too many", retry_after_s=3))
    with pytest.raises(RequestError, match="too many") as caught:
        asyncio.run(upstream([1]))
    assert (caught.value.status, caught.value.retry_after_s) == (429, 3)
    assert dict(tally.snapshot().counters) == {"errors": 1}


@pytest.mark.parametrize("name", ["ActorDiedError", "NodeDiedError", "DeploymentUnavailableError"])
def test_a_replica_that_ends_under_a_request_loses_it(errors: SimpleNamespace, name: str) -> None:
    upstream, tally = upstream_of(raising(getattr(errors, name)("killed\nby a signal")))
    with pytest.raises(LostError, match=r"the replica of service-1 ended under a request: killed$"):
        asyncio.run(upstream([1]))
    assert dict(tally.snapshot().counters) == {"errors": 1}


class RayTaskError(Exception):
    """As Ray wraps what a method raised."""

    cause = TypeError("cannot pickle a lock")


@pytest.mark.parametrize("error", [RayTaskError.cause, RayTaskError("ray::ServeReplica() on 10.0.0.1 ...")], ids=repr)
def test_any_other_error_of_a_call_fails_the_request_as_it_was_raised(error: Exception) -> None:
    upstream, _ = upstream_of(raising(error))
    with pytest.raises(RequestError, match="the call of service-1 failed: TypeError: cannot pickle a lock") as caught:
        asyncio.run(upstream([1]))
    assert caught.value.status == 500


def test_a_full_queue_is_left_to_its_layer(errors: SimpleNamespace) -> None:
    upstream, tally = upstream_of(raising(errors.BackPressureError()))
    with pytest.raises(errors.BackPressureError):
        asyncio.run(upstream.ask([1]))
    assert not tally.snapshot().counters


def stream_twice(handle: FakeHandle) -> tuple[list[Any], Tally]:
    upstream, tally = upstream_of(handle)

    async def run() -> list[Any]:
        return [await chunks_of(await upstream(DecodedInputs([1], lambda: [1]))) for _ in range(2)]

    return asyncio.run(run()), tally


def test_a_model_that_streams_is_asked_for_chunks_from_then_on() -> None:
    handle = FakeHandle(answer=lambda _: HandleAnswer(streams=True), pieces=(("a", None), ("b", None)))
    found, tally = stream_twice(handle)
    assert found == [["a", "b"], ["a", "b"]]
    assert handle.calls == [("call", [1]), ("chunks", [1]), ("chunks", [1])]
    assert type(handle.calls[-1][1]) is list
    assert dict(tally.snapshot().counters) == {"calls": 2}


def failed_stream(pieces: tuple[Any, ...], take: Callable[[Stream], Any]) -> tuple[FakeHandle, Tally]:
    handle = FakeHandle(answer=lambda _: HandleAnswer(streams=True), pieces=pieces)
    upstream, tally = upstream_of(handle)

    async def run() -> None:
        await take(await upstream([1]))

    asyncio.run(run())
    return handle, tally


def test_an_error_among_the_chunks_ends_the_stream() -> None:
    async def take(stream: Stream) -> None:
        assert await anext(stream) == "a"
        with pytest.raises(RequestError, match="half way") as caught:
            await anext(stream)
        assert caught.value.status == 418

    _, tally = failed_stream((("a", None), (None, HandleAnswer(status=418, text="half way"))), take)
    assert dict(tally.snapshot().counters) == {"calls": 1, "errors": 1}


def test_a_replica_that_ends_under_a_stream_loses_it(errors: SimpleNamespace) -> None:
    async def take(stream: Stream) -> None:
        with pytest.raises(LostError, match="ended under a request"):
            await chunks_of(stream)

    failed_stream((("a", None), errors.ActorDiedError("gone")), take)


def test_closing_a_stream_cancels_its_call() -> None:
    async def take(stream: Stream) -> None:
        await anext(stream)
        await stream.aclose()

    handle, _ = failed_stream((("a", None), ("b", None)), take)
    assert handle.cancelled == 1


def test_a_stream_without_chunks_is_a_call() -> None:
    _, tally = failed_stream((), chunks_of)
    assert dict(tally.snapshot().counters) == {"calls": 1}
