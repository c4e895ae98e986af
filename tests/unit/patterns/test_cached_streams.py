"""A cache before a model that streams: what is remembered, who reads with whom, and what ends a stream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.caching import Server
from support.scenarios import Panic, read, settle

from pytest_mlpatterns import Cached
from pytest_mlpatterns.patterns.cache_layer import CacheLayer
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally


class Model:
    """Streams what the test feeds it; one queue for each call."""

    def __init__(self, *, is_awaited: bool) -> None:
        self.calls: list[asyncio.Queue[Any]] = []
        self.closed = 0
        self.called = asyncio.Semaphore(0)
        self.answer = asyncio.Event()
        self.answer.set()
        self.is_awaited = is_awaited

    def __call__(self, batch: list[Any]) -> Any:
        return self._later() if self.is_awaited else self._begin()

    async def _later(self) -> Any:
        self.called.release()
        await self.answer.wait()
        return self._begin()

    def _begin(self) -> Any:
        self.calls.append(asyncio.Queue())
        return self._chunks(self.calls[-1])

    async def _chunks(self, fed: asyncio.Queue[Any]) -> AsyncIterator[Any]:
        try:
            while (chunk := await fed.get()) is not None:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.closed += 1

    def feed(self, *chunks: Any, call: int = -1) -> None:
        for chunk in chunks:
            self.calls[call].put_nowait(chunk)


class Cache:
    """The layer, and what it counted."""

    def __init__(self, model: Any, store: Any = None) -> None:
        self.tally = Tally(0, "cached")
        self.layer = CacheLayer(Cached(), model, self.tally, store=store)

    async def ask(self, value: Any = "x") -> Any:
        answer: Any = self.layer([value])
        return answer if isinstance(answer, Stream) else await answer

    @property
    def counts(self) -> tuple[int, int, int]:
        counters = self.tally.snapshot().counters
        return tuple(counters.get(name, 0) for name in ("hits", "misses", "coalesced"))  # type: ignore[return-value]


@pytest.fixture(params=["plain", "awaited", "store"])
def served(request: pytest.FixtureRequest) -> tuple[Model, Cache]:
    model = Model(is_awaited=request.param == "awaited")
    return model, Cache(model, Server() if request.param == "store" else None)


async def test_a_stream_that_ended_well_is_replayed(served: tuple[Model, Cache]) -> None:
    model, cache = served
    stream = await cache.ask()
    model.feed("a", ["b"])
    assert [await anext(stream), await anext(stream)] == ["a", ["b"]]
    model.feed(None)
    assert await read(stream) == []
    for _ in range(2):
        assert await read(await cache.ask()) == ["a", ["b"]]
    assert (len(model.calls), cache.counts) == (1, (2, 1, 0))


async def test_requests_for_one_input_share_a_stream_from_its_beginning(served: tuple[Model, Cache]) -> None:
    model, cache = served
    first = await cache.ask()
    model.feed("a")
    assert await anext(first) == "a"
    second = await cache.ask()
    assert await anext(second) == "a"
    model.feed("b", None)
    assert await asyncio.gather(read(first), read(second)) == [["b"], ["b"]]
    assert (len(model.calls), cache.counts) == (1, (0, 1, 1))


async def test_requests_share_the_call_before_there_is_a_stream() -> None:
    model = Model(is_awaited=True)
    model.answer.clear()
    cache = Cache(model)
    asked = [asyncio.ensure_future(cache.ask()) for _ in range(3)]
    await model.called.acquire()
    asked[0].cancel()
    await settle()
    model.answer.set()
    streams = await asyncio.gather(*asked[1:])
    model.feed("a", None)
    assert await asyncio.gather(*map(read, streams)) == [["a"], ["a"]]
    assert len(model.calls) == 1


@pytest.mark.parametrize("all_go", [False, True])
async def test_the_model_is_closed_when_all_readers_have_gone(served: tuple[Model, Cache], all_go: bool) -> None:
    model, cache = served
    first, second = await cache.ask(), await cache.ask()
    model.feed("a")
    assert await anext(first) == "a"
    await first.aclose()
    await first.aclose()
    assert not model.closed
    if not all_go:
        model.feed("b", None)
        assert await read(second) == ["a", "b"]
        return
    await second.aclose()
    assert model.closed == 1
    again = await cache.ask()
    model.feed("new", None)
    assert await read(again) == ["new"]
    assert len(model.calls) == 2


async def test_a_request_that_comes_while_the_model_is_closed_has_a_stream_of_its_own() -> None:
    calls, may_go_on, may_close = [], asyncio.Event(), asyncio.Event()

    async def model(batch: list[Any]) -> AsyncIterator[Any]:
        calls.append(batch)
        try:
            yield "a"
            await may_go_on.wait()
            yield "b"
        finally:
            await may_close.wait()

    cache = Cache(model)
    leaving = asyncio.create_task(read(await cache.ask()))
    await settle()
    leaving.cancel()
    await settle()
    reading = asyncio.create_task(read(await cache.ask()))
    may_go_on.set()
    may_close.set()
    assert await reading == await read(await cache.ask()) == ["a", "b"]
    await asyncio.wait([leaving])
    assert len(calls) == 2


async def test_a_panic_of_a_library_in_a_stream_is_an_error_of_its_reader_and_is_not_remembered() -> None:
    async def model(_batch: list[Any]) -> AsyncIterator[Any]:
        yield "a"
        raise Panic("no token")

    cache = Cache(model)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="it raised Panic: no token"):
            await read(await cache.ask())


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_stream_whose_model_catches_its_cancellation_is_not_remembered(goes_on: bool) -> None:
    calls = []

    async def model(batch: list[Any]) -> AsyncIterator[Any]:
        calls.append(batch)
        yield "a"
        if len(calls) == 1:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        if len(calls) > 1 or goes_on:
            yield "b"

    cache = Cache(model)
    left = await cache.ask()
    assert await anext(left) == "a"
    reading = asyncio.ensure_future(anext(left))
    await settle()
    reading.cancel()
    await left.aclose()
    assert await read(await cache.ask()) == ["a", "b"]


async def test_a_reader_that_goes_at_once_ends_a_stream_that_has_not_begun() -> None:
    cache = Cache(Model(is_awaited=False))
    await (await cache.ask()).aclose()
    assert not cache.layer._streams._running


@pytest.mark.parametrize("goes", ["before the answer", "with the answer"])
async def test_a_stream_whose_only_caller_has_gone_is_closed(goes: str) -> None:
    model = Model(is_awaited=True)
    model.answer.clear()
    cache = Cache(model)
    asked = asyncio.ensure_future(cache.ask())
    await model.called.acquire()
    if goes == "before the answer":
        asked.cancel()
        await settle()
        model.answer.set()
    else:
        model.answer.set()
        while not model.calls:
            await asyncio.sleep(0)
        asked.cancel()
    await settle()
    assert not cache.layer._streams._running
    assert not cache.layer._streams._awaited


async def test_an_error_is_that_of_all_readers_and_nothing_is_remembered(served: tuple[Model, Cache]) -> None:
    model, cache = served
    first, second = await cache.ask(), await cache.ask()
    model.feed("a", ValueError("lost"))
    for stream in (first, second):
        with pytest.raises(ValueError, match="lost"):
            await read(stream)
    again = await cache.ask()
    model.feed("a", None)
    assert await read(again) == ["a"]
    assert len(model.calls) == 2


async def test_an_error_while_the_model_is_closed_is_raised_to_the_last_reader() -> None:
    async def untidy(batch: list[Any]) -> AsyncIterator[Any]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            raise OSError("no handle")

    stream = await Cache(untidy).ask()
    assert await anext(stream) == "a"
    with pytest.raises(OSError, match="no handle"):
        await stream.aclose()


async def test_a_chunk_that_is_changed_by_a_reader_stays_as_it_was() -> None:
    async def lists(batch: list[Any]) -> AsyncIterator[Any]:
        yield ["a"]

    cache = Cache(lists)
    for _ in range(3):
        (chunk,) = await read(await cache.ask())
        assert chunk == ["a"]
        chunk.append("b")


async def test_several_inputs_are_refused_also_if_they_are_remembered() -> None:
    model = Model(is_awaited=False)
    cache = Cache(model)
    with pytest.raises(RequestError, match="has 2 inputs"):
        cache.layer(["x", "y"])
    for value in "xy":
        stream = await cache.ask(value)
        model.feed(value, None)
        assert await read(stream) == [value]
    with pytest.raises(RequestError, match="has 2 inputs"):
        cache.layer(["x", "y"])


async def test_a_chunk_that_the_store_cannot_hold_is_an_error_at_the_end() -> None:
    model = Model(is_awaited=False)
    stream = await Cache(model, Server()).ask()
    model.feed({1, 2}, float("nan"), None)
    assert await anext(stream) == {1, 2}
    with pytest.raises(RequestError, match="cannot be written to a store"):
        await read(stream)
