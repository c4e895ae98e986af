"""Calls a model, or the layers around it: each failure becomes an error of the request, and its traceback is kept."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.layer import DecodedInputs, RequestError, matched, needs_loop, retries
from pytest_mlpatterns.patterns.stream import Stream, StreamSource
from pytest_mlpatterns.serving.model import advice_on_pickling
from pytest_mlpatterns.serving.tracebacks import user_traceback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.patterns.layer import Handler

__all__ = ["ModelCaller"]

_MAX_TRACEBACKS = 3


class ModelCaller:
    """Calls a model, or the layers around it, and turns each failure into an error of the request.

    Args:
        handler: takes a list of inputs; returns the same number of outputs, or an awaitable of them.

    Attributes:
        requests: number of requests, counted by the server.
        tracebacks: the first three distinct tracebacks of the user's code.
        has_streamed: whether it has returned a stream.
        retries: whether the handler may give the model the same inputs twice.
        needs_loop: whether the handler must be called on the event loop; False: it blocks the loop.
    """

    def __init__(self, handler: Handler) -> None:
        self.requests = 0
        self.tracebacks: list[str] = []
        self.has_streamed = False
        self._handler = handler
        self._reader = StreamSource()
        self.retries = retries(handler)
        self.needs_loop = needs_loop(handler)

    @property
    def free_ns(self) -> int:
        """When a plain generator last gave the event loop free, on the clock of ``perf_counter_ns``; 0 before."""
        return self._reader.free_ns

    async def __call__(self, instances: list[Any], decode: Callable[[], Sequence[Any]] | None = None) -> Any:
        """The outputs, one for each input, or a :class:`Stream`, which the caller closes.

        Args:
            instances: the inputs.
            decode: decodes the inputs again, for a layer that retries.

        Raises:
            RequestError: the model raised an error, or did not return one output for each input.
        """
        if self.retries and decode is not None:
            instances = DecodedInputs(instances, decode)
        try:
            outputs: Any = self._handler(instances)
            if inspect.isawaitable(outputs):
                outputs = await outputs
        except RequestError:
            raise
        except (Exception, SystemExit) as error:  # a model that wants to exit does not end the service
            raise self.failure(error) from error
        stream = self._reader.read(outputs, len(instances), "the model")
        if stream is not None:
            self.has_streamed = True
            return Stream(_ModelChunks(stream, self))
        return matched(outputs, len(instances), "the model")

    def failure(self, error: BaseException) -> RequestError:
        """The error of a request whose model raised an error; keeps its traceback."""
        text = user_traceback(error)
        if text not in self.tracebacks and len(self.tracebacks) < _MAX_TRACEBACKS:
            self.tracebacks.append(text)
        advice = advice_on_pickling(error)
        return RequestError(500, f"the model raised {type(error).__name__}: {error}{advice}")


class _ModelChunks:
    """The chunks of a model; its errors are errors of the request."""

    def __init__(self, stream: Stream, caller: ModelCaller) -> None:
        self._stream = stream
        self._caller = caller

    def __aiter__(self) -> _ModelChunks:
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._stream)
        except (RequestError, StopAsyncIteration):
            raise
        except (Exception, SystemExit) as error:
            raise self._caller.failure(error) from error

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        except (Exception, SystemExit) as error:  # of a ``finally`` block of the model; the client has its answer
            self._caller.failure(error)
