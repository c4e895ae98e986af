"""What layers charge to the clocks of requests; the models here charge fixed times."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.batching import batching, jumping, outcomes
from support.caching import Server, SlowModel, caching, in_a_moment
from support.scenarios import run, settle

from pytest_mlpatterns import Batched, Cached
from pytest_mlpatterns.patterns.continuous import Continuous, ContinuousLayer
from pytest_mlpatterns.patterns.ensemble import Ensemble, EnsembleLayer
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.model_thread import ModelThread
from pytest_mlpatterns.patterns.pipeline import Pipeline
from pytest_mlpatterns.patterns.queued import Queued, QueueLayer
from pytest_mlpatterns.patterns.request_clock import RequestClock, charge, current_clock, set_clock
from pytest_mlpatterns.patterns.stream import StreamSource
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.handler_stack import HandlerStack
from pytest_mlpatterns.serving.model import service_plan
from pytest_mlpatterns.serving.processes import PackedLayer


@pytest.fixture(autouse=True)
def _no_clock_is_left() -> Iterator[None]:
    yield
    set_clock(None)


def charging(batch: list[Any]) -> list[Any]:
    """A model whose call takes 10 ns for each input."""
    charge("calls", 1)
    charge("model_cpu", 10 * len(batch))
    return batch


async def charging_later(batch: list[Any]) -> list[Any]:
    await asyncio.sleep(0)
    return charging(batch)


async def requested(handler: Callable[[list[Any]], Any], *inputs: Any) -> RequestClock:
    """The clock of one request."""
    clock = RequestClock()

    async def request() -> None:
        set_clock(clock)
        outputs = handler(list(inputs))
        if inspect.isawaitable(outputs):
            await outputs

    await asyncio.create_task(request())
    return clock


def of_model(clock: RequestClock) -> dict[str, int]:
    """Its times of models, and its calls."""
    return {key: value for key, value in clock.parts.items() if not key.endswith(("_wait", "hop"))}


class TestBatched:
    @pytest.mark.parametrize("model", [charging, charging_later])
    async def test_each_request_takes_the_whole_call_and_the_first_has_it(self, model: Any) -> None:
        layer, _ = batching(model, size=2, wait="24h")
        first, second = await asyncio.gather(requested(layer, 1), requested(layer, 2))
        assert of_model(first) == {"model_cpu": 20, "calls": 1}
        assert of_model(second) == {"model_cpu": 20}
        assert first.parts["batch_wait"] >= 0

    @jumping
    async def test_the_wait_for_a_batch_is_charged(self) -> None:
        layer, _ = batching(charging_later, wait="3ms")
        assert (await requested(layer, 1)).parts["batch_wait"] == pytest.approx(3_000_000, rel=0.01)

    async def test_a_retry_takes_longer_for_those_who_are_in_it(self) -> None:
        def fussy(batch: list[int]) -> list[int]:
            charging(batch)
            if 3 in batch:
                raise ValueError("3")
            return batch

        layer, _ = batching(fussy, size=2, wait="24h")
        first, error = await outcomes([asyncio.ensure_future(requested(layer, number)) for number in (2, 3)])
        assert of_model(first) == {"model_cpu": 30, "calls": 2}
        assert isinstance(error, ValueError)


class TestCached:
    async def test_the_owner_of_a_call_is_charged_by_the_model_and_others_wait_for_it(self) -> None:
        model = SlowModel()

        async def charged(batch: list[Any]) -> list[Any]:
            charge("model_cpu", 10)
            return await model(batch)

        layer, _ = caching(charged)
        asked = [asyncio.ensure_future(requested(layer, "a")) for _ in range(2)]
        await model.asked.wait()
        await settle()
        model.go.set()
        owner, other = [await one for one in asked]
        assert owner.parts == {"model_cpu": 10}
        assert list(other.parts) == ["shared_wait"]

    async def test_a_store_is_a_hop(self) -> None:
        server = Server()
        layer, _ = caching(in_a_moment, store=server)
        first = await requested(layer, "a")
        server.away = "get"
        for clock in [first, await requested(layer, "b")]:
            assert list(clock.parts) == ["hop"]


class TestQueued:
    async def test_each_request_has_the_times_of_its_own_attempts(self) -> None:
        layer = QueueLayer(Queued(), [charging_later], in_flight=1, tally=Tally(0, "queued"))
        asked = [requested(layer, *range(number)) for number in (1, 2, 3)]  # one task works on all of them
        assert [clock.parts["model_cpu"] for clock in await asyncio.gather(*asked)] == [10, 20, 30]

    async def test_a_request_that_is_delivered_again_has_the_times_of_all_attempts(self) -> None:
        attempts: list[int] = []

        async def dies(batch: list[Any]) -> list[Any]:
            attempts.append(len(attempts))
            charge("model_cpu", 5)
            if len(attempts) < 3:
                raise LostError("died")
            return batch

        clock = await requested(QueueLayer(Queued(), [dies], in_flight=1, tally=Tally(0, "queued")), 1)
        assert clock.parts.keys() == {"model_cpu", "queue_wait"}
        assert clock.parts["model_cpu"] == 15


def stack_of(pattern: Any, model: Any) -> HandlerStack:
    node: Any = service_plan(pattern, model).root.inside
    return HandlerStack(_packed(node), "deployment")


def _packed(node: Any) -> Any:
    if not hasattr(node, "inside"):
        return node
    return PackedLayer(node.packed, node.position, tuple(map(_packed, node.inside)))


def shift(batch: list[int]) -> list[int]:
    return [one + 1 for one in batch]


def double(batch: list[int]) -> list[int]:
    return [2 * one for one in batch]


class TestNames:
    async def test_a_layer_inside_a_stage_calls_its_model_under_the_name_of_the_stage(self) -> None:
        stack = stack_of(Pipeline([shift, "model"]) | Batched(max_wait="0ms"), double)
        clock = await requested(stack.handler, 1)
        assert {key for key in clock.parts if key.endswith(("calls", "batch_wait"))} == {
            "shift/calls",
            "batch_wait",
            "model/calls",
        }

    def test_a_model_alone_has_no_name(self) -> None:
        assert run(requested(stack_of(Cached(), double).handler, 1)).parts["calls"] == 1


class TestEnsemble:
    async def test_a_request_has_the_times_of_the_member_that_was_last(self) -> None:
        go = asyncio.Event()

        def member(name: str, *, waits: bool) -> Callable[[list[Any]], Any]:
            async def model(batch: list[Any]) -> list[Any]:
                charge(f"{name}/model_cpu", 7)
                if waits:
                    await go.wait()
                go.set()
                return batch

            return model

        def combine(answers: list[Any]) -> Any:
            charge("combine/model_cpu", 1)
            return answers[0]

        members = [member("slow", waits=True), member("fast", waits=False)]
        pattern = Ensemble([shift, double])
        layer = EnsembleLayer(pattern, members, ["slow", "fast"], combine=combine, tally=Tally(0, "ensemble"))
        assert (await requested(layer, 1)).parts == {"slow/model_cpu": 7, "combine/model_cpu": 1}
        assert Ensemble([shift, double]).inside_names == ("shift", "double", "combine")


class Countdown:
    def start(self, given: int) -> list[int]:
        charge("calls", 1)
        charge("model_cpu", 100)
        return [given]

    def step(self, active: list[list[int]]) -> list[Any]:
        charge("calls", 1)
        charge("model_cpu", 10)
        for state in active:
            state[0] -= 1
        return [state[0] if state[0] >= 0 else None for state in active]


class LaterCountdown(Countdown):
    async def start(self, given: int) -> list[int]:  # type: ignore[override]
        return super().start(given)

    async def step(self, active: list[list[int]]) -> list[Any]:  # type: ignore[override]
        return super().step(active)


class TestContinuous:
    @pytest.mark.parametrize("model", [Countdown, LaterCountdown])
    async def test_each_sequence_has_its_start_and_the_steps_that_it_was_in(self, model: Any) -> None:
        layer = ContinuousLayer(Continuous(max_batch_size=2), model(), Tally(0, "continuous"))
        clocks = [RequestClock(), RequestClock()]

        async def request(clock: RequestClock, given: int) -> None:
            set_clock(clock)
            assert [chunk async for chunk in layer([given])] == [*range(given - 1, -1, -1)]

        await asyncio.gather(*(request(clock, given) for clock, given in zip(clocks, (2, 4), strict=True)))
        await layer.close()
        short, long = clocks
        assert of_model(short) == {"calls": 4, "model_cpu": 130}  # three steps, in which it was the first
        assert of_model(long) == {"calls": 3, "model_cpu": 150}
        assert short.parts["queue_wait"] > 0
        assert short.parts["shared_wait"] > 0  # while the other one started


async def test_a_thread_charges_the_clock_of_its_caller() -> None:
    thread = ModelThread("model")
    clock = RequestClock()
    set_clock(clock)
    await thread.call(charging, [1])
    set_clock(None)
    assert await thread.call(current_clock) is None
    assert clock.parts == {"calls": 1, "model_cpu": 10}


async def test_a_stream_waits_for_the_generator_before_it() -> None:
    source = StreamSource()

    async def read(_: list[Any]) -> None:
        stream = source.read(iter("ab"), 1, "the model") or source.read([iter("ab")], 1, "the model")
        assert [chunk async for chunk in stream] == ["a", "b"]

    for clock in await asyncio.gather(requested(read), requested(read)):
        assert list(clock.parts) == ["shared_wait"]


def test_what_a_clock_reports_it_reports_once() -> None:
    clock = RequestClock()
    clock.add("wire", 3)
    assert clock.report() == {"wire": 3}
    clock.add("wire", 2)
    clock.add("model_cpu", 1)
    assert clock.report() == {"wire": 2, "model_cpu": 1}


async def test_an_error_of_a_request_leaves_the_clock_with_its_caller() -> None:
    async def refuses(_: list[Any]) -> None:
        charge("model_cpu", 1)
        raise RequestError(429, "too many")

    clock = RequestClock()
    set_clock(clock)
    layer = QueueLayer(Queued(), [refuses], in_flight=1, tally=Tally(0, "queued"))
    with pytest.raises(RequestError, match="too many"):
        await layer([1])
    assert current_clock() is clock
    assert clock.parts["model_cpu"] == 1
