"""What a worker process is asked to do, and what it reports: values that cross the pipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.patterns.pattern import Node
    from pytest_mlpatterns.records.telemetry import LayerStats
    from pytest_mlpatterns.serving.redis.queue_worker import Subscription
    from pytest_mlpatterns.wire import Wire

__all__ = ["Consume", "Listen", "ListenGrpc", "LoadFailed", "Ready", "StatsQuestion", "WorkerJob", "WorkerStats"]


@dataclass(frozen=True, slots=True)
class Listen:
    """Serve over HTTP on an inherited listening socket; ``internal`` to other processes of the deployment only."""

    socket_fd: int
    internal: bool


@dataclass(frozen=True, slots=True)
class ListenGrpc:
    """Serve over gRPC on this port of 127.0.0.1, which the parent holds."""

    port: int


@dataclass(frozen=True, slots=True)
class Consume:
    """Take requests from a broker; ``position`` is that of the queue in the composition."""

    subscription: Subscription
    position: int


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """What a worker does with a request, and where requests come from.

    ``identity`` is unique for the deployment. ``trees`` are the tops of the tree in which the user works and of the one
    from which code is to come instead; None: there is one tree. ``wire`` is how the deployment's clients speak to it,
    ``position`` where this process stands in the composition. ``jobs`` answers 202 and keeps results until they are
    fetched.
    """

    node: Node
    name: str
    identity: str
    source: Listen | ListenGrpc | Consume
    import_path: tuple[str, ...]
    trees: tuple[Path, Path] | None
    max_body_bytes: int
    wire: Wire
    position: int
    jobs: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is built and requests are taken."""


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model could not be built; the traceback is the user's."""

    traceback: str


@dataclass(frozen=True, slots=True)
class StatsQuestion:
    """Asks a worker what it knows of itself."""

    number: int


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What one worker knows of itself since its start, in answer to the question of this number."""

    number: int
    predict_requests: int
    tracebacks: tuple[str, ...]
    layers: tuple[LayerStats, ...] = ()
