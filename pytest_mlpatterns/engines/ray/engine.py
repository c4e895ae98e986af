"""The Ray engine as the layers above see it: what it can serve, and what the tests of a session share.

Loads without Ray, and without what only a test on Ray needs.
"""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from itertools import filterfalse
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pytest_mlpatterns.engines.engine import Engine
from pytest_mlpatterns.engines.ray.run import brings_code
from pytest_mlpatterns.engines.ray.session import ClusterUse, RaySession
from pytest_mlpatterns.engines.ray.settings import RUN_VARIABLE, read_ray_job
from pytest_mlpatterns.errors import ChildError, DeploymentError, MissingExtraError, SettingError, missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_mlpatterns.engines.engine import SessionOptions
    from pytest_mlpatterns.engines.ray.cluster import ClusterFacts
    from pytest_mlpatterns.engines.ray.generator_pool import RayPool
    from pytest_mlpatterns.serving.deployment import Deployment, Traits
    from pytest_mlpatterns.serving.model import ServicePlan
    from pytest_mlpatterns.serving.start_options import StartOptions
    from pytest_mlpatterns.workload.endpoint import Endpoint

__all__ = ["ENGINE", "RayEngine", "SharedRay", "access_options", "access_variables"]

_PACKAGES = ("ray", "fastapi")
"""Packages of Ray and of Ray Serve."""
_MONITORS = "pytest_mlpatterns.engines.ray.remote.node_monitor"
"""Module that asks the monitors of the nodes, in the driver."""


class RayEngine(Engine):
    """Serves a pattern as one application of Ray Serve.

    Ray reserves the cores of ``cpus_per_replica=`` on the nodes; nothing is given on this machine. The number of
    replicas of an application stays as it is.
    """

    gives_cores = True
    sends_load = True

    def require_installed(self, what: str) -> None:
        """Check that Ray is installed, without importing it."""
        if missing := [*filterfalse(_is_installed, _PACKAGES)]:
            raise MissingExtraError(missing_extra(what, missing[0], "ray"))

    def session(self, given: SessionOptions) -> SharedRay:
        """The cluster of the session, which starts on first use."""
        job = read_ray_job(given.options, given.ini, os.environ, root=given.root)
        return SharedRay(RaySession(job, given.directory / "ray-driver.log"))

    def check(self, plan: ServicePlan, options: StartOptions) -> None:
        """Check that Ray Serve can express a service."""
        from pytest_mlpatterns.engines.ray.application_plan import check_expressible

        check_expressible(plan, options, options.session.ray.cluster)

    def launch(self, plan: ServicePlan, options: StartOptions) -> Deployment:
        """Start a service and wait until it is ready."""
        from pytest_mlpatterns.engines.ray.launcher import launch

        return launch(plan, options, options.session.ray)


def _is_installed(package: str) -> bool:
    """Whether there is such a package; a folder of this name that is no package does not count."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


ENGINE = RayEngine()
"""What the entry point names."""


class SharedRay:
    """The cluster that the tests of one session share; fulfils :class:`pytest_mlpatterns.engines.engine.EngineSession`.

    Attributes:
        ray: the Ray driver.
    """

    def __init__(self, ray: RaySession) -> None:
        self.ray = ray

    @property
    def has_begun(self) -> bool:
        """Whether the driver was started."""
        return self.ray.has_begun

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know of the connection; empty before there is one."""
        return self.ray.notes

    def begin(self) -> None:
        """Start the driver without waiting for it."""
        self.ray.begin()

    def await_ready(self) -> None:
        """Wait until the driver is connected."""
        _ = self.ray.cluster

    def cluster(self) -> ClusterUse:
        """The nodes that take part in a test, from now on."""
        return ClusterUse(self.ray)

    def generators(self) -> RayPool:
        """Load generators on the nodes."""
        from pytest_mlpatterns.engines.ray.generator_pool import RayPool

        return RayPool(lambda: self.ray)

    def access_options(self, interpreter: Path | None) -> tuple[str, ...]:
        """Options by which the pytest of another revision attaches to this cluster."""
        return access_options(self.ray.cluster, self.ray.runtime_env, interpreter)

    def access_variables(self) -> Mapping[str, str]:
        """Environment variables of that pytest."""
        return access_variables(self.ray.cluster)

    def join(self) -> None:
        """In that pytest, attach to the cluster of the other side before it measures."""
        if RUN_VARIABLE in os.environ:
            _ = self.ray.cluster

    def watch(self) -> None:
        """Start the monitors of the nodes, which would end with that pytest if it started them."""
        try:
            self.ray.call(f"{_MONITORS}:open_monitors", self.ray.cluster.run)
        except (ChildError, TimeoutError) as error:
            at = self.ray.cluster.address
            raise DeploymentError(f"the Ray cluster at {at} no longer answers: {error}") from error

    def seen(self, endpoint: Endpoint, shared: Any, *, traits: Traits, on_stop: Callable[[], None]) -> Deployment:
        """An application that another process has started, read on the cluster and not through that process."""
        from pytest_mlpatterns.engines.ray.processes import RayProcesses
        from pytest_mlpatterns.serving.deployment import Deployment

        processes = RayProcesses(self.ray, shared, on_stop=on_stop)
        traits = replace(traits, make_monitor=processes.make_monitor, cores=shared.cores)
        return Deployment(endpoint, processes, traits)

    def close(self) -> None:
        """End the driver, our applications, and a cluster that it started."""
        self.ray.close()


def access_variables(cluster: ClusterFacts) -> dict[str, str]:
    """Environment variables of the process: the run that its applications belong to, and the key of the cluster."""
    key = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token} if cluster.token else {}
    return {RUN_VARIABLE: cluster.run, **key}


def access_options(
    cluster: ClusterFacts, runtime_env: Mapping[str, Any], interpreter: Path | None = None
) -> tuple[str, ...]:
    """Options of the process: the cluster of this run, and the runtime environment of the replicas there.

    Paths in it are relative; each process reads them from the root of its own tree.

    Raises:
        SettingError: replicas may lie on other machines, which have not the code of the revision.
    """
    several = len({node.machine for node in cluster.nodes}) > 1
    if several and interpreter is not None:
        raise SettingError(
            "--perf-against-env on a Ray cluster of several machines, expected one machine: replicas run in the "
            "environment of their node; leave it out"
        )
    if several and not brings_code(runtime_env):
        raise SettingError(
            "--perf-against on a Ray cluster of several machines needs the code of both revisions there; name it: "
            'perf_ray_runtime_env = {"working_dir": "."}'
        )
    own = {} if interpreter is None else {"py_executable": str(interpreter)}
    found = {**runtime_env, **own}
    code = [f"--perf-ray-runtime-env={json.dumps(found)}"] if found else []
    return (f"--perf-ray-address={cluster.address}", *code)
