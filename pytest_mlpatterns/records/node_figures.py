"""What each node of a cluster did for a test, as reports and files show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NodeFigures"]


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """One node of a cluster over the measured windows.

    Attributes:
        node: name of the node, its address.
        cores: number of cores that its processes may use.
        replicas: number of replicas on it in the last launch.
        cpu_share: share of its cores that the replicas used.
        peak_rss_bytes: highest resident memory of the replicas.
        serve_cpu_share: share of its cores that the cluster's own processes used: proxies, schedulers, agents.
    """

    node: str
    cores: float
    replicas: int
    cpu_share: float
    peak_rss_bytes: int
    serve_cpu_share: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NodeFigures:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**data)
