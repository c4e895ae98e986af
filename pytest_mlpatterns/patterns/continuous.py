"""The pattern ``Continuous``: continuous batching, in which requests join and leave the batch between its steps."""

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, ClassVar

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.arguments import NO_VARIABLES, set_variables
from pytest_mlpatterns.patterns.layer import Handler, Resources, ends_task, error_of_one_caller, matched, needs_loop
from pytest_mlpatterns.patterns.model_thread import ModelThread
from pytest_mlpatterns.patterns.pattern import Node, Pattern
from pytest_mlpatterns.patterns.request_clock import (
    QUEUE_WAIT,
    SHARED_WAIT,
    RequestClock,
    counts_calls,
    current_clock,
    set_clock,
)
from pytest_mlpatterns.patterns.stream import Stream, check_one_input
from pytest_mlpatterns.patterns.tally import Tally


@dataclass(frozen=True, slots=True)
class Continuous(Pattern):
    """Sequences of several requests are computed together, one chunk of each at every step, and streamed.

    The model is a class with two methods, plain or ``async``, instead of ``__call__``. ``start(input)`` returns the
    state of a sequence. ``step(active)`` takes the list of the states of all active sequences, and returns one chunk
    for each, ``None`` for a sequence that has ended. Between two steps new requests join, and sequences that have
    ended, or whose clients have gone, leave. The pattern comes last in a composition, next to the model.

    Args:
        max_batch_size: maximum number of active sequences, 1..100,000; further requests wait.
        env: environment variables of the process in which it runs, such as ``{"OMP_NUM_THREADS": "1"}``.

    Raises:
        SettingError: a number out of range, another pattern between it and the model, or impossible variables.
    """

    steps_model: ClassVar[bool] = True

    max_batch_size: int = 8
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        set_whole(self, "max_batch_size", least=1, most=100_000)

    @property
    def taken_at_once(self) -> int:
        """A queue before the layer should offer it a whole batch."""
        return self.max_batch_size

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the layer around the model."""
        if rest:
            raise SettingError(
                f"{self} | {rest[0]}, expected {self} last, since it steps the model itself; write {rest[0]} | {self}"
            )
        return Pattern.build(self, position, rest)

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer that steps the model inside."""

        return ContinuousLayer(self, inside[0], tally)


_SENDING = 3
"""Iterations of the event loop that the chunks of an ``async`` step need to reach the sockets, through a cache too."""


class ContinuousLayer:
    """Steps a model as long as there are sequences.

    Methods of the model that are not ``async`` run in a thread, so that chunks are sent and requests are read while the
    next step is computed. An error of ``start`` fails one request. An error of ``step`` ends all active sequences,
    since their states are not known after it; requests that wait are not affected.
    """

    needs_loop = True

    def __init__(self, pattern: Continuous, model: Any, tally: Tally) -> None:
        self.parallelism: int = pattern.max_batch_size
        self._model = model
        self._tally = tally
        self._waiting: deque[_Sequence] = deque()
        self._active: list[_Sequence] = []
        self._task: asyncio.Task[None] | None = None
        self._thread = ModelThread("continuous model")
        tally.level("active", 0)

    def __call__(self, instances: list[Any]) -> Any:
        """The stream for one input."""
        check_one_input(None, len(instances), "Continuous")
        sequence = _Sequence(instances[0], self._tally)
        self._waiting.append(sequence)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return Stream(sequence)

    async def close(self) -> None:
        """End the steps."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting or self._active:
                await self._gather()
                if self._active:
                    await self._step()
        finally:
            self._task = None

    async def _gather(self) -> None:
        """Between two steps: sequences leave and join."""
        self._active = [sequence for sequence in self._active if not sequence.is_over]
        while self._waiting and len(self._active) < self.parallelism:
            sequence = self._waiting.popleft()
            if sequence.is_over:
                continue
            started_ns = perf_counter_ns()
            self._tally.time("wait_ns", started_ns - sequence.arrived_ns)
            sequence.charge({QUEUE_WAIT: started_ns - sequence.arrived_ns})
            set_clock(sequence.clock)
            try:
                sequence.state = await self._call(self._model.start, sequence.input)
            except BaseException as error:  # any exception: the client waits for an answer
                if ends_task(error):
                    raise
                sequence.end(error_of_one_caller(error))
            else:
                took_ns = perf_counter_ns() - started_ns
                for other in self._active:
                    other.charge({SHARED_WAIT: took_ns})
                self._active.append(sequence)
        self._active = [sequence for sequence in self._active if not sequence.is_over]  # some end while others start
        self._tally.level("active", len(self._active))

    async def _step(self) -> None:
        stepped, started_ns = self._active, perf_counter_ns()
        clock = RequestClock()
        set_clock(clock)
        try:
            found = await self._call(self._model.step, [sequence.state for sequence in stepped])
            chunks = list(matched(found, len(stepped), "step(active) of the model"))
        except BaseException as error:  # any exception: the clients wait for an answer
            if ends_task(error):
                raise
            for sequence in stepped:
                sequence.end(error_of_one_caller(error))
            return
        self._tally.count("steps")
        self._tally.observe("size", len(stepped))
        self._tally.time("step_ns", perf_counter_ns() - started_ns)
        self._tally.count("chunks", sum(chunk is not None for chunk in chunks))
        stepped[0].charge({key: count for key, count in clock.parts.items() if counts_calls(key)})
        times = {key: value for key, value in clock.parts.items() if not counts_calls(key)}
        for sequence, chunk in zip(stepped, chunks, strict=True):
            sequence.charge(times)
            if chunk is None:
                sequence.end()
            else:
                sequence.add(chunk)

    async def _call(self, method: Any, argument: Any) -> Any:
        answer: Any = method(argument) if needs_loop(method) else await self._thread.call(method, argument)
        if not inspect.isawaitable(answer):
            return answer
        answer = await answer
        for _ in range(_SENDING):
            await asyncio.sleep(0)
        return answer


class _Sequence(AsyncIterator[Any]):
    """A request and its chunks, as the iterator of its stream."""

    def __init__(self, given: Any, tally: Tally) -> None:
        self.input = given
        self.state: Any = None
        self.arrived_ns = perf_counter_ns()
        self.is_over = False
        self.clock = current_clock()
        self._tally = tally
        self._chunks: deque[Any] = deque()
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    async def __anext__(self) -> Any:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.is_over:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._chunks.popleft()

    async def aclose(self) -> None:
        """The client has gone, or has read all."""
        if not self.is_over:
            self._tally.count("cancelled")
        self.end()

    def charge(self, times: Mapping[str, int]) -> None:
        """Charge times to the request."""
        if self.clock is not None:
            self.clock.take(times)

    def add(self, chunk: Any) -> None:
        """Take a chunk."""
        if not self.is_over:
            self._chunks.append(chunk)
            self._changed.set()

    def end(self, error: BaseException | None = None) -> None:
        """There are no more chunks."""
        if not self.is_over:
            self.is_over = True
            self._error = error
            self.state = None
            self._changed.set()
