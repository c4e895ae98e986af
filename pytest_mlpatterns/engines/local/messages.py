"""What the local engine sends to a worker process: values that cross the pipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.patterns.pattern import ModelNode
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.serving.processes import PackedLayer, QueueNode
from pytest_mlpatterns.wire import REST_JSON, Wire

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.serving.redis.queue_worker import Subscription

__all__ = [
    "Call",
    "Consume",
    "EndReplica",
    "Listen",
    "ListenGrpc",
    "ReplicaDied",
    "ReplicaEnded",
    "ReplicaFailed",
    "ReplicaNews",
    "ReplicaStarted",
    "ReplicaWish",
    "StartReplicas",
    "UpstreamNode",
    "WorkerJob",
    "WorkerNode",
]


@dataclass(frozen=True, slots=True)
class UpstreamNode:
    """A running process group, as the process before it reaches it.

    Args:
        addresses: ``(host, port)`` of its processes.
        balance: least outstanding: call the process with the fewest requests in flight; otherwise each in turn.
        in_flight: number of requests that a queue should have in flight at each process.
        scaled: number of the group, if its processes come and go; None: they stay.
    """

    addresses: tuple[tuple[str, int], ...]
    path: str
    position: int
    balance: Balance = Balance.ROUND_ROBIN
    in_flight: int = 1
    wire: Wire = REST_JSON
    scaled: int | None = None


WorkerNode = PackedLayer | UpstreamNode | QueueNode | ModelNode
"""What one process does with a request: a tree of nodes whose processes are running."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Serve HTTP on an inherited listening socket.

    Args:
        internal: for other processes of the deployment only.
        stops: a request is stopped when its client closes the connection.
    """

    socket_fd: int
    internal: bool
    stops: bool = False


@dataclass(frozen=True, slots=True)
class ListenGrpc:
    """Serve gRPC on this port of 127.0.0.1, which the parent holds."""

    port: int


@dataclass(frozen=True, slots=True)
class Consume:
    """Take requests from a broker; ``position`` is that of the queue in the composition."""

    subscription: Subscription
    position: int


@dataclass(frozen=True, slots=True)
class Call:
    """Serve nothing: call the model itself with these inputs, a pickled list, as the parent asks for it."""

    inputs: bytes


@dataclass(frozen=True, slots=True)
class StartReplicas:
    """A gateway asks its parent for more replicas of a scaled group."""

    group: int
    number: int


@dataclass(frozen=True, slots=True)
class EndReplica:
    """A gateway has no more requests for a replica, which gets none from now on."""

    group: int
    address: tuple[str, int]


ReplicaWish = StartReplicas | EndReplica
"""What a gateway asks its parent for."""


@dataclass(frozen=True, slots=True)
class ReplicaStarted:
    """A replica is ready."""

    group: int
    address: tuple[str, int]


@dataclass(frozen=True, slots=True)
class ReplicaEnded:
    """A replica has ended, as its gateway asked."""

    group: int
    address: tuple[str, int]


@dataclass(frozen=True, slots=True)
class ReplicaDied:
    """A replica has ended by itself."""

    group: int
    address: tuple[str, int]


@dataclass(frozen=True, slots=True)
class ReplicaFailed:
    """A replica could not start, for this reason."""

    group: int
    reason: str


ReplicaNews = ReplicaStarted | ReplicaEnded | ReplicaDied | ReplicaFailed
"""What a gateway gets from its parent."""


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """What a worker does with a request, and where requests come from.

    Args:
        identity: unique for the deployment; keys in stores and brokers begin with it.
        trees: top of the tree in which the user works, and of the tree from which code is imported instead; None: there
            is one tree.
        models: names of the models that requests may name; empty: there is one, which has the name.
        own_server: address of the server that the deployment started for itself; None: it needs none.
        is_polled: requests are answered 202, and results are kept until clients fetch them.
    """

    node: WorkerNode
    name: str
    identity: str
    source: Listen | ListenGrpc | Consume | Call
    import_path: tuple[str, ...]
    trees: tuple[Path, Path] | None
    max_body_bytes: int
    wire: Wire
    position: int
    models: tuple[str, ...] = ()
    own_server: str | None = None
    is_polled: bool = False
    profiled: bool = False
    traced: bool = False
