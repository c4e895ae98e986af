"""Continuous batching: who is in a step, who joins and leaves between two, errors, and what is counted."""

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from support.scenarios import PATIENCE_S, Panic, read, settle

from pytest_mlpatterns import Batched, Cached, Continuous, Pipeline, Replicated, SettingError
from pytest_mlpatterns.patterns.continuous import ContinuousLayer
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.pattern import LayerNode, ModelNode
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally


class Countdown:
    """Counts an input down to 0, one number at every step that the test lets go; an ``async`` model."""

    def __init__(self) -> None:
        self.steps: list[list[str]] = []
        self.stepping = asyncio.Semaphore(0)
        self.go = asyncio.Semaphore(0)

    def let_go(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.go.release()

    async def start(self, given: tuple[str, int]) -> dict[str, Any]:
        if given[1] < 0:
            raise ValueError(f"{given[0]} is negative")
        return {"name": given[0], "left": given[1]}

    async def step(self, active: list[dict[str, Any]]) -> list[Any]:
        self.steps.append([state["name"] for state in active])
        self.stepping.release()
        await self.go.acquire()
        for state in active:
            if state["left"] == 13:
                raise ArithmeticError("13")
        chunks = [f"{state['name']}{state['left']}" if state["left"] else None for state in active]
        for state in active:
            state["left"] -= 1
        return chunks


class PlainCountdown:
    """The same without a test that steps it, with plain methods."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def start(self, given: int) -> list[int]:
        self.threads.add(threading.current_thread().name)
        return [given]

    def step(self, active: list[list[int]]) -> list[Any]:
        self.threads.add(threading.current_thread().name)
        if active[0][0] == 13:
            raise StopIteration("13")
        chunks = []
        for state in active:
            chunks.append(state[0] or None)
            state[0] -= 1
        return chunks


class WrappedCountdown(PlainCountdown):
    """The same with plain methods that return awaitables, as a decorator around ``async`` ones makes them."""

    def start(self, given: int) -> Any:
        return self._later(super().start, given)

    def step(self, active: list[list[int]]) -> Any:
        return self._later(super().step, active)

    async def _later(self, method: Any, argument: Any) -> Any:
        return method(argument)


class Panicking(Countdown):
    """Raises in ``start`` or in ``step`` for a sequence with that name."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def start(self, given: tuple[str, int]) -> dict[str, Any]:
        if given[0] == "start":
            raise self.error
        return await super().start(given)

    async def step(self, active: list[dict[str, Any]]) -> list[Any]:
        if active[0]["name"] == "step":
            raise self.error
        return await super().step(active)


class SlowStart(Countdown):
    """Starts a sequence when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.starting = asyncio.Semaphore(0)
        self.begin = asyncio.Semaphore(0)
        self.stepped: list[dict[str, Any]] = []

    async def start(self, given: tuple[str, int]) -> dict[str, Any]:
        self.starting.release()
        await self.begin.acquire()
        return await super().start(given)

    async def step(self, active: list[dict[str, Any]]) -> list[Any]:
        self.stepped += active
        return await super().step(active)


class Layer:
    def __init__(self, model: Any, most: int = 8) -> None:
        self.model = model
        self.tally = Tally(0, "continuous")
        self.layer = ContinuousLayer(Continuous(max_batch_size=most), model, self.tally)

    def ask(self, name: Any, left: int | None = None) -> Stream:
        stream = self.layer([name if left is None else (name, left)])
        assert isinstance(stream, Stream)
        return stream

    async def next_step(self) -> list[str]:
        """Who is in the step that runs next."""
        await asyncio.wait_for(self.model.stepping.acquire(), PATIENCE_S)
        names: list[str] = self.model.steps[-1]
        return names


class TestSteps:
    async def test_a_sequence_that_ends_while_another_starts_is_not_stepped(self) -> None:
        served = Layer(SlowStart(), most=2)
        first = served.ask("a", 3)
        second = served.ask("b", 1)
        third = served.ask("c", 1)
        await asyncio.wait_for(served.model.starting.acquire(), PATIENCE_S)
        served.model.begin.release()
        await asyncio.wait_for(served.model.starting.acquire(), PATIENCE_S)
        await first.aclose()
        await second.aclose()
        served.model.begin.release()
        served.model.begin.release()
        served.model.let_go(2)
        assert await asyncio.wait_for(read(third), PATIENCE_S) == ["c1"]
        assert [state and state["name"] for state in served.model.stepped] == ["c", "c"]

    async def test_requests_join_between_two_steps(self) -> None:
        served = Layer(Countdown())
        first = served.ask("a", 3)
        assert await served.next_step() == ["a"]
        second = served.ask("b", 1)
        served.model.let_go()
        assert await anext(first) == "a3"
        assert await served.next_step() == ["a", "b"]
        served.model.let_go()
        assert [await anext(first), await anext(second)] == ["a2", "b1"]
        assert await served.next_step() == ["a", "b"]
        served.model.let_go(5)
        assert await read(second) == []
        assert await read(first) == ["a1"]
        assert served.model.steps == [["a"], ["a", "b"], ["a", "b"], ["a"]]

    async def test_more_than_fit_wait_and_join_when_another_has_ended(self) -> None:
        served = Layer(Countdown(), most=2)
        streams = [served.ask(name, 1) for name in "abc"]
        served.model.let_go(9)
        assert await asyncio.gather(*map(read, streams)) == [["a1"], ["b1"], ["c1"]]
        assert served.model.steps == [["a", "b"], ["a", "b"], ["c"], ["c"]]

    async def test_one_whose_client_has_gone_leaves_before_the_next_step(self) -> None:
        served = Layer(Countdown(), most=2)
        first, second, third = (served.ask(name, 3) for name in "abc")
        assert await served.next_step() == ["a", "b"]
        await first.aclose()
        await third.aclose()  # it has not begun
        served.model.let_go()
        assert await served.next_step() == ["b"]
        served.model.let_go(9)
        assert await read(second) == ["b3", "b2", "b1"]
        assert served.tally.snapshot().counters["cancelled"] == 2

    async def test_the_batch_begins_again_after_a_rest(self) -> None:
        served = Layer(Countdown())
        served.model.let_go(9)
        for _ in range(2):
            assert await read(served.ask("a", 1)) == ["a1"]
            await settle()
            assert served.layer._task is None

    async def test_plain_methods_run_in_a_thread_of_their_own(self) -> None:
        served = Layer(PlainCountdown())
        assert await asyncio.gather(*(read(served.ask(number)) for number in (2, 3))) == [[2, 1], [3, 2, 1]]
        assert served.model.threads == {"continuous model"}

    async def test_plain_methods_may_return_awaitables(self) -> None:
        assert await read(Layer(WrappedCountdown()).ask(2)) == [2, 1]

    async def test_what_happens_is_counted(self) -> None:
        served = Layer(Countdown())
        served.model.let_go(9)
        assert await asyncio.gather(read(served.ask("a", 2)), read(served.ask("b", 1))) == [["a2", "a1"], ["b1"]]
        await settle()
        stats = served.tally.snapshot()
        assert (stats.counters["steps"], stats.counters["chunks"]) == (3, 3)
        assert stats.histograms["size"] == {2: 2, 1: 1}
        assert sum(stats.histograms["wait_ns"].values()) == 2
        assert sum(stats.histograms["step_ns"].values()) == 3
        assert stats.counters["active_ns"] <= 2 * stats.counters["observed_ns"]

    async def test_its_end_stops_the_steps(self) -> None:
        served = Layer(Countdown())
        await served.layer.close()
        served.ask("a", 1)
        await served.next_step()
        await served.layer.close()
        assert served.layer._task is None


class TestErrors:
    async def test_one_of_start_is_that_of_its_request(self) -> None:
        served = Layer(Countdown())
        served.model.let_go(9)
        bad, good = served.ask("bad", -1), served.ask("good", 1)
        with pytest.raises(ValueError, match="bad is negative"):
            await read(bad)
        assert await read(good) == ["good1"]

    async def test_one_of_step_ends_those_that_are_active_and_no_other(self) -> None:
        served = Layer(Countdown(), most=2)
        first, second, third = served.ask("a", 13), served.ask("b", 1), served.ask("c", 1)
        served.model.let_go(9)
        for stream in (first, second):
            with pytest.raises(ArithmeticError, match="13"):
                await read(stream)
        assert await read(third) == ["c1"]

    @pytest.mark.parametrize("error", [Panic("13"), asyncio.CancelledError("13")])
    async def test_one_that_is_no_exception_ends_its_sequences_and_no_other(self, error: BaseException) -> None:
        served = Layer(Panicking(error), most=2)
        failing = [served.ask(name, 1) for name in ("start", "step", "b")]
        last = served.ask("c", 1)
        served.model.let_go(9)
        for stream in failing:
            with pytest.raises(RuntimeError, match=f"it raised {type(error).__name__}: 13"):
                await read(stream)
        assert await read(last) == ["c1"]

    async def test_a_time_limit_of_the_model_s_own_is_an_error_of_its_sequences(self) -> None:
        class Limited(Countdown):
            async def step(self, active: list[dict[str, Any]]) -> list[Any]:
                task = asyncio.current_task()
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
                raise TimeoutError("too slow")

        with pytest.raises(TimeoutError, match="too slow"):
            await read(Layer(Limited()).ask("a", 1))

    async def test_one_in_the_thread_is_raised_too(self) -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await read(Layer(PlainCountdown()).ask(13))

    @pytest.mark.parametrize("returned", [["a", "b"], [], None, "a"])
    async def test_a_step_returns_one_chunk_for_each(self, returned: Any) -> None:
        class Wrong(PlainCountdown):
            def step(self, active: list[list[int]]) -> Any:
                return returned

        served = Layer(Wrong())
        if returned == "a":
            served.ask(1), served.ask(1)
        with pytest.raises(RequestError, match=r"^step\(active\) of the model returned"):
            await read(served.ask(1))

    async def test_several_inputs_are_refused(self) -> None:
        served = Layer(Countdown())
        with pytest.raises(RequestError, match="has 2 inputs"):
            served.layer([("a", 1), ("b", 1)])


class TestPattern:
    def test_the_pattern_is_a_layer_around_the_model(self) -> None:
        node = (Cached() | Continuous()).plan().inside
        assert isinstance(node, LayerNode)
        assert node.inside == (LayerNode(Continuous(), 1, (ModelNode("model", "model"),)),)

    @pytest.mark.parametrize("after", [Cached(), Replicated(2), Batched()])
    def test_the_pattern_comes_last(self, after: Any) -> None:
        with pytest.raises(SettingError, match=f"expected continuous last.*write {after.name}.* | continuous"):
            Continuous() | after

    def test_the_pattern_may_be_a_stage(self) -> None:
        assert (Pipeline([str, "model"]) | Continuous()).plan()
