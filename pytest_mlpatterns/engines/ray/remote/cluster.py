"""Connects this process to a Ray cluster, which it starts or attaches to, looks at its nodes, and leaves it again.

A Ray of this run's own listens on the loopback interface only, asks for a token of its own, has no dashboard and keeps
its files in a directory that no other user may enter. A cluster that runs already must fit this process: a task finds
out the facts of each node, and needs this package there. Nothing in it is changed that is not ours: a lease, an actor
that lives as long as its driver, shows what a run without one has left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import ray
from msgspec import Struct
from ray import serve
from ray.serve.context import _get_global_client
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pytest_mlpatterns.engines.ray.cluster import ClockOffset, ClusterFacts, NodeFacts, RoundTrip, offset_of
from pytest_mlpatterns.engines.ray.messages import DriverReady, RayJob
from pytest_mlpatterns.engines.ray.session import (
    age_of,
    applications_by_run,
    belongs_to,
    new_run,
    part_of,
    removed_note,
    with_absolute_paths,
)
from pytest_mlpatterns.engines.ray.settings import require_reachable, why_refused
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.environment import environment, machine_cores
from pytest_mlpatterns.system.machine import machine_identity
from pytest_mlpatterns.system.sockets import held_port

if TYPE_CHECKING:
    import socket

NAMESPACE = "mlpatterns"  # Namespace of all our actors in Ray
_HEAD = "node:__internal_head__"  # Resource that only the head of a cluster has
CLOCK_AGE_S = 60.0  # Time for which an offset of clocks is trusted: quartz drifts by up to 50 ppm, so 3 ms
_ROUND_TRIPS = 20  # Calls, the quickest of which decides: one among 20 meets no other work


def is_head(node: Mapping[str, Any]) -> bool:
    """Whether a node, as ``ray.nodes()`` describes it, is the head of its cluster."""
    return _HEAD in node["Resources"]


def on_node(kind: Any, node: str, **options: Any) -> Any:
    """A class or function that runs on a node and reserves no CPU there; its ``remote()`` starts it."""
    placed = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(kind).options(num_cpus=0, scheduling_strategy=placed, **options)


def measured_offset(ask: Callable[[], tuple[str, int]]) -> ClockOffset:
    """How far the clock of a node is ahead of ours; ``ask`` gets the identity of its machine, and its clock in ns."""
    trips, machine = [], ""
    for _ in range(_ROUND_TRIPS):
        sent_ns = time.perf_counter_ns()
        machine, remote_ns = ask()
        trips.append(RoundTrip(sent_ns, remote_ns, time.perf_counter_ns()))
    return offset_of(trips, same_machine=machine == machine_identity())


class Probed(Struct, frozen=True):
    """A node, and the version of this package there."""

    facts: NodeFacts
    package: str


def probe(node: Mapping[str, Any]) -> Probed:
    """Look at the machine of this process, which is a node as ``ray.nodes()`` describes it."""
    found = environment(("ray",))
    facts = NodeFacts(
        node_id=node["NodeID"],
        ip=node["NodeManagerAddress"],
        processor=found.processor,
        cores=found.cores,
        architecture=found.architecture,
        machine=machine_identity(),
        gpu=found.gpu or "",
        is_head=is_head(node),
        machine_cores=machine_cores(),
    )
    return Probed(facts, own_version())


def own_version() -> str:
    """The version of this package; empty if it is not installed but only importable."""
    with suppress(PackageNotFoundError):
        return version("pytest-mlpatterns")
    return ""


_OWN_CPUS = 64
"""Logical CPUs of a Ray of this run's own: as with the local engine, there may be more processes than cores."""
_STORE_BYTES = 256 << 20
"""Size of Ray's object store, far beyond what our messages need; the default is 30 % of the memory."""
_LOOPBACK = "127.0.0.1"
_FILES = "r"
"""Directory of Ray's files, below the one that no other user may enter: Ray sets the mode 0777 on all of its own."""


class Connection(Struct, frozen=True):
    """This process and a cluster."""

    ready: DriverReady
    port: socket.socket | None = None  # holds the port of Ray Serve if this process started it
    lease: object = None

    def leave(self) -> None:
        """Remove our applications and disconnect; a Ray that this process started ends."""
        facts = self.ready.cluster
        try:
            if not facts.is_own:
                remove_applications(facts.run)
        finally:  # a cluster that is gone has none of them
            ray.shutdown()
            if self.port is not None:
                self.port.close()


