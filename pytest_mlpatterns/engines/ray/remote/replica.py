"""The classes of our deployments on Ray Serve: each replica runs the layers of its process group, down to the model.

A replica never fails its constructor for an error of the user's code, since Ray Serve would try it again. It reports
the error over its link, and refuses requests until the application is deleted.

Ray Serve decides when a batch is sent; the layer of ``Batched`` here calls the handler, repeats a failed call in
halves, as the local engine does, and counts. Ray Serve bounds and orders the waiting requests
(``max_queued_requests``), and chooses the worker; the layer of ``Queued`` turns its refusals into ours, delivers a
request again whose worker died, and counts.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from time import perf_counter_ns
from typing import Any

from msgspec import Struct

from pytest_mlpatterns.engines.ray.messages import HandleAnswer, HandleNode, ReplicaJob
from pytest_mlpatterns.engines.ray.remote.handle_upstream import HandleUpstream
from pytest_mlpatterns.engines.ray.session import not_sent
from pytest_mlpatterns.patterns.batched import NO_STREAM, UNAVAILABLE, Batched, Waiting, copies_of, share_times
from pytest_mlpatterns.patterns.layer import (
    Handler,
    LostError,
    RequestError,
    Resources,
    ends_task,
    error_of_one_caller,
    matched,
    needs_loop,
    parallelism,
)
from pytest_mlpatterns.patterns.model_thread import ModelThread
from pytest_mlpatterns.patterns.pattern import Pattern
from pytest_mlpatterns.patterns.queued import MAX_ATTEMPTS, Queued, refusal_of_full
from pytest_mlpatterns.patterns.request_clock import QUEUE_WAIT, RequestClock, charge, set_clock
from pytest_mlpatterns.patterns.stream import Stream, refuse_stream
from pytest_mlpatterns.patterns.tally import SplitTally, Tally
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.serving.handler_stack import HandlerStack
from pytest_mlpatterns.serving.http.app import MAX_BODY_BYTES, ModelApp
from pytest_mlpatterns.serving.http.model_caller import ModelCaller, ModelLock
from pytest_mlpatterns.serving.model import UnusableModelError
from pytest_mlpatterns.serving.processes import WorkerStats
from pytest_mlpatterns.serving.tracebacks import user_traceback
from pytest_mlpatterns.system.import_redirect import install, modules_from, wrong_tree
from pytest_mlpatterns.system.machine import machine_identity
from pytest_mlpatterns.units import parse_duration

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class _Input(Struct, frozen=True):
    """One input of a request, which Ray Serve gathers with others."""

    request: Waiting
    number: int


class _Outcome(Struct, frozen=True):
    """The output of an input, or its error."""

    output: Any = None
    error: BaseException | None = None


class ServeBatchLayer:
    """Gathers inputs into calls of the handler inside, and gives each request its own outputs.

    Ray Serve sends a batch when ``max_batch_size`` inputs wait, or when the first has waited ``max_wait``, and gathers
    the next ones while the handler works. A request of several inputs may be split over two batches. A handler that
    does not need the event loop runs in a thread of its own, one call at a time.
    """

    needs_loop = True
    retries = True

    def __init__(self, pattern: Batched, inside: Handler, tally: Tally) -> None:
        from ray import serve

        self._inside = inside
        self._tally = tally
        self._thread = None if needs_loop(inside) else ModelThread("batched model")

        @serve.batch(  # type: ignore[untyped-decorator]
            max_batch_size=pattern.max_batch_size,
            batch_wait_timeout_s=parse_duration(pattern.max_wait, name="max_wait") / 1e9,
            max_concurrent_batches=1 if self._thread else parallelism(inside),
        )
        async def gather(inputs: list[_Input]) -> list[_Outcome]:
            return await self._call_batch(inputs)

        self._gather = gather

    async def __call__(self, instances: list[Any]) -> list[Any]:
        """The outputs for these inputs, of which there must be at least one."""
        request = Waiting(instances)
        waiting = [self._gather(_Input(request, number)) for number in range(len(instances))]
        outcomes: list[_Outcome] = [await waiting[0]] if len(waiting) == 1 else await asyncio.gather(*waiting)
        for outcome in outcomes:
            if outcome.error is not None:
                raise error_of_one_caller(outcome.error)
        return [outcome.output for outcome in outcomes]

    async def _call_batch(self, inputs: list[_Input]) -> list[_Outcome]:
        now_ns = perf_counter_ns()
        for one in inputs:
            if not one.number:
                one.request.sent(self._tally, now_ns, has_others=len(inputs) > 1)
            elif len(inputs) > 1 and one.request.inputs_again is None:  # the batch before had the first input
                one.request.inputs_again = copies_of(one.request.inputs)
        outcomes = await self._call_group(inputs, is_retry=False)
        failed = sum(outcome.error is not None for outcome in outcomes)
        if 0 < failed < len(inputs):
            self._tally.count("failed_alone", failed)
        return outcomes

    async def _call_group(self, inputs: list[_Input], *, is_retry: bool) -> list[_Outcome]:
        """Call the handler; after a failure again in halves, so that only the inputs that fail on their own fail."""
        failure: BaseException | None = None
        clock = RequestClock()
        set_clock(clock)  # this task began with another request
        started_ns = perf_counter_ns()
        try:
            outputs = await self._outputs(
                _again(inputs) if is_retry else [one.request.inputs[one.number] for one in inputs]
            )
        except BaseException as error:  # any exception: the callers wait for a response
            if ends_task(error):
                raise  # the loop ends, and its callers with it
            failure = error
        share_times(clock, [one.request.clock for one in inputs if not one.number])
        size = len(inputs)
        self._tally.count("calls")
        self._tally.count("items", size)
        self._tally.observe("size", size)
        self._tally.time("call_ns", perf_counter_ns() - started_ns)
        if failure is None:
            try:
                refuse_stream(outputs, NO_STREAM)
                return [_Outcome(output) for output in matched(outputs, size, "the model")]
            except Exception as error:  # also of a value that only looks like a list
                failure = error
        is_unavailable = isinstance(failure, RequestError) and failure.status in UNAVAILABLE
        if size == 1 or is_unavailable or not all(one.request.inputs_again for one in inputs):
            return [_Outcome(error=failure)] * size
        first, second = inputs[: size // 2], inputs[size // 2 :]
        return [*await self._call_group(first, is_retry=True), *await self._call_group(second, is_retry=True)]

    async def _outputs(self, inputs: list[Any]) -> Any:
        if self._thread is None:
            outputs: Any = self._inside(inputs)
        else:
            outputs = await self._thread.call(self._inside, inputs)
        return await outputs if inspect.isawaitable(outputs) else outputs


def _again(inputs: list[_Input]) -> list[Any]:
    """New inputs for a retry, since the model may have changed the others."""
    renewed: dict[int, Sequence[Any]] = {}
    for one in inputs:
        request = one.request
        if id(request) not in renewed:
            assert request.inputs_again is not None, "only inputs that can be made again are retried"
            renewed[id(request)] = request.inputs_again()
    return [renewed[id(one.request)][one.number] for one in inputs]


class ServeQueueLayer:
    """Sends requests to the workers.

    Raises RequestError: when called: the queue is full, or the request's own error. Raises LostError: when called: the
    worker died at every attempt.
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


