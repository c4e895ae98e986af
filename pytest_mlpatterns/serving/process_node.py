"""What one process of a service does with a request, whichever engine started it: a tree of nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PackedLayer", "QueueNode"]


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """The layer of a pickled pattern around the nodes inside.

    A node inside is another layer, a :class:`~pytest_mlpatterns.patterns.pattern.ModelNode`, a :class:`QueueNode`, or a
    node of the engine that stands for a process group behind this process.
    """

    pattern: bytes
    position: int
    inside: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class QueueNode:
    """A running process group that takes requests from a stream of a broker."""

    url: str
    stream: str
