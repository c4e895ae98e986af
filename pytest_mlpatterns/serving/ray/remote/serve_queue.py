"""The layer of ``Queued`` on Ray Serve: a bounded number of requests waits for the workers in the process before them.

Ray Serve bounds and orders the waiting requests (``max_queued_requests``), and chooses the worker. This layer turns its
refusals into ours, delivers a request again whose worker died, and counts.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.layer import LostError
from pytest_mlpatterns.patterns.queued import MAX_ATTEMPTS, refusal_of_full
from pytest_mlpatterns.patterns.stream import Stream

if TYPE_CHECKING:
    from pytest_mlpatterns.patterns.queued import Queued
    from pytest_mlpatterns.patterns.tally import Tally
    from pytest_mlpatterns.serving.ray.messages import HandleAnswer
    from pytest_mlpatterns.serving.ray.remote.handle_upstream import HandleUpstream

__all__ = ["ServeQueueLayer"]


class ServeQueueLayer:
    """Sends requests to the workers.

    Args:
        pattern: has the capacity.
        workers: the client of the workers, whose deployment has that capacity.
        tally: counts what :mod:`pytest_mlpatterns.records.telemetry` names for queues.

    Attributes:
        parallelism: number of workers.
        outstanding: number of requests that wait or are in flight.

    Raises:
        RequestError: when called: the queue is full, or the request's own error.
        LostError: when called: the worker died at every attempt.
    """

    def __init__(self, pattern: Queued, workers: HandleUpstream, tally: Tally) -> None:
        self.parallelism: int = workers.parallelism
        self._pattern = pattern
        self._workers = workers
        self._tally = tally
        self.outstanding: int = 0
        self._most_in_flight = workers.parallelism * workers.in_flight
        tally.level("depth", 0)

    @property
    def depth(self) -> int:
        """Number of requests that wait, which are those beyond what the workers have in flight."""
        return max(self.outstanding - self._most_in_flight, 0)

    async def __call__(self, instances: list[Any]) -> Any:
        """The outputs, when a worker has returned them."""
        self._change(1)
        is_stream = False
        try:
            answer = await self._deliver(instances)
            is_stream = isinstance(answer, Stream)
        finally:
            if not is_stream:
                self._change(-1)
        if isinstance(answer, Stream):
            return Stream(answer, on_end=lambda: self._change(-1))
        return answer.outputs

    async def _deliver(self, instances: list[Any]) -> HandleAnswer | Stream:
        """Send a request, again if its worker dies."""
        from ray.serve.exceptions import BackPressureError

        started, is_accepted = perf_counter_ns(), False
        for attempt in range(MAX_ATTEMPTS):
            try:
                answer = await self._workers.ask(instances)
            except BackPressureError:
                self._tally.count("lost" if is_accepted else "rejected")
                raise refusal_of_full(self._pattern) from None
            except LostError:
                self._accept(is_accepted)
                is_accepted = True
                if attempt == MAX_ATTEMPTS - 1:
                    self._tally.count("lost")
                    raise
                self._tally.count("redelivered")
            except BaseException as error:
                self._accept(is_accepted)
                if isinstance(error, Exception):  # otherwise its caller has gone
                    self._tally.count("answered")
                raise
            else:
                self._accept(is_accepted)
                self._tally.count("answered")
                if not isinstance(answer, Stream):
                    waited_ns = max(perf_counter_ns() - started - answer.worked_ns, 0)
                    self._tally.time("wait_ns", waited_ns)
                    self._workers.charge(answer, 0, waited_ns)
                return answer
        raise AssertionError("the last attempt returns or raises")

    def _accept(self, is_accepted: bool) -> None:
        """Count a request as accepted, if it is not yet: Ray Serve reports only what it refuses."""
        if not is_accepted:
            self._tally.count("accepted")

    def _change(self, by: int) -> None:
        self.outstanding += by
        self._tally.level("depth", self.depth)
