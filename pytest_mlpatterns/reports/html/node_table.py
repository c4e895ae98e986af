"""The HTML report's table of the nodes of a cluster: what a test used of each. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.html.fragments import scrolling
from pytest_mlpatterns.reports.html.markup import Markup, tag
from pytest_mlpatterns.units import format_percent, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.node_figures import NodeFigures

__all__ = ["node_table"]

_HEADINGS = ("Node", "Replicas", "Cores", "CPU", "Peak memory", "CPU of Ray")


def node_table(nodes: Sequence[NodeFigures]) -> Markup | None:
    """A row for each node; None without a cluster."""
    if not nodes:
        return None
    head = [tag("th", text, scope="col", class_=None if text == "Node" else "number") for text in _HEADINGS]
    rows = [
        tag(
            "tr",
            tag("td", node.node),
            *(
                tag("td", text, class_="number")
                for text in (
                    str(node.replicas),
                    f"{node.cores:g}",
                    format_percent(node.cpu_share),
                    format_size(node.peak_rss_bytes),
                    format_percent(node.serve_cpu_share),
                )
            ),
        )
        for node in nodes
    ]
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="figures nodes")
    return scrolling(table, "Nodes")
