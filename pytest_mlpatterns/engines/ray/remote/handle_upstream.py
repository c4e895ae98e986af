"""The client of a deployment behind this process: requests over a handle of Ray Serve.

Inputs and outputs travel as pickled Python values. The replica behind reports its own time and when its model ended the
call before, so that the hop time is the rest of the round trip, as between the processes of the local engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.request_clock import HOP, QUEUE_WAIT, current_clock
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.wording import first_line

if TYPE_CHECKING:
    from pytest_mlpatterns.engines.ray.messages import HandleAnswer, HandleNode

_ENDED = "the replica of {} ended under a request"


class HandleUpstream:
    """Calls a deployment behind this process; the handler of a process group."""

    def __init__(self, node: HandleNode, handle: Any, tally: Tally, *, machine: str, of: str = "") -> None:
        self.parallelism: int = node.replicas
        self.in_flight: int = node.in_flight
        self.tally = tally
        self._node = node
        self._machine = machine
        self._of = of
        self._whole = handle.options(method_name="call")
        self._chunks = handle.options(method_name="chunks", stream=True)
        self._streams = False

    @property
    def replicas(self) -> Sequence[HandleUpstream]:
        """This client for each replica: Ray Serve chooses among them."""
        return (self,) * self.parallelism

    async def __call__(self, instances: list[Any]) -> Any:
        """Request the outputs of these inputs, or a :class:`Stream`, whose hop time is not known."""
        started = perf_counter_ns()
        answer = await self.ask(instances)
        if isinstance(answer, Stream):
            return answer
        waited_until = max(started, answer.free_ns) if answer.machine == self._machine else started
        hop_ns = max(perf_counter_ns() - waited_until - answer.worked_ns, 0)
        self.tally.time("hop_ns", hop_ns)
        self.charge(answer, hop_ns, waited_until - started)
        return answer.outputs

    def charge(self, answer: HandleAnswer, hop_ns: int, waited_ns: int) -> None:
        """Charge what a request took here and in the replica."""
        if (clock := current_clock()) is not None:
            clock.take({**answer.parts, HOP: answer.parts.get(HOP, 0) + hop_ns}, self._of)
            clock.take({QUEUE_WAIT: waited_ns}, self._of)

    async def ask(self, instances: list[Any]) -> HandleAnswer | Stream:
        """Request outputs and count the call, without the hop time; a model that streams is asked for a stream."""
        try:
            if not self._streams:
                answer: HandleAnswer = await self._request(instances)
                if answer.status:
                    raise RequestError(answer.status, answer.text, answer.retry_after_s)
                self._streams = answer.streams
            if self._streams:
                return Stream(_Chunks(self._chunks.remote(list(instances)), self._node, self.tally))
        except RequestError:
            self.tally.count("errors")
            raise
        self.tally.count("calls")
        return answer

    async def _request(self, instances: list[Any]) -> HandleAnswer:
        from ray.serve.exceptions import BackPressureError

        try:
            return await self._whole.remote(instances)  # type: ignore[no-any-return]  # not typed
        except BackPressureError:  # the layer of the queue answers it
            raise
        except Exception as error:
            raise error_of(error, self._node) from error


class _Chunks(AsyncIterator[Any]):
    """The chunks of a stream from the deployment behind."""

    def __init__(self, response: Any, node: HandleNode, tally: Tally) -> None:
        self._response = response
        self._node = node
        self._tally = tally
        self._has_begun = False

    async def __anext__(self) -> Any:
        try:
            chunk, error = await anext(self._response)
        except StopAsyncIteration:
            self._begin()
            raise
        except Exception as failure:
            self._tally.count("errors")
            raise error_of(failure, self._node) from failure
        if error is not None:
            self._tally.count("errors")
            raise RequestError(error.status, error.text, error.retry_after_s)
        self._begin()
        return chunk

    async def aclose(self) -> None:
        """End the stream; the replica closes what makes its chunks."""
        self._response.cancel()

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._tally.count("calls")


def error_of(failure: Exception, node: HandleNode) -> RequestError:
    """The error of a request whose call of a deployment failed."""
    from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, OwnerDiedError, WorkerCrashedError
    from ray.serve.exceptions import DeploymentUnavailableError

    lost = (ActorDiedError, ActorUnavailableError, NodeDiedError, OwnerDiedError, WorkerCrashedError)
    if isinstance(failure, (*lost, DeploymentUnavailableError)):
        return LostError(f"{_ENDED.format(node.deployment)}: {_first_line(failure)}")
    cause = getattr(failure, "cause", None) or failure  # without the frames of Ray
    return RequestError(500, f"the call of {node.deployment} failed: {type(cause).__name__}: {_first_line(cause)}")


def _first_line(error: BaseException) -> str:
    return first_line(error)[:500]
