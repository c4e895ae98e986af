"""Connects this process to a Ray cluster, which it starts or attaches to, and leaves it again.

A Ray of this run's own listens on the loopback interface only, asks for a token of its own, has no dashboard and keeps
its files in a directory that no other user may enter. On a cluster of others nothing is changed that is not ours.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray
from ray import serve

from pytest_mlpatterns.engines.ray.cluster import ClusterFacts
from pytest_mlpatterns.engines.ray.messages import DriverReady
from pytest_mlpatterns.engines.ray.remote.attached import connect_to, require_fit, serve_proxies
from pytest_mlpatterns.engines.ray.remote.lease import remove_applications, remove_dead, take_lease
from pytest_mlpatterns.engines.ray.remote.nodes import NAMESPACE, probe
from pytest_mlpatterns.engines.ray.run import new_run, part_of, with_absolute_paths
from pytest_mlpatterns.system.sockets import held_port

if TYPE_CHECKING:
    import socket

    from pytest_mlpatterns.engines.ray.messages import RayJob

__all__ = ["Connection", "alive_nodes", "connect"]

_OWN_CPUS = 64
"""Logical CPUs of a Ray of this run's own: as with the local engine, there may be more processes than cores."""
_STORE_BYTES = 256 << 20
"""Size of Ray's object store, far beyond what our messages need; the default is 30 % of the memory."""
_LOOPBACK = "127.0.0.1"
_FILES = "r"
"""Directory of Ray's files, below the one that no other user may enter: Ray sets the mode 0777 on all of its own."""


@dataclass(frozen=True, slots=True)
class Connection:
    """This process and a cluster.

    Attributes:
        port: holds the port of Ray Serve if this process started it.
    """

    ready: DriverReady
    port: socket.socket | None = None
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
    """Start a cluster or attach to one, and find out what it is.

    Raises:
        SettingError: it cannot be reached, or does not fit.
    """
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
    probed = probe(node["NodeID"], node["NodeManagerAddress"], is_head=True)
    return ClusterFacts(
        address=context.address_info["gcs_address"],
        is_own=True,
        run=new_run(time.time()),
        nodes=(probed.facts,),
        cpus=_OWN_CPUS,
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
    cpus = float(ray.cluster_resources().get("CPU", 0.0))
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    facts = ClusterFacts(address, is_own=False, run=run, nodes=nodes, cpus=cpus, http=proxies.http, token=token)
    return Connection(DriverReady(facts, notes), proxies.port, lease)


def alive_nodes() -> frozenset[str]:
    """Ray's ids of the nodes that are alive."""
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])
