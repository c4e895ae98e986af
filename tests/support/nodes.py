"""What the monitors of a cluster's nodes report, as values of the test."""

from typing import Any

from pytest_mlpatterns.engines.ray.messages import NodeReading, RayApplication, ReplicaState, ReplicaStats
from pytest_mlpatterns.records.launch import Source, Usage, columns_of
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.serving.processes import WorkerStats

RUN = "mlpatterns-1764146400-0123abcd"
APPLICATION = RayApplication(f"{RUN}-1", RUN, replicas=2)

COLUMNS = {
    one.name: None if one.name in ("descriptors", "threads") else 0
    for one in columns_of(Usage)
    if one.source is not Source.OTHER
}
"""What a node without work reads; descriptors and threads are not counted on a cluster."""


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
        "columns": {name: value if value is None else changes.pop(name, value) for name, value in COLUMNS.items()},
        "serve_cpu_ns": 0,
        "generator_ns": 0,
        "cores": 4.0,
        "machine_cores": 4,
        "replicas": replicas,
    }
    return NodeReading(**{**values, **changes})
