"""What the local engine sends to a worker process: values that cross the pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.patterns.pattern import ModelNode
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.serving.processes import PackedLayer, QueueNode
from pytest_mlpatterns.wire import REST_JSON, Wire

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.serving.redis.queue_worker import Subscription

__all__ = ["Call", "Consume", "Listen", "ListenGrpc", "UpstreamNode", "WorkerJob", "WorkerNode"]


class UpstreamNode(Struct, frozen=True):
    """A running process group, as the process before it reaches it.

    Args:
        addresses: ``(host, port)`` of its processes.
        balance: least outstanding: call the process with the fewest requests in flight; otherwise each in turn.
        in_flight: number of requests that a queue should have in flight at each process.
    """

    addresses: tuple[tuple[str, int], ...]
    path: str
    position: int
    balance: Balance = Balance.ROUND_ROBIN
    in_flight: int = 1
    wire: Wire = REST_JSON


WorkerNode = PackedLayer | UpstreamNode | QueueNode | ModelNode
"""What one process does with a request: a tree of nodes whose processes are running."""


class Listen(Struct, frozen=True):
    """Serve HTTP on an inherited listening socket.

    Args:
        internal: for other processes of the deployment only.
    """

    socket_fd: int
    internal: bool


class ListenGrpc(Struct, frozen=True):
    """Serve gRPC on this port of 127.0.0.1, which the parent holds."""

    port: int


class Consume(Struct, frozen=True):
    """Take requests from a broker; ``position`` is that of the queue in the composition."""

    subscription: Subscription
    position: int


class Call(Struct, frozen=True):
    """Serve nothing: call the model itself with these inputs, a pickled list, as the parent asks for it."""

    inputs: bytes


class WorkerJob(Struct, frozen=True):
    """What a worker does with a request, and where requests come from.

    Args:
        identity: unique for the deployment; keys in stores and brokers begin with it.
        trees: top of the tree in which the user works, and of the tree from which code is imported instead; None: there
            is one tree.
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
    own_server: str | None = None
    is_polled: bool = False
    profiled: bool = False
    traced: bool = False
