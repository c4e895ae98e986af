"""Batches: who goes with whom and when, who gets which answer, who fails, and what the adaptive wait comes to.

Where it matters when a batch goes, the clock is the test's own: it stands while anything can run, and jumps to the next
timer when nothing can.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import selectors
import threading
from collections import deque
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import MS, PROPERTY, S

from pytest_mlpatterns.patterns import batch_layer as batched
from pytest_mlpatterns.patterns.adaptive_wait import AdaptiveWait
from pytest_mlpatterns.patterns.batch_layer import BatchLayer
from pytest_mlpatterns.patterns.batched import Batched
from pytest_mlpatterns.patterns.layer import LostError, RequestError, needs_loop
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.http.app import ModelCaller

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

PATIENCE_S = 15
NEVER = "24h"


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands while anything can run, and jumps to the next timer when nothing can."""

    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now_s


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout != 0:
            assert timeout is not None, "everybody waits, and nothing will ever happen"
            self._loop.now_s += timeout
        return found


def now_ns() -> int:
    return round(asyncio.get_running_loop().time() * 1e9)


def run_jumping(scenario: Coroutine[Any, Any, Any], loop_factory: type[JumpingLoop] = JumpingLoop) -> Any:
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=loop_factory) as runner:
        patch.setattr(batched, "perf_counter_ns", now_ns)
        return runner.run(scenario)


