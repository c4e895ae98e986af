"""The HTML report's part on each test: its verdict, its set-up, its charts, and its tables. Pure.

The tables are of every metric, of the nodes of a cluster, and of what changed in the environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import (
    GROWTHS,
    is_known_metric,
    metrics_in,
    nmrt_metric,
    objectives_of,
    priced_metric,
    with_role,
)
from pytest_mlpatterns.analysis.metrics.metric import Group, Role
from pytest_mlpatterns.records.outcomes import describe_failures
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.html.chart import heading_of
from pytest_mlpatterns.reports.html.charts import charts_of, deciding_charts
from pytest_mlpatterns.reports.html.flame_graph import flame_graph
from pytest_mlpatterns.reports.html.fragments import (
    NO_VERDICT,
    anchors_of,
    breakable,
    chart_figure,
    link_to,
    scrolling,
    state_mark,
    state_of,
    tone_of,
)
from pytest_mlpatterns.reports.html.latency_charts import is_goodput
from pytest_mlpatterns.reports.html.markup import Markup, tag
from pytest_mlpatterns.reports.text.comparison import (
    compared_line,
    comparison_row,
    comparisons_of,
    figure_of,
    shown_change,
)
from pytest_mlpatterns.reports.text.failure import measured_counts, next_step
from pytest_mlpatterns.reports.text.notes import tokens_text
from pytest_mlpatterns.reports.text.suspicions import Command, run_again
from pytest_mlpatterns.reports.text.where import where_texts
from pytest_mlpatterns.units import format_percent, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.launch import NodeFigures
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.setup import FactChange
    from pytest_mlpatterns.records.verdict import Verdict


__all__ = ["details_section", "metric_table", "node_table"]


_MOST_OPEN = 3
"""Number of tests that are open at first."""
_OUTCOMES = {Outcome.PASS: "passed", Outcome.FAIL: "failed", Outcome.INCONCLUSIVE: "undecided"}


def details_section(results: Sequence[TestResult]) -> Markup | None:
    """One part per test: its verdict, its metrics and its charts."""
    if not results:
        return None
    few = len(results) <= _MOST_OPEN
    urgent = [number for number, result in enumerate(results) if state_of(result) == "failed"][:_MOST_OPEN]
    parts = [
        _test(number, anchor, result, is_open=few or number in urgent)
        for number, (anchor, result) in enumerate(zip(anchors_of(results), results, strict=True))
    ]
    button = tag("button", "Open all", id="open-all", class_="plain", type="button") if len(results) > 1 else None
    return tag(
        "section",
        tag("div", tag("h2", "Tests", id="tests", tabindex=-1), button, class_="heading"),
        *parts,
        aria_labelledby="tests",
    )


def _test(number: int, anchor: str, result: TestResult, *, is_open: bool) -> Markup:
    state = state_of(result)
    brief = ", ".join(
        f"{metric.label} {metric.show(figure[0])}"
        for name, metric in with_role(Role.PRIMARY, streams=result.stream is not None).items()
        if (figure := figure_of(result, name)) is not None
    )
    deciding = deciding_charts(result)
    figures = [
        chart_figure(f"test-{number}-{position}", chart)
        for position, chart in enumerate((*deciding, *charts_of(result)))
    ]
    decided, measured = figures[: len(deciding)], figures[len(deciding) :]
    return tag(
        "details",
        tag(
            "summary",
            state_mark(state),
            tag("span", tag("h3", breakable(result.test), class_="id"), class_="name"),
            tag("span", brief, class_="brief"),
        ),
        tag(
            "div",
            _reasons(result),
            _where(result),
            _next(result),
            _comparison(result),
            environment_table(result),
            tag(
                "div",
                tag("div", metric_table(result), node_table(result.conditions.nodes)),
                tag("div", _set_up(result, anchor), tag("div", *decided, class_="charts")),
                class_="columns",
            ),
            flame_graph(f"test-{number}-flame", result.causes.profile) if result.causes.profile is not None else None,
            tag("div", *measured, class_="charts"),
            class_="inside",
        ),
        class_="test",
        id=anchor,
        open=is_open,
    )


def _reasons(result: TestResult) -> Markup:
    """The verdicts in words; a passing comparison is a row of the table below only."""
    shown = [
        verdict
        for verdict in result.verdicts
        if verdict.against not in ("baseline", "revision") or verdict.outcome is not Outcome.PASS or verdict.accepted
    ]
    reasons = [
        tag(
            "li",
            state_mark(_OUTCOMES[verdict.outcome]),
            tag("span", f"{verdict.reason}; accepted is {verdict.accepted}" if verdict.accepted else verdict.reason),
        )
        for verdict in shown
    ]
    if result.judged.unjudged is not None:
        reasons.append(tag("li", state_mark("failed"), tag("span", result.judged.unjudged.reason)))
    if not reasons:
        calm = "no compared metric is worse beyond its tolerance" if result.verdicts else ""
        failed = state_of(result) == "failed"
        word = NO_VERDICT if failed else calm or "no limit and no baseline to compare with"
        reasons = [tag("li", state_mark(state_of(result)), tag("span", word))]
    return tag("ul", *reasons, class_="reasons")


def _where(result: TestResult) -> Markup | None:
    """Where the time of a failure is; None if that is not known."""
    texts = where_texts(result, result.verdicts)
    if not texts:
        return None
    more = [tag("li", text) for text in texts[1:]]
    first = tag("p", tag("b", "Where:"), " ", texts[0], class_="next")
    return Markup(first + (tag("ul", *more, class_="notes") if more else ""))


def _next(result: TestResult) -> Markup | None:
    """The next step after a verdict that is not a pass."""
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        if judged := [verdict for verdict in result.verdicts if verdict.outcome is outcome]:
            lines = next_step(judged, result)
            parts: list[str] = []
            for before, line in zip(["", *lines], lines, strict=False):
                parts.append("; " if isinstance(before, Command) else " ")
                parts.append(tag("code", breakable(line)) if isinstance(line, Command) else line)
            return tag("p", tag("b", "Next:"), *parts, class_="next")
    return None


def _comparison(result: TestResult) -> Markup | None:
    """Each compared metric: both values, the change with its interval, the tolerance and the outcome."""
    if not comparisons_of(result):
        return None
    other = "Reference" if result.reference is None else result.reference.kind.capitalize()
    columns = {
        "Compared": None,
        other: "number",
        "Present": "number",
        "Change": "number",
        "Interval": "number interval",
        "Tolerance": "number tolerance",
        "Outcome": None,
    }
    head = [tag("th", text, scope="col", class_=kind) for text, kind in columns.items()]
    rows = [_comparison_row(verdict, result.definition.tolerance) for verdict in comparisons_of(result)]
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="figures comparison")
    missing = compared_line(result)
    note = tag("p", missing, class_="muted") if missing else ""
    return Markup(scrolling(table, "Comparison") + note)


def _comparison_row(verdict: Verdict, tolerance: float) -> Markup:
    row = comparison_row(verdict)
    mark = state_mark(_OUTCOMES[verdict.outcome], "suspected" if verdict.suspected else None)
    return tag(
        "tr",
        tag("td", row.label),
        tag("td", row.reference, class_="number less"),
        tag("td", row.present, class_="number"),
        tag("td", tag("span", row.change, class_=tone_of(verdict, tolerance)), class_="number"),
        tag("td", row.interval or "–", class_="number less interval"),
        tag("td", row.tolerance, class_="number less tolerance"),
        tag("td", mark),
    )


def _set_up(result: TestResult, anchor: str) -> Markup:
    """The set-up, the amount measured, the notes, the command that runs the test again, and a link to it."""
    setup, other = result.setup, result.reference
    failed = sum(result.measured.failed_requests.values())
    kinds = describe_failures(
        {int(code): count for code, count in result.measured.failed_requests.items()}, result.measured.first_failure
    )
    facts = {
        "Pattern": str(setup.pattern),
        "Load": str(setup.load),
        "Wire": setup.wire,
        "Engine": setup.engine,
        "Price": str(result.definition.price or ""),
        "Payload": setup.payload[:19],
        "Model version": setup.model,
        "Compared with": other.name if other else "",
        "Baseline": result.judged.baseline_note,
        "Measured": f"{', '.join(measured_counts(result))} in {result.measured.seconds_spent:.1f} s",
        "Failed requests": f"{failed:,} ({kinds})" if failed else "",
        "Tokens": tokens_text(result.stream) if result.stream is not None else "",
    }
    items = [part for name, text in facts.items() if text for part in (tag("dt", name), tag("dd", text))]
    if result.definition.location is not None:
        where = tag("code", f"{result.definition.location.file}:{result.definition.location.line}")
        items += [tag("dt", "Defined at"), tag("dd", where)]
    items += [tag("dt", "Run again"), tag("dd", tag("code", breakable(run_again(result))))]
    items += [tag("dt", "Link"), tag("dd", link_to(anchor, "#", breakable(anchor)))]
    notes = [tag("li", text) for text in (*result.judged.notes, *map(str, result.conditions.noise))]
    return Markup(tag("dl", *items, class_="facts") + (tag("ul", *notes, class_="notes") if notes else ""))


def metric_table(result: TestResult) -> Markup | None:
    """Every metric with its interval, and with the reference that it was compared with."""
    if not result.metrics:
        return None
    other = result.reference
    named: dict[str, Sequence[str]] = {group: metrics_in(group) for group in Group if group is not Group.OTHERS}
    known = {name for names in named.values() for name in names}
    searched = (
        *(name for name in result.metrics if is_goodput(name)),
        *(name for name, objective in objectives_of(result.metrics).items() if objective is not None),
    )
    others = [name for name in result.metrics if name not in known and name not in searched and is_known_metric(name)]
    parts: dict[str, Sequence[str]] = {
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
