"""Applications on Ray Serve: deployed, looked at and deleted; called in the driver."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.schema import ApplicationStatus, ProxyStatus

from pytest_mlpatterns.engines.ray.application_plan import shortage
from pytest_mlpatterns.engines.ray.messages import ApplicationPlan, DeploymentPlan
from pytest_mlpatterns.engines.ray.remote.node_monitor import monitors
from pytest_mlpatterns.engines.ray.remote.replica import GroupReplica, ServiceReplica
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.records.addressing import Balance

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
    monitors.open_monitors(plan.run)
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
    """Check that the cluster has the CPUs; a service that has just ended frees its own after a moment."""
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

    ``http``: host and port of the proxies; an empty host stands for the address of each node.
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
            for reading in monitors.read(plan.run, plan.app)
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
