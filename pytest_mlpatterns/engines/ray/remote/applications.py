"""Applications on Ray Serve: deployed, looked at and deleted; called in the driver.

The classes of our deployments on Ray Serve: each replica runs the layers of its process group, down to the model.

A replica never fails its constructor for an error of the user's code, since Ray Serve would try it again. It reports
the error over its link, and refuses requests until the application is deleted.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.schema import ApplicationStatus, ProxyStatus

from pytest_mlpatterns.engines.ray.application_plan import shortage
from pytest_mlpatterns.engines.ray.messages import ApplicationPlan, DeploymentPlan, HandleAnswer, HandleNode, ReplicaJob
from pytest_mlpatterns.engines.ray.remote.handle_upstream import HandleUpstream
from pytest_mlpatterns.engines.ray.remote.node_monitor import open_monitors, read
from pytest_mlpatterns.engines.ray.remote.serve_layers import ServeBatchLayer, ServeQueueLayer
from pytest_mlpatterns.engines.ray.run import not_sent
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.patterns.batched import Batched
from pytest_mlpatterns.patterns.layer import Handler, RequestError, Resources
from pytest_mlpatterns.patterns.queued import Queued
from pytest_mlpatterns.patterns.request_clock import QUEUE_WAIT, RequestClock, charge, set_clock
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import SplitTally, Tally
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.serving.failed_request import user_traceback
from pytest_mlpatterns.serving.handler_stack import HandlerStack
from pytest_mlpatterns.serving.http.app import MAX_BODY_BYTES, ModelApp
from pytest_mlpatterns.serving.http.model_caller import ModelCaller, ModelLock
from pytest_mlpatterns.serving.model import UnusableModelError
from pytest_mlpatterns.serving.processes import WorkerStats
from pytest_mlpatterns.system.import_redirect import install, modules_from, wrong_tree
from pytest_mlpatterns.system.machine import machine_identity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence

    from pytest_mlpatterns.patterns.pattern import Pattern
    from pytest_mlpatterns.records.telemetry import LayerStats

    _Message = MutableMapping[str, Any]
    _Receive = Callable[[], Awaitable[_Message]]
    _Send = Callable[[_Message], Awaitable[None]]

__all__ = ["GroupReplica", "MountedApp", "ServiceReplica", "addresses", "delete", "deploy", "status"]


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


_PROXIES_WITHIN_S = 10.0  # Time limit for the proxies of new nodes; then those that answer take the load
_POLL_S = 0.1  # Time between two looks at the state of the cluster, each a message to its head
_FREED_WITHIN_S = 5.0  # Time in which Ray frees the CPUs of a service that has just ended
_DELETED_WITHIN_S = 60.0  # Time limit for the end of an application; Ray Serve kills a replica after 20 s by default
_FAILED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY, ApplicationStatus.DELETING)
_MOST_ADDRESSES = 255  # Most addresses that a load generator distinguishes
_OF_A_QUEUE = {"initial_backoff_s": 0.002, "backoff_multiplier": 1.5, "max_backoff_s": 0.01}
"""How soon Ray Serve looks again for a free worker; by default it waits up to half a second, which would decide the
result of a queue."""
_HA_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"
"""With it HAProxy balances over the ingress replicas, by its own rule, and Ray Serve refuses another."""
_deploying = threading.Lock()
"""Two variants of a comparison start at once, and Ray Serve changes state of its pickler while it deploys one."""
_ROUND_ROBIN = "ray.serve.experimental.round_robin_router.RoundRobinRouter"


def deploy(plan: ApplicationPlan) -> None:
    """Start an application, without waiting for its replicas."""
    _require_cpus(plan)
    open_monitors(plan.run)
    with _deploying:
        bound: dict[str, Any] = {}
        for one in plan.deployments:
            is_ingress = one is plan.deployments[-1]
            made = serve.deployment(**_options(one, is_ingress=is_ingress))(
                serve.ingress()(ServiceReplica) if is_ingress else GroupReplica
            )
            bound[one.name] = made.bind(one.job, {name: bound[name] for name in one.behind})
        target = serve.RunTarget(bound[plan.deployments[-1].name], name=plan.app, route_prefix=f"/{plan.app}")
        serve.run_many([target], wait_for_applications_running=False)


def _require_cpus(plan: ApplicationPlan) -> None:
    """Check that the cluster has the CPUs; those of a service that has just ended become free after a moment."""
    deadline = time.monotonic() + _FREED_WITHIN_S
    while True:
        nodes = [float(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        free = float(ray.available_resources().get("CPU", 0))
        if not (text := shortage(plan, nodes, free)):
            return
        if plan.cpus > sum(nodes) or time.monotonic() > deadline:
            raise DeploymentError(text)
        time.sleep(_POLL_S)


def _options(plan: DeploymentPlan, *, is_ingress: bool) -> dict[str, Any]:
    """Options of a deployment, as ``serve.deployment`` takes them."""
    runtime_env = dict(ray.get_runtime_context().runtime_env)
    runtime_env["env_vars"] = {**runtime_env.get("env_vars", {}), **plan.env}
    router: dict[str, Any] = {} if plan.max_queued == -1 else dict(_OF_A_QUEUE)
    if plan.balance is Balance.ROUND_ROBIN and not (is_ingress and os.environ.get(_HA_PROXY) == "1"):
        router["request_router_class"] = _ROUND_ROBIN
    return {
        "name": plan.name,
        "num_replicas": plan.replicas,
        "max_ongoing_requests": plan.max_ongoing,
        "max_queued_requests": plan.max_queued,
        "request_router_config": RequestRouterConfig(**router),
        "ray_actor_options": {"num_cpus": plan.cpus, "runtime_env": runtime_env},
        "graceful_shutdown_timeout_s": 1,
        "graceful_shutdown_wait_loop_s": 0.1,
        "max_constructor_retry_count": 1,
        "logging_config": {"enable_access_log": False, "log_level": "ERROR"},
    }


def status(app: str) -> str:
    """State of an application, and what Ray Serve says of it and of its deployments."""
    found = serve.status().applications.get(app)
    if found is None:
        return "it does not exist"
    messages = [one.message for one in (found, *found.deployments.values()) if one.message]
    return "; ".join([str(found.status.value), *messages])


def addresses(plan: ApplicationPlan, http: tuple[str, int], wait_s: float) -> tuple[tuple[str, int], ...]:
    """``(host, port)`` of the proxies to which clients of an application send their requests, as soon as it runs.

    Those are the proxies of all nodes with an ingress replica, since other nodes may have none; behind a host that is
    given, such as a loopback address that all nodes share, they are one.

    Args:
        http: host and port of the proxies; an empty host stands for the address of each node.
    """
    host, port = http
    deadline = time.monotonic() + wait_s
    _await_running(plan.app, deadline)
    if host:
        return ((host, port),)
    ingress = plan.deployments[-1].name
    deadline = min(deadline, time.monotonic() + _PROXIES_WITHIN_S)
    while True:
        nodes = {
            reading.node: reading.ip
            for reading in read(plan.run, plan.app)
            if any(replica.deployment == ingress for replica in reading.replicas)
        }
        proxies = serve.status().proxies
        healthy = [node for node in nodes if proxies.get(node) == ProxyStatus.HEALTHY]
        late = time.monotonic() > deadline
        if healthy and (late or len(healthy) == len(nodes)):
            return tuple((ip, port) for ip in sorted(nodes[node] for node in healthy)[:_MOST_ADDRESSES])
        if late:
            raise DeploymentError(f"no node with a replica of {plan.app} has a healthy HTTP proxy of Ray Serve")
        time.sleep(_POLL_S)


def _await_running(app: str, deadline: float) -> None:
    """Wait until Ray Serve has seen that all replicas run; only then all of them get requests."""
    while (state := serve.status().applications[app].status) != ApplicationStatus.RUNNING:
        if state in _FAILED or time.monotonic() > deadline:
            raise DeploymentError(f"Ray Serve does not run {app}: {status(app)}")
        time.sleep(_POLL_S)


def delete(app: str) -> None:
    """Delete an application, and wait until its replicas are gone."""
    serve.delete(app, _blocking=False)  # otherwise it looks once a second
    deadline = time.monotonic() + _DELETED_WITHIN_S
    while app in serve.status().applications and time.monotonic() < deadline:
        time.sleep(_POLL_S)
