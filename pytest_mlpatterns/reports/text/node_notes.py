"""What the nodes of a cluster did for a test, in one line. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.units import format_percent, format_size
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_mlpatterns.records.node_figures import NodeFigures

__all__ = ["nodes_text"]


def nodes_text(nodes: Iterable[NodeFigures]) -> str:
    """Replicas, CPU and memory of each node: ``10.0.0.2 2 replicas 43 % of 16 cores 210 MiB``; empty without any."""
    return " · ".join(
        f"{node.node} {count(node.replicas, 'replica')} {format_percent(node.cpu_share)} of {node.cores:g} "
        f"{'core' if node.cores == 1 else 'cores'} {format_size(node.peak_rss_bytes)}"
        for node in nodes
    )
