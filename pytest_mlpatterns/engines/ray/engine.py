"""The Ray engine: starts a service plan as an application of Ray Serve, and what the tests of a session share.

Ray Serve places and starts the processes, and carries requests to them. This process reaches the cluster through the
Ray driver, a child process, and never imports Ray.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pytest_mlpatterns.engines.engine import Engine, SessionOptions
from pytest_mlpatterns.engines.ray.application_plan import application_plan, check_expressible
from pytest_mlpatterns.engines.ray.cluster import ClusterFacts
from pytest_mlpatterns.engines.ray.cluster_monitor import MONITORS
from pytest_mlpatterns.engines.ray.messages import Application, ApplicationPlan, RayApplication
from pytest_mlpatterns.engines.ray.processes import RayProcesses
from pytest_mlpatterns.engines.ray.session import ClusterUse, RaySession, brings_code
from pytest_mlpatterns.engines.ray.settings import RUN_VARIABLE, read_ray_job
from pytest_mlpatterns.errors import ChildError, DeploymentError, MissingExtraError, SettingError, missing_extra
from pytest_mlpatterns.patterns.arguments import EMBEDDED
from pytest_mlpatterns.patterns.pattern import layers_in
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.serving.deployment import Deployment, Traits
from pytest_mlpatterns.serving.model import ServicePlan, StartOptions, ended_on_error
from pytest_mlpatterns.serving.readiness import await_ready, left_s, too_slow_to_load
from pytest_mlpatterns.wire import codec_of
from pytest_mlpatterns.workload.endpoint import Endpoint

if TYPE_CHECKING:
    from pytest_mlpatterns.engines.ray.generator_host import RayPool
    from pytest_mlpatterns.serving.redis.embedded_server import EmbeddedServer

_REMOTE = "pytest_mlpatterns.engines.ray.remote.applications"


def _own_servers(plan: ServicePlan, options: StartOptions) -> tuple[EmbeddedServer, ...]:
    """Start the store of a service that names none; all nodes lie on this machine then."""
    if not any(EMBEDDED in layer.pattern.servers for layer in layers_in(plan.root)):
        return ()
    from pytest_mlpatterns.serving.redis.embedded_server import start_embedded

    return (start_embedded(options.directory, options.timeout_ns),)


_PACKAGES = ("ray", "fastapi")  # Packages of Ray and of Ray Serve


class _RayEngine(Engine):
    """Serves a pattern as one application of Ray Serve.

    Ray reserves the cores of ``cpus_per_replica=`` on the nodes; nothing is given on this machine. The number of
    replicas of an application stays as it is.
    """

    gives_cores = True
    sends_load = True

    def require_installed(self, what: str) -> None:
        if missing := [*filterfalse(_is_installed, _PACKAGES)]:
            raise MissingExtraError(missing_extra(what, missing[0], "ray"))

    def session(self, given: SessionOptions) -> SharedRay:
        job = read_ray_job(given.options, given.ini, os.environ, root=given.root)
        return SharedRay(RaySession(job, given.directory / "ray-driver.log"))

    def check(self, plan: ServicePlan, options: StartOptions) -> None:
        check_expressible(plan, options, options.session.ray.cluster)

    def launch(self, plan: ServicePlan, options: StartOptions) -> Deployment:
        started_ns, session = time.perf_counter_ns(), options.session.ray
        facts: ClusterFacts = session.cluster
        servers = _own_servers(plan, options)
        application = Application(
            app=f"{facts.run}-{secrets.randbelow(10**9)}",
            run=facts.run,
            name=plan.name,
            wire=options.wire,
            import_path=tuple(sys.path),
            trees=options.trees,
            own_server=servers[0].url if servers else None,
            cores=options.replica_cores,
        )
        planned = application_plan(plan, application)
        running = RayApplication(
            app=planned.app,
            run=planned.run,
            restarts=tuple(one.name for one in planned.deployments if one.job.restarts),
            cores=facts.cores,
            replicas=sum(one.replicas for one in planned.deployments),
        )
        processes = RayProcesses(session, running, servers=servers)
        with ended_on_error(processes.stop):
            addresses = _deployed(plan, options, planned, processes=processes, started_ns=started_ns)
            endpoint = Endpoint(
                addresses=addresses,
                path=codec_of(options.wire).path(plan.name),
                model_name=plan.name,
                balance=Balance.ROUND_ROBIN,
                wire=options.wire,
                prefix=f"/{planned.app}",
            )
            traits = Traits(make_monitor=processes.make_monitor, cores=facts.cores, shared=processes.application)
        deployment = Deployment(endpoint, processes, traits)
        with ended_on_error(deployment.close):
            await_ready(deployment, plan.name, started_ns, options=options)
        return deployment


def _deployed(
    plan: ServicePlan,
    options: StartOptions,
    planned: ApplicationPlan,
    *,
    processes: RayProcesses,
    started_ns: int,
) -> tuple[tuple[str, int], ...]:
    """Where the application is asked, once all its replicas have loaded."""
    session = options.session.ray
    facts = session.cluster
    try:
        session.call(f"{_REMOTE}:deploy", planned, timeout_s=left_s(started_ns, options))
        processes.await_loaded(started_ns + options.timeout_ns, plan.name, options)
        wait_s = left_s(started_ns, options)
        found: tuple[tuple[str, int], ...]
        found = session.call(f"{_REMOTE}:addresses", planned, facts.http, wait_s, timeout_s=wait_s)
    except TimeoutError:
        raise too_slow_to_load("service", plan.name, session.log_tail(), options=options) from None
    except ChildError as error:
        said = f"{plan.name} on the Ray cluster at {facts.address}: {error}"
        raise DeploymentError(said, subject=plan.name, of_model=True) from error
    return found


def _is_installed(package: str) -> bool:
    """Whether there is such a package; a folder of this name that is no package does not count."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


