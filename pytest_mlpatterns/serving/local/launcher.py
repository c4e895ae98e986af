"""The local engine: starts the processes of a pattern's tree, waits until they are ready, or says why not.

Ready means that every process accepts, answers its health check, and (where an input is known) has answered one real
inference. Every process listens on 127.0.0.1, on a port that the system chose.
"""

from __future__ import annotations

import itertools
import secrets
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import ChildError, DeploymentError, ModelLoadError, SettingError
from pytest_mlpatterns.patterns.cached import Cached
from pytest_mlpatterns.patterns.pattern import LayerNode, ProcessGroup, QueueNode, Spread, UpstreamNode
from pytest_mlpatterns.patterns.queued import Queued
from pytest_mlpatterns.patterns.store_url import EMBEDDED, MEMORY
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.local.handler_stack import in_flight
from pytest_mlpatterns.serving.local.messages import Consume, Listen, ListenGrpc, LoadFailed, Ready, WorkerJob
from pytest_mlpatterns.serving.local.processes import LocalProcesses
from pytest_mlpatterns.serving.local.supervised_worker import SupervisedWorker
from pytest_mlpatterns.serving.redis.queue_worker import Subscription
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.sockets import held_port, listening_socket
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wire import REST_JSON, Wire, codec_of
from pytest_mlpatterns.workload.endpoint import Endpoint

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from pytest_mlpatterns.patterns.pattern import Node
    from pytest_mlpatterns.serving.model import ServicePlan
    from pytest_mlpatterns.workload.payload import Payload
    from pytest_mlpatterns.workload.request_builder import RequestBuilder

__all__ = ["MAX_BODY_BYTES", "StartOptions", "launch"]

MAX_BODY_BYTES = 64 * 2**20
"""Longest request body that our servers accept."""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """How a deployment is started: the time limit, a first request (None: health alone), where its logs go.

    ``trees`` as :class:`pytest_mlpatterns.serving.local.messages.WorkerJob` takes them. ``wire`` is how clients speak
    to it.
    ``root`` is what the working directories of users' own servers are relative to, and ``builder`` makes their requests
    where the wire does not.
    """

    timeout_ns: int
    payload: Payload | None
    directory: Path
    trees: tuple[Path, Path] | None = None
    wire: Wire = REST_JSON
    root: Path = Path()
    builder: RequestBuilder | None = None


def launch(recipe: ServicePlan, startup: StartOptions) -> Deployment:
    """Start a model under a pattern and wait until it is ready.

    Raises:
        ModelLoadError: the model could not be built or failed on its first inference; with its traceback.
        DeploymentError: a process died, or was not ready in time.
    """
    started_ns = time.perf_counter_ns()
    launching = Launcher(recipe, startup)
    if launching.polled and startup.wire.protocol == "grpc":
        raise SettingError("answers that are fetched later (wait=False) have no form in gRPC; choose a wire over REST")
    try:
        addresses = launching.start(recipe.root, outermost=True)
        for member in launching.members:
            _await_loaded(member, recipe.name, started_ns, startup)
    except BaseException:
        launching.stop()
        raise
    launching.release()
    least = recipe.root.spread is Spread.LEAST_OUTSTANDING
    endpoint = Endpoint(
        addresses=addresses,
        path=codec_of(startup.wire).path(recipe.name),
        model_name=recipe.name,
        balance=Balance.LEAST_OUTSTANDING if least else Balance.ROUND_ROBIN,
        wire=startup.wire,
        polled=launching.polled,
    )
    deployment = Deployment(endpoint, launching.processes)
    try:
        _await_ready(deployment, recipe.name, started_ns, startup)
    except BaseException:
        deployment.close()
        raise
    for member in launching.guarded:
        member.guard()
    return deployment