def connect(job: RayJob) -> Connection:
    """Start a cluster or attach to one, and find out what it is."""
    return _start(job) if job.address is None else _attach(job)


def _start(job: RayJob) -> Connection:
    port = held_port(_LOOPBACK)
    try:
        return Connection(DriverReady(_started(job, port.getsockname()[1])), port)
    except BaseException:
        ray.shutdown()
        port.close()
        raise


def _started(job: RayJob, port: int) -> ClusterFacts:
    """Start a Ray whose Serve listens on this port."""
    context = ray.init(
        address="local",
        num_cpus=_OWN_CPUS,
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        runtime_env=with_absolute_paths(job.runtime_env, job.root) or None,
        namespace=NAMESPACE,
        log_to_driver=False,
        configure_logging=False,
        _node_ip_address=_LOOPBACK,
        _temp_dir=str(job.temporary / _FILES),
    )
    serve.start(proxy_location="EveryNode", http_options={"host": _LOOPBACK, "port": port})
    (node,) = ray.nodes()
    return ClusterFacts(
        address=context.address_info["gcs_address"],
        is_own=True,
        run=new_run(time.time()),
        nodes=(probe(node).facts,),
        http=(_LOOPBACK, port),
        token=os.environ["RAY_AUTH_TOKEN"],
    )


def _attach(job: RayJob) -> Connection:
    address = connect_to(job, with_absolute_paths(job.runtime_env, job.root))
    nodes = require_fit(job)
    proxies = serve_proxies(job, len(nodes))
    run = part_of(job.run) if job.run else new_run(time.time())
    lease = None if job.run else take_lease(run)
    notes = proxies.notes if job.run else (*proxies.notes, *remove_dead())
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    facts = ClusterFacts(address, is_own=False, run=run, nodes=nodes, http=proxies.http, token=token)
    return Connection(DriverReady(facts, notes), proxies.port, lease)


def alive_nodes() -> frozenset[str]:
    """Ray's ids of the nodes that are alive."""
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


_PROBE_S = 45.0
"""Time limit for the first task on a node, in seconds; the node starts a process for it and imports this package."""
_SERVE_PORT = 8000  # Default port of Ray Serve
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - other nodes have to reach the proxies


def connect_to(job: RayJob, runtime_env: Mapping[str, Any]) -> str:
    """Connect this process to the cluster of a job. ``runtime_env``: of our processes there, with absolute paths."""
    assert job.address is not None
    if job.address != "auto":
        require_reachable(job.address, job.source)
    try:
        context = ray.init(
            address=job.address,
            namespace=NAMESPACE,
            runtime_env=dict(runtime_env) or None,
            log_to_driver=False,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError) as error:
        raise SettingError(f"{job.source}={job.address}: {why_refused(error, job.source, ray.__version__)}") from error
    address: str = context.address_info["gcs_address"]
    return address


def require_fit(job: RayJob) -> tuple[NodeFacts, ...]:
    """The facts of every node, each of which has to have this package."""
    here = ray.get_runtime_context().get_node_id() if job.run else ""  # whose first driver has looked at its workers
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        (node, None if node["NodeID"] == here else on_node(probe, node["NodeID"], max_retries=0).remote(node))
        for node in nodes
    ]
    found = [probe(node) if answer is None else _answer_of(node, answer) for node, answer in asked]
    return tuple(sorted((probed.facts for probed in found), key=lambda node: (not node.is_head, node.ip)))


def _answer_of(node: Mapping[str, Any], answer: Any) -> Probed:
    ip, mine = node["NodeManagerAddress"], own_version()
    try:
        probed: Probed = ray.get(answer, timeout=_PROBE_S)
    except ray.exceptions.GetTimeoutError:
        raise SettingError(
            f"node {ip} of the cluster started no task within {_PROBE_S:g}s; look at its load with ray status"
        ) from None
    except ray.exceptions.RayError as error:
        if "pytest_mlpatterns" not in str(error):
            raise SettingError(f"node {ip} of the cluster cannot run a task: {error}") from error
        raise SettingError(_without_package(ip, "none", mine)) from error
    if probed.package != mine:
        raise SettingError(_without_package(ip, probed.package or "an unknown version", mine))
    return probed


