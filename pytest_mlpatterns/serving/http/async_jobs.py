"""Asynchronous jobs: requests that are accepted under an id, and whose results are fetched by that id.

A result can be fetched once. A result that is not fetched is dropped after ten minutes.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any, Protocol

from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.request_clock import current_clock
from pytest_mlpatterns.patterns.tally import SplitTally

_RETENTION_NS = 600_000_000_000
"""Time for which a result is kept, in nanoseconds; a client that polls fetches it within seconds."""


class Queue(Protocol):
    """A queue that accepts requests at once and answers them later."""

    async def enqueue(self, instances: list[Any]) -> asyncio.Future[Sequence[Any]]:
        """Accept a request, or raise :class:`RequestError`; the future gets its outputs or its error."""


class AsyncJobs:
    """Jobs of a queue."""

    def __init__(self, queue: Queue, clock: Callable[[], int] = perf_counter_ns) -> None:
        self._queue = queue
        self._clock = clock
        self._jobs: dict[str, asyncio.Future[Sequence[Any]]] = {}
        self._done_ns: OrderedDict[str, int] = OrderedDict()  # finished and not fetched, oldest first

    async def submit(self, instances: list[Any], split: SplitTally | None = None, began_ns: int = 0) -> str:
        """Accept a request and return the id of its job.

        ``split``: counts where the time went until there was a result; None: nothing does. ``began_ns``: when the
        request began, on the clock of ``perf_counter_ns``. Raises RequestError: the queue refuses the request.
        """
        self._drop_expired()
        clock = current_clock()
        outputs = await self._queue.enqueue(instances)
        job = secrets.token_hex(8)  # unique over all processes of the service
        self._jobs[job] = outputs

        def finish(outputs: asyncio.Future[Sequence[Any]]) -> None:
            self._finish(job)
            if split is not None and clock is not None and not outputs.cancelled() and outputs.exception() is None:
                split.add(clock.parts, perf_counter_ns() - began_ns)

        outputs.add_done_callback(finish)
        return job

    async def result(self, job: str, wait_s: float = 1.0) -> Sequence[Any] | None:
        """The outputs of a job, which can be fetched once; None if they are not there after ``wait_s``."""
        self._drop_expired()
        outputs = self._jobs.get(job)
        if outputs is not None:
            if not outputs.done():
                await asyncio.wait([outputs], timeout=wait_s)
            if not outputs.done():
                return None
            outputs = self._jobs.pop(job, None)  # None if another caller was faster
        if outputs is None:
            raise RequestError(
                404,
                f"no job {job!r}: expected the id in the answer to a submission; a result can be fetched once, "
                f"within {_RETENTION_NS // 60_000_000_000} minutes after it is done",
            )
        self._done_ns.pop(job, None)
        return outputs.result()

    def _finish(self, job: str) -> None:
        outputs = self._jobs.get(job)
        if outputs is not None:
            outputs.exception()  # prevents asyncio's warning about an error that is never fetched
            self._done_ns[job] = self._clock()

    def _drop_expired(self) -> None:
        now = self._clock()
        while self._done_ns:
            oldest = next(iter(self._done_ns))
            if now - self._done_ns[oldest] < _RETENTION_NS:
                return
            del self._done_ns[oldest], self._jobs[oldest]
