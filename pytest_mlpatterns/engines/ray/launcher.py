"""The Ray engine: starts a service plan as an application of Ray Serve, and waits until it is ready.

Ray Serve places and starts the processes, and carries requests to them. This process reaches the cluster through the
Ray driver, a child process, and never imports Ray.
"""

from __future__ import annotations

import secrets
import sys
import time
from typing import TYPE_CHECKING

from pytest_mlpatterns.engines.ray.application_plan import Application, application_plan
from pytest_mlpatterns.engines.ray.messages import RayApplication
from pytest_mlpatterns.engines.ray.processes import RayProcesses
from pytest_mlpatterns.errors import ChildError, DeploymentError
from pytest_mlpatterns.patterns.arguments import EMBEDDED
from pytest_mlpatterns.patterns.pattern import layers_in
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.serving.deployment import Deployment, Traits
from pytest_mlpatterns.serving.readiness import await_ready, left_s, too_slow_to_load
from pytest_mlpatterns.wire import codec_of
from pytest_mlpatterns.workload.endpoint import Endpoint

if TYPE_CHECKING:
    from pytest_mlpatterns.engines.ray.cluster import ClusterFacts
    from pytest_mlpatterns.engines.ray.messages import ApplicationPlan
    from pytest_mlpatterns.engines.ray.session import RaySession
    from pytest_mlpatterns.serving.model import ServicePlan
    from pytest_mlpatterns.serving.redis.embedded_server import EmbeddedServer
    from pytest_mlpatterns.serving.start_options import StartOptions

__all__ = ["launch"]

_REMOTE = "pytest_mlpatterns.engines.ray.remote.applications"


def launch(plan: ServicePlan, options: StartOptions, session: RaySession) -> Deployment:
    """Start a service and wait until it is ready."""
    facts = session.cluster
    started_ns = time.perf_counter_ns()
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
    processes = RayProcesses(session, _running(planned, facts), servers=servers)
    try:
        return _start(plan, options, planned, processes=processes, session=session, started_ns=started_ns)
    except BaseException:
        processes.stop()
        raise


def _start(
    plan: ServicePlan,
    options: StartOptions,
    planned: ApplicationPlan,
    *,
    processes: RayProcesses,
    session: RaySession,
    started_ns: int,
) -> Deployment:
    facts = session.cluster
    try:
        session.call(f"{_REMOTE}:deploy", planned, timeout_s=left_s(started_ns, options))
        processes.await_loaded(started_ns + options.timeout_ns, plan.name, options)
        wait_s = left_s(started_ns, options)
        addresses = session.call(f"{_REMOTE}:addresses", planned, facts.http, wait_s, timeout_s=wait_s)
    except TimeoutError:
        log = session.log_tail()
        raise too_slow_to_load("service", plan.name, log, options=options) from None
    except ChildError as error:
        said = f"{plan.name} on the Ray cluster at {facts.address}: {error}"
        raise DeploymentError(said, subject=plan.name, of_model=True) from error
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
    try:
        await_ready(deployment, plan.name, started_ns, options=options)
    except BaseException:
        deployment.close()
        raise
    return deployment


def _own_servers(plan: ServicePlan, options: StartOptions) -> tuple[EmbeddedServer, ...]:
    """Start the store of a service that names none; all nodes lie on this machine then."""
    if not any(EMBEDDED in layer.pattern.servers for layer in layers_in(plan.root)):
        return ()
    from pytest_mlpatterns.serving.redis.embedded_server import start_embedded

    return (start_embedded(options.directory, options.timeout_ns),)


def _running(planned: ApplicationPlan, facts: ClusterFacts) -> RayApplication:
    deployments = planned.deployments
    return RayApplication(
        app=planned.app,
        run=planned.run,
        deployments=tuple(one.name for one in deployments),
        restarts=tuple(one.name for one in deployments if one.job.restarts),
        cores=facts.cores,
        nodes=tuple(node.node_id for node in facts.nodes),
        replicas=sum(one.replicas for one in deployments),
    )
