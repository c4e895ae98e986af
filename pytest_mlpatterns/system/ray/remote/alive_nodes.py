"""The nodes of the cluster at this moment."""

from __future__ import annotations

import ray

__all__ = ["alive_nodes"]


def alive_nodes() -> frozenset[str]:
    """Ray's ids of the nodes that are alive."""
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])