def run(scenario: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await scenario

    return asyncio.run(bounded())


async def settle() -> None:
    """Let everything that can go on without the test go on."""
    for _ in range(20):
        await asyncio.sleep(0)


def doubled(inputs: list[Any]) -> list[Any]:
    return [2 * one for one in inputs]


class Model:
    """An awaited model that answers when the test says so, and remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[list[Any]] = []
        self._open: deque[asyncio.Future[Any]] = deque()

    async def __call__(self, inputs: list[Any]) -> list[Any]:
        self.given.append(inputs)
        self._open.append(asyncio.get_running_loop().create_future())
        await self._open[-1]
        return doubled(inputs)

    async def answer(self) -> None:
        self._open.popleft().set_result(None)
        await settle()

    async def fail(self, error: BaseException) -> None:
        self._open.popleft().set_exception(error)
        await settle()


class Recording:
    """An awaited model that refuses some inputs, and remembers what it was given."""

    def __init__(self, refuse: Callable[[list[Any]], None] = lambda _: None) -> None:
        self.given: list[list[Any]] = []
        self._refuse = refuse

    async def __call__(self, inputs: list[Any]) -> list[Any]:
        self.given.append(inputs)
        self._refuse(inputs)
        return doubled(inputs)


class ThreadModel:
    """A plain model that works until the test lets it end, and remembers what it was given, and in which thread."""

    def __init__(self) -> None:
        self.given: list[list[Any]] = []
        self.threads: set[threading.Thread] = set()
        self.most = 0
        self._inside = 0
        self._go_on = threading.Semaphore(0)
        self._begun = threading.Semaphore(0)

    def __call__(self, inputs: list[Any]) -> list[Any]:
        self.given.append(inputs)
        self.threads.add(threading.current_thread())
        self._inside += 1
        self.most = max(self.most, self._inside)
        self._begun.release()
        assert self._go_on.acquire(timeout=PATIENCE_S)
        self._inside -= 1
        return doubled(inputs)

    async def begun(self) -> None:
        assert await asyncio.to_thread(self._begun.acquire, timeout=PATIENCE_S)

    def answer(self, times: int = 1) -> None:
        self._go_on.release(times)


def batching(inner: Any, size: int = 32, wait: str = "0ms", at_once: int = 1) -> tuple[BatchLayer, Tally]:
    tally = Tally(0, "batched")
    return BatchLayer(Batched(size, wait), inner, tally, at_once=at_once), tally


def counters(tally: Tally) -> dict[str, int]:
    return dict(tally.snapshot().counters)


def ask_each(layer: BatchLayer, inputs: Sequence[Any]) -> list[asyncio.Future[Any]]:
    return [asyncio.ensure_future(layer([one])) for one in inputs]


async def outcomes(asked: Sequence[asyncio.Future[Any]]) -> list[Any]:
    return await asyncio.gather(*asked, return_exceptions=True)


def complaints() -> list[str]:
    """What the event loop says about forgotten tasks and errors, from now on."""
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
    return said


# --- who goes with whom, and when


def test_requests_of_one_turn_of_the_loop_go_together_and_get_their_own_answers() -> None:
    async def scenario() -> None:
        model = Recording()
        layer, _ = batching(model)
        answers = await asyncio.gather(layer([1, 2]), layer([3]), layer([4, 5, 6]))
        assert answers == [[2, 4], [6], [8, 10, 12]]
        assert model.given == [[1, 2, 3, 4, 5, 6]]

    run(scenario())


def test_a_full_batch_does_not_wait() -> None:
    async def scenario() -> None:
        model = Recording()
        layer, _ = batching(model, size=4, wait=NEVER)
        assert await asyncio.gather(*ask_each(layer, range(8))) == [[2 * number] for number in range(8)]
        assert model.given == [[0, 1, 2, 3], [4, 5, 6, 7]]

    run(scenario())


def test_a_batch_that_the_next_request_does_not_fit_into_goes_without_it() -> None:
    async def scenario() -> None:
        model = Recording()
        layer, _ = batching(model, size=4, wait=NEVER)
        first = layer([1, 2, 3])
        second = asyncio.ensure_future(layer([4, 5]))
        assert await first == [2, 4, 6]
        assert not second.done()
        assert await layer([6, 7]) == [12, 14]
        assert await second == [8, 10]
        assert model.given == [[1, 2, 3], [4, 5, 6, 7]]

    run(scenario())


def test_a_request_larger_than_a_batch_goes_alone_and_in_one_piece() -> None:
    async def scenario() -> None:
        model = Recording()
        layer, _ = batching(model, size=2)
        answers = await asyncio.gather(layer([1]), layer([2, 3, 4, 5, 6]), layer([7]))
        assert answers == [[2], [4, 6, 8, 10, 12], [14]]
        assert model.given == [[1], [2, 3, 4, 5, 6], [7]]

    run(scenario())


def test_first_request_of_a_batch_waits_the_whole_wait_and_later_ones_less() -> None:
    async def scenario() -> None:
        went: list[tuple[int, list[int]]] = []

        async def model(inputs: list[int]) -> list[int]:
            went.append((now_ns() // MS, inputs))
            return inputs

        layer, tally = batching(model, wait="5ms")
        first = layer([1])
        await asyncio.sleep(0.003)
        second = layer([2])
        await asyncio.gather(first, second)
        assert went == [(5, [1, 2])]
        await asyncio.sleep(0.010)
        await layer([3])
        assert went[1:] == [(20, [3])]
        waits = tally.snapshot().histograms["wait_ns"]
        assert sum(waits.values()) == 3
        assert min(waits) == pytest.approx(2 * MS, rel=0.01)

    run_jumping(scenario())


def test_a_timer_that_comes_a_little_early_is_on_time() -> None:
    class Hasty(JumpingLoop):
        def call_later(self, delay: float, *given: Any, **named: Any) -> asyncio.TimerHandle:
            return super().call_later(max(delay - 0.0009, 0), *given, **named)

    async def scenario() -> None:
        await batching(Recording(), wait="5ms")[0]([1])
        assert now_ns() == pytest.approx(4.1 * MS)

    run_jumping(scenario(), Hasty)


def test_requests_due_behind_a_batch_are_sent_when_it_ends_and_others_wait_on() -> None:
    async def scenario() -> None:
        model = Model()
        layer, _ = batching(model, wait="5ms")
        ask_each(layer, [1])
        await asyncio.sleep(0.006)
        early = ask_each(layer, [2])
        await asyncio.sleep(0.020)
        late = ask_each(layer, [3])
        assert model.given == [[1]]
        await model.answer()
        assert model.given == [[1], [2, 3]]
        waiting = ask_each(layer, [4])
        await asyncio.sleep(0.003)
        await model.answer()
        assert early[0].done()
        assert late[0].done()
        assert len(model.given) == 2
        await asyncio.sleep(0.003)
        assert model.given[2:] == [[4]]
        await model.answer()
        assert await waiting[0] == [8]

    run_jumping(scenario())


REQUESTS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), min_size=1, max_size=30)


@PROPERTY
@given(REQUESTS, st.integers(2, 8), st.integers(0, 9), st.integers(0, 15), st.integers(1, 3))
def test_any_arrivals_get_their_own_outputs_in_batches_within_size_and_wait(
    requests: list[tuple[int, int]], size: int, wait_ms: int, call_ms: int, at_once: int
) -> None:
    arrived: dict[int, float] = {}
    went: list[tuple[float, list[tuple[int, int]]]] = []
    ended: list[float] = []
    under_way: list[int] = [0]

    async def model(inputs: list[tuple[int, int]]) -> list[tuple[str, int, int]]:
        went.append((now_ns() / MS, inputs))
        under_way.append(len(went) - len(ended))
        await asyncio.sleep(call_ms / 1000)
        ended.append(now_ns() / MS)
        return [("out", *one) for one in inputs]

    async def scenario() -> Tally:
        layer, tally = batching(model, size, f"{wait_ms}ms", at_once)

        async def caller(number: int, count: int) -> None:
            arrived[number] = now_ns() / MS
            inputs = [(number, position) for position in range(count)]
            assert await layer(inputs) == [("out", *one) for one in inputs]

        callers = []
        for number, (pause_ms, count) in enumerate(requests):
            await asyncio.sleep(pause_ms / 1000)
            callers.append(asyncio.create_task(caller(number, count)))
        await asyncio.gather(*callers)
        return tally

    stats = run_jumping(scenario()).snapshot()
    members = [[inputs[0] for inputs in _by_request(batch)] for _, batch in went]
    assert list(chain.from_iterable(members)) == [(number, 0) for number in range(len(requests))]
    assert max(under_way) <= at_once
    for position, (when, batch) in enumerate(went):
        first = members[position][0][0]
        following = requests[members[position][-1][0] + 1 :][:1]
        assert len(batch) <= size or len(members[position]) == 1
        is_full = len(batch) >= size or (bool(following) and len(batch) + following[0][1] > size)
        assert is_full or when >= arrived[first] + wait_ms - 1, "nobody goes early but a full batch"
        free = sorted(ended)[position - at_once] if position >= at_once else 0
        assert when <= max(arrived[first] + wait_ms, free) + 0.01, "nobody waits for longer than they must"
    assert stats.counters == {"calls": len(went), "items": sum(count for _, count in requests)}
    assert sum(value * times for value, times in stats.histograms["size"].items()) == stats.counters["items"]
    assert sum(stats.histograms["size"].values()) == sum(stats.histograms["call_ns"].values()) == len(went)
    assert sum(stats.histograms["wait_ns"].values()) == len(requests)


def _by_request(batch: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    for number in dict.fromkeys(number for number, _ in batch):
        yield [one for one in batch if one[0] == number]


# --- how the model is called


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=25), st.integers(2, 8))
def test_a_plain_model_in_its_thread_gives_everybody_their_own_answer(
    requests: list[tuple[int, int]], size: int
) -> None:
    given: list[list[Any]] = []

    def model(inputs: list[Any]) -> Any:
        given.append(inputs)
        return np.array(inputs) * 2

    async def scenario() -> None:
        layer, _ = batching(model, size)

        async def caller(number: int, turns: int, count: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            inputs = [10 * number + position for position in range(count)]
            assert (await layer(inputs)).tolist() == doubled(inputs)

        await asyncio.gather(*(caller(number, *request) for number, request in enumerate(requests)))

    run(scenario())
    assert sum(map(len, given)) == sum(count for _, count in requests)


@pytest.mark.parametrize("wait", ["0ms", "0.4ms", "1.6ms", "adaptive"])
@pytest.mark.parametrize("model", [doubled, Recording()])
def test_the_loop_that_serves_gives_everybody_their_own_answer(wait: str, model: Any) -> None:
    async def scenario() -> None:
        layer, tally = batching(model, wait=wait)

        async def caller(number: int) -> None:
            for turn in range(5):
                assert await layer([number, turn]) == [2 * number, 2 * turn]

        await asyncio.gather(*map(caller, range(40)))
        assert counters(tally)["items"] == 400

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_the_next_batch_gathers_while_a_plain_model_works() -> None:
    async def scenario() -> None:
        model = ThreadModel()
        layer, _ = batching(model, at_once=2)
        first = ask_each(layer, [1])
        await model.begun()
        others = ask_each(layer, [2, 3])
        await settle()
        others += ask_each(layer, [4])
        model.answer(2)
        assert await asyncio.gather(*first, *others) == [[2], [4], [6], [8]]
        assert model.given == [[1], [2, 3, 4]]
        assert model.most == 1, "a plain model does one thing at a time"
        assert len(model.threads) == 1
        assert threading.current_thread() not in model.threads

    run(scenario())


def test_the_thread_of_a_model_ends_with_its_layer() -> None:
    async def scenario() -> set[threading.Thread]:
        model = ThreadModel()
        layer, _ = batching(model)
        model.answer()
        assert await layer([1]) == [2]
        return model.threads

    (thread,) = run(scenario())
    gc.collect()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_loop_that_ends_before_its_model_leaves_the_thread_without_a_complaint() -> None:
    model = ThreadModel()

    async def scenario() -> None:
        ask_each(batching(model)[0], [1])
        await model.begun()

    run(scenario())
    (thread,) = model.threads
    model.answer()
    gc.collect()
    thread.join(PATIENCE_S)  # pytest fails on an error in a thread
    assert not thread.is_alive()


def test_an_awaited_model_has_as_many_batches_under_way_as_it_may_and_not_more() -> None:
    async def scenario() -> None:
        model = Model()
        layer, _ = batching(model, size=2, at_once=2)
        asked = ask_each(layer, range(8))
        await settle()
        assert model.given == [[0, 1], [2, 3]]
        await model.answer()
        assert model.given == [[0, 1], [2, 3], [4, 5]]
        assert [one.done() for one in asked] == [True, True] + [False] * 6
        await model.answer()
        await model.answer()
        await model.answer()
        assert await asyncio.gather(*asked) == [[2 * number] for number in range(8)]

    run(scenario())


def test_awaitable_of_a_plain_function_is_awaited_on_the_loop() -> None:
    async def answer(inputs: list[int]) -> list[int]:
        assert threading.current_thread() is threading.main_thread()
        return doubled(inputs)

    def model(inputs: list[int]) -> Any:
        return answer(inputs)

    async def scenario() -> None:
        layer, tally = batching(model)
        assert not needs_loop(model)
        assert await asyncio.gather(layer([1]), layer([2])) == [[2], [4]]
        assert counters(tally) == {"calls": 1, "items": 2}

    run(scenario())


def test_a_layer_that_answers_at_once_is_called_on_the_loop_if_it_says_so() -> None:
    class Layer:
        needs_loop = True

        def __call__(self, inputs: list[int]) -> list[int]:
            asyncio.get_running_loop()
            return doubled(inputs)

    assert run(_asked(Layer(), [4])) == [8]


async def _asked(inner: Any, inputs: list[Any]) -> Any:
    return await batching(inner)[0](inputs)


class _Said:
    def __init__(self, says: Any) -> None:
        self.needs_loop = says

    def __call__(self, inputs: list[Any]) -> list[Any]:
        return inputs


@pytest.mark.parametrize(
    ("inner", "needs"),
    [
        (doubled, False),
        (str, False),
        (len, False),
        (lambda inputs: inputs, False),
        (partial(doubled), False),
        (Recording(), True),
        (Recording().__call__, True),
        (partial(Recording().__call__), True),
        (_Said(says=True), True),
        (_Said(says=False), False),
        (_Said("something else"), False),
        (batching(doubled)[0], True),
    ],
)
def test_coroutine_functions_and_what_says_so_are_called_on_the_loop(inner: Any, needs: bool) -> None:
    assert needs_loop(inner) is needs


@pytest.mark.parametrize(
    ("shape", "calls"),
    [
        (list, 1),
        (tuple, 1),
        (np.array, 1),
        (lambda outputs: dict.fromkeys(outputs).keys(), 1),
        (deque, 5),  # which cannot be divided, so that its requests are asked one by one
    ],
)
def test_sized_outputs_are_distributed_in_parts(shape: Any, calls: int) -> None:
    async def model(inputs: list[float]) -> Any:
        return shape([one + 0.5 for one in inputs])

    async def scenario() -> None:
        layer, tally = batching(model)
        answers = await asyncio.gather(layer([1, 2]), layer([3]), layer([4, 5]))
        assert [list(answer) for answer in answers] == [[1.5, 2.5], [3.5], [4.5, 5.5]]
        assert counters(tally)["calls"] == calls

    run(scenario())


# --- who fails


def refuse(bad: frozenset[int]) -> Callable[[list[Any]], None]:
    def check(inputs: list[Any]) -> None:
        if found := bad.intersection(inputs):
            raise ValueError(f"cannot take {min(found)}")

    return check


@PROPERTY
@given(st.integers(2, 40), st.sets(st.integers(0, 39), max_size=4))
def test_only_the_bad_inputs_of_a_batch_fail_and_they_are_found_by_halving(count: int, drawn: set[int]) -> None:
    bad = frozenset(number for number in drawn if number < count)

    async def scenario() -> None:
        model = Recording(refuse(bad))
        layer, tally = batching(model, size=64)
        found = await outcomes(ask_each(layer, range(count)))
        for number, outcome in enumerate(found):
            if number in bad:
                assert isinstance(outcome, ValueError)
                assert str(outcome) == f"cannot take {number}"
            else:
                assert outcome == [2 * number]
        assert len(model.given) <= 1 + 2 * len(bad) * math.ceil(math.log2(count))
        stats = tally.snapshot()
        assert stats.counters["calls"] == len(model.given)
        assert stats.counters.get("failed_alone", 0) == (len(bad) if len(bad) < count else 0)
        assert sum(value * times for value, times in stats.histograms["size"].items()) == stats.counters["items"]

    run(scenario())


def test_a_bad_input_fails_alone_in_a_plain_model_and_all_of_its_request_with_it() -> None:
    def model(inputs: list[int]) -> list[int]:
        refuse(frozenset({13}))(inputs)
        return doubled(inputs)

    async def scenario() -> None:
        layer, tally = batching(model)
        good, bad, other = await outcomes([layer([1, 2]), layer([12, 13]), layer([3])])
        assert (good, other) == ([2, 4], [6])
        assert isinstance(bad, ValueError)
        assert counters(tally)["failed_alone"] == 2

    run(scenario())


def test_the_batch_after_one_that_failed_goes_on() -> None:
    async def scenario() -> None:
        layer, tally = batching(Recording(refuse(frozenset({1, 2}))), wait=NEVER, size=2)
        found = await outcomes(ask_each(layer, [1, 2, 3, 4]))
        assert [type(one) for one in found] == [ValueError, ValueError, list, list]
        assert "failed_alone" not in counters(tally), "where all fail, none fails alone"

    run(scenario())


@pytest.mark.parametrize(
    ("returns", "text"),
    [
        (lambda inputs: inputs[1:], "the model returned 0 outputs for 1 inputs; it must return one for each"),
        (lambda inputs: [*inputs, 0], "the model returned 2 outputs for 1 inputs; it must return one for each"),
        (lambda _: None, "the model returned NoneType, which has no length; it must return a list of outputs"),
        (lambda _: np.array(3), "the model returned ndarray, which has no length; it must return a list of outputs"),
    ],
)
def test_wrong_number_of_outputs_fails_only_the_requests_that_show_it(
    returns: Callable[[list[Any]], Any], text: str
) -> None:
    async def model(inputs: list[int]) -> Any:
        return returns(inputs) if 7 in inputs else inputs

    async def scenario() -> None:
        layer, tally = batching(model)
        good, bad = await outcomes(ask_each(layer, [1, 7]))
        assert good == [1]
        assert isinstance(bad, RequestError)
        assert (bad.status, str(bad)) == (500, text)
        assert counters(tally)["failed_alone"] == 1

    run(scenario())


@pytest.mark.parametrize(
    "error",
    [
        RequestError(503, "the queue is full", retry_after_s=2),
        RequestError(429, "slower"),
        RequestError(504, "too late"),
        LostError("the process is gone"),
    ],
)
def test_overloaded_or_unavailable_service_behind_is_not_retried(error: RequestError) -> None:
    def unavailable(_: list[Any]) -> None:
        raise error

    async def scenario() -> None:
        model = Recording(unavailable)
        layer, tally = batching(model)
        found = await outcomes(ask_each(layer, [1, 2, 3]))
        assert model.given == [[1, 2, 3]]
        assert len(set(map(id, found))) == 3, "each can be raised without the others"
        for one in found:
            assert type(one) is type(error)
            assert (one.status, str(one), one.retry_after_s) == (error.status, str(error), error.retry_after_s)
            assert one.__cause__ is error
        assert counters(tally) == {"calls": 1, "items": 3}

    run(scenario())


def test_error_of_a_model_in_another_process_is_traced_to_its_request() -> None:
    def check(inputs: list[Any]) -> None:
        if 2 in inputs:
            raise RequestError(500, "the model raised ValueError: 2")

    async def scenario() -> None:
        layer, _ = batching(Recording(check))
        good, bad, other = await outcomes(ask_each(layer, [1, 2, 3]))
        assert (good, other) == ([2], [6])
        assert bad.status == 500

    run(scenario())


def raises_below(inputs: list[int]) -> list[int]:
    raise ZeroDivisionError(f"for {len(inputs)}")  # the traceback shows this line


async def raises_awaited(inputs: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return raises_below(inputs)


@pytest.mark.parametrize("model", [raises_below, raises_awaited])
def test_an_error_of_the_model_keeps_the_users_frames_and_shows_none_of_ours(model: Any) -> None:
    async def scenario() -> None:
        caller = ModelCaller(batching(model)[0])
        found = await asyncio.gather(caller([1]), caller([2]), return_exceptions=True)
        assert [str(one) for one in found] == ["the model raised ZeroDivisionError: for 1"] * 2
        (text,) = caller.tracebacks
        assert "# the traceback shows this line" in text
        assert "batched.py" not in text.replace("test_batched.py", "")
        assert "asyncio" not in text.replace("asyncio.sleep(0)", "")

    run(scenario())


def _exits(_: list[Any]) -> list[Any]:
    raise SystemExit(3)


def _stops(_: list[Any]) -> list[Any]:
    return [next(iter([]))]


async def _exits_awaited(_: list[Any]) -> list[Any]:
    raise SystemExit(3)


@pytest.mark.parametrize(("model", "kind"), [(_exits, SystemExit), (_exits_awaited, SystemExit)])
def test_a_model_that_wants_to_exit_fails_its_requests_and_nothing_else(model: Any, kind: type[BaseException]) -> None:
    async def scenario() -> None:
        layer, _ = batching(model)
        for _ in range(2):
            with pytest.raises(kind):
                await layer([1])

    run(scenario())


def test_an_iteration_that_stops_in_a_plain_model_reaches_its_caller() -> None:
    async def scenario() -> None:
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await _asked(_stops, [1])
        assert isinstance(caught.value.__cause__, StopIteration)

    run(scenario())


# --- who goes away


def test_callers_who_go_away_while_they_wait_are_left_out() -> None:
    async def scenario() -> None:
        model = Recording()
        layer, tally = batching(model, wait="5ms")
        asked = ask_each(layer, [1, 2, 3, 4])
        asked[0].cancel()
        asked[2].cancel()
        assert await asked[1] == [4]
        assert await asked[3] == [8]
        assert model.given == [[2, 4]]
        assert counters(tally) == {"calls": 1, "items": 2}

    run_jumping(scenario())


def test_batch_without_callers_is_not_called_and_the_next_request_waits_in_full() -> None:
    async def scenario() -> None:
        model = Recording()
        layer, _ = batching(model, wait="5ms")
        for one in ask_each(layer, [1, 2]):
            one.cancel()
        await asyncio.sleep(0.003)
        last = ask_each(layer, [3])
        await asyncio.sleep(0.004)
        assert model.given == []
        assert await last[0] == [6]
        assert now_ns() == pytest.approx(8 * MS, rel=0.01)
        ask_each(layer, [4])[0].cancel()
        await asyncio.sleep(1)
        assert model.given == [[3]]

    run_jumping(scenario())


def test_callers_who_go_away_during_the_call_do_not_disturb_the_others() -> None:
    async def scenario() -> None:
        model = Model()
        layer, _ = batching(model)
        said = complaints()
        asked = ask_each(layer, [1, 2, 3])
        await settle()
        asked[1].cancel()
        await model.answer()
        assert await asked[0] == [2]
        assert await asked[2] == [6]
        gone = ask_each(layer, [4])
        await settle()
        gone[0].cancel()
        await model.fail(ValueError("for nobody"))
        assert await _with(model, layer) == [10]
        gc.collect()
        assert said == []

    run(scenario())


async def _with(model: Model, layer: BatchLayer) -> Any:
    asked = ask_each(layer, [5])
    await settle()
    await model.answer()
    return await asked[0]


def test_a_call_that_is_cancelled_from_inside_ends_its_batch_and_the_next_goes() -> None:
    async def scenario() -> None:
        model = Model()
        layer, _ = batching(model)
        asked = ask_each(layer, [1])
        await settle()
        model._open.popleft().cancel()
        await settle()
        assert asked[0].cancelled() or isinstance(asked[0].exception(), asyncio.CancelledError)
        assert await _with(model, layer) == [10]

    run(scenario())


def test_a_loop_that_ends_takes_the_batches_under_way_with_it_and_begins_no_other() -> None:
    model = Model()

    async def scenario() -> None:
        ask_each(batching(model, size=2)[0], [1, 2, 3])
        await settle()

    run(scenario())
    assert model.given == [[1, 2]]


# --- the adaptive wait


def after(*called: tuple[int, int | None, int | None], wait_ns: int = 0) -> int:
    wait = AdaptiveWait()
    wait.wait_ns = wait_ns
    for one in called:
        wait.called(*one)
    return wait.wait_ns


STEP = AdaptiveWait.STEP_NS


@pytest.mark.parametrize(
    ("wait_ns", "call_ns", "last_ns", "next_ns", "then_ns"),
    [
        (0, 5 * MS, None, None, 0),
        (0, 5 * MS, None, STEP, STEP),
        (0, 5 * MS, None, STEP + 1, 0),
        (MS, 5 * MS, None, None, 900_000),
        (MS, 5 * MS, None, 0, MS + STEP),
        (MS, 5 * MS, 900_000, 0, MS + STEP),
        (MS, 5 * MS, STEP, None, MS),
        (MS, 5 * MS, STEP + 1, None, 900_000),
        (4 * MS, 5 * MS, 400_000, None, 4 * MS),
        (4 * MS, 5 * MS, 400_001, None, 3_600_000),
        (5 * MS, 5 * MS, None, 0, 5 * MS),
        (5 * MS + 1, 5 * MS, 0, 0, 4_500_000),
        (100 * MS, S, None, 0, 100 * MS),
        (100 * MS - 1, S, None, 0, 100 * MS),
        (1, 5 * MS, None, None, 0),
    ],
)
def test_the_wait_grows_by_a_step_stays_or_shrinks_by_a_tenth(
    wait_ns: int, call_ns: int, last_ns: int | None, next_ns: int | None, then_ns: int
) -> None:
    assert after((call_ns, last_ns, next_ns), wait_ns=wait_ns) == then_ns


def test_the_limit_is_the_shortest_call_and_is_forgotten_slowly() -> None:
    long, short = (20 * MS, None, 0), (2 * MS, None, 0)
    assert after(*[long] * 200) == 20 * MS
    assert after(short, *[long] * 100) == pytest.approx(2 * MS * 1.001**100, rel=0.01)
    assert after(short, *[long] * 3000) == 20 * MS
    assert after(*[long] * 200, *[short] * 40) <= 2 * MS


MOMENTS = st.none() | st.integers(0, 2 * MS)


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, S), MOMENTS, MOMENTS), min_size=1, max_size=200))
def test_adaptive_wait_stays_within_bounds_and_decays_to_zero_if_it_gains_nothing(
    called: list[tuple[int, int | None, int | None]],
) -> None:
    wait = AdaptiveWait()
    for one in called:
        before = wait.wait_ns
        wait.called(*one)
        assert 0 <= wait.wait_ns <= AdaptiveWait.MOST_NS
        assert wait.wait_ns <= before or wait.wait_ns <= before + STEP
    for _ in range(200):
        wait.called(S, None, None)
    assert wait.wait_ns == 0


class Noting(AdaptiveWait):
    """An adaptive wait that stays, and notes what it is told."""

    def __init__(self, wait_ns: int) -> None:
        super().__init__()
        self.wait_ns = wait_ns
        self.told: list[tuple[int, int | None, int | None]] = []

    def called(self, call_ns: int, last_ns: int | None, next_ns: int | None) -> None:
        self.told.append((call_ns, last_ns, next_ns))


def noting(monkeypatch: pytest.MonkeyPatch, inner: Any, size: int = 32) -> tuple[BatchLayer, Noting]:
    noted = Noting(4 * MS)
    monkeypatch.setattr(batched, "AdaptiveWait", lambda: noted)
    return batching(inner, size, "adaptive")[0], noted


async def takes_10ms(inputs: list[int]) -> list[int]:
    await asyncio.sleep(0.010)
    assert 13 not in inputs, "unlucky"
    return inputs


def test_the_wait_is_told_when_the_last_came_and_when_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        layer, noted = noting(monkeypatch, takes_10ms)
        ask_each(layer, [1])
        await asyncio.sleep(0.003)
        first = ask_each(layer, [2])
        await asyncio.sleep(0.003)
        then = ask_each(layer, [3])
        await first[0]
        assert now_ns() == 14 * MS
        assert noted.told == [(10 * MS, MS, 2 * MS)]
        await then[0]
        assert now_ns() == 28 * MS, "the wait began when the batch before it ended"
        assert noted.told[1:] == [(10 * MS, None, None)]

    run_jumping(scenario())


def test_batches_that_failed_or_were_full_do_not_tell_the_wait_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        layer, noted = noting(monkeypatch, takes_10ms, size=4)
        await outcomes([*ask_each(layer, [1, 13])])
        await asyncio.gather(*ask_each(layer, [1, 2, 3, 4]))
        assert noted.told == []
        too_many = asyncio.gather(layer([1, 2]), layer([3, 4, 5]))
        await asyncio.sleep(0.011)
        assert noted.told == []
        await too_many
        assert noted.told == [(10 * MS, None, None)]

    run_jumping(scenario())


async def drive(layer: BatchLayer, callers: int, seconds: float) -> list[int]:
    """So many callers that each come back after 0.2 to 1.2 ms; the latencies of the second half, in ns."""
    draw = random.Random(1)
    end_ns = round(seconds * S)
    latencies: list[int] = []

    async def caller() -> None:
        await asyncio.sleep(draw.uniform(0, 0.02))
        while (started_ns := now_ns()) < end_ns:
            await layer([1])
            if started_ns > end_ns // 2:
                latencies.append(now_ns() - started_ns)
            await asyncio.sleep(draw.uniform(0.0002, 0.0012))

    await asyncio.gather(*(caller() for _ in range(callers)))
    return latencies


def driven(wait: str, callers: int) -> tuple[list[int], Tally, BatchLayer]:
    """A model of 5 ms and 0.1 ms for each input under so many callers, for two seconds of its own clock."""

    async def model(inputs: list[int]) -> list[int]:
        await asyncio.sleep(0.005 + 0.0001 * len(inputs))
        return inputs

    async def scenario() -> tuple[list[int], Tally, BatchLayer]:
        layer, tally = batching(model, wait=wait)
        return await drive(layer, callers, 2), tally, layer

    return run_jumping(scenario())


def test_a_single_caller_does_not_come_to_wait() -> None:
    latencies, tally, _ = driven("adaptive", 1)
    assert sorted(latencies)[len(latencies) // 2] == pytest.approx(5.1 * MS, rel=0.01)
    assert tally.snapshot().mean("size") == 1


@pytest.mark.parametrize("callers", [4, 16])
def test_callers_of_batches_that_take_turns_find_each_other_by_the_adaptive_wait(callers: int) -> None:
    at_once, _, _ = driven("0ms", callers)
    adaptive, tally, layer = driven("adaptive", callers)
    assert len(adaptive) > 1.3 * len(at_once)
    assert sorted(adaptive)[len(adaptive) // 2] < 0.75 * sorted(at_once)[len(at_once) // 2]
    assert tally.snapshot().mean("size") > 0.8 * callers
    assert layer._adaptive is not None
    assert 0.5 * MS < layer._adaptive.wait_ns < 2 * MS


def test_full_batches_teach_the_wait_nothing() -> None:
    _, tally, layer = driven("adaptive", 64)
    assert tally.snapshot().median("size") == 32
    assert layer._adaptive is not None
    assert layer._adaptive.wait_ns <= STEP
