"""Where coroutines of a profiled model wait: chains of names, and their times."""

import asyncio
import types
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import pytest

from pytest_mlpatterns.patterns.request_clock import RequestClock, set_clock
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.telemetry import awaited_times, chain_name
from pytest_mlpatterns.serving import timed_model
from pytest_mlpatterns.serving.clocks import suspended_chain
from pytest_mlpatterns.serving.timed_model import ModelMeter, TimedModel

WAIT_NS = 20_000_000


class Clock:
    """Stands unless a coroutine waits."""

    now_ns = 0

    def begin_wait(self) -> None:
        """It moves by :data:`WAIT_NS` once the caller is suspended."""
        asyncio.get_running_loop().call_soon(self._move)

    def _move(self) -> None:
        self.now_ns += WAIT_NS


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _declared_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_model, "perf_counter_ns", lambda: CLOCK.now_ns)


class Model:
    async def __call__(self, batch: list[Any]) -> list[Any]:
        await self.fetch()
        return batch

    async def fetch(self) -> None:
        CLOCK.begin_wait()
        await asyncio.sleep(0.001)


@types.coroutine
def by_generator(batch: list[Any]) -> Generator[Any, Any, list[Any]]:
    CLOCK.begin_wait()
    yield from asyncio.sleep(0.001).__await__()
    return batch


async def by_async_generator(batch: list[Any]) -> list[Any]:
    async for _ in chunks():
        pass
    return batch


async def chunks() -> AsyncIterator[int]:
    CLOCK.begin_wait()
    await asyncio.sleep(0.001)
    yield 1


async def by_future(batch: list[Any]) -> list[Any]:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    CLOCK.begin_wait()
    loop.call_soon(future.set_result, None)
    await future
    return batch


def waits_of(model: Callable[..., Any], calls: int = 1) -> list[tuple[list[str], int, int]]:
    """Names of each chain, its nanoseconds, and how often it waited."""
    meter = ModelMeter()
    tally = Tally(0, "awaits")
    meter.awaits = tally

    async def run() -> None:
        set_clock(RequestClock())
        timed = TimedModel(model, meter)
        assert [await timed([1]) for _ in range(calls)] == [[1]] * calls

    asyncio.run(run())
    found = [*awaited_times(tally.snapshot().counters)]
    assert all(awaiting.file and awaiting.line > 0 for one in found for awaiting in one.chain)
    return [([awaiting.qualified for awaiting in one.chain], one.ns, one.times) for one in found]


def test_a_wait_is_charged_to_the_chain_of_coroutines() -> None:
    ((names, ns, times),) = waits_of(Model(), calls=2)
    assert names == ["Model.__call__", "Model.fetch", "sleep"]
    assert times == 2
    assert ns == 2 * WAIT_NS


def test_generators_and_futures_are_links_too() -> None:
    for model in (by_generator, by_future, by_async_generator):
        ((names, ns, times),) = waits_of(model)
        assert (names[0], ns, times) == (model.__name__, WAIT_NS, 1)
        assert len(names) == 1 or model is not by_future


def test_what_has_no_coroutine_is_charged_to_nothing() -> None:
    def bare_future(batch: list[Any]) -> asyncio.Future[list[Any]]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, batch)
        return future

    assert suspended_chain(object()) == chain_name(()) == ""
    assert waits_of(bare_future) == []
