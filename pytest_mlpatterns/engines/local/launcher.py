"""The local engine: starts the processes of a service plan on this machine, and waits until they are ready.

Ready means: every process accepts connections, answers its health check, and has answered one real inference if an
input is known. Every process listens on 127.0.0.1, on a port that the system chose.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from pytest_mlpatterns.engines.engine import Engine
from pytest_mlpatterns.engines.local.messages import Call, Listen, ListenGrpc, UpstreamNode, WorkerJob, WorkerNode
from pytest_mlpatterns.engines.local.processes import LocalProcesses, SupervisedWorker, await_loaded, load_of
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.arguments import EMBEDDED
from pytest_mlpatterns.patterns.pattern import LayerNode, Node, ProcessGroup, layers_in
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.serving.deployment import Deployment, Traits
from pytest_mlpatterns.serving.http.app import MAX_BODY_BYTES
from pytest_mlpatterns.serving.model import ServicePlan, StartOptions, ended_on_error
from pytest_mlpatterns.serving.processes import PackedLayer, QueueNode
from pytest_mlpatterns.serving.readiness import await_ready, too_slow_to_load
from pytest_mlpatterns.serving.redis.queue_worker import Subscription
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.cpu_share import current_share, share_of_replica
from pytest_mlpatterns.system.sockets import held_port, listening_socket
from pytest_mlpatterns.wire import codec_of
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.own_client import served_wire

if TYPE_CHECKING:
    import socket

    from pytest_mlpatterns.serving.redis.embedded_server import EmbeddedServer

_Source = Listen | ListenGrpc | Subscription | Call  # Where a worker gets its requests from
_ANSWER_TIMEOUT_S = 5.0  # Time limit for an answer of a worker
_WORKER = "pytest_mlpatterns.engines.local.worker"
_READING_S = 0.1  # Interval of the readings of a replica that is to end, in seconds: two ticks of the load generator
_MOST_READINGS = 20  # Most of these readings: a replica that still receives requests ends then


class LocalEngine(Engine):
    """Serves a pattern by processes of this machine."""

    adds_replicas = True
    sends_load = True
    is_readable = True

    def check(self, plan: ServicePlan, options: StartOptions) -> None:
        """Check that clients can poll for results if the pattern keeps them."""
        if _is_polled(plan) and options.wire.protocol != "rest":
            raise SettingError(
                f"results that clients poll for (wait=False) do not exist over {options.wire}; choose a wire over REST"
            )

    def launch(self, plan: ServicePlan, options: StartOptions) -> Deployment:
        """Start a service and wait until it is ready."""
        return launch(plan, options)


ENGINE = LocalEngine()  # What the entry point names


def _is_polled(plan: ServicePlan) -> bool:
    """Whether requests are answered 202, and clients poll for results."""
    outermost = plan.root.inside
    return isinstance(outermost, LayerNode) and outermost.pattern.is_polled


def launch(plan: ServicePlan, options: StartOptions) -> Deployment:
    """Start a service that :meth:`LocalEngine.check` has passed, and wait until it is ready."""
    started_ns = time.perf_counter_ns()
    launcher = Launcher(plan, options)
    with ended_on_error(launcher.stop):
        addresses = launcher.start()
        for worker in launcher.workers:
            await_loaded(worker, plan.name, started_ns, options=options)
    launcher.release()
    endpoint = Endpoint(
        addresses=addresses,
        path=codec_of(served_wire(options.wire)).path(plan.name),
        model_name=plan.name,
        balance=plan.root.balance,
        wire=options.wire,
        polled=launcher.is_polled,
    )
    scaler = LocalScaler(launcher, plan.name, options)
    traits = Traits(current_share(), scaler, roles=_roles(launcher.workers))
    deployment = Deployment(endpoint, launcher.processes, traits)
    with ended_on_error(deployment.close):
        await_ready(deployment, plan.name, started_ns, options=options)
    launcher.settle(launcher.workers)
    return deployment


def _roles(workers: Sequence[SupervisedWorker]) -> dict[int, str]:
    """What each process does; one before all others that is no replica is a gateway."""
    several = len(workers) > 1
    return {worker.child.pid: "gateway" if several and worker.position < 0 else worker.role for worker in workers}


class Launcher:
    """Starts the processes of a service plan, the innermost first; all of them load at the same time."""

    def __init__(self, plan: ServicePlan, options: StartOptions) -> None:
        self.workers: list[SupervisedWorker] = []
        self.restarted: list[SupervisedWorker] = []
        self.replicas: dict[tuple[str, int], list[SupervisedWorker]] = {}
        self.servers: list[EmbeddedServer] = []
        self.processes: LocalProcesses = LocalProcesses(self.workers, self.servers, plan.name)
        self._plan = plan
        self._options = structs.replace(options, wire=served_wire(options.wire))
        self._context = contextvars.copy_context()  # with the processor that the deployment was given
        self._identity = f"mlpatterns:{secrets.token_hex(8)}"
        self._own_server: str | None = None
        self._logs = itertools.count()
        self._replicas = itertools.count()
        self._held: list[socket.socket] = []
        self.is_polled: bool = _is_polled(plan)

    def start(self) -> tuple[tuple[str, int], ...]:
        """Start everything, and return the addresses of the outermost processes."""
        if any(EMBEDDED in layer.pattern.servers for layer in layers_in(self._plan.root)):
            from pytest_mlpatterns.serving.redis.embedded_server import start_embedded

            server = start_embedded(self._options.directory, self._options.timeout_ns)
            self.servers.append(server)
            self._own_server = server.url
        return self._start_group(self._plan.root, outermost=True)

    def start_caller(self, inputs: bytes) -> None:
        """Start the model alone, in a process that serves nothing and calls it with these inputs, a pickled list."""
        self._spawn(self._plan.root, self._start_inside(self._plan.root.inside), Call(inputs))

    def start_another(self) -> tuple[str, int]:
        """Start one more replica of the whole service, on a port of its own, and return its address.

        Call :meth:`settle` with its processes when they are ready.
        """
        one = replace(self._plan.root, replicas=1, balance=Balance.ROUND_ROBIN)
        (address,) = self._context.run(self._start_group, one, outermost=True)
        return address

    def settle(self, workers: Sequence[SupervisedWorker]) -> None:
        """Release the ports that were held for processes, which are ready, and replace those that are restarted."""
        self.release()
        for worker in self.restarted:
            if worker in workers:
                worker.guard()

    def release(self) -> None:
        """Release the ports that were held until the processes listened on them."""
        for holder in self._held:
            holder.close()
        self._held.clear()

    def stop(self) -> None:
        """End everything that was started."""
        self.release()
        self.processes.stop()

    def _start_group(self, group: ProcessGroup, *, outermost: bool = False) -> tuple[tuple[str, int], ...]:
        """Start processes on a port each, or all on one; returns their addresses.

        An HTTP process inherits a socket that listens; a gRPC process binds the port itself, which is held until then.
        """
        is_grpc = outermost and self._options.wire.protocol == "grpc"
        addresses: list[tuple[str, int]] = []
        holder: socket.socket | None = None
        with contextlib.ExitStack() as inherited:
            for _ in range(group.replicas):
                known = len(self.workers)
                with share_of_replica(next(self._replicas)) if outermost else contextlib.nullcontext():
                    node = self._start_inside(group.inside)
                    if holder is None or group.balance is not Balance.SHARED_SOCKET:
                        holder = held_port() if is_grpc else listening_socket()
                        if is_grpc:
                            self._held.append(holder)
                        elif not group.restart:
                            inherited.enter_context(holder)
                    port = holder.getsockname()[1]
                    addresses.append(("127.0.0.1", port))
                    source = ListenGrpc(port) if is_grpc else Listen(holder.fileno(), internal=not outermost)
                    self._spawn(group, node, source, listener=None if is_grpc else holder)
                if outermost:
                    self.replicas.setdefault(addresses[-1], []).extend(self.workers[known:])
        return tuple(dict.fromkeys(addresses))

    def _start_inside(self, node: Node) -> WorkerNode:
        """Start the process groups of a node, and replace each by the way to reach it."""
        if isinstance(node, ProcessGroup):
            return self._start_upstream(node) if node.broker is None else self._start_consumers(node, node.broker)
        if isinstance(node, LayerNode):
            assert node.packed is not None, "a plan is packed by service_plan"
            return PackedLayer(node.packed, node.position, tuple(map(self._start_inside, node.inside)))
        return node

    def _start_upstream(self, group: ProcessGroup) -> UpstreamNode:
        wire = group.wire or self._options.wire.between_processes
        addresses = self._start_group(group)
        path = codec_of(wire).path(self._plan.name)
        return UpstreamNode(addresses, path, group.position, group.balance, group.in_flight, wire)

    def _start_consumers(self, group: ProcessGroup, broker: str) -> QueueNode:
        """Start processes that take requests from a stream of a broker."""
        url = broker if broker != EMBEDDED or self._own_server is None else self._own_server
        stream = f"{self._identity}:{len(self.workers)}"
        for number in range(group.replicas):
            node = self._start_inside(group.inside)
            wire = self._options.wire.between_processes
            subscription = Subscription(url, stream, f"worker-{number}", group.in_flight, wire)
            self._spawn(group, node, subscription)
        return QueueNode(url, stream)

    def _job(self, group: ProcessGroup, node: WorkerNode, source: _Source) -> WorkerJob:
        return WorkerJob(
            node=node,
            name=self._plan.name,
            identity=self._identity,
            source=source,
            import_path=tuple(sys.path),
            trees=self._options.trees,
            max_body_bytes=MAX_BODY_BYTES,
            wire=self._options.wire,
            position=group.position,
            own_server=self._own_server,
            is_polled=self.is_polled and isinstance(source, Listen) and not source.internal,
            profiled=self._options.profiled,
            traced=self._options.traced,
            counted=self._options.under is not None,
        )

    def _spawn(
        self,
        group: ProcessGroup,
        node: WorkerNode,
        source: _Source,
        *,
        listener: socket.socket | None = None,
    ) -> None:
        job = self._job(group, node, source)

        def start(on_end: Callable[[], None]) -> Child:
            log = self._options.directory / f"{self._identity.rpartition(':')[2]}-{next(self._logs)}.log"
            descriptors = [] if listener is None else [listener.fileno()]
            under, env, python = self._options.under, group.env, None
            if under is not None:
                env, python = under.environment({**os.environ, **(env or {})}), [*under.words, sys.executable]
            child = Child(_WORKER, log=log, pass_fds=descriptors, on_end=on_end, env=env, python=python)
            with ended_on_error(child.stop):
                child.send(job)
            return child

        context = contextvars.copy_context()  # a replacement, which another thread starts, gets the same processor
        worker = SupervisedWorker(
            lambda on_end: context.run(start, on_end),
            role=group.role,
            position=group.position,
            listener=listener if group.restart else None,
            answer_timeout_s=self._options.timeout_ns / 1e9 if self._options.is_slow else _ANSWER_TIMEOUT_S,
        )
        self.workers.append(worker)
        if group.restart:
            self.restarted.append(worker)


class LocalScaler:
    """Adds replicas to one deployment; fulfils :class:`pytest_mlpatterns.serving.processes.Scaler`."""

    def __init__(self, launcher: Launcher, model: str, options: StartOptions) -> None:
        self.timeout_ns: int = options.timeout_ns
        self.launcher = launcher
        self.model = model
        self.options = options

    def add(self) -> LocalReplica:
        """Start one more replica, without waiting for it."""
        asked_ns, known = time.perf_counter_ns(), len(self.launcher.workers)
        address = self.launcher.start_another()
        return LocalReplica(self, address, known, asked_ns=asked_ns)

    def has_ended(self, address: tuple[str, int]) -> bool:
        """Whether a process of the replica with this address has ended."""
        return any(worker.child.has_ended for worker in self.launcher.replicas[address])

    def remove(self, address: tuple[str, int]) -> None:
        """End the replica with this address when it has received its last request, and wait for it."""
        workers = self.launcher.replicas[address]
        received = -1
        for _ in range(_MOST_READINGS):
            before, received = received, workers[-1].stats().predict_requests
            if received == before:
                break
            time.sleep(_READING_S)  # a request may be under way to it, and nothing announces the last one
        for worker in workers:
            worker.excuse()
            worker.stats()
            worker.close_channel()
        for worker in workers:
            worker.stop()


class LocalReplica:
    """A replica that was asked for: its processes, the outermost last."""

    def __init__(self, scaler: LocalScaler, address: tuple[str, int], known: int, *, asked_ns: int) -> None:
        self.asked_ns = asked_ns
        self._scaler = scaler
        self._address = address
        self._workers: list[SupervisedWorker] = scaler.launcher.workers[known:]
        self._loading = list(self._workers)

    def address(self) -> tuple[str, int] | None:
        """The address once all its processes are ready; None until then."""
        model, options = self._scaler.model, self._scaler.options
        while self._loading:
            worker = self._loading[0]
            try:
                load_of(worker, model, 0, options=options)
            except TimeoutError:
                if time.perf_counter_ns() > self.asked_ns + options.timeout_ns:
                    log = worker.child.log_tail()
                    raise too_slow_to_load(worker.role, model, log, options=options) from None
                return None
            self._loading.pop(0)
            if not self._loading:
                self._scaler.launcher.settle(self._workers)
        return self._address

    def requests(self) -> int:
        """Number of requests that its outermost process has received."""
        return self._workers[-1].stats().predict_requests
