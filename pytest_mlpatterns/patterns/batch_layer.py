"""The layer of ``Batched``: requests gathered into one call of the handler inside.

This module does not know HTTP, nor whether the model is in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import weakref
from collections import deque
from functools import partial
from itertools import chain
from queue import SimpleQueue
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.adaptive_wait import TIMER_RESOLUTION_NS, AdaptiveWait
from pytest_mlpatterns.patterns.batch_request import (
    Batch,
    Request,
    copies_of,
    distribute,
    error_of_one_caller,
    inputs_of,
    share_times,
)
from pytest_mlpatterns.patterns.batched import ADAPTIVE, Batched
from pytest_mlpatterns.patterns.layer import DecodedInputs, RequestError, matched, needs_loop
from pytest_mlpatterns.patterns.request_clock import BATCH_WAIT, RequestClock, current_clock, set_clock
from pytest_mlpatterns.patterns.stream import NOT_STREAMED, refuse_stream
from pytest_mlpatterns.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pytest_mlpatterns.patterns.layer import Answer, Handler
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["NO_STREAM", "UNAVAILABLE", "BatchLayer"]

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

    Args:
        pattern: the sizes and the wait.
        inside: the handler.
        tally: counts calls, sizes and waits.
        at_once: maximum number of batches in flight, if the handler runs on the event loop.
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
        self._calls: SimpleQueue[Callable[[], None] | None] | None = None
        self._at_once = at_once
        if not needs_loop(inside):
            self._at_once = 1
            self._calls = SimpleQueue()
            weakref.finalize(self, self._calls.put, None)
            # a daemon, because a model that hangs must not keep the process
            threading.Thread(target=_run_all, args=[self._calls], name="batched model", daemon=True).start()

    def __call__(self, instances: list[Any]) -> Awaitable[Sequence[Any]]:
        """The outputs for these inputs, of which there must be at least one; called on the event loop.

        Raises:
            RequestError: when awaited: there was not one output for each input, or the handler raised it.
            Exception: when awaited: the exception of the handler.
        """
        loop = asyncio.get_running_loop()
        again = instances.decode if isinstance(instances, DecodedInputs) else None
        request = Request(instances, loop.create_future(), perf_counter_ns(), again, current_clock())
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
            self._tally.time("wait_ns", now_ns - request.arrived_ns)
            if request.clock is not None:
                request.clock.add(BATCH_WAIT, now_ns - request.arrived_ns)
            if len(requests) > 1 and request.inputs_again is None:
                request.inputs_again = copies_of(request.inputs)
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
        if self._calls is None:
            self._await(batch, group, partial(self._inside, inputs))
        else:
            self._calls.put(partial(self._call_in_thread, loop, batch, group, inputs=inputs))

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
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # an exit would end the loop
            if (task := asyncio.current_task()) is not None and task.cancelling():
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


def _run_all(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    """The thread of a model. It keeps no reference to the layer while it waits, so that it ends with the layer."""
    while (call := calls.get()) is not None:
        call()
        del call