def _layer_of(  # noqa: PLR0917 - the arguments of Pattern.layer
    pattern: Pattern, inside: Sequence[Handler], tally: Tally, resources: Resources
) -> object:
    """The layer of a pattern: Ray Serve's own for batches and queues, otherwise the one that the pattern makes."""
    if isinstance(pattern, Batched):
        return ServeBatchLayer(pattern, inside[0], tally)
    if isinstance(pattern, Queued) and isinstance(inside[0], HandleUpstream):
        return ServeQueueLayer(pattern, inside[0], tally)
    return pattern.layer(inside, tally, resources)


class _Replica:
    """What both kinds of replica share: they load their layers, and report what they count."""

    def __init__(self, job: ReplicaJob, handles: Mapping[str, Any]) -> None:
        self._job = job
        self._handles = handles
        self._machine = machine_identity()

    async def _load(self) -> ModelCaller | None:
        """Load the layers and report that; None if that failed."""
        from ray.serve import get_replica_context

        from pytest_mlpatterns.engines.ray.remote.node_monitor import linked

        link = await asyncio.to_thread(linked, self._job, get_replica_context().replica_id.unique_id)
        try:
            stack = self._stack()
            await stack.start()
        except UnusableModelError as error:
            link.failed("", error.why)
            return None
        except BaseException as error:  # also SystemExit: the test reports any of them
            link.failed(user_traceback(error), None)
            return None
        self._link = link
        self._layers: HandlerStack | None = stack
        return ModelCaller(stack.handler)

    async def __del__(self) -> None:
        """Close the layers; Ray Serve awaits this once, when no request is left."""
        layers, self._layers = getattr(self, "_layers", None), None
        if layers is not None:
            await layers.close()

    def _stack(self) -> HandlerStack:
        shared, known = self._job.application, set(sys.path)
        sys.path += [entry for entry in shared.import_path if entry not in known and os.path.exists(entry)]
        are_here = all(top.is_dir() for top in shared.trees or ())
        if shared.trees is not None and are_here:
            install(*shared.trees)
        stack = HandlerStack(
            self._job.node,
            f"mlpatterns:{shared.app}",
            wire=shared.wire.between_processes,
            own_server=shared.own_server,
            upstream=self._upstream,
            layer_of=_layer_of,
        )
        if shared.trees is not None and (strays := modules_from(*shared.trees)):
            raise wrong_tree(strays, *shared.trees) if are_here else not_sent(strays[0])
        return stack

    def _upstream(self, node: HandleNode, tally: Tally, of: str) -> HandleUpstream:
        return HandleUpstream(node, self._handles[node.deployment], tally, machine=self._machine, of=of)

    def _report(self, caller: ModelCaller, counted: Callable[[], tuple[LayerStats, ...]]) -> None:
        """Report that the replica is ready, and from now on what it has counted, also what ``counted`` returns."""

        stack = self._layers
        assert stack is not None, "a replica reports after it has loaded"

        def statistics() -> WorkerStats:
            layers = (*stack.layers(), *counted())
            return WorkerStats(0, caller.requests, tuple(caller.tracebacks), layers)

        self._link.ready(statistics)


