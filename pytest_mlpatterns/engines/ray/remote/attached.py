"""A cluster that runs already: connects to it, and checks that it fits this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.context import _get_global_client

from pytest_mlpatterns.engines.ray.address import require_reachable, why_refused
from pytest_mlpatterns.engines.ray.remote.nodes import NAMESPACE, is_head, on_node, own_version, probe
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.sockets import held_port

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from pytest_mlpatterns.engines.ray.cluster import NodeFacts
    from pytest_mlpatterns.engines.ray.messages import RayJob
    from pytest_mlpatterns.engines.ray.remote.nodes import Probed

__all__ = ["connect_to", "require_fit", "serve_proxies"]

_PROBE_S = 45.0
"""Time limit for the first task on a node, in seconds; the node starts a process for it and imports this package."""
_SERVE_PORT = 8000
"""Default port of Ray Serve."""
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - other nodes have to reach the proxies
_LOOPBACK = "127.0.0.1"


def connect_to(job: RayJob, runtime_env: Mapping[str, Any]) -> str:
    """Connect this process to the cluster of a job.

    Args:
        runtime_env: of our processes there, with absolute paths.

    Returns:
        The address of the cluster.

    Raises:
        SettingError: it cannot be reached, runs other versions, or has no node on this machine.
    """
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
    """The facts of every node, each of which has to have this package.

    Raises:
        SettingError: a node lacks it, or has another version.
    """
    here = ray.get_runtime_context().get_node_id() if job.run else ""  # whose first driver has looked at its workers
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [(node, None if node["NodeID"] == here else _probe_on(node)) for node in nodes]
    found = [_probe_here(node) if answer is None else _answer_of(node, answer) for node, answer in asked]
    return tuple(sorted((probed.facts for probed in found), key=lambda node: (not node.is_head, node.ip)))


def _probe_on(node: Mapping[str, Any]) -> Any:
    return on_node(probe, node["NodeID"], max_retries=0).remote(
        node["NodeID"], node["NodeManagerAddress"], is_head=is_head(node)
    )


def _probe_here(node: Mapping[str, Any]) -> Probed:
    return probe(node["NodeID"], node["NodeManagerAddress"], is_head=is_head(node))


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


@dataclass(frozen=True, slots=True)
class Proxies:
    """The HTTP proxies of Ray Serve.

    Attributes:
        http: host and port; an empty host if they listen on every interface of their node.
    """

    http: tuple[str, int]
    port: socket.socket | None = None
    notes: tuple[str, ...] = ()


def serve_proxies(job: RayJob, nodes: int) -> Proxies:
    """The proxies of Ray Serve, which is started if it does not run.

    Args:
        nodes: how many the cluster has; on a single one Serve is started for this machine only.

    Raises:
        SettingError: Ray Serve runs without proxies.
    """
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
