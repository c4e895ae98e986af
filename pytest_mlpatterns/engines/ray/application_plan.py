"""A service plan as an application of Ray Serve: each process group a deployment, reached by a handle.

What Ray Serve cannot express is refused here, before anything starts. Pure; this module starts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pytest_mlpatterns.engines.ray.messages import Application, ApplicationPlan, DeploymentPlan, HandleNode, ReplicaJob
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.arguments import EMBEDDED, MEMORY
from pytest_mlpatterns.patterns.batched import ADAPTIVE, Batched
from pytest_mlpatterns.patterns.pattern import LayerNode, ModelNode, Node, ProcessGroup, layers_in
from pytest_mlpatterns.patterns.queued import Queued
from pytest_mlpatterns.patterns.replication import Replicated
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.serving.processes import PackedLayer
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from pytest_mlpatterns.engines.ray.cluster import ClusterFacts
    from pytest_mlpatterns.serving.model import ServicePlan, StartOptions

_ON_RAY = 'on engine="ray"'


def check_expressible(plan: ServicePlan, options: StartOptions, facts: ClusterFacts) -> None:
    """Check that Ray Serve can express a service."""
    if options.wire.protocol == "grpc":
        raise SettingError(
            f'perf(wire="grpc") {_ON_RAY}: Ray Serve routes gRPC by metadata that clients of this wire do not send; '
            "choose a wire over REST or openai"
        )
    if options.cpus is not None:
        raise SettingError(
            f"perf(cpus={options.cpus:g}) {_ON_RAY}: Ray reserves cores for a replica and limits none; "
            'give cpus_per_replica= to measure_scaling, or choose engine="local"'
        )
    for layer in layers_in(plan.root):
        _check_layer(layer)
    for group in _groups_in(plan.root):
        _check_group(group)
    machines = {node.machine for node in facts.nodes}
    owner = next((layer.pattern for layer in layers_in(plan.root) if EMBEDDED in layer.pattern.servers), None)
    if owner is not None and len(machines) > 1:
        raise SettingError(
            f"{owner} {_ON_RAY}: {EMBEDDED} listens on 127.0.0.1 of this machine, which other nodes cannot reach; "
            "name a server: redis://host:port/db"
        )


def application_plan(plan: ServicePlan, application: Application) -> ApplicationPlan:
    """The application of a service that :func:`check_expressible` has checked.

    A process group inside a replicated one has its processes for each replica; as one deployment they serve all of
    them.
    """
    walk = _Walk(application)
    walk.deploy(plan.root, times=1, queue=None, cpus=application.cores.each if application.cores else 1)
    return ApplicationPlan(application.app, tuple(walk.deployments))


def shortage(plan: ApplicationPlan, nodes: Sequence[float], free: float) -> str:
    """Why a cluster has too few CPUs for an application, and what to do; empty if it has enough."""
    largest = max(plan.deployments, key=lambda one: one.cpus)
    if plan.cpus <= free and largest.cpus <= max(nodes, default=0):
        return ""
    parts = ", ".join(
        f"{one.replicas} × {count(int(one.cpus), 'CPU')} for {one.job.role}" for one in reversed(plan.deployments)
    )
    return (
        f"this service needs {count(int(plan.cpus), 'CPU')} on the Ray cluster ({parts}), of which {free:g} are free "
        f"({count(len(nodes), 'node')} with {sum(nodes):g} in all, at most {max(nodes, default=0):g} on one); "
        "use fewer replicas, or add nodes"
    )


@dataclass(slots=True)
class _Walk:
    """Replaces the process groups of a tree by deployments, the innermost first."""

    application: Application
    deployments: list[DeploymentPlan] = field(default_factory=list)
    names: int = 0

    def deploy(self, group: ProcessGroup, *, times: int, queue: Queued | None, cpus: float = 1) -> str:
        """Plan the deployment of a process group, ``times`` as many replicas; returns its name."""
        name = f"{re.sub(r'[^A-Za-z0-9]+', '-', group.role).strip('-')}-{self.names}"
        self.names += 1
        behind: list[str] = []
        node = self._inside(group.inside, times * group.replicas, queue=None, behind=behind)
        job = ReplicaJob(self.application, node, group.role, group.position, name, restarts=group.restart)
        deployment = DeploymentPlan(
            job, times * group.replicas, group.balance, cpus=cpus, env=dict(group.env), behind=tuple(behind)
        )
        if queue is not None:
            deployment = replace(deployment, max_ongoing=group.in_flight, max_queued=queue.capacity)
        self.deployments.append(deployment)
        return name

    def _inside(
        self, node: Node, times: int, *, queue: Queued | None, behind: list[str]
    ) -> PackedLayer | HandleNode | ModelNode:
        if isinstance(node, ProcessGroup):
            name = self.deploy(node, times=times, queue=queue)
            behind.append(name)
            return HandleNode(name, node.position, node.replicas, node.in_flight)
        if isinstance(node, LayerNode):
            assert node.packed is not None, "a plan is packed by service_plan"
            own = node.pattern if isinstance(node.pattern, Queued) else None
            inside = tuple(self._inside(one, times, queue=own, behind=behind) for one in node.inside)
            return PackedLayer(node.packed, node.position, inside)
        return node


def _groups_in(node: Node) -> Iterator[ProcessGroup]:
    if isinstance(node, ProcessGroup):
        yield node
        yield from _groups_in(node.inside)
    elif isinstance(node, LayerNode):
        for inside in node.inside:
            yield from _groups_in(inside)


def _check_layer(layer: LayerNode) -> None:
    pattern = layer.pattern
    if pattern.is_polled:
        raise SettingError(
            f"{pattern} {_ON_RAY}: Queued(wait=False) keeps results for clients that poll, which Ray Serve does not; "
            "write Queued()"
        )
    if isinstance(pattern, Queued) and pattern.broker != MEMORY:
        raise SettingError(
            f"{pattern} {_ON_RAY}: the queue is Ray Serve's own, in memory; "
            f'write Queued(broker="{MEMORY}"), or choose engine="local"'
        )
    if isinstance(pattern, Replicated):
        raise SettingError(
            f"{pattern} {_ON_RAY}: handles of Ray Serve choose the replica of each request, so no layer here "
            "can; choose balance='least-outstanding', which is Serve's choice of two, or engine=\"local\""
        )
    if isinstance(pattern, Batched) and pattern.max_wait == ADAPTIVE:
        raise SettingError(
            f'{pattern} {_ON_RAY}: max_wait="{ADAPTIVE}" is a rule of this package, and Ray Serve waits a fixed time; '
            'write max_wait="5ms"'
        )


def _check_group(group: ProcessGroup) -> None:
    if group.wire is not None:
        raise SettingError(
            f"microservice(wire={group.wire}) {_ON_RAY}: handles of Ray Serve carry Python objects between "
            "deployments; leave wire= of Microservice out"
        )
    if group.balance is Balance.SHARED_SOCKET:
        raise SettingError(
            f"{group.role}s with balance={str(group.balance)!r} {_ON_RAY}: that is the kernel's choice among processes "
            "of one machine; choose 'round-robin' or 'least-outstanding'"
        )
    if group.broker is not None:
        raise SettingError(
            f"{group.role}s that take requests from a broker {_ON_RAY}: handles of Ray Serve carry them; "
            'choose engine="local"'
        )
