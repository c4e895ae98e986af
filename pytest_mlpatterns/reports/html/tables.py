"""The HTML report's tables of one test: its metrics, the nodes of the cluster, and what changed in the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import (
    GROWTHS,
    is_known_metric,
    metric_named,
    metrics_in,
    nmrt_metric,
    objectives_of,
    priced_metric,
)
from pytest_mlpatterns.analysis.metrics.metric import Group
from pytest_mlpatterns.reports.html.chart import heading_of
from pytest_mlpatterns.reports.html.fragments import breakable, scrolling, tone_of
from pytest_mlpatterns.reports.html.markup import Markup, tag
from pytest_mlpatterns.reports.html.stream_charts import is_goodput
from pytest_mlpatterns.reports.text.comparison import comparisons_of, figure_of, shown_change
from pytest_mlpatterns.units import format_percent, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.launch import NodeFigures
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.setup import FactChange

__all__ = ["environment_table", "metric_table", "node_table"]


def metric_table(result: TestResult) -> Markup | None:
    """Every metric with its interval, and with the reference that it was compared with."""
    if not result.metrics:
        return None
    other = result.reference
    named: dict[str, Sequence[str]] = {group: metrics_in(group) for group in Group if group is not Group.OTHERS}
    classes = _class_parts(result)
    known = {name for names in (*named.values(), *classes.values()) for name in names}
    searched = (
        *(name for name in result.metrics if is_goodput(name)),
        *(name for name, objective in objectives_of(result.metrics).items() if objective is not None),
    )
    others = [name for name in result.metrics if name not in known and name not in searched and is_known_metric(name)]
    parts: dict[str, Sequence[str]] = {
        **classes,
        **named,
        Group.CAPACITY: (*named[Group.CAPACITY], *searched),
        Group.OTHERS: others,
    }
    width = 5 if other else 3
    rows = []
    for title, names in parts.items():
        found = [_metric_row(name, result) for name in names if name in result.metrics]
        found += _bounds(result, width) if title == Group.CAPACITY else []
        if found:
            rows += [tag("tr", tag("th", title, scope="rowgroup", colspan=width), class_="part"), *found]
    head = [
        tag("th", "Metric", scope="col"),
        tag("th", "Value", scope="col", class_="number"),
        tag("th", "95 % interval", scope="col", class_="number interval"),
    ]
    if other:
        head += [tag("th", text, scope="col", class_="number") for text in (other.kind.capitalize(), "Change")]
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="figures")
    return scrolling(table, "Metrics")


def _class_parts(result: TestResult) -> dict[str, Sequence[str]]:
    """The metrics of each class in a mix, by its heading."""
    of = {name: metric_named(name).caller_class for name in result.metrics if is_known_metric(name)}
    return {
        f"Class {one.name}, {one.load}": [name for name, caller_class in of.items() if caller_class == one.name]
        for one in result.judged.classes
    }


def _bounds(result: TestResult, width: int) -> list[Markup]:
    """NMRT of the searches that ended before the deployment degraded, as those of decided assertions do."""
    rows = []
    for capacity in result.limits.capacities:
        metric = nmrt_metric(capacity.objective)
        if metric.name in result.metrics or not capacity.at_least:
            continue
        rows.append(
            tag(
                "tr",
                tag("td", heading_of(metric)),
                tag("td", f"≥{metric.show(capacity.nmrt.value)}", class_="number"),
                tag("td", f"a lower bound: {capacity.stopped}", class_="less", colspan=width - 2),
            )
        )
    return rows


def _metric_row(name: str, result: TestResult) -> Markup:
    metric = priced_metric(name, result.definition.price)
    value, low, high = figure_of(result, name) or result.metrics[name]
    is_of_longer_load = name in GROWTHS and low == high
    interval = "–" if is_of_longer_load else f"{metric.show(low)} to {metric.show(high)}"
    cells = [
        tag("td", heading_of(metric)),
        tag("td", metric.show(value), class_="number"),
        tag("td", interval, class_="number less interval"),
    ]
    if (other := result.reference) is not None:
        then = other.metrics.get(name, (None,))[0]
        judged = next((one for one in comparisons_of(result) if one.figure == name and one.change is not None), None)
        if judged is not None:
            then = judged.reference_value if judged.reference_value is not None else then
            changed, tone = shown_change(judged), tone_of(judged, result.definition.tolerance)
        else:
            changed = format_percent(value / then - 1, signed=True) if then else "–"
            tone = "muted"
        cells.append(tag("td", "–" if then is None else metric.show(then), class_="number less"))
        cells.append(tag("td", tag("span", changed, class_=tone), class_="number"))
    return tag("tr", *cells)


_NODE_HEADINGS = ("Node", "Replicas", "Cores", "CPU", "Peak memory", "CPU of engine")


def node_table(nodes: Sequence[NodeFigures]) -> Markup | None:
    """A row for each node; None without a cluster."""
    if not nodes:
        return None
    kinds = (None, *("number" for _ in _NODE_HEADINGS[1:]))
    head = [tag("th", text, scope="col", class_=kind) for text, kind in zip(_NODE_HEADINGS, kinds, strict=True)]
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


def environment_table(result: TestResult) -> Markup | None:
    """Every fact that differs, before and now; None if nothing does, or if one side is not known."""
    if not result.judged.facts_changed:
        return None
    head = [tag("th", text, scope="col") for text in ("Changed in the environment", "Before", "Now")]
    rows = map(_fact_row, result.judged.facts_changed)
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="figures comparison")
    return scrolling(table, "Changes in the environment")


def _fact_row(change: FactChange) -> Markup:
    before, now = change.values
    return tag(
        "tr",
        tag("td", breakable(change.label)),
        tag("td", breakable(before), class_="less"),
        tag("td", breakable(now)),
    )
