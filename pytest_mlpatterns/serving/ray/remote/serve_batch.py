"""The layer of ``Batched`` on Ray Serve: ``@serve.batch`` gathers inputs of requests into calls of the handler inside.

Ray Serve decides when a batch is sent. This layer calls the handler, repeats a failed call in halves, as the local
engine does, and counts.
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.batch_layer import NO_STREAM, UNAVAILABLE
from pytest_mlpatterns.patterns.batch_request import copies_of, error_of_one_caller, share_times
from pytest_mlpatterns.patterns.layer import DecodedInputs, RequestError, matched, needs_loop, parallelism
from pytest_mlpatterns.patterns.model_thread import ModelThread
from pytest_mlpatterns.patterns.request_clock import BATCH_WAIT, RequestClock, current_clock, set_clock
from pytest_mlpatterns.patterns.stream import refuse_stream
from pytest_mlpatterns.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.patterns.batched import Batched
    from pytest_mlpatterns.patterns.layer import Handler
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["ServeBatchLayer"]


@dataclass(slots=True, eq=False)
class _Request:
    """A waiting request.

    ``inputs_again`` returns new inputs for a retry; None until they are needed, and if they cannot be copied.
    ``clock`` takes its times; None outside of a server.
    """

    inputs: list[Any]
    arrived_ns: int
    inputs_again: Callable[[], Sequence[Any]] | None
    clock: RequestClock | None = None


@dataclass(frozen=True, slots=True)
class _Input:
    """One input of a request, which Ray Serve gathers with others."""

    request: _Request
    number: int


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The output of an input, or its error."""

    output: Any = None
    error: BaseException | None = None


class ServeBatchLayer:
    """Gathers inputs into calls of the handler inside, and gives each request its own outputs.

    Ray Serve sends a batch when ``max_batch_size`` inputs wait, or when the first has waited ``max_wait``, and gathers
    the next ones while the handler works. A request of several inputs may be split over two batches. A handler that
    does not need the event loop runs in a thread of its own, one call at a time.

    Args:
        pattern: the sizes and the wait.
        inside: the handler.
        tally: counts calls, sizes and waits.
    """

    needs_loop = True
    retries = True

    def __init__(self, pattern: Batched, inside: Handler, tally: Tally) -> None:
        from ray import serve

        self._inside = inside
        self._tally = tally
        self._thread = None if needs_loop(inside) else ModelThread("batched model")

        @serve.batch(  # type: ignore[untyped-decorator]
            max_batch_size=pattern.max_batch_size,
            batch_wait_timeout_s=parse_duration(pattern.max_wait, name="max_wait") / 1e9,
            max_concurrent_batches=1 if self._thread else parallelism(inside),
        )
        async def gather(inputs: list[_Input]) -> list[_Outcome]:
            return await self._call_batch(inputs)

        self._gather = gather

    async def __call__(self, instances: list[Any]) -> list[Any]:
        """The outputs for these inputs, of which there must be at least one.

        Raises:
            RequestError: there was not one output for each input, or the handler raised it.
            Exception: the exception of the handler.
        """
        again = instances.decode if isinstance(instances, DecodedInputs) else None
        request = _Request(instances, perf_counter_ns(), again, current_clock())
        waiting = [self._gather(_Input(request, number)) for number in range(len(instances))]
        outcomes: list[_Outcome] = [await waiting[0]] if len(waiting) == 1 else await asyncio.gather(*waiting)
        for outcome in outcomes:
            if outcome.error is not None:
                raise error_of_one_caller(outcome.error)
        return [outcome.output for outcome in outcomes]

    async def _call_batch(self, inputs: list[_Input]) -> list[_Outcome]:
        now_ns = perf_counter_ns()
        for one in inputs:
            request = one.request
            if not one.number:
                self._tally.time("wait_ns", now_ns - request.arrived_ns)
                if request.clock is not None:
                    request.clock.add(BATCH_WAIT, now_ns - request.arrived_ns)
            if len(inputs) > 1 and request.inputs_again is None:
                request.inputs_again = copies_of(request.inputs)
        outcomes = await self._call_group(inputs, is_retry=False)
        failed = sum(outcome.error is not None for outcome in outcomes)
        if 0 < failed < len(inputs):
            self._tally.count("failed_alone", failed)
        return outcomes

    async def _call_group(self, inputs: list[_Input], *, is_retry: bool) -> list[_Outcome]:
        """Call the handler; after a failure again in halves, so that only the inputs that fail on their own fail."""
        failure: BaseException | None = None
        clock = RequestClock()
        set_clock(clock)  # this task began with another request
        started_ns = perf_counter_ns()
        try:
            outputs = await self._outputs(
                _again(inputs) if is_retry else [one.request.inputs[one.number] for one in inputs]
            )
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # an exit would end the loop
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise  # the loop ends, and its callers with it
            failure = error
        share_times(clock, [one.request.clock for one in inputs if not one.number])
        size = len(inputs)
        self._tally.count("calls")
        self._tally.count("items", size)
        self._tally.observe("size", size)
        self._tally.time("call_ns", perf_counter_ns() - started_ns)
        if failure is None:
            try:
                refuse_stream(outputs, NO_STREAM)
                return [_Outcome(output) for output in matched(outputs, size, "the model")]
            except Exception as error:  # also of a value that only looks like a list
                failure = error
        is_unavailable = isinstance(failure, RequestError) and failure.status in UNAVAILABLE
        if size == 1 or is_unavailable or not all(one.request.inputs_again for one in inputs):
            return [_Outcome(error=failure)] * size
        first, second = inputs[: size // 2], inputs[size // 2 :]
        return [
            *await self._call_group(first, is_retry=True),
            *await self._call_group(second, is_retry=True),
        ]

    async def _outputs(self, inputs: list[Any]) -> Any:
        if self._thread is None:
            outputs: Any = self._inside(inputs)
        else:
            outputs = await self._thread.call(self._inside, inputs)
        return await outputs if inspect.isawaitable(outputs) else outputs


def _again(inputs: list[_Input]) -> list[Any]:
    """New inputs for a retry, since the model may have changed the others."""
    renewed: dict[int, Sequence[Any]] = {}
    for one in inputs:
        request = one.request
        if id(request) not in renewed:
            assert request.inputs_again is not None, "only inputs that can be made again are retried"
            renewed[id(request)] = request.inputs_again()
    return [renewed[id(one.request)][one.number] for one in inputs]