class ServiceReplica(_Replica):
    """The outermost process of a service: our HTTP server around its layers."""

    async def __serve_build_asgi_app__(self) -> Any:
        """The ASGI application of the replica; Ray Serve calls this after the constructor."""
        caller = await self._load()
        if caller is None:
            return MountedApp(_Refusing())
        position = self._job.position
        app = ModelApp(caller, self._job.application.name, MAX_BODY_BYTES, position=position)
        app.split = split = SplitTally(position)
        self._report(caller, lambda: (app.tally.snapshot(), split.snapshot()))
        return MountedApp(app)


class GroupReplica(_Replica):
    """A process behind others, which reach it by a handle."""

    async def __init__(self, job: ReplicaJob, handles: Mapping[str, Any]) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        super().__init__(job, handles)
        self._caller = await self._load()
        if self._caller is not None:
            self._lock = None if self._caller.needs_loop else ModelLock()
            self._report(self._caller, tuple)

    async def call(self, instances: list[Any]) -> HandleAnswer:
        """Answer one request with whole outputs, an error, or the fact that the model streams."""
        started, clock = perf_counter_ns(), RequestClock()
        set_clock(clock)
        free_ns = max(self._lock.free_ns if self._lock else 0, self._caller.free_ns) if self._caller else 0
        try:
            outputs = await self._outputs(instances)
        except RequestError as error:
            return _error_answer(error)
        if isinstance(outputs, Stream):
            outputs.discard()
            return HandleAnswer(streams=True)
        return HandleAnswer(outputs, perf_counter_ns() - started, free_ns, self._machine, parts=clock.parts)

    async def chunks(self, instances: list[Any]) -> AsyncIterator[tuple[Any, HandleAnswer | None]]:
        """The chunks of one request, each with None; an error is the last one, without a chunk."""
        try:
            outputs = await self._outputs(instances)
            if not isinstance(outputs, Stream):
                raise RequestError(502, "a model that streamed its answers answered with whole outputs")
            try:
                async for chunk in outputs:
                    yield chunk, None
            finally:
                await outputs.aclose()
        except RequestError as error:
            yield None, _error_answer(error)

    async def _outputs(self, instances: list[Any]) -> Any:
        if self._caller is None:
            raise _not_loaded()
        self._caller.requests += 1
        if self._lock is None:
            return await self._caller(instances)
        waits_since_ns = perf_counter_ns()
        async with self._lock:
            charge(QUEUE_WAIT, perf_counter_ns() - waits_since_ns)
            return await self._caller(instances)


class _Refusing:
    """The ASGI application of a replica that has not loaded."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        error = _not_loaded()
        await send({"type": "http.response.start", "status": error.status, "headers": []})
        await send({"type": "http.response.body", "body": str(error).encode()})


def _not_loaded() -> RequestError:
    return RequestError(503, "the model of this replica has not loaded")


def _error_answer(error: RequestError) -> HandleAnswer:
    return HandleAnswer(status=error.status, text=str(error), retry_after_s=error.retry_after_s)


class MountedApp:
    """Answers what Ray Serve asks of an ASGI application, and leaves requests to our server.

    The paths that our server knows begin after the prefix, which Ray Serve has in ``root_path`` and leaves in ``path``.
    Messages travel to the proxy pickled.
    """

    def __init__(self, app: Callable[[_Message, _Receive, _Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one request, or the begin and end of the application's life (ASGI)."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))

        async def send_pickled(message: _Message) -> None:
            body = message.get("body")
            if body is not None and type(body) is not bytes:  # a view of a tensor, which cannot be pickled
                message = {**message, "body": bytes(body)}
            await send(message)

        await self._app({**scope, "path": path}, receive, send_pickled)


async def _live(receive: _Receive, send: _Send) -> None:
    while True:
        phase = (await receive())["type"].removeprefix("lifespan.")
        await send({"type": f"lifespan.{phase}.complete"})
        if phase == "shutdown":
            return
