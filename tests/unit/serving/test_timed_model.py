"""How a model's calls are split into times, on clocks that only the models move."""

import asyncio
import contextvars
import gc
import types
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from support.scenarios import settle

from pytest_mlpatterns.patterns.layer import needs_loop, parallelism
from pytest_mlpatterns.patterns.request_clock import RequestClock, charge, current_clock, set_clock
from pytest_mlpatterns.serving import timed_model
from pytest_mlpatterns.serving.clocks import GcClock
from pytest_mlpatterns.serving.timed_model import ModelMeter, TimedModel, TimedSteps

MS = 1_000_000


class Machine:
    """Clocks of one thread, which stand unless a model spends time."""

    def __init__(self) -> None:
        self.wall_ns = self.cpu_ns = self.queued_ns = self.claimed_ns = 0
        self.meter = ModelMeter()
        self.meter.collections = SimpleNamespace(total_ns=0)  # type: ignore[assignment]  # not those of this process
        self.meter.run_queue = self  # type: ignore[assignment]

    def waited_ns(self) -> int:
        return self.queued_ns

    def claim(self, waited_ns: int) -> None:
        self.claimed_ns += waited_ns

    def spend(self, *, cpu: int = 0, wait: int = 0, queued: int = 0, collecting: int = 0) -> None:
        """Milliseconds on the CPU, of which some collect garbage, and in waits, of which some are for the CPU."""
        self.wall_ns += (cpu + wait) * MS
        self.cpu_ns += cpu * MS
        self.queued_ns += queued * MS
        self.meter.collections.total_ns += collecting * MS


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(timed_model, "perf_counter_ns", lambda: machine.wall_ns)
    monkeypatch.setattr(timed_model, "thread_time_ns", lambda: machine.cpu_ns)
    return machine


@pytest.fixture(autouse=True)
def _no_clock_is_left() -> Iterator[None]:
    yield
    set_clock(None)


