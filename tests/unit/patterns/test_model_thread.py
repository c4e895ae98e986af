"""The thread of a plain model: what it returns there, where a cache behind works, and what waiting for it costs."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.scenarios import PATIENCE_S, counts, settle

from pytest_mlpatterns import Batched, Cached, Limited
from pytest_mlpatterns.patterns.batched import BatchLayer
from pytest_mlpatterns.patterns.cache_layer import CacheLayer
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.limited import LimitLayer
from pytest_mlpatterns.patterns.model_thread import ModelThread, OffLoop
from pytest_mlpatterns.patterns.request_clock import RequestClock, set_clock
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally


class Logged:
    """A plain function around an asynchronous one, as a decorator makes it; counts the calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, batch: list[int]) -> Any:
        return self._doubled(batch)

    async def _doubled(self, batch: list[int]) -> list[int]:
        self.calls += 1
        await asyncio.sleep(0)
        return [2 * one for one in batch]


class Counting:
    """Streams the numbers up to its input, while it may; counts the calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, batch: list[int]) -> Iterator[int]:
        self.calls += 1
        assert self.may_go_on.wait(PATIENCE_S)
        yield from range(batch[0])


def limited(handler: Any) -> Any:
    return LimitLayer(Limited(), handler, Tally(0, "limited"))


def batched(handler: Any) -> Any:
    return BatchLayer(Batched(max_wait="0ms"), handler, Tally(0, "batched"))


async def answer(handler: Any, value: int) -> list[Any]:
    """The outputs for one input, or its chunks."""
    found: Any = handler([value])
    found = await found if inspect.isawaitable(found) else found
    if not isinstance(found, Stream):
        return list(found)
    try:
        return [chunk async for chunk in found]
    finally:
        await found.aclose()


@pytest.mark.parametrize("layer", [limited, batched])
class TestBehindALayerWithAThread:
    async def test_a_plain_function_may_return_an_awaitable(self, layer: Callable[[Any], Any]) -> None:
        ask = layer(Logged())
        assert [await answer(ask, number) for number in (1, 2)] == [[2], [4]]

    async def test_a_cache_remembers_what_such_a_function_returns(self, layer: Callable[[Any], Any]) -> None:
        model, tally = Logged(), Tally(1, "cached")
        ask = layer(CacheLayer(Cached(), model, tally))
        assert [await answer(ask, number) for number in (1, 2, 1, 2)] == [[2], [4], [2], [4]]
        assert (model.calls, counts(tally)) == (2, {"hits": 2, "misses": 2, "coalesced": 0})


async def test_a_cache_remembers_and_shares_a_plain_generator_behind_a_thread() -> None:
    model, tally = Counting(), Tally(1, "cached")
    ask = limited(CacheLayer(Cached(), model, tally))
    assert [await answer(ask, number) for number in (2, 3, 2)] == [[0, 1], [0, 1, 2], [0, 1]]
    model.may_go_on.clear()
    both = asyncio.gather(answer(ask, 4), answer(ask, 4))
    async with asyncio.timeout(PATIENCE_S):
        while not counts(tally)["coalesced"]:  # the second one may come after the stream, which would be a hit
            await asyncio.sleep(0)
    model.may_go_on.set()
    assert await both == [[0, 1, 2, 3]] * 2
    assert (model.calls, counts(tally)) == (3, {"hits": 1, "misses": 3, "coalesced": 1})


async def test_a_batch_before_a_cache_refuses_a_plain_generator_every_time() -> None:
    ask = batched(CacheLayer(Cached(), Counting(), Tally(1, "cached")))
    for number in (2, 2):
        with pytest.raises(RequestError, match="the model streams its answers") as caught:
            await answer(ask, number)
        assert caught.value.status == 501


async def test_a_cache_that_moved_to_the_event_loop_still_calls_the_model_in_a_thread() -> None:
    threads = []

    def model(batch: list[int]) -> Any:
        threads.append(threading.current_thread().name)
        return (one for one in batch) if batch[0] else batch

    ask = limited(CacheLayer(Cached(), model, Tally(1, "cached")))
    assert [await answer(ask, number) for number in (1, 0, 1)] == [[1], [0], [1]]
    assert threads == ["limited model", "cached model"]


class Held:
    """A plain model whose calls the test lets end; says when one has begun."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def __call__(self, batch: list[Any]) -> list[Any]:
        self.given.append(batch[0])
        self.begun.release()
        assert self.may_end.acquire(timeout=PATIENCE_S)
        return batch

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=PATIENCE_S)


async def test_waiting_for_the_thread_is_the_wait_of_a_queue() -> None:
    model, thread, clocks = Held(), ModelThread("model"), [RequestClock(), RequestClock()]

    async def request(clock: RequestClock) -> None:
        set_clock(clock)
        await thread.call(model, [1])

    asked = [asyncio.create_task(request(clock)) for clock in clocks]
    await model.has_begun()
    model.may_end.release(2)
    await asyncio.gather(*asked)
    first, second = clocks
    assert first.parts == {}
    assert list(second.parts) == ["queue_wait"]
    assert second.parts["queue_wait"] > 0


class TestAPlaceOfALimit:
    async def test_it_is_taken_until_the_call_of_a_caller_that_has_gone_has_ended(self) -> None:
        model = Held()
        ask = LimitLayer(Limited(1, max_waiting=1), model, Tally(0, "limited"))
        gone = asyncio.create_task(answer(ask, 1))
        await model.has_begun()
        gone.cancel()
        await asyncio.wait([gone])
        waiting = asyncio.create_task(answer(ask, 2))
        await settle()
        with pytest.raises(RequestError, match="too many requests"):
            await answer(ask, 3)
        model.may_end.release(2)
        assert await waiting == [2]
        assert model.given == [1, 2]

    async def test_it_is_free_at_once_if_the_call_had_not_begun(self) -> None:
        model = Held()
        ask = LimitLayer(Limited(2, max_waiting=0), model, Tally(0, "limited"))
        first, gone = (asyncio.create_task(answer(ask, number)) for number in (1, 2))
        await model.has_begun()
        gone.cancel()
        await asyncio.wait([gone])
        third = asyncio.create_task(answer(ask, 3))
        model.may_end.release(2)
        assert await asyncio.gather(first, third) == [[1], [3]]
        assert model.given == [1, 3]


@pytest.mark.filterwarnings("error")
async def test_a_failure_on_the_event_loop_is_told_too() -> None:
    told: list[bool] = []

    async def broken(_batch: list[int]) -> list[int]:
        raise LookupError("no weights")

    with pytest.raises(LookupError, match="no weights"):
        await OffLoop(broken, "m")([1], on_failure=lambda: told.append(True))
    assert told == [True]


async def test_an_awaitable_for_a_caller_that_has_gone_is_closed() -> None:
    model, called, may_return = Logged(), threading.Event(), threading.Event()

    def slow(batch: list[int]) -> Any:
        called.set()
        assert may_return.wait(PATIENCE_S)
        return model(batch)

    ask = limited(slow)
    gone = asyncio.create_task(answer(ask, 1))
    assert await asyncio.to_thread(called.wait, PATIENCE_S)
    gone.cancel()
    await asyncio.wait([gone])
    may_return.set()
    assert await answer(ask, 2) == [4]
    assert model.calls == 1
