"""Calls a model, or the layers around it: each failure becomes an error of the request, and its traceback is kept.

Calls of a plain model hold a lock: without it, the response of the first of several requests would leave after the
calls of all others. Such a model blocks the event loop, and uvloop sends responses only after all callbacks that are
ready.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from time import perf_counter_ns, time_ns
from typing import Any

from msgspec import Struct

from pytest_mlpatterns.patterns.layer import (
    DecodedInputs,
    Handler,
    RequestError,
    ends_task,
    matched,
    needs_loop,
    retries,
)
from pytest_mlpatterns.patterns.stream import Stream, StreamSource
from pytest_mlpatterns.serving.tracebacks import MAX_TRACEBACKS, advice_on, user_traceback


class CallStatistics(Struct):
    """How often the model was called, and for how long, waiting in the layers around it included."""

    succeeded: int = 0
    succeeded_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    last_ms: int = 0  # when the last call ended, in milliseconds since 1970; 0 before

    def add_success(self, started_ns: int) -> None:
        """Count a call that began then, on the clock of ``perf_counter_ns``, and ended well."""
        self.succeeded += 1
        self.succeeded_ns += perf_counter_ns() - started_ns
        self.last_ms = time_ns() // 1_000_000

    def add_failure(self, started_ns: int) -> None:
        """Count a call that began then and failed."""
        self.failed += 1
        self.failed_ns += perf_counter_ns() - started_ns
        self.last_ms = time_ns() // 1_000_000


class ModelCaller:
    """Calls a model, or the layers around it, and turns each failure into an error of the request.

    ``needs_loop``: whether the handler must be called on the event loop; False: it blocks the loop.
    """

    def __init__(self, handler: Handler) -> None:
        self.statistics: CallStatistics = CallStatistics()
        self.requests = 0
        self.tracebacks: list[str] = []
        self.has_streamed: bool = False
        self._handler = handler
        self._reader = StreamSource()
        self.retries: bool = retries(handler)
        self.needs_loop: bool = needs_loop(handler)

    @property
    def free_ns(self) -> int:
        """When a plain generator last gave the event loop free, on the clock of ``perf_counter_ns``; 0 before."""
        return self._reader.free_ns

    async def __call__(self, instances: list[Any], decode: Callable[[], Sequence[Any]] | None = None) -> Any:
        """The outputs, one for each input, or a :class:`Stream`, which the caller closes."""
        if self.retries and decode is not None:
            instances = DecodedInputs(instances, decode)
        started_ns = perf_counter_ns()
        try:
            outputs = await self._called(instances)
            stream = self._reader.read(outputs, len(instances), "the model")
            if stream is None:
                outputs = matched(outputs, len(instances), "the model")
        except RequestError:
            self.statistics.add_failure(started_ns)
            raise
        if stream is not None:
            self.has_streamed = True
            return Stream(_ModelChunks(stream, self, started_ns))
        self.statistics.add_success(started_ns)
        return outputs

    async def _called(self, instances: list[Any]) -> Any:
        try:
            outputs: Any = self._handler(instances)
            return await outputs if inspect.isawaitable(outputs) else outputs
        except RequestError:
            raise
        except BaseException as error:  # a model that exits or panics does not end the service
            if ends_task(error):
                raise
            raise self.failure(error) from error

    def failure(self, error: BaseException) -> RequestError:
        """The error of a request whose model raised an error; keeps its traceback."""
        text = user_traceback(error)
        if text not in self.tracebacks and len(self.tracebacks) < MAX_TRACEBACKS:
            self.tracebacks.append(text)
        advice = advice_on(error, error.__traceback__)
        return RequestError(500, f"the model raised {type(error).__name__}: {error}{advice}")


class _ModelChunks(AsyncIterator[Any]):
    """The chunks of a model; its errors are errors of the request."""

    def __init__(self, stream: Stream, caller: ModelCaller, started_ns: int) -> None:
        self._stream = stream
        self._caller = caller
        self._started_ns = started_ns

    async def __anext__(self) -> Any:
        try:
            return await anext(self._stream)
        except StopAsyncIteration:
            self._caller.statistics.add_success(self._started_ns)
            raise
        except RequestError:
            self._caller.statistics.add_failure(self._started_ns)
            raise
        except BaseException as error:
            if ends_task(error):
                raise
            self._caller.statistics.add_failure(self._started_ns)
            raise self._caller.failure(error) from error

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        except (Exception, SystemExit) as error:  # of a ``finally`` block of the model; the client has its answer
            self._caller.failure(error)


class ModelLock:
    """A lock whose release waits for the next iteration of the event loop, when the response has been sent.

    ``free_ns``: when the last call of the model ended, on the clock of ``perf_counter_ns``; 0 before the first.
    """

    def __init__(self) -> None:
        self.free_ns: int = 0
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.free_ns = perf_counter_ns()
        asyncio.get_running_loop().call_soon(self._lock.release)
