"""How a deployment is started: what the user asked for, and the processor that it gets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_mlpatterns.system.cpu_share import give_cpus, give_replica_cores
from pytest_mlpatterns.wire import REST_JSON, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.system.cpu_share import CpuShare, ReplicaCores
    from pytest_mlpatterns.workload.payload import Payload
    from pytest_mlpatterns.workload.request_builder import RequestBuilder

__all__ = ["StartOptions", "start_with_cpus", "start_with_replica_cores"]


class StartOptions(Struct, frozen=True):
    """How a deployment is started.

    Args:
        timeout_ns: start-up time limit in nanoseconds.
        payload: its first input is sent before the deployment counts as ready; None: the health check is enough.
        directory: for sockets and logs.
        trees: top of the tree in which the user works, and of the tree from which code is imported instead; None: there
            is one tree.
        root: working directories of the user's own servers are relative to it.
        builder: makes the requests for the user's own servers instead of the wire.
        engine: name of the engine that starts patterns.
        cpus: number of cores that the deployment gets; None for all.
        replica_cores: cores of its own for each replica, instead of ``cpus``; None for none.
        session: what the engine shares in this session, whose type it alone knows; None for an engine that shares
            nothing.
        profiled: its processes permit a profiler of the same user to read them.
        traced: its processes follow their allocations, which makes them slower. Each answer of theirs may then take as
            long as the start.
    """

    timeout_ns: int
    payload: Payload | None
    directory: Path
    trees: tuple[Path, Path] | None = None
    wire: Wire = REST_JSON
    root: Path = Path()
    builder: RequestBuilder | None = None
    engine: str = "local"
    cpus: float | None = None
    replica_cores: ReplicaCores | None = None
    session: Any = None
    profiled: bool = False
    traced: bool = False


def start_with_cpus(cpus: float | None, start: Callable[[], Deployment]) -> Deployment:
    """Start a deployment; its end releases what it was given.

    Raises:
        SettingError: this machine has fewer, or cannot give such a share.
        DeploymentError: it did not start.
    """
    return start() if cpus is None else _start_with(give_cpus(cpus), start)


def start_with_replica_cores(wanted: ReplicaCores, replicas: int, start: Callable[[], Deployment]) -> Deployment:
    """Start a deployment each of whose replicas runs on cores of its own.

    Args:
        wanted: cores of each, and the largest number of replicas.
        replicas: number of replicas that start with it.
        start: starts it; an engine enters :func:`pytest_mlpatterns.system.cpu_share.share_of_replica` for each replica.

    Raises:
        SettingError: this machine has fewer cores, or no CPU affinity.
        DeploymentError: it did not start.
    """
    return _start_with(give_replica_cores(wanted, replicas), start)


def _start_with(share: CpuShare, start: Callable[[], Deployment]) -> Deployment:
    try:
        with share.current():
            return start()
    except BaseException:
        share.release()
        raise