def times(clock: RequestClock) -> dict[str, int]:
    """The parts in milliseconds, without those of no time; calls as they are."""
    return {key: value if key.endswith("calls") else value // MS for key, value in clock.parts.items() if value}


def charged(call: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
    """What a call returns, and what it charged."""
    clock = RequestClock()
    set_clock(clock)
    return call(), times(clock)


async def charged_of(awaitable: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
    clock = RequestClock()
    set_clock(clock)
    return await awaitable(), times(clock)


class TestPlain:
    def test_a_call_is_split_into_cpu_and_wait(self, machine: Machine) -> None:
        def model(batch: list[int]) -> list[int]:
            machine.spend(cpu=2, wait=3)
            return batch

        assert charged(lambda: TimedModel(model, machine.meter)([1])) == (
            [1],
            {"calls": 1, "model_cpu": 2, "model_wait": 3},
        )

    def test_a_stage_has_its_name_in_every_key(self, machine: Machine) -> None:
        stage = TimedModel(lambda batch: machine.spend(cpu=1, wait=1) or batch, machine.meter, "features")  # type: ignore[func-returns-value]
        assert charged(lambda: stage([1]))[1] == {
            "features/calls": 1,
            "features/model_cpu": 1,
            "features/model_wait": 1,
        }

    def test_collections_are_neither_cpu_nor_wait(self, machine: Machine) -> None:
        model = TimedModel(lambda _: machine.spend(cpu=5, wait=1, collecting=3), machine.meter)
        assert charged(lambda: model([1]))[1] == {"calls": 1, "model_gc": 3, "model_cpu": 2, "model_wait": 1}

    def test_more_collection_than_time_is_not_charged(self, machine: Machine) -> None:
        model = TimedModel(lambda _: machine.spend(cpu=1, wait=2, collecting=9), machine.meter)
        assert charged(lambda: model([1]))[1] == {"calls": 1, "model_gc": 3}

    def test_waits_for_a_processor_are_known_of_models_that_have_waited(self, machine: Machine) -> None:
        model = TimedModel(lambda _: machine.spend(cpu=1, wait=5, queued=4), machine.meter)
        first, second = (charged(lambda: model([1]))[1] for _ in range(2))
        assert first == {"calls": 1, "model_cpu": 1, "model_wait": 5}
        assert second == {"calls": 1, "model_cpu": 1, "model_wait": 1, "run_queue": 4}
        assert machine.claimed_ns == 4 * MS

    def test_a_model_that_waits_no_more_is_watched_no_more(self, machine: Machine) -> None:
        waits = iter([1])
        model = TimedModel(lambda _: machine.spend(wait=next(waits, 0), queued=1), machine.meter)
        found = [charged(lambda: model([1]))[1] for _ in range(20)]
        assert all("run_queue" not in one for one in found)  # their waits are shorter than what the queue grew by
        machine.waited_ns = lambda: pytest.fail("it was read after 16 calls")  # type: ignore[method-assign]
        charged(lambda: model([1]))

    def test_where_the_system_does_not_tell_it_is_a_wait(self, machine: Machine) -> None:
        machine.waited_ns = lambda: None  # type: ignore[method-assign, assignment, return-value]
        model = TimedModel(lambda _: machine.spend(wait=5), machine.meter)
        assert [charged(lambda: model([1]))[1]["model_wait"] for _ in range(2)] == [5, 5]

    def test_an_error_is_charged_and_raised(self, machine: Machine) -> None:
        def model(_: list[int]) -> None:
            machine.spend(cpu=2)
            raise KeyError("feature")

        clock = RequestClock()
        set_clock(clock)
        with pytest.raises(KeyError, match="feature"):
            TimedModel(model, machine.meter)([1])
        assert times(clock) == {"calls": 1, "model_cpu": 2}

    def test_outside_of_a_request_only_the_model_is_called(self, machine: Machine) -> None:
        assert TimedModel(lambda batch: batch, machine.meter)([1]) == [1]

    def test_attributes_are_those_of_the_model(self, machine: Machine) -> None:
        class Model:
            parallelism = 3
            retries = True
            weights = (1, 2)

            async def __call__(self, batch: list[int]) -> list[int]:
                return batch

        model = TimedModel(Model(), machine.meter)
        assert (needs_loop(model), parallelism(model), model.retries, model.weights) == (True, 3, True, (1, 2))
        with pytest.raises(AttributeError, match="bias"):
            _ = model.bias
        with pytest.raises(AttributeError, match="__array__"):
            _ = model.__array__


class TestAwaited:
    async def test_a_coroutine_computes_keeps_the_loop_and_waits(self, machine: Machine) -> None:
        async def model(batch: list[int]) -> list[int]:
            machine.spend(cpu=1)
            asyncio.get_running_loop().call_soon(lambda: machine.spend(wait=7))  # while the model is suspended
            await asyncio.sleep(0)
            machine.spend(cpu=2, wait=4)
            return batch

        timed = TimedModel(model, machine.meter)
        outputs, found = await charged_of(lambda: asyncio.create_task(timed([1])))
        assert outputs == [1]
        assert found == {"calls": 1, "model_cpu": 3, "model_wait": 7, "model_block": 4}

    async def test_while_others_keep_the_loop_it_waits_for_them(self, machine: Machine) -> None:
        begun: list[int] = []

        async def model(batch: list[int]) -> list[int]:
            begun.append(batch[0])
            if batch[0] == 1:
                await asyncio.sleep(0)
            else:
                machine.spend(cpu=5)
            return batch

        timed = TimedModel(model, machine.meter)
        clocks = [RequestClock(), RequestClock()]

        async def request(number: int) -> None:
            set_clock(clocks[number - 1])
            await timed([number])

        await asyncio.gather(request(1), request(2))
        assert begun == [1, 2]
        assert [times(clock) for clock in clocks] == [{"calls": 1, "shared_wait": 5}, {"calls": 1, "model_cpu": 5}]

    async def test_a_suspended_model_may_wait_for_a_processor_too(self, machine: Machine) -> None:
        async def model(batch: list[int]) -> list[int]:
            asyncio.get_running_loop().call_soon(lambda: machine.spend(wait=7, queued=2))
            await asyncio.sleep(0)
            machine.spend(wait=1)
            return batch

        timed = TimedModel(model, machine.meter)
        first, second = [(await charged_of(lambda: timed([1])))[1] for _ in range(2)]
        assert first == {"calls": 1, "model_wait": 7, "model_block": 1}
        assert second == {"calls": 1, "model_wait": 5, "model_block": 1, "run_queue": 2}

    async def test_errors_and_cancellations_reach_the_model(self, machine: Machine) -> None:
        ended: list[str] = []

        async def model(batch: list[Any]) -> list[Any]:
            try:
                await batch[0]
            except BaseException as error:
                ended.append(type(error).__name__)
                raise
            return [await batch[0]]

        set_clock(RequestClock())
        timed = TimedModel(model, machine.meter)
        loop = asyncio.get_running_loop()
        waits, fails, gives = (loop.create_future() for _ in range(3))
        task = asyncio.create_task(timed([waits]))
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        fails.set_exception(OSError("away"))
        with pytest.raises(OSError, match="away"):
            await timed([fails])
        gives.set_result(7)
        assert await timed([gives]) == [7]
        assert ended == ["CancelledError", "OSError"]

    def test_a_coroutine_that_is_closed_ends_its_model(self, machine: Machine) -> None:
        ended: list[str] = []

        async def model(_: list[int]) -> None:
            try:
                await asyncio.sleep(0)
            finally:
                ended.append("closed")

        set_clock(RequestClock())
        coroutine = TimedModel(model, machine.meter)([1])
        coroutine.send(None)
        coroutine.close()
        assert ended == ["closed"]

    async def test_any_awaitable_is_awaited(self, machine: Machine) -> None:
        @types.coroutine
        def old(batch: list[int]) -> Generator[Any, Any, list[int]]:
            got = yield from asyncio.sleep(0, 4).__await__()
            return [*batch, got]

        set_clock(RequestClock())
        assert await TimedModel(old, machine.meter)([1]) == [1, 4]
        future = asyncio.get_running_loop().create_future()
        future.set_result([2])
        assert await TimedModel(lambda _: future, machine.meter)([1]) == [2]


class TestStreamed:
    def test_each_chunk_of_a_plain_generator_is_timed(self, machine: Machine) -> None:
        closed: list[str] = []

        def model(_: list[int]) -> Iterator[str]:
            try:
                for letter in "ab":
                    machine.spend(cpu=1, wait=1)
                    yield letter
            finally:
                closed.append("closed")

        clock = RequestClock()
        set_clock(clock)
        chunks = TimedModel(model, machine.meter)([1])
        assert times(clock) == {"calls": 1}
        assert next(chunks) == "a"
        assert times(clock) == {"calls": 1, "model_cpu": 1, "model_wait": 1}
        assert list(chunks) == ["b"]
        assert times(clock) == {"calls": 1, "model_cpu": 2, "model_wait": 2}
        other = TimedModel(model, machine.meter)([1])
        next(other)
        other.close()
        assert closed == ["closed", "closed"]

    def test_a_generator_in_a_list_and_an_iterator_without_close(self, machine: Machine) -> None:
        timed = TimedModel(lambda _: [iter("ab")], machine.meter)
        set_clock(RequestClock())
        outputs: Sequence[Any] = timed([1])
        assert list(outputs[0]) == ["a", "b"]

    async def test_each_chunk_of_an_asynchronous_generator_is_timed(self, machine: Machine) -> None:
        closed: list[str] = []

        async def model(_: list[int]) -> AsyncIterator[str]:
            try:
                for letter in "ab":
                    machine.spend(cpu=1)
                    await asyncio.sleep(0)
                    yield letter
            finally:
                closed.append("closed")

        async def later(batch: list[int]) -> Any:
            return model(batch)

        clock = RequestClock()
        set_clock(clock)
        assert [chunk async for chunk in TimedModel(model, machine.meter)([1])] == ["a", "b"]
        assert times(clock) == {"calls": 1, "model_cpu": 2}
        chunks = await TimedModel(later, machine.meter)([1])
        assert await anext(chunks) == "a"
        await chunks.aclose()
        assert closed == ["closed", "closed"]

    async def test_an_asynchronous_iterator_without_aclose(self, machine: Machine) -> None:
        class Chunks:
            def __aiter__(self) -> "Chunks":
                return self

            async def __anext__(self) -> str:
                return "a"

        set_clock(RequestClock())
        chunks = TimedModel(lambda _: Chunks(), machine.meter)([1])
        assert await anext(aiter(chunks)) == "a"
        await chunks.aclose()


async def test_a_stepped_model_is_timed_in_start_and_step(machine: Machine) -> None:
    class Model:
        name = "letters"

        def start(self, given: int) -> int:
            machine.spend(cpu=1)
            return given

        async def step(self, active: list[int]) -> list[int]:
            machine.spend(cpu=2)
            return active

    model = TimedSteps(Model(), machine.meter, "member")
    assert (needs_loop(model.start), needs_loop(model.step), model.name) == (False, True, "letters")
    with pytest.raises(AttributeError, match="weights"):
        _ = model.weights
    clock = RequestClock()
    set_clock(clock)
    assert model.start(1) == 1
    assert await model.step([1]) == [1]
    assert times(clock) == {"member/calls": 2, "member/model_cpu": 3}


def test_collections_are_counted_as_long_as_the_clock_lives() -> None:
    before = list(gc.callbacks)
    clock = GcClock()
    (callback,) = (one for one in gc.callbacks if one not in before)
    gc.collect()
    assert clock.total_ns > 0
    kept = weakref.ref(clock)
    del clock
    gc.collect()
    assert kept() is None
    assert callback not in gc.callbacks


def test_charges_go_to_the_clock_of_the_context() -> None:
    clock = RequestClock()
    charge("wire", 1)  # of no request
    context = contextvars.copy_context()
    context.run(set_clock, clock)
    context.run(charge, "wire", 2)
    context.run(charge, "wire", 3)
    assert clock.parts == {"wire": 5}
    assert current_clock() is None


def test_what_another_clock_measured_is_of_a_stage_unless_it_names_one() -> None:
    clock = RequestClock()
    clock.take({"hop": 1, "model/model_cpu": 2}, "features")
    clock.take({"hop": 3})
    assert clock.parts == {"features/hop": 1, "model/model_cpu": 2, "hop": 3}
