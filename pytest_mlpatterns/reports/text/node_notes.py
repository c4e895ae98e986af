"""What the nodes of a cluster did for a test, in a line each. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_mlpatterns.units import format_duration, format_percent, format_size
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_mlpatterns.records.launch import GeneratorPart
    from pytest_mlpatterns.records.node_figures import NodeFigures

__all__ = ["generators_text", "nodes_text"]


def nodes_text(nodes: Iterable[NodeFigures]) -> str:
    """Replicas, CPU and memory of each node: ``10.0.0.2 2 replicas 43 % of 16 cores 210 MiB``; empty without any."""
    return " · ".join(
        f"{node.node} {count(node.replicas, 'replica')} {format_percent(node.cpu_share)} of {node.cores:g} "
        f"{'core' if node.cores == 1 else 'cores'} {format_size(node.peak_rss_bytes)}"
        for node in nodes
    )


def generators_text(parts: Sequence[GeneratorPart]) -> str:
    """Where the load generators ran, how evenly they began, and how well their clocks are known; empty without any."""
    if not parts:
        return ""
    by_node = Counter(part.node for part in parts)
    late = [part.opened_late_ns for part in parts]
    found = [f"{number} on {node}" for node, number in by_node.items()]
    if len(parts) > 1:
        found.append(f"begun within {format_duration(max(late) - min(late))} of each other")
    if error_ns := max(part.clock_error_ns for part in parts):
        found.append(f"clocks known to ±{format_duration(error_ns)}")
    return ", ".join(found)
