"""A thread in which the plain functions of one model run, one call at a time, while the event loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import weakref
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.layer import needs_loop
from pytest_mlpatterns.patterns.request_clock import current_clock, set_clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.patterns.layer import Handler
    from pytest_mlpatterns.patterns.request_clock import RequestClock

__all__ = ["ROOT", "ModelThread", "OffLoop"]


class ModelThread:
    """The thread; it ends with this object.

    Args:
        name: of the thread.

    Attributes:
        begin: calls a function in the thread, after those begun before; it must raise nothing.
    """

    def __init__(self, name: str) -> None:
        calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.begin: Callable[[Callable[[], None]], None] = calls.put
        weakref.finalize(self, calls.put, None)
        # a daemon, because a model that hangs must not keep the process
        threading.Thread(target=_run_all, args=[calls], name=name, daemon=True).start()

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the thread, which charges the clock of this task; raises its exception.

        A call whose caller has gone before it began is left out.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Outcome] = loop.create_future()
        self.begin(partial(_call, loop, future, partial(function, *arguments), clock=current_clock()))
        value, error = await future
        if error is not None:
            raise error
        return value


class OffLoop:
    """Calls a handler so that the event loop goes on: one that is a plain function runs in a thread of its own.

    Args:
        handler: takes a list of inputs; returns as many outputs, or an awaitable of them.
        name: of the thread.
    """

    def __init__(self, handler: Handler, name: str) -> None:
        self._handler = handler
        self._thread = None if needs_loop(handler) else ModelThread(name)

    async def __call__(self, instances: list[Any]) -> Any:
        """What the handler returns; raises its exception."""
        if self._thread is not None:
            return await self._thread.call(self._handler, instances)
        answer: Any = self._handler(instances)
        return await answer if inspect.isawaitable(answer) else answer


_Outcome = tuple[Any, BaseException | None]


def _call(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[_Outcome],
    function: Callable[[], Any],
    *,
    clock: RequestClock | None,
) -> None:
    outcome: _Outcome
    if future.done():  # cancelled, since nothing else ends it before
        return
    set_clock(clock)
    try:
        outcome = function(), None
    except BaseException as error:  # any exception: the caller waits for an answer
        outcome = None, error
    with contextlib.suppress(RuntimeError):  # the loop has ended, and its callers with it
        loop.call_soon_threadsafe(_resolve, future, outcome)


def _resolve(future: asyncio.Future[_Outcome], outcome: _Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _run_all(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    """The thread. It keeps no reference to its owner while it waits, so that it ends with the owner."""
    while (call := calls.get()) is not None:
        call()
        del call


ROOT = _run_all.__name__
"""Name of the function at the root of the thread, by which a profile knows it."""
