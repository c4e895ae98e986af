"""Which node of a cluster each load generator runs on. Pure; it must not know Ray."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.system.ray.cluster import NodeFacts

__all__ = ["place"]


def place(placed: Sequence[str], nodes: Sequence[NodeFacts], generators: int) -> list[str]:
    """The node of each generator, in the order of their numbers.

    Generators that have a node keep it, so that their processes and ceilings are kept too. The others go in turn to the
    nodes with the fewest generators: those with most cores first, and the head last, which has Ray's own work.

    Args:
        placed: node ids of the generators that were placed before; those of nodes that are gone are placed anew.
        nodes: the nodes of the cluster that are alive; at least one.
        generators: how many generators there are to be.
    """
    order = [node.node_id for node in sorted(nodes, key=lambda node: (node.is_head, -node.cores, node.ip))]
    kept = [node if node in order else "" for node in placed[:generators]]
    found = kept + [""] * (generators - len(kept))
    counts = Counter(filter(None, found))
    for number, node in enumerate(found):
        if not node:
            found[number] = min(order, key=lambda one: counts[one])
            counts[found[number]] += 1
    return found