ENGINE = _RayEngine()  # What the entry point names


class SharedRay:
    """The cluster that the tests of a session share; an :class:`pytest_mlpatterns.engines.engine.EngineSession`."""

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
        from pytest_mlpatterns.engines.ray.generator_host import RayPool

        return RayPool(lambda: self.ray)

    def access_options(self, interpreter: Path | None) -> tuple[str, ...]:
        """Options by which the pytest of another revision attaches to this cluster, with its runtime environment.

        Paths in that are relative; each process reads them from the root of its own tree.
        """
        several = len({node.machine for node in self.ray.cluster.nodes}) > 1
        if several and interpreter is not None:
            raise SettingError(
                "--perf-against-env on a Ray cluster of several machines, expected one machine: replicas run in the "
                "environment of their node; leave it out"
            )
        if several and not brings_code(self.ray.runtime_env):
            raise SettingError(
                "--perf-against on a Ray cluster of several machines needs the code of both revisions there; name it: "
                'perf_ray_runtime_env = {"working_dir": "."}'
            )
        own = {} if interpreter is None else {"py_executable": str(interpreter)}
        found = {**self.ray.runtime_env, **own}
        code = [f"--perf-ray-runtime-env={json.dumps(found)}"] if found else []
        return (f"--perf-ray-address={self.ray.cluster.address}", *code)

    def access_variables(self) -> Mapping[str, str]:
        """Environment variables of that pytest: the run that its applications belong to, and the cluster's key."""
        token = self.ray.cluster.token
        key = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}
        return {RUN_VARIABLE: self.ray.cluster.run, **key}

    def join(self) -> None:
        """In that pytest, attach to the cluster of the other side before it measures."""
        if RUN_VARIABLE in os.environ:
            _ = self.ray.cluster

    def watch(self) -> None:
        """Start the monitors of the nodes, which would end with that pytest if it started them."""
        try:
            self.ray.call(f"{MONITORS}.open_monitors", self.ray.cluster.run)
        except (ChildError, TimeoutError) as error:
            at = self.ray.cluster.address
            raise DeploymentError(f"the Ray cluster at {at} no longer answers: {error}") from error

    def seen(self, endpoint: Endpoint, shared: Any, *, traits: Traits, on_stop: Callable[[], None]) -> Deployment:
        """An application that another process has started, read on the cluster and not through that process."""
        processes = RayProcesses(self.ray, shared, on_stop=on_stop)
        traits = replace(traits, make_monitor=processes.make_monitor, cores=shared.cores)
        return Deployment(endpoint, processes, traits)

    def close(self) -> None:
        """End the driver, our applications, and a cluster that it started."""
        self.ray.close()
