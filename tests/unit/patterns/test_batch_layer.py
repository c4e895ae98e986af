"""Batches: when they are sent, with which requests, and how the model is called."""

import asyncio
import gc
import threading
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from support.batching import (
    NEVER,
    JumpingLoop,
    Model,
    Recording,
    ThreadModel,
    ask_each,
    batching,
    call_once,
    counters,
    doubled,
    jumping,
    now_ns,
    run_jumping,
)
from support.each_row import each_row
from support.scenarios import PATIENCE_S, run, settle
from support.synthetic import MS, PROPERTY

from pytest_mlpatterns.patterns.layer import needs_loop
from pytest_mlpatterns.patterns.tally import Tally

# --- who goes with whom, and when


async def test_a_batch_that_the_next_request_does_not_fit_into_goes_without_it() -> None:
    model = Recording()
    layer, _ = batching(model, size=4, wait=NEVER)
    first = layer([1, 2, 3])
    second = asyncio.ensure_future(layer([4, 5]))
    assert await first == [2, 4, 6]
    assert not second.done()
    assert await layer([6, 7]) == [12, 14]
    assert await second == [8, 10]
    assert model.given == [[1, 2, 3], [4, 5, 6, 7]]


@jumping
async def test_first_request_of_a_batch_waits_the_whole_wait_and_later_ones_less() -> None:
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


def test_a_timer_that_comes_a_little_early_is_on_time() -> None:
    class Hasty(JumpingLoop):
        def call_later(self, delay: float, *given: Any, **named: Any) -> asyncio.TimerHandle:
            return super().call_later(max(delay - 0.0009, 0), *given, **named)

    async def scenario() -> None:
        await batching(Recording(), wait="5ms")[0]([1])
        assert now_ns() == pytest.approx(4.1 * MS)

    run_jumping(scenario(), Hasty)


@jumping
async def test_requests_due_behind_a_batch_are_sent_when_it_ends_and_others_wait_on() -> None:
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


@each_row("wait", ["0ms", "0.4ms", "1.6ms", "adaptive"])
@each_row("model", [doubled, Recording()])
def test_serving_loop_gives_each_request_its_own_outputs(wait: str, model: Any) -> None:
    async def scenario() -> None:
        layer, tally = batching(model, wait=wait)

        async def caller(number: int) -> None:
            for turn in range(5):
                assert await layer([number, turn]) == [2 * number, 2 * turn]

        await asyncio.gather(*map(caller, range(40)))
        assert counters(tally)["items"] == 400

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


async def test_the_next_batch_gathers_while_a_plain_model_works() -> None:
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


async def test_an_awaited_model_has_as_many_batches_under_way_as_it_may_and_not_more() -> None:
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


async def test_awaitable_of_a_plain_function_is_awaited_on_the_loop() -> None:
    async def answer(inputs: list[int]) -> list[int]:
        assert threading.current_thread() is threading.main_thread()
        return doubled(inputs)

    def model(inputs: list[int]) -> Any:
        return answer(inputs)

    layer, tally = batching(model)
    assert not needs_loop(model)
    assert await asyncio.gather(layer([1]), layer([2])) == [[2], [4]]
    assert counters(tally) == {"calls": 1, "items": 2}


def test_a_layer_that_answers_at_once_is_called_on_the_loop_if_it_says_so() -> None:
    class Layer:
        needs_loop = True

        def __call__(self, inputs: list[int]) -> list[int]:
            asyncio.get_running_loop()
            return doubled(inputs)

    assert run(call_once(Layer(), [4])) == [8]


@each_row(
    ("shape", "calls"),
    (list, 1),
    (tuple, 1),
    (np.array, 1),
    (lambda outputs: dict.fromkeys(outputs).keys(), 1),
    (deque, 5),  # which cannot be divided, so that its requests are asked one by one
)
async def test_sized_outputs_are_distributed_in_parts(shape: Any, calls: int) -> None:
    async def model(inputs: list[float]) -> Any:
        return shape([one + 0.5 for one in inputs])

    layer, tally = batching(model)
    answers = await asyncio.gather(layer([1, 2]), layer([3]), layer([4, 5]))
    assert [list(answer) for answer in answers] == [[1.5, 2.5], [3.5], [4.5, 5.5]]
    assert counters(tally)["calls"] == calls
