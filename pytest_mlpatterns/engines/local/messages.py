"""What the local engine sends to a worker process: values that cross the pipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.patterns.pattern import ModelNode
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.serving.processes import PackedLayer, QueueNode
from pytest_mlpatterns.wire import REST_JSON, Wire

if TYPE_CHECKING:
    from pytest_mlpatterns.records.samples import Traced
    from pytest_mlpatterns.serving.redis.queue_worker import Subscription


class UpstreamNode(Struct, frozen=True):
    """A running process group, as the process before it reaches it."""

    addresses: tuple[tuple[str, int], ...]  # ``(host, port)`` of its processes
    path: str
    position: int
    # least outstanding: call the process with the fewest requests in flight; otherwise each in turn
    balance: Balance = Balance.ROUND_ROBIN
    in_flight: int = 1  # number of requests that a queue should have in flight at each process
    wire: Wire = REST_JSON


WorkerNode = PackedLayer | UpstreamNode | QueueNode | ModelNode
"""What one process does with a request: a tree of nodes whose processes are running."""


class Listen(Struct, frozen=True):
    """Serve HTTP on an inherited listening socket."""

    socket_fd: int
    internal: bool  # for other processes of the deployment only


class ListenGrpc(Struct, frozen=True):
    """Serve gRPC on this port of 127.0.0.1, which the parent holds."""

    port: int


class Call(Struct, frozen=True):
    """Serve nothing: call the model itself with these inputs, a pickled list, as the parent asks for it."""

    inputs: bytes


class WorkerJob(Struct, frozen=True):
    """What a worker does with a request, and where requests come from."""

    node: WorkerNode
    name: str
    identity: str  # unique for the deployment; keys in stores and brokers begin with it
    source: Listen | ListenGrpc | Subscription | Call
    import_path: tuple[str, ...]
    # top of the tree in which the user works, and of the tree from which code is imported instead; None: there is
    # one tree
    trees: tuple[Path, Path] | None
    max_body_bytes: int
    wire: Wire
    position: int
    own_server: str | None = None  # address of the server that the deployment started for itself; None: it needs none
    is_polled: bool = False  # requests are answered 202, and results are kept until clients fetch them
    profiled: bool = False
    traced: Traced = ""
    counted: bool = False
