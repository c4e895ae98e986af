"""CPU and memory of each node of a cluster over the windows of several launches. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.records.node_figures import NodeFigures

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_mlpatterns.records.launch import Launch, NodeUsage, Usage
    from pytest_mlpatterns.records.samples import Window

__all__ = ["node_figures"]


def node_figures(launches: Iterable[Launch]) -> tuple[NodeFigures, ...]:
    """The figures of every node that had replicas in a launch, by name; empty without a cluster.

    A share is the time used in all windows in which the node had replicas, over the core time of these windows.
    """
    found: dict[str, list[tuple[Usage, NodeUsage, Window]]] = {}
    for launch in launches:
        if launch.usage is not None and launch.window.duration_ns > 0:
            for node in launch.usage.nodes:
                found.setdefault(node.node, []).append((launch.usage, node, launch.window))
    return tuple(_figures(found[name]) for name in sorted(found))


def _figures(parts: Sequence[tuple[Usage, NodeUsage, Window]]) -> NodeFigures:
    used_ns = serve_ns = core_ns = 0.0
    peaks = []
    for usage, node, window in parts:
        edges = np.array([window.start_ns, window.end_ns], dtype=np.float64)
        used_ns += float(np.diff(np.interp(edges, usage.time_ns, node.cpu_ns))[0])
        serve_ns += float(np.diff(np.interp(edges, usage.time_ns, node.serve_cpu_ns))[0])
        core_ns += node.cores * window.duration_ns
        inside = (usage.time_ns >= window.start_ns) & (usage.time_ns <= window.end_ns)
        peaks.append(int((node.rss_bytes[inside] if inside.any() else node.rss_bytes).max()))
    last = parts[-1][1]
    return NodeFigures(last.node, last.cores, last.replicas, used_ns / core_ns, max(peaks), serve_ns / core_ns)