class Launcher:
    """Starts the processes of a tree, those further in first; all load at the same time."""

    def __init__(self, recipe: ServicePlan, startup: StartOptions) -> None:
        self.members: list[SupervisedWorker] = []
        self.guarded: list[SupervisedWorker] = []
        self.helpers: list[Child] = []
        self.processes = LocalProcesses(self.members, self.helpers)
        self._name = recipe.name
        self._startup = startup
        self._identity = f"mlpatterns:{secrets.token_hex(8)}"
        self._server_url: str | None = None
        self._logs = itertools.count()
        self._held: list[socket.socket] = []
        outermost = recipe.root.inside
        self.polled = isinstance(outermost, LayerNode) and outermost.pattern.outermost_only

    def start(
        self, apart: ProcessGroup, *, outermost: bool = False, guarded: bool = False
    ) -> tuple[tuple[str, int], ...]:
        """Start so many processes, and where they can be asked."""
        if outermost and self._startup.wire.protocol == "grpc":
            return self._start_grpc(apart)
        shared = listening_socket() if apart.spread is Spread.SHARED_SOCKET else None
        addresses = []
        try:
            for _ in range(apart.replicas):
                node = self._bound(apart.inside)
                listener = shared or listening_socket()
                addresses.append(("127.0.0.1", listener.getsockname()[1]))
                try:
                    self._spawn(apart, node, Listen(listener.fileno(), internal=not outermost), listener, guarded)
                finally:
                    if not guarded and shared is None:
                        listener.close()
        finally:
            if shared is not None:
                shared.close()
        return tuple(dict.fromkeys(addresses))

    def _start_grpc(self, apart: ProcessGroup) -> tuple[tuple[str, int], ...]:
        """The same for processes that bind their ports themselves, as gRPC does; one that is shared is bound by all."""
        shared = apart.spread is Spread.SHARED_SOCKET
        ports: list[int] = []
        for _ in range(apart.replicas):
            node = self._bound(apart.inside)
            if not (ports and shared):
                self._held.append(held_port())
                ports.append(self._held[-1].getsockname()[1])
            self._spawn(apart, node, ListenGrpc(ports[-1]), None, guarded=False)
        return tuple(("127.0.0.1", port) for port in ports)

    def release(self) -> None:
        """Let go of the ports that were held; whoever should listen there does."""
        for holder in self._held:
            holder.close()
        self._held.clear()

    def stop(self) -> None:
        """End everything that was started."""
        self.release()
        self.processes.stop()

    def _bound(self, node: Node) -> Node:
        """The node with what lives in other processes started, and replaced by how it is reached."""
        match node:
            case ProcessGroup():
                return self._behind(node)
            case LayerNode(Queued(broker=broker), _, (ProcessGroup() as workers,)) if broker != MEMORY:
                return replace(node, inside=(self._consumers(self._server(broker), workers),))
            case LayerNode(Queued(), _, (ProcessGroup() as workers,)):
                return replace(node, inside=(self._behind(workers, guarded=True),))
            case LayerNode(Cached(store=store) as pattern) if store != MEMORY:
                node = replace(node, pattern=replace(pattern, store=self._server(store)))
        return replace(node, inside=tuple(map(self._bound, node.inside))) if isinstance(node, LayerNode) else node

    def _behind(self, apart: ProcessGroup, *, guarded: bool = False) -> UpstreamNode:
        least = apart.spread is Spread.LEAST_OUTSTANDING
        wire = apart.wire or self._startup.wire.between_processes
        addresses = self.start(apart, guarded=guarded)
        path = codec_of(wire).path(self._name)
        return UpstreamNode(addresses, path, apart.position, least, in_flight(apart.inside), wire)

    def _consumers(self, url: str, apart: ProcessGroup) -> QueueNode:
        stream = f"{self._identity}:{len(self.members)}"
        for number in range(apart.replicas):
            node = self._bound(apart.inside)
            wire = self._startup.wire.between_processes
            subscription = Subscription(url, stream, f"worker-{number}", in_flight(apart.inside), wire)
            self._spawn(apart, node, Consume(subscription, apart.position), None, guarded=True)
        return QueueNode(url, stream)

    def _server(self, address: str) -> str:
        """The address of a server; one of the deployment's own is started when first asked for."""
        if address != EMBEDDED:
            return address
        if self._server_url is None:
            from pytest_mlpatterns.serving.redis.embedded_server import start_embedded

            server = start_embedded(self._startup.directory, self._startup.timeout_ns)
            self.helpers.append(server.child)
            self._server_url = server.url
        return self._server_url

    def _spawn(
        self,
        apart: ProcessGroup,
        node: Any,
        source: Listen | ListenGrpc | Consume,
        listener: socket.socket | None,
        guarded: bool,
    ) -> None:
        job = WorkerJob(
            node=node,
            name=self._name,
            identity=self._identity,
            source=source,
            import_path=tuple(sys.path),
            trees=self._startup.trees,
            max_body_bytes=MAX_BODY_BYTES,
            wire=self._startup.wire,
            position=apart.position,
            jobs=self.polled and isinstance(source, Listen) and not source.internal,
        )

        def start(on_end: Callable[[], None]) -> Child:
            log = self._startup.directory / f"{self._identity.rpartition(':')[2]}-{next(self._logs)}.log"
            descriptors = [] if listener is None else [listener.fileno()]
            child = Child("pytest_mlpatterns.serving.local.worker", log=log, pass_fds=descriptors, on_end=on_end)
            try:
                child.send(job)
            except ChildError:
                child.stop()
                raise
            return child

        member = SupervisedWorker(
            start, role=apart.role, position=apart.position, listener=listener if guarded else None
        )
        self.members.append(member)
        if guarded:
            self.guarded.append(member)


