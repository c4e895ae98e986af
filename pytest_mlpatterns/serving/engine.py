"""Engines by name: what starts the processes of a service plan.

An engine fulfils :class:`Engine`. A new one is a module and a line in :data:`ENGINES`, imported when first used.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pytest_mlpatterns.errors import MissingExtraError, SettingError, missing_extra
from pytest_mlpatterns.system.cpu_share import give_cpus, give_replica_cores
from pytest_mlpatterns.wire import REST_JSON, Wire
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.serving.model import ServicePlan
    from pytest_mlpatterns.system.cpu_share import CpuShare, ReplicaCores
    from pytest_mlpatterns.system.ray.session import RaySession
    from pytest_mlpatterns.workload.payload import Payload
    from pytest_mlpatterns.workload.request_builder import RequestBuilder

__all__ = [
    "ENGINES",
    "Engine",
    "StartOptions",
    "engine_named",
    "launch",
    "require_ray",
    "start_with_cpus",
    "start_with_replica_cores",
]

ENGINES = {
    "local": "pytest_mlpatterns.serving.local.launcher",
    "ray": "pytest_mlpatterns.serving.ray.launcher",
}
"""The module of each engine, by the name that ``perf(engine=...)`` takes."""
_OF_RAY = ("ray", "fastapi")
"""Packages of Ray and of Ray Serve."""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """How a deployment is started.

    Args:
        timeout_ns: start-up time limit in nanoseconds.
        payload: its first input is sent before the deployment counts as ready; None: the health check is enough.
        trees: top of the tree in which the user works, and of the tree from which code is imported instead; None: there
            is one tree.
        root: working directories of the user's own servers are relative to it.
        builder: makes the requests for the user's own servers instead of the wire.
        cpus: number of cores that the deployment gets; None for all.
        replica_cores: cores of its own for each replica, instead of ``cpus``; None for none.
        cluster: the Ray cluster of an engine that needs one; None for the others.
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
    cluster: RaySession | None = None
    profiled: bool = False
    traced: bool = False


class Engine(Protocol):
    """Starts deployments; a module with this function is one.

    A module with ``GIVES_CORES = True`` gives the cores that the options name itself; for the others, :func:`launch`
    does.
    """

    def launch(self, plan: ServicePlan, options: StartOptions) -> Deployment:
        """Start a service and wait until it is ready.

        Raises:
            ModelLoadError: the model could not be built or failed on its first inference; with its traceback.
            DeploymentError: a process ended, or was not ready in time.
        """
        ...


def engine_named(name: object, source: str) -> Engine:
    """The engine of this name.

    Raises:
        SettingError: there is no such engine.
        MissingExtraError: its packages are not installed.
    """
    if not isinstance(name, str) or name not in ENGINES:
        raise SettingError(f"{source} is {shown(name)}, expected one of {', '.join(map(repr, ENGINES))}")
    if name == "ray":
        require_ray('engine="ray"')
    return import_module(ENGINES[name])


def require_ray(what: str) -> None:
    """Check that Ray is installed, without importing it.

    Raises:
        MissingExtraError: it is not.
    """
    if missing := [*filterfalse(_is_installed, _OF_RAY)]:
        raise MissingExtraError(missing_extra(what, missing[0], "ray"))


def _is_installed(package: str) -> bool:
    """Whether there is such a package; a folder of this name that is no package does not count."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def launch(plan: ServicePlan, options: StartOptions) -> Deployment:
    """Start a service with the engine that the options name, and wait until it is ready.

    Raises:
        ModelLoadError: the model could not be built or failed on its first inference; with its traceback.
        DeploymentError: a process ended, or was not ready in time.
        SettingError: there is no such engine, or this machine cannot give the cores that the options name.
    """
    engine = engine_named(options.engine, "engine")
    if getattr(engine, "GIVES_CORES", False):
        return engine.launch(plan, options)
    if options.replica_cores is not None:
        return start_with_replica_cores(options.replica_cores, plan.root.replicas, lambda: engine.launch(plan, options))
    return start_with_cpus(options.cpus, lambda: engine.launch(plan, options))


def start_with_cpus(cpus: float | None, start: Callable[[], Deployment]) -> Deployment:
    """Start a deployment; its end releases what it was given.

    Args:
        cpus: number of cores; None for all.
        start: starts it, with :func:`pytest_mlpatterns.system.cpu_share.current_share` among its traits.

    Raises:
        SettingError: this machine cannot give it so much, or no such share.
        DeploymentError: it did not start.
    """
    return start() if cpus is None else _start_with(give_cpus(cpus), start)


def start_with_replica_cores(wanted: ReplicaCores, replicas: int, start: Callable[[], Deployment]) -> Deployment:
    """Start a deployment each of whose replicas runs on cores of its own.

    Args:
        wanted: cores of each, and the largest number of replicas.
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
