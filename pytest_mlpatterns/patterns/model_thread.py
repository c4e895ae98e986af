"""A thread in which the plain functions of one model run, one call at a time, while the event loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import weakref
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Any

from pytest_mlpatterns.patterns.layer import Handler, needs_loop
from pytest_mlpatterns.patterns.request_clock import QUEUE_WAIT, charge, current_clock, set_clock


class ModelThread:
    """The thread; it ends with this object.

    ``begin``: calls a function in the thread, after those begun before; it must raise nothing.
    """

    def __init__(self, name: str) -> None:
        calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.begin: Callable[[Callable[[], None]], None] = calls.put
        self._work = _Work()
        weakref.finalize(self, calls.put, None)
        # a daemon, because a model that hangs must not keep the process
        threading.Thread(target=_run_all, args=[calls, self._work], name=name, daemon=True).start()

    def started(self, function: Callable[..., Any], *arguments: Any) -> ThreadCall:
        """Have a function called in the thread, on the clock of this task."""
        call = ThreadCall(partial(function, *arguments), self._work)
        self.begin(call.run)
        return call

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the thread, which charges the clock of this task; raises its exception.

        A call whose caller has gone before it began is left out.
        """
        return await self.started(function, *arguments).value()


class _Work:
    """What a thread has done.

    ``free_ns``: when its last call ended, on the clock of ``perf_counter_ns``; 0 before the first.
    """

    __slots__ = ("free_ns",)

    def __init__(self) -> None:
        self.free_ns: int = 0


class ThreadCall:
    """One call in a thread, made on the event loop; its wait there for other calls is charged as a queue's."""

    __slots__ = ("_clock", "_ended", "_function", "_is_over", "_loop", "_outcome", "_since_ns", "_unclaimed", "_work")

    def __init__(self, function: Callable[[], Any], work: _Work) -> None:
        self._function = function
        self._work = work
        self._clock = current_clock()
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[_Outcome] = self._loop.create_future()
        self._unclaimed = [True]
        self._is_over = False
        self._ended: Callable[[], None] | None = None
        self._since_ns = perf_counter_ns()

    async def value(self) -> Any:
        """What the function returns; raises its exception."""
        value, error = await self._outcome
        if error is not None:
            raise error
        return value

    def when_over(self, act: Callable[[], None]) -> None:
        """Act once the thread does not work on the call: now, or after it if its caller has gone meanwhile."""
        if self._is_over or self._claim():
            act()
        else:
            self._ended = act

    def _claim(self) -> bool:
        """Whether the call has not begun; then it never does, unless the thread claimed it."""
        try:
            return self._unclaimed.pop()  # of two threads only one can pop it
        except IndexError:
            return False

    def run(self) -> None:
        """Call the function; in the thread."""
        if self._outcome.done() or not self._claim():  # cancelled, since nothing else ends it before
            return
        outcome: _Outcome
        set_clock(self._clock)
        if (waited_ns := self._work.free_ns - self._since_ns) > 0:
            charge(QUEUE_WAIT, waited_ns)
        try:
            outcome = self._function(), None
        except BaseException as error:  # any exception: the caller waits for an answer
            outcome = None, error
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its callers with it
            self._loop.call_soon_threadsafe(self._end, outcome)

    def _end(self, outcome: _Outcome) -> None:
        self._is_over = True
        if not self._outcome.done():
            self._outcome.set_result(outcome)
        elif inspect.iscoroutine(outcome[0]):  # its caller has gone
            outcome[0].close()
        if self._ended is not None:
            self._ended()


class OffLoop:
    """Calls a handler so that the event loop goes on: one that is a plain function runs in a thread of its own."""

    def __init__(self, handler: Handler, name: str) -> None:
        self._handler = handler
        self._thread = None if needs_loop(handler) else ModelThread(name)

    async def __call__(self, instances: list[Any], *, on_failure: Callable[[], None] | None = None) -> Any:
        """What the handler returns; raises its exception.

        ``on_failure``: called if there are no outputs: the handler failed, or the caller has gone. In the second case a
        plain function works on in the thread, and it is called after that.
        """
        call: ThreadCall | None = None
        try:
            if self._thread is None:
                answer: Any = self._handler(instances)
            else:
                call = self._thread.started(self._handler, instances)
                answer = await call.value()
            return await answer if inspect.isawaitable(answer) else answer
        except BaseException:
            if on_failure is not None:
                (on_failure if call is None else partial(call.when_over, on_failure))()
            raise


_Outcome = tuple[Any, BaseException | None]


def _run_all(calls: SimpleQueue[Callable[[], None] | None], work: _Work) -> None:
    """The thread. It keeps no reference to its owner while it waits, so that it ends with the owner."""
    while (call := calls.get()) is not None:
        call()
        del call
        work.free_ns = perf_counter_ns()


ROOT = _run_all.__name__  # Name of the function at the root of the thread, by which a profile knows it