def _await_loaded(member: SupervisedWorker, model: str, started_ns: int, startup: StartOptions) -> None:
    who = f"perf_model {model}" if member.role in ("service", "replica", "worker") else member.role
    try:
        message: Any = member.child.receive(_left_s(started_ns, startup))
    except TimeoutError:
        raise DeploymentError(_too_slow(who, "still loading", startup, member.child.log_tail())) from None
    except ChildError as error:
        raise ModelLoadError(f"{who} ended its process while loading: {error}") from error
    if isinstance(message, LoadFailed):
        raise ModelLoadError(f"{who} failed to load:\n{message.traceback}")
    assert isinstance(message, Ready)


def _await_ready(deployment: Deployment, model: str, started_ns: int, startup: StartOptions) -> None:
    import httpx

    for number in range(len(deployment.addresses)):
        client = deployment.client_of(number)
        try:
            client.get("/v2/health/ready", timeout=_left_s(started_ns, startup)).raise_for_status()
            if startup.payload is None:
                continue
            request = startup.payload.first(deployment.path)
            response = deployment.ask(client, request, _left_s(started_ns, startup))
        except httpx.TimeoutException:
            text = _too_slow(f"perf_model {model}", "not done with its first inference", startup, deployment.log_tail())
            raise DeploymentError(text) from None
        except httpx.HTTPError as error:
            raise DeploymentError(f"perf_model {model}: {error}{deployment.reason_of_failure()}") from error
        if deployment.cold_start_ns is None:
            deployment.cold_start_ns = time.perf_counter_ns() - started_ns
        if not response.is_success:
            tracebacks = "\n".join(deployment.stats().tracebacks)
            raise ModelLoadError(
                f"perf_model {model} failed on its first inference, of perf_payload item 0: "
                f"{response.status_code} {response.text[:2000]}\n{tracebacks}".rstrip()
            )


def _left_s(started_ns: int, startup: StartOptions) -> float:
    return max(0.001, (started_ns + startup.timeout_ns - time.perf_counter_ns()) / 1e9)


def _too_slow(who: str, state: str, startup: StartOptions, log: str) -> str:
    text = (
        f"{who} is {state} after {format_duration(startup.timeout_ns)}, the start-up time limit; "
        'raise it with perf(startup_timeout="5min") or --perf-startup-timeout'
    )
    return f"{text}\nIt printed last:\n{log}" if log else text
