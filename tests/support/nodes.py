"""What the monitors of a cluster's nodes report, as values of the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.engines.ray.messages import NodeReading, RayApplication, ReplicaState, ReplicaStats
from pytest_mlpatterns.serving.processes import WorkerStats

if TYPE_CHECKING:
    from pytest_mlpatterns.records.telemetry import LayerStats

__all__ = ["APPLICATION", "RUN", "counted", "reading", "replica"]

RUN = "mlpatterns-1764146400-0123abcd"
APPLICATION = RayApplication(f"{RUN}-1", RUN, ("d0",), replicas=2)


def counted(requests: int, *layers: LayerStats, tracebacks: tuple[str, ...] = ()) -> WorkerStats:
    """Statistics of one replica."""
    return WorkerStats(1, requests, tracebacks, layers)


def replica(name: str = "a", state: ReplicaState = ReplicaState.READY, **changes: Any) -> ReplicaStats:
    """A replica of the deployment ``d0`` whose process has the number of its first letter."""
    values = {
        "deployment": "d0",
        "role": "replica",
        "position": 0,
        "replica": name,
        "pid": ord(name[0]),
        "state": state,
        "stats": counted(0) if state is ReplicaState.READY else None,
    }
    return ReplicaStats(**{**values, **changes})


def reading(node: int = 1, *replicas: ReplicaStats, **changes: Any) -> NodeReading:
    """A reading of one node, which lies on a machine of its own."""
    values = {
        "node": f"{node:056x}",
        "ip": f"10.0.0.{node}",
        "machine": f"machine-{node}",
        "clock_ns": 0,
        "cpu_ns": 0,
        "rss_bytes": 0,
        "serve_cpu_ns": 0,
        "generator_ns": 0,
        "busy_ns": 0,
        "steal_ns": 0,
        "throttled_ns": 0,
        "frequency_hz": 0,
        "cores": 4.0,
        "machine_cores": 4,
        "replicas": replicas,
    }
    return NodeReading(**{**values, **changes})
