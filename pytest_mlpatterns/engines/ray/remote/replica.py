"""The classes of our deployments on Ray Serve: each replica runs the layers of its process group, down to the model.

A replica never fails its constructor for an error of the user's code, since Ray Serve would try it again. It reports
the error over its link, and refuses requests until the application is deleted.
"""

from __future__ import annotations

import asyncio
import os
import sys
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.engines.ray.messages import HandleAnswer
from pytest_mlpatterns.engines.ray.remote.handle_upstream import HandleUpstream
from pytest_mlpatterns.engines.ray.remote.serve_layers import ServeBatchLayer, ServeQueueLayer
from pytest_mlpatterns.engines.ray.run import not_sent
from pytest_mlpatterns.patterns.batched import Batched
from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.queued import Queued
from pytest_mlpatterns.patterns.request_clock import QUEUE_WAIT, RequestClock, charge, set_clock
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import SplitTally
from pytest_mlpatterns.serving.handler_stack import HandlerStack
from pytest_mlpatterns.serving.http.app import MAX_BODY_BYTES, ModelApp
from pytest_mlpatterns.serving.http.model_caller import ModelCaller, ModelLock
from pytest_mlpatterns.serving.model import UnusableModelError
from pytest_mlpatterns.serving.processes import WorkerStats
from pytest_mlpatterns.serving.tracebacks import user_traceback
from pytest_mlpatterns.system.import_redirect import install, modules_from, wrong_tree
from pytest_mlpatterns.system.machine import machine_identity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from pytest_mlpatterns.engines.ray.messages import HandleNode, ReplicaJob
    from pytest_mlpatterns.patterns.layer import Handler, Resources
    from pytest_mlpatterns.patterns.pattern import Pattern
    from pytest_mlpatterns.patterns.tally import Tally
    from pytest_mlpatterns.records.telemetry import LayerStats


class RayHooks:
    """Layers in the replicas; fulfils :class:`pytest_mlpatterns.serving.handler_stack.StackHooks`."""

    def __init__(self, handles: Mapping[str, Any], machine: str) -> None:
        self._handles = handles
        self._machine = machine

    def upstream(self, node: HandleNode, tally: Tally, of: str) -> HandleUpstream:
        """The client of a deployment behind this process."""
        return HandleUpstream(node, self._handles[node.deployment], tally, machine=self._machine, of=of)

    def layer(self, pattern: Pattern, inside: Sequence[Handler], tally: Tally, *, resources: Resources) -> object:
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
        job = self._job
        known = set(sys.path)
        sys.path += [entry for entry in job.import_path if entry not in known and os.path.exists(entry)]
        are_here = all(top.is_dir() for top in job.trees or ())
        if job.trees is not None and are_here:
            install(*job.trees)
        hooks = RayHooks(self._handles, self._machine)
        wire = job.wire.between_processes
        stack = HandlerStack(job.node, job.identity, wire=wire, own_server=job.own_server, hooks=hooks)
        if job.trees is not None and (strays := modules_from(*job.trees)):
            raise wrong_tree(strays, *job.trees) if are_here else not_sent(strays[0])
        return stack

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
        job = self._job
        app = ModelApp(caller, job.name, MAX_BODY_BYTES, position=job.position)
        app.split = split = SplitTally(job.position)
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


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    _Message = MutableMapping[str, Any]
    _Receive = Callable[[], Awaitable[_Message]]
    _Send = Callable[[_Message], Awaitable[None]]


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
