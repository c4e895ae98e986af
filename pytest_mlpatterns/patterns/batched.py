"""The pattern ``Batched``: requests gathered into one model call.

This module does not know HTTP, nor whether the model is in this process.
"""

import asyncio
import contextlib
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, chain
from time import perf_counter_ns
from typing import Any

from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.arguments import NO_VARIABLES, set_variables
from pytest_mlpatterns.patterns.layer import (
    Answer,
    DecodedInputs,
    Handler,
    RequestError,
    Resources,
    copy_of,
    ends_task,
    error_of_one_caller,
    matched,
    needs_loop,
    parallelism,
)
from pytest_mlpatterns.patterns.model_thread import ModelThread
from pytest_mlpatterns.patterns.pattern import Pattern
from pytest_mlpatterns.patterns.request_clock import BATCH_WAIT, RequestClock, counts_calls, current_clock, set_clock
from pytest_mlpatterns.patterns.stream import NOT_STREAMED, refuse_stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.units import parse_duration

ADAPTIVE = "adaptive"  # Value of ``max_wait`` that adjusts the wait to the arrivals


@dataclass(frozen=True, slots=True)
class Batched(Pattern):
    """Requests that arrive close together are gathered into one call of the model.

    A call that fails is repeated in halves, so that only the requests that fail on their own get an error. The inputs
    are decoded again for each repeated call, since the model may have changed them in place.

    Args:
        max_batch_size: maximum number of inputs in one call, 2..100,000.
        max_wait: how long the first request of a batch waits at most for more, such as ``"5ms"``; or ``"adaptive"``:
            adjusted to the arrivals (see :class:`~pytest_mlpatterns.patterns.batched.AdaptiveWait`).
        env: environment variables of the process in which it runs, and of those behind it, such as
            ``{"OMP_NUM_THREADS": "1"}``.

    Raises:
        SettingError: a number out of range, or impossible variables.
        UnitError: a time without a unit.
    """

    max_batch_size: int = 32
    max_wait: str = "5ms"
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        set_whole(self, "max_batch_size", least=2, most=100_000)
        if not isinstance(self.max_wait, str) or self.max_wait != ADAPTIVE:
            parse_duration(self.max_wait, name="Batched(max_wait=...)")

    @property
    def taken_at_once(self) -> int:
        """A queue before the layer should offer it a whole batch."""
        return self.max_batch_size

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer that gathers batches for the handler inside."""

        return BatchLayer(self, inside[0], tally, at_once=parallelism(inside[0]))


TIMER_RESOLUTION_NS = 1_000_000  # Resolution of the timers of event loops: a timer may fire this much early


class AdaptiveWait:
    """The wait of a batch: additive increase if a longer wait would have gained a request, multiplicative decrease if
    the end of the last wait gained none.

    With the wait w, the step s = 0.25 ms and the limit L, after every batch that was sent when its wait ended:

    - w ← 0.9 w, if w > L;
    - w ← min(w + s, L), if the next request arrived at most s after the batch was sent: a longer wait pays;
    - w stays, if the last input arrived in the last max(s, 0.1 w) of the wait: a shorter one would have missed it;
    - w ← 0.9 w otherwise, down to 0: a single caller does not wait.

    L is the shortest recent call (after a call of c: L ← min(c, 1.001 L)), at most 100 ms, so that wait and call
    together take at most twice the time of a call. A mean would grow with the batches that the wait itself makes. The
    scheme and its back-off of 10 % are Clipper's for the batch size (Crankshaw et al., "Clipper: A Low-Latency Online
    Prediction Serving System", NSDI 2017, section 4.3), which has a latency objective; a pattern has none.

    ``wait_ns``: the current wait, in nanoseconds.
    """

    STEP_NS = 250_000
    MOST_NS = 100_000_000

    def __init__(self) -> None:
        self.wait_ns: int = 0
        self._shortest_ns = 0.0

    def called(self, call_ns: int, last_ns: int | None, next_ns: int | None) -> None:
        """Adjust the wait after the call of a batch that was not full.

        ``last_ns``: time from the arrival of the batch's last request until it was sent; None: none arrived during the
        wait. ``next_ns``: time from then until the next arrival; None: none arrived until the call ended.
        """
        self._shortest_ns = min(call_ns, self._shortest_ns * 1.001) if self._shortest_ns else call_ns
        limit_ns = min(int(self._shortest_ns), self.MOST_NS)
        if self.wait_ns <= limit_ns:
            if next_ns is not None and next_ns <= self.STEP_NS:
                self.wait_ns = min(self.wait_ns + self.STEP_NS, limit_ns)
                return
            if last_ns is not None and last_ns <= max(self.STEP_NS, self.wait_ns // 10):
                return
        self.wait_ns = self.wait_ns * 9 // 10


class Waiting:
    """A waiting request.

    ``arrived_ns`` is its arrival on the clock of ``perf_counter_ns``. ``inputs_again`` returns new inputs for a retry;
    None until they are needed, and if they cannot be copied. ``clock`` takes its times; None outside of a server.
    """

    __slots__ = ("arrived_ns", "clock", "inputs", "inputs_again")

    def __init__(self, inputs: list[Any]) -> None:
        self.inputs: list[Any] = inputs
        self.arrived_ns: int = perf_counter_ns()
        self.inputs_again: Callable[[], Sequence[Any]] | None = (
            inputs.decode if isinstance(inputs, DecodedInputs) else None
        )
        self.clock: RequestClock | None = current_clock()

    def sent(self, tally: Tally, now_ns: int, *, has_others: bool) -> None:
        """Count and charge its wait for a batch, and keep copies of its inputs if others are in the batch."""
        waited_ns = now_ns - self.arrived_ns
        tally.time("wait_ns", waited_ns)
        if self.clock is not None:
            self.clock.add(BATCH_WAIT, waited_ns)
        if has_others and self.inputs_again is None:
            self.inputs_again = copies_of(self.inputs)


class Request(Waiting):
    """A request that waits for its outputs."""

    __slots__ = ("outputs",)

    def __init__(self, inputs: list[Any], outputs: asyncio.Future[Sequence[Any]]) -> None:
        super().__init__(inputs)
        self.outputs: asyncio.Future[Sequence[Any]] = outputs


@dataclass(slots=True, eq=False)
class Batch:
    """Requests of one call. After a failure they are called in ever smaller groups, the last group first.

    ``last_ns`` and ``next_ns`` are as :meth:`AdaptiveWait.called` takes them; ``failed`` counts inputs. ``is_retried``
    is True after the first failure. ``clock`` takes the times of the call.
    """

    groups: list[list[Request]]
    size: int
    is_full: bool
    sent_ns: int
    last_ns: int | None
    next_ns: int | None = None
    failed: int = 0
    is_retried: bool = False
    clock: RequestClock = field(default_factory=RequestClock)


def inputs_of(request: Waiting, *, again: bool) -> Sequence[Any]:
    """The inputs of a request; for a retry new ones, since the model may have changed the others."""
    return request.inputs_again() if again and request.inputs_again is not None else request.inputs


def copies_of(inputs: list[Any]) -> Callable[[], Sequence[Any]] | None:
    """Returns new copies of inputs at every call; None if they cannot be copied."""
    try:
        kept = copy_of(inputs)
    except Exception:  # an object of the user's may raise anything when it is copied
        return None
    return partial(copy_of, kept)


def share_times(clock: RequestClock, group: Iterable[RequestClock | None]) -> None:
    """Charge the times of a call to each request of a group, since each waited for all of it."""
    parts = clock.parts
    for number, one in enumerate(group):
        if one is not None:
            one.take(parts)
        if not number:  # the next ones have waited for the same calls
            parts = {key: value for key, value in parts.items() if not counts_calls(key)}


def distribute(group: list[Request], outputs: Any) -> None:
    """Give each request its own outputs."""
    if len(group) == 1:
        parts = [outputs]
    else:
        outputs = outputs if hasattr(outputs, "__getitem__") else list(outputs)
        ends = list(accumulate(len(request.inputs) for request in group))
        parts = [outputs[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    for request, part in zip(group, parts, strict=True):
        if not request.outputs.done():
            request.outputs.set_result(part)


UNAVAILABLE = frozenset({429, NOT_STREAMED, 502, 503, 504})
"""Statuses after which a batch is not retried: the service behind is overloaded, gone, or streams."""
NO_STREAM = (
    "the model streams its answers, and Batched() gathers whole ones; write Continuous(max_batch_size=8), "
    "which batches each step, and give it a model with start and step"
)
"""The error of a model that streams."""


class BatchLayer:
    """Gathers requests into calls of the handler inside, and gives each request its own outputs.

    A batch is sent when ``max_batch_size`` inputs wait, or when the first request has waited ``max_wait``. If the
    maximum number of batches is in flight, it waits until one of them ends. An adaptive wait begins only when a batch
    can be sent, so that the callers of two alternating batches can meet in one. A request is never split; one larger
    than a batch is sent alone.

    A handler that does not need the event loop runs in a thread of its own, one call at a time, while the next batch is
    gathered.

    A failed batch is retried in halves, so that only the requests that fail on their own get an error. If the handler
    reports that the service behind is overloaded or unavailable (status 429, 502, 503 or 504), the whole batch gets the
    error: a retry would add to the load.

    Since a model may change its inputs in place, a retry decodes them again. Inputs that do not come straight from the
    server are copied before the first call of several requests; if that is not possible, there is no retry.
    """

    needs_loop = True
    retries = True

    def __init__(self, pattern: Batched, inside: Handler, tally: Tally, *, at_once: int = 1) -> None:
        self._inside = inside
        self._tally = tally
        self._max_size = pattern.max_batch_size
        self._adaptive = AdaptiveWait() if pattern.max_wait == ADAPTIVE else None
        self._fixed_wait_ns = 0 if self._adaptive else parse_duration(pattern.max_wait, name="max_wait")
        self._waiting: deque[Request] = deque()
        self._waiting_inputs = 0
        self._timer: asyncio.TimerHandle | None = None
        self._in_flight = 0
        self._free_since_ns = 0
        self._latest: Batch | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = None if needs_loop(inside) else ModelThread("batched model")
        self._at_once = at_once if self._thread is None else 1

    def __call__(self, instances: list[Any]) -> Awaitable[Sequence[Any]]:
        """The outputs for these inputs, of which there must be at least one; called on the event loop."""
        loop = asyncio.get_running_loop()
        request = Request(instances, loop.create_future())
        self._waiting.append(request)
        self._waiting_inputs += len(instances)
        if self._latest is not None:
            self._latest.next_ns = request.arrived_ns - self._latest.sent_ns
            self._latest = None
        if self._in_flight < self._at_once:
            if self._waiting_inputs >= self._max_size:
                self._send_due()
            elif self._timer is None:
                wait_ns = self._adaptive.wait_ns if self._adaptive else self._fixed_wait_ns
                self._timer = loop.call_later(wait_ns / 1e9, self._on_timer)
        return request.outputs

    def _on_timer(self) -> None:
        self._timer = None
        self._send_due(early_ns=TIMER_RESOLUTION_NS)

    def _send_due(self, early_ns: int = 0) -> None:
        """Send every batch that is full or due while batches may be sent; set the timer for the next one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._in_flight < self._at_once:
            while self._waiting and self._waiting[0].outputs.done():
                self._pop()
            if not self._waiting:
                return
            since_ns, wait_ns = self._waiting[0].arrived_ns, self._fixed_wait_ns
            if self._adaptive:
                since_ns, wait_ns = max(since_ns, self._free_since_ns), self._adaptive.wait_ns
            now_ns = perf_counter_ns()
            left_ns = since_ns + wait_ns - now_ns
            if left_ns > early_ns and self._waiting_inputs < self._max_size:
                self._timer = asyncio.get_running_loop().call_later(left_ns / 1e9, self._on_timer)
                return
            self._send(since_ns, now_ns)

    def _send(self, since_ns: int, now_ns: int) -> None:
        """Send the next batch, without requests whose callers have gone."""
        requests: list[Request] = []
        size = 0
        while self._waiting and size < self._max_size:
            if self._waiting[0].outputs.done():
                self._pop()
            elif requests and size + len(self._waiting[0].inputs) > self._max_size:
                break
            else:
                requests.append(self._pop())
                size += len(requests[-1].inputs)
        for request in requests:
            request.sent(self._tally, now_ns, has_others=len(requests) > 1)
        is_full = size >= self._max_size or bool(self._waiting)
        last_ns = requests[-1].arrived_ns
        batch = Batch([requests], size, is_full, now_ns, now_ns - last_ns if last_ns > since_ns else None)
        if self._adaptive and not is_full:
            self._latest = batch
        self._in_flight += 1
        self._call(batch)

    def _pop(self) -> Request:
        request = self._waiting.popleft()
        self._waiting_inputs -= len(request.inputs)
        return request

    def _call(self, batch: Batch) -> None:
        """Call the handler for the next group of a batch."""
        loop, group = asyncio.get_running_loop(), batch.groups.pop()
        batch.clock = RequestClock()
        inputs = list(chain.from_iterable(inputs_of(request, again=batch.is_retried) for request in group))
        if self._thread is None:
            self._await(batch, group, partial(self._inside, inputs))
        else:
            self._thread.begin(partial(self._call_in_thread, loop, batch, group, inputs=inputs))

    def _call_in_thread(
        self, loop: asyncio.AbstractEventLoop, batch: Batch, group: list[Request], *, inputs: list[Any]
    ) -> None:
        outputs: Any = None
        failure: BaseException | None = None
        set_clock(batch.clock)
        started_ns = perf_counter_ns()
        try:
            outputs = self._inside(inputs)
        except BaseException as error:  # any exception: the callers wait for a response
            failure = error
        took_ns = perf_counter_ns() - started_ns
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its callers with it
            loop.call_soon_threadsafe(self._called, batch, group, outputs, failure, took_ns)

    def _await(self, batch: Batch, group: list[Request], call: Callable[[], Answer]) -> None:
        task = asyncio.get_running_loop().create_task(self._call_on_loop(batch, group, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call_on_loop(self, batch: Batch, group: list[Request], call: Callable[[], Answer]) -> None:
        outputs: Any = None
        failure: BaseException | None = None
        set_clock(batch.clock)
        started_ns = perf_counter_ns()
        try:
            outputs = call()
            if inspect.isawaitable(outputs):
                outputs = await outputs
        except BaseException as error:  # any exception: the callers wait for a response
            if ends_task(error):
                raise  # the loop ends, and its callers with it
            failure = error
        self._called(batch, group, outputs, failure=failure, took_ns=perf_counter_ns() - started_ns)

    def _called(  # noqa: PLR0917 - call_soon_threadsafe passes no keyword arguments
        self, batch: Batch, group: list[Request], outputs: Any, failure: BaseException | None, took_ns: int
    ) -> None:
        """After a call: distribute its outputs, retry it in halves, or send the next batch."""
        if failure is None and inspect.isawaitable(outputs):
            self._await(batch, group, lambda: outputs)
            return
        share_times(batch.clock, [request.clock for request in group])
        size = sum(len(request.inputs) for request in group)
        self._tally.count("calls")
        self._tally.count("items", size)
        self._tally.observe("size", size)
        self._tally.time("call_ns", took_ns)
        if failure is None:
            try:
                refuse_stream(outputs, NO_STREAM)
                distribute(group, matched(outputs, size, "the model"))
            except Exception as error:  # also of a value that only looks like a list
                failure = error
        if failure is not None:
            self._failed(batch, group, size, failure=failure)
        if batch.groups:
            self._call(batch)
            return
        if 0 < batch.failed < batch.size:
            self._tally.count("failed_alone", batch.failed)
        if self._adaptive and size == batch.size and failure is None and not batch.is_full:
            self._adaptive.called(took_ns, batch.last_ns, batch.next_ns)
        if self._in_flight == self._at_once:
            self._free_since_ns = perf_counter_ns()
        self._in_flight -= 1
        self._send_due()

    def _failed(self, batch: Batch, group: list[Request], size: int, *, failure: BaseException) -> None:
        """Retry the requests of a group in halves, or give them the error."""
        is_unavailable = isinstance(failure, RequestError) and failure.status in UNAVAILABLE
        if len(group) > 1 and not is_unavailable and all(request.inputs_again for request in group):
            half = len(group) // 2
            batch.is_retried = True
            batch.groups += (group[half:], group[:half])
            return
        batch.failed += size
        for request in group:
            if not request.outputs.done():
                request.outputs.set_exception(error_of_one_caller(failure))


WAKES = BatchLayer._call_in_thread.__name__
"""Name of the method that calls a model and then wakes the thread of the server, by which a profile knows it."""
