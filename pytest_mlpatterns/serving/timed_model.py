"""A model as a handler that charges its times to the clock of its request: CPU, garbage collection, ready, waiting."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import partial
from inspect import isawaitable
from threading import get_ident
from time import perf_counter_ns, thread_time_ns
from types import CoroutineType, GeneratorType
from typing import Any

from pytest_mlpatterns.patterns.layer import needs_loop, parallelism
from pytest_mlpatterns.patterns.request_clock import (
    CALLS,
    MODEL_BLOCK,
    MODEL_CPU,
    MODEL_GC,
    MODEL_WAIT,
    RUN_QUEUE,
    SHARED_WAIT,
    RequestClock,
    current_clock,
    key_of_part,
)
from pytest_mlpatterns.patterns.stream import streams
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.telemetry import AWAIT_TIMES
from pytest_mlpatterns.serving.clocks import GcClock, suspended_chain
from pytest_mlpatterns.system.thread_times import RunQueueClock

_CALLS_WATCHED = 16
"""Calls that are watched after one with a long wait; each look at the counter of the kernel takes time."""
_LONG_WAIT_NS = 50_000  # Wait in a call, in nanoseconds, from which the next calls are watched


class ModelMeter:
    """The clocks that models of one process share; ``awaits`` counts waits of coroutines, None unless profiled."""

    def __init__(self) -> None:
        self.collections: GcClock = GcClock()
        self.run_queue: RunQueueClock = RunQueueClock()
        self.loop_thread: int = 0
        self.loop_busy_ns: int = 0
        self.awaits: Tally | None = None


class TimedModel:
    """Calls a model, and charges each call to the clock of the request that is worked on; about 1.5 µs a call.

    Coroutines are timed between their suspensions, and streams chunk by chunk. Other attributes are the model's.

    ``of``: the stage of a pipeline or model of an ensemble that it is; empty for the model alone.
    """

    def __init__(self, model: Callable[..., Any], meter: ModelMeter, of: str = "") -> None:
        self.needs_loop: bool = needs_loop(model)
        self.parallelism: int = parallelism(model)
        self._model = model
        self._meter = meter
        self._collections = meter.collections
        self._run_queue = meter.run_queue
        self._watched = 0
        self._calls, self._cpu, self._gc = (key_of_part(part, of) for part in (CALLS, MODEL_CPU, MODEL_GC))
        self._wait, self._block, self._queued = (key_of_part(part, of) for part in (MODEL_WAIT, MODEL_BLOCK, RUN_QUEUE))
        self._shared = key_of_part(SHARED_WAIT, of)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_model":
            raise AttributeError(name)
        return getattr(self._model, name)

    def __call__(self, *arguments: Any) -> Any:
        """What the model returns; an awaitable or a stream goes on charging the same clock."""
        clock = current_clock()
        if clock is None:
            return self._model(*arguments)
        clock.add(self._calls, 1)
        outputs = self._step(clock, self._wait, self._model, *arguments)
        kind = type(outputs)
        if kind is CoroutineType or hasattr(kind, "__await__") or (kind is GeneratorType and isawaitable(outputs)):
            return self._awaited(outputs, clock)
        if streams(outputs):
            return self._streamed(outputs, clock)
        return outputs

    def _step(self, clock: RequestClock, rest: str, /, step: Callable[..., Any], *arguments: Any) -> Any:
        """Run a piece of the model; what it neither computes nor collects is charged as ``rest``."""
        parts, collections, queued_ns = clock.parts, self._collections, None
        if self._watched:
            self._watched -= 1
            queued_ns = self._run_queue.waited_ns()
        collected_ns, started_ns, cpu_ns = collections.total_ns, perf_counter_ns(), thread_time_ns()
        try:
            return step(*arguments)
        finally:
            cpu_ns = thread_time_ns() - cpu_ns
            took_ns = perf_counter_ns() - started_ns
            if (meter := self._meter).loop_thread and meter.loop_thread == get_ident():
                meter.loop_busy_ns += took_ns
            if collections.total_ns != collected_ns:
                collected_ns = min(collections.total_ns - collected_ns, took_ns)
                clock.add(self._gc, collected_ns)
                took_ns -= collected_ns
                cpu_ns = max(cpu_ns - collected_ns, 0)
            cpu_ns = min(cpu_ns, took_ns)  # two clocks
            took_ns -= cpu_ns
            if took_ns > _LONG_WAIT_NS:
                self._watched = _CALLS_WATCHED
            if queued_ns is not None:
                took_ns -= self._charge_queued(clock, queued_ns, took_ns)
            parts[self._cpu] = parts.get(self._cpu, 0) + cpu_ns  # not by add, which takes longer
            parts[rest] = parts.get(rest, 0) + took_ns

    def _charge_queued(self, clock: RequestClock, since_ns: int | None, most_ns: int) -> int:
        """Charge what this thread has waited for a processor since then, in nanoseconds; returns it."""
        if since_ns is None or (now_ns := self._run_queue.waited_ns()) is None:
            return 0
        queued_ns = min(now_ns - since_ns, most_ns)
        self._run_queue.claim(queued_ns)
        clock.add(self._queued, queued_ns)
        return queued_ns

    async def _awaited(self, awaitable: Any, clock: RequestClock) -> Any:
        outputs = await _TimedAwaitable(awaitable, self, clock)
        return self._streamed(outputs, clock) if streams(outputs) else outputs

    def _streamed(self, outputs: Any, clock: RequestClock) -> Any:
        """The same stream, whose chunks are timed."""
        kind = type(outputs)
        if kind is list or kind is tuple:
            return [self._streamed(outputs[0], clock), *outputs[1:]]
        return _TimedChunks(outputs, self, clock) if hasattr(kind, "__anext__") else self._chunks(outputs, clock)

    def _chunks(self, chunks: Iterator[Any], clock: RequestClock) -> Generator[Any]:
        try:
            while True:
                try:
                    chunk = self._step(clock, self._wait, next, chunks)
                except StopIteration:
                    return
                yield chunk
        finally:
            if (close := getattr(chunks, "close", None)) is not None:
                close()

    def run(self, clock: RequestClock, awaitable: Any) -> Generator[Any, Any, Any]:
        """Run an awaitable of the model; its steps keep the event loop, and between them it waits.

        While other calls kept the loop meanwhile, it could not have gone on: that is charged as a wait for them.
        """
        meter, steps = self._meter, awaitable.__await__() if hasattr(awaitable, "__await__") else awaitable
        meter.loop_thread = get_ident()
        step = partial(next, steps)
        while True:
            try:
                waits_for = self._step(clock, self._block, step)
            except StopIteration as ended:
                return ended.value
            queued_ns = self._run_queue.waited_ns() if self._watched else None
            chain = suspended_chain(awaitable) if meter.awaits is not None else ""
            left_ns, busy_ns = perf_counter_ns(), meter.loop_busy_ns
            try:
                value = yield waits_for
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # for the model, such as its cancellation
                step = partial(steps.throw, error)
            else:
                step = partial(next, steps) if value is None else partial(steps.send, value)
            waited_ns = perf_counter_ns() - left_ns
            shared_ns = min(meter.loop_busy_ns - busy_ns, waited_ns)
            clock.add(self._shared, shared_ns)
            waited_ns -= shared_ns + self._charge_queued(clock, queued_ns, waited_ns - shared_ns)
            clock.add(self._wait, waited_ns)
            if meter.awaits is not None and chain:
                meter.awaits.count(chain, waited_ns)
                meter.awaits.count(AWAIT_TIMES + chain)


class TimedSteps:
    """A model with ``start`` and ``step`` whose calls are timed; other attributes are the model's."""

    def __init__(self, model: Any, meter: ModelMeter, of: str = "") -> None:
        self._model = model
        self.start: TimedModel = TimedModel(model.start, meter, of)
        self.step: TimedModel = TimedModel(model.step, meter, of)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_model":
            raise AttributeError(name)
        return getattr(self._model, name)


class _TimedAwaitable:
    """An awaitable of a model, which is awaited once."""

    __slots__ = ("_awaitable", "_clock", "_model")

    def __init__(self, awaitable: Any, model: TimedModel, clock: RequestClock) -> None:
        self._awaitable, self._model, self._clock = awaitable, model, clock

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._model.run(self._clock, self._awaitable)


class _TimedChunks(AsyncIterator[Any]):
    """The chunks of an asynchronous generator of a model."""

    def __init__(self, chunks: Any, model: TimedModel, clock: RequestClock) -> None:
        self._chunks, self._model, self._clock = chunks, model, clock

    async def __anext__(self) -> Any:
        return await _TimedAwaitable(self._chunks.__anext__(), self._model, self._clock)

    async def aclose(self) -> None:
        if (close := getattr(self._chunks, "aclose", None)) is not None:
            await close()
