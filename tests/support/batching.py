"""A loop whose clock jumps, models that record their calls, and a layer of batches around them.

The clock stands still while anything can run, and jumps to the next timer when nothing can.
"""

import asyncio
import functools
import selectors
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from pytest_mlpatterns.patterns import batched
from pytest_mlpatterns.patterns.batched import Batched, BatchLayer
from pytest_mlpatterns.patterns.tally import Tally
from support.scenarios import PATIENCE_S, settle

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


def jumping(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run the test on a :class:`JumpingLoop`."""

    @functools.wraps(test)
    def ran(*arguments: Any, **named: Any) -> None:
        run_jumping(test(*arguments, **named))

    return ran


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


async def call_once(inner: Any, inputs: list[Any]) -> Any:
    return await batching(inner)[0](inputs)
