"""Where coroutines of a profiled model wait: chains of names, and their times."""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.request_clock import RequestClock, set_clock
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.await_chains import awaited_times, chain_name
from pytest_mlpatterns.serving.await_clock import AwaitClock
from pytest_mlpatterns.serving.timed_model import ModelMeter, TimedModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

WAIT_S = 0.02


class Model:
    async def __call__(self, batch: list[Any]) -> list[Any]:
        await self.fetch()
        return batch

    async def fetch(self) -> None:
        await asyncio.sleep(WAIT_S)


@types.coroutine
def by_generator(batch: list[Any]) -> Generator[Any, Any, list[Any]]:
    yield from asyncio.sleep(WAIT_S).__await__()
    return batch


async def by_async_generator(batch: list[Any]) -> list[Any]:
    async for _ in chunks():
        pass
    return batch


async def chunks() -> AsyncIterator[int]:
    await asyncio.sleep(WAIT_S)
    yield 1


async def by_future(batch: list[Any]) -> list[Any]:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future
    return batch


def waits_of(model: Callable[..., Any], calls: int = 1) -> list[tuple[list[str], int, int]]:
    """Names of each chain, its nanoseconds, and how often it waited."""
    meter = ModelMeter()
    tally = Tally(0, "awaits")
    meter.awaits = AwaitClock(tally)

    async def run() -> None:
        set_clock(RequestClock())
        timed = TimedModel(model, meter)
        assert [await timed([1]) for _ in range(calls)] == [[1]] * calls

    asyncio.run(run())
    found = awaited_times(tally.snapshot().counters)
    assert all(awaiting.file and awaiting.line > 0 for one in found for awaiting in one.chain)
    return [
        ([awaiting.qualified for awaiting in one.chain], one.ns, one.times)
        for one in awaited_times(tally.snapshot().counters)
    ]


def test_a_wait_is_charged_to_the_chain_of_coroutines() -> None:
    ((names, ns, times),) = waits_of(Model(), calls=2)
    assert names == ["Model.__call__", "Model.fetch", "sleep"]
    assert times == 2
    assert ns >= 2 * WAIT_S * 1e9


def test_generators_and_futures_are_links_too() -> None:
    ((names, ns, _),) = waits_of(by_generator)
    assert names[0] == "by_generator"
    assert ns >= WAIT_S * 1e9
    ((names, _, _),) = waits_of(by_future)
    assert names == ["by_future"]
    ((names, _, _),) = waits_of(by_async_generator)
    assert names[0] == "by_async_generator"


def test_what_has_no_coroutine_is_charged_to_nothing() -> None:
    tally = Tally(0, "awaits")
    clock = AwaitClock(tally)
    assert clock.chain(object()) == chain_name(()) == ""
    clock.charge("", 5)
    assert tally.snapshot().counters == {}