def _without_package(ip: str, found: str, mine: str) -> str:
    return (
        f"node {ip} of the cluster has no pytest-mlpatterns {mine} (found: {found}); install it in the nodes' image, "
        f'or name it: perf_ray_runtime_env = {{"pip": ["pytest-mlpatterns=={mine}"]}}'
    )


class Proxies(Struct, frozen=True):
    """The HTTP proxies of Ray Serve."""

    http: tuple[str, int]  # host and port; an empty host if they listen on every interface of their node
    port: socket.socket | None = None
    notes: tuple[str, ...] = ()


def serve_proxies(job: RayJob, nodes: int) -> Proxies:
    """The proxies of Ray Serve, which is started if it does not run."""
    if (client := _get_global_client(raise_if_no_controller_running=False)) is None:
        return _start_serve(nodes)
    options = client.http_config
    if _location_of_proxies(client) in ("NoServer", "Disabled", "None"):
        raise SettingError(
            f"{job.source}={job.address}: Ray Serve runs there without HTTP proxies (proxy_location Disabled), through "
            "which the load goes; start Serve with proxies"
        )
    host = options.host or ""
    return Proxies(("" if host in _EVERYWHERE else host, options.port))


def _start_serve(nodes: int) -> Proxies:
    host = _LOOPBACK if nodes == 1 else _EVERYWHERE[0]
    holder = held_port(host, _SERVE_PORT)
    port: int = holder.getsockname()[1]
    try:
        serve.start(proxy_location="EveryNode", http_options={"host": host, "port": port})
    except BaseException:
        holder.close()
        raise
    if nodes == 1:
        return Proxies((host, port), holder)
    note = (
        f"Ray Serve was started on the {nodes} nodes of the cluster; its HTTP proxies listen on all interfaces of each "
        f"node, port {port}, ask for no token, and go on after this run; `serve shutdown` ends them"
    )
    return Proxies(("", port), holder, (note,))


def _location_of_proxies(client: Any) -> str:
    """Where the proxies of Ray Serve are; versions before 2.60 keep it with the options of HTTP."""
    location = client.http_config.location
    if location is None:
        location = ray.get(client._controller.get_proxy_location.remote())
    return str(getattr(location, "value", location))


_START_S = 30.0  # Time limit for the start of the actor of a lease, in seconds
_YOUNG_S = 60.0  # Age of a run below which a missing lease is looked for again: its driver may be about to take it
_AGAIN_S = 2.0  # Time until a missing lease of a young run is looked for again, in seconds
_GONE_S = 5.0  # Longest wait for the end of deleted applications, in seconds; what ends later disturbs nothing
_LOOK_S = 0.05  # Interval of looks at the applications that end, in seconds


class _Lease:
    """Does nothing but live."""

    def is_held(self) -> bool:
        """Answer that the actor has started."""
        return True


def take_lease(run: str) -> object:
    """Start the actor that shows other runs that this one lives; it ends with what is returned, or this process."""
    actor = ray.remote(_Lease).options(name=run, namespace=NAMESPACE, num_cpus=0).remote()
    ray.get(actor.is_held.remote(), timeout=_START_S)
    held: object = actor
    return held


def remove_dead() -> tuple[str, ...]:
    """Remove the applications of runs whose driver is gone."""
    now_s = time.time()
    runs = applications_by_run(_applications())
    dead = [run for run in runs if not _is_held(run)]
    if any(age_of(run, now_s) < _YOUNG_S for run in dead):
        time.sleep(_AGAIN_S)  # a name without an actor is no event
        dead = [run for run in dead if not _is_held(run)]
    _delete([name for run in dead for name in runs[run]])
    return tuple(removed_note(run, len(runs[run]), now_s) for run in dead)


def remove_applications(run: str) -> None:
    """Remove the applications of a run, or of one part of it."""
    _delete([name for name in _applications() if belongs_to(name, run)])


def _applications() -> list[str]:
    return [*serve.status().applications]


def _delete(names: Iterable[str]) -> None:
    """Delete applications and wait a little until they are gone."""
    left = set(names)
    for name in left:
        serve.delete(name, _blocking=False)
    deadline = time.monotonic() + _GONE_S
    while left and time.monotonic() < deadline:
        time.sleep(_LOOK_S)  # Serve offers no event for the end of an application
        left &= {*_applications()}


def _is_held(run: str) -> bool:
    actors = ray.util.list_named_actors(all_namespaces=True)
    return {"name": run, "namespace": NAMESPACE} in actors
