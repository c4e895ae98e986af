"""Requests whose answers are fetched later: accepted under an id, and asked for by that id until they are done.

Nothing is kept for ever: an answer can be fetched once, and one that nobody fetches is forgotten. This module must not
know HTTP, nor where the queue is.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

from pytest_mlpatterns.patterns.layer import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["AsyncJobs", "Queue"]

_KEPT_NS = 600_000_000_000


class Queue(Protocol):
    """Where requests are accepted at once and answered later."""

    async def enqueue(self, instances: list[Any]) -> asyncio.Future[Sequence[Any]]:
        """Accept a request, or raise :class:`RequestError`; the future holds its outputs or its error."""


class AsyncJobs:
    """The asynchronous form of a queue.

    Args:
        queue: what accepts the requests.
        clock: the time in ns.
    """

    def __init__(self, queue: Queue, clock: Callable[[], int] = perf_counter_ns) -> None:
        self._queue = queue
        self._clock = clock
        self._jobs: dict[str, asyncio.Future[Sequence[Any]]] = {}
        self._done_ns: OrderedDict[str, int] = OrderedDict()  # of those not fetched yet, the oldest first

    async def submit(self, instances: list[Any]) -> str:
        """Accept a request; returns the id of its job.

        Raises:
            RequestError: the queue refuses it.
        """
        self._forget()
        outputs = await self._queue.enqueue(instances)
        job = secrets.token_hex(8)  # no other process of the service, nor one before this, gives the same
        self._jobs[job] = outputs
        outputs.add_done_callback(lambda _: self._finish(job))
        return job

    async def result(self, job: str, wait_s: float = 1.0) -> Sequence[Any] | None:
        """The outputs of a job, once; None where they are not there after so long.

        Raises:
            RequestError: 404 for an id that is not known or was fetched already, or the request's own error.
        """
        self._forget()
        outputs = self._jobs.get(job)
        if outputs is not None:
            if not outputs.done():
                await asyncio.wait([outputs], timeout=wait_s)
            if not outputs.done():
                return None
            outputs = self._jobs.pop(job, None)  # None where another caller was faster
        if outputs is None:
            raise RequestError(
                404,
                f"no job {job!r}: expected an id that a submission answered; a result can be fetched once, "
                f"within {_KEPT_NS // 60_000_000_000} minutes after it is done",
            )
        self._done_ns.pop(job, None)
        return outputs.result()

    def _finish(self, job: str) -> None:
        outputs = self._jobs.get(job)
        if outputs is not None:
            outputs.exception()  # an error that nobody fetches is nothing to warn about
            self._done_ns[job] = self._clock()

    def _forget(self) -> None:
        now = self._clock()
        while self._done_ns:
            oldest = next(iter(self._done_ns))
            if now - self._done_ns[oldest] < _KEPT_NS:
                return
            del self._done_ns[oldest], self._jobs[oldest]
