"""The HTML report's part on each test: its verdict, its set-up, its charts, and its tables. Pure."""

from collections.abc import Mapping, Sequence

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
from pytest_mlpatterns.records.launch import NodeFigures
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.html.chart import heading_of
from pytest_mlpatterns.reports.html.charts import charts_of
from pytest_mlpatterns.reports.html.drawing import chart_figure, flame_graph
from pytest_mlpatterns.reports.html.fragments import (
    NO_VERDICT,
    Content,
    Markup,
    anchors_of,
    breakable,
    facts_list,
    group_of,
    link_to,
    row_of,
    section,
    state_mark,
    state_of,
    table_of,
    tag,
    tone_of,
)
from pytest_mlpatterns.reports.text.comparison import (
    compared_line,
    comparison_row,
    comparisons_of,
    figure_of,
    metric_label,
)
from pytest_mlpatterns.reports.text.failure import failures_of, measured_counts, next_step, why_open
from pytest_mlpatterns.reports.text.notes import tokens_text
from pytest_mlpatterns.reports.text.undecided import Command, run_again
from pytest_mlpatterns.reports.text.where import where_texts
from pytest_mlpatterns.units import format_percent, format_size
from pytest_mlpatterns.wording import count

_MOST_OPEN = 3  # Number of tests that are open at first
_ALONE = ", measured alone"
"""After a figure of the test's own load, where the figures beside it are of a comparison with another code."""
_URGENT = (Outcome.FAIL, Outcome.INCONCLUSIVE)
_OUTCOMES = {Outcome.PASS: "passed", Outcome.FAIL: "failed", Outcome.INCONCLUSIVE: "undecided"}


def details_section(results: Sequence[TestResult], results_file: str = "") -> Markup | None:
    """One part per test: its verdict, its metrics and its charts.

    ``results_file``: the file that has the results, as a command names it; empty if none has.
    """
    if not results:
        return None
    few = len(results) <= _MOST_OPEN
    urgent = [number for number, result in enumerate(results) if state_of(result) == "failed"][:_MOST_OPEN]
    parts = [
        _test(anchor, result, results_file, is_open=few or number in urgent)
        for number, (anchor, result) in enumerate(zip(anchors_of(one.test for one in results), results, strict=True))
    ]
    return section("tests", "Tests", *parts)


def _test(anchor: str, result: TestResult, results_file: str, *, is_open: bool) -> Markup:
    """A test: the first sentence of the terminal as its heading, and below it what stands nowhere else on the page."""
    first = next((one for outcome in _URGENT for one in result.verdicts if one.outcome is outcome), None)
    figures = tag("div", *map(chart_figure, charts_of(result)), class_="charts")
    return tag(
        "details",
        tag(
            "summary",
            state_mark(state_of(result)),
            tag("h3", breakable(result.test), class_="id"),
            tag("span", _headline(result, first)),
        ),
        tag(
            "div",
            _reasons(result, first),
            _where(result),
            _next(result, results_file),
            environment_table(result),
            metric_table(result),
            node_table(result.conditions.nodes),
            _set_up(result, anchor),
            flame_graph(result.causes.profile) if result.causes.profile is not None else None,
            figures,
            id=anchor,
        ),
        class_="test",
        open=is_open,
    )


def _headline(result: TestResult, first: Verdict | None) -> str:
    """The first sentence of the failure in the terminal; of other tests what became of them."""
    if first is not None:
        return first.reason
    if result.judged.unjudged is not None:
        return result.judged.unjudged.reason
    if state_of(result) == "failed":
        return NO_VERDICT
    if not result.verdicts:
        return "no limit and no baseline to compare with"
    compared = len(comparisons_of(result))
    return f"{count(compared, 'metric')} within tolerance" if compared else ""


def _reasons(result: TestResult, first: Verdict | None) -> Markup | None:
    """The other verdicts in words: of comparisons only what is accepted, the table below has their figures."""
    rows = {*_compared(result)}
    shown = [
        verdict
        for verdict in result.verdicts
        if verdict is not first
        and (verdict.accepted or verdict.against not in ("baseline", "revision") or verdict.figure not in rows)
    ]
    reasons = [
        tag("li", state_mark(_OUTCOMES[verdict.outcome]), tag("span", _sentence(verdict, result))) for verdict in shown
    ]
    if first is not None and result.judged.unjudged is not None:
        reasons.append(tag("li", state_mark("failed"), tag("span", result.judged.unjudged.reason)))
    return tag("ul", *reasons, class_="reasons") if reasons else None


def _sentence(verdict: Verdict, result: TestResult) -> str:
    """A verdict in words; a limit holds for the test's own load."""
    if verdict.accepted:
        return f"{verdict.reason}; accepted is {verdict.accepted}"
    return f"{verdict.reason}{_ALONE}" if verdict.against == "limit" and _is_paired(result) else verdict.reason


def _is_paired(result: TestResult) -> bool:
    """Whether the figures of the table were measured beside another code, after the test's own load."""
    return result.reference is not None and result.reference.kind == "revision"


def _where(result: TestResult) -> Markup | None:
    """Where the time of a failure is; None if that is not known."""
    texts = where_texts(result, result.verdicts)
    if not texts:
        return None
    more = [tag("li", text) for text in texts[1:]]
    first = tag("p", tag("b", "Where:"), " ", texts[0], class_="next")
    return Markup(first + (tag("ul", *more, class_="notes") if more else ""))


def _next(result: TestResult, results_file: str) -> Markup | None:
    """Why a test is undecided, and the next step after each failure, as in the terminal."""
    failures = failures_of(result)
    found: list[str] = []
    for judged in failures:
        lines, why = next_step(judged, result, results_file), why_open(judged, result)
        parts: list[str] = []
        for before, line in zip(["", *lines], lines, strict=False):
            parts.append("; " if isinstance(before, Command) else " ")
            parts.append(tag("code", breakable(line)) if isinstance(line, Command) else line)
        of = f" ({metric_label(judged[0].metric)})" if len(failures) > 1 else ""
        found += [tag("p", tag("b", "Why:"), " ", why, class_="next")] if why else []
        found.append(tag("p", tag("b", f"Next{of}:"), *parts, class_="next"))
    return Markup("".join(found)) if found else None


def _set_up(result: TestResult, anchor: str) -> Markup:
    """The set-up, the amount measured, the notes, the command that runs the test again, and a link to it."""
    setup, other = result.setup, result.reference
    failed = result.measured.failed_count
    facts: dict[str, Content] = {
        "Pattern": str(setup.pattern),
        "Load": str(setup.load),
        "Wire": setup.wire,
        "Engine": setup.engine,
        "Price": str(result.definition.price or ""),
        "Payload": setup.payload[:19],
        "Model version": setup.model,
        "Compared with": other.name if other else "",
        "Baseline": result.judged.baseline_note,
        "Measured": f"{', '.join(measured_counts(result))} in {result.measured.seconds_spent:.1f} s"
        + (_ALONE if _is_paired(result) else ""),
        "Failed requests": f"{failed:,} ({result.measured.failed_kinds})" if failed else "",
        "Tokens": tokens_text(result.stream) if result.stream is not None else "",
    }
    if (at := result.definition.location) is not None:
        facts["Defined at"] = tag("code", str(at))
    facts["Run again"] = tag("code", run_again(result))
    facts["Link"] = link_to(anchor, f"#{anchor}")
    notes = [tag("li", text) for text in (*result.judged.notes, *map(str, result.conditions.noise))]
    return Markup(facts_list(facts) + (tag("ul", *notes, class_="notes") if notes else ""))


def metric_table(result: TestResult) -> Markup | None:
    """Every metric with its interval, beside the reference; of what was judged its change and the outcome too.

    A judged metric has the figures of its comparison, as in the terminal.
    """
    compared = _compared(result)
    if not result.metrics and not compared:
        return None
    named: dict[str, Sequence[str]] = {group: metrics_in(group) for group in Group if group is not Group.OTHERS}
    known = {name for names in named.values() for name in names}
    searched = (
        *(name for name in result.metrics if name.startswith("goodput(") and is_known_metric(name)),
        *(name for name, objective in objectives_of(result.metrics).items() if objective is not None),
    )
    found = dict.fromkeys((*result.metrics, *compared))
    others = [name for name in found if name not in known and name not in searched and is_known_metric(name)]
    parts: dict[str, Sequence[str]] = {**named, Group.CAPACITY: (*named[Group.CAPACITY], *searched)}
    for group in (Group.FIGURES, Group.OTHERS):
        parts[group] = [name for name in others if metric_named(name).group is group]
    heads = ["Metric", "Value", "95 % interval"]
    if result.reference is not None or compared:
        other = "Reference" if result.reference is None else result.reference.kind.capitalize()
        heads += [other, "Change", "Outcome", "Interval of the change", "Tolerance"]
    rows = []
    for title, names in parts.items():
        part = [_metric_row(name, result, compared) for name in names if name in found]
        part += _bounds(result, len(heads)) if title == Group.CAPACITY else []
        if part:
            rows += [group_of(title, len(heads)), *part]
    missing = compared_line(result)
    note = tag("p", missing, class_="muted") if missing else ""
    class_ = "figures metrics compared" if len(heads) > 3 else "figures metrics"
    return Markup(table_of(heads, rows, name="Metrics", class_=class_) + note)


def _compared(result: TestResult) -> dict[str, Verdict]:
    """The judged comparisons that have a row in the table, by the metric of their figures."""
    return {one.figure: one for one in comparisons_of(result) if is_known_metric(one.figure)}


def _bounds(result: TestResult, width: int) -> list[Markup]:
    """NMRT of the searches that ended before the deployment degraded, as in decided assertions."""
    rows = []
    for capacity in result.limits.capacities:
        metric = nmrt_metric(capacity.objective)
        if metric.name in result.metrics or not capacity.at_least:
            continue
        cell = tag("td", f"a lower bound: {capacity.stopped}", class_="less", colspan=width - 2)
        rows.append(Markup(row_of(heading_of(metric), f"≥{metric.show(capacity.nmrt.value)}") + cell))
    return rows


def _metric_row(name: str, result: TestResult, compared: Mapping[str, Verdict]) -> Markup:
    metric = priced_metric(name, result.definition.price)
    found, one = figure_of(result, name), compared.get(name)
    row = None if one is None else comparison_row(one)
    is_of_longer_load = name in GROWTHS and found is not None and found[1] == found[2]
    interval = "–" if found is None or is_of_longer_load else f"{metric.show(found[1])} to {metric.show(found[2])}"
    value = "–" if found is None else metric.show(found[0])
    cells: list[Content] = [heading_of(metric), row.present if row and row.present != "–" else value, interval]
    then = None if result.reference is None else result.reference.metrics.get(name, (None,))[0]
    before = "–" if then is None else metric.show(then)
    if row is not None and one is not None:
        tone = tone_of(one, result.definition.tolerance)
        cells += [
            row.reference if row.reference != "–" else before,
            tag("span", row.change, class_=tone) if tone else row.change,
            state_mark(_OUTCOMES[one.outcome], "suspected" if one.suspected else None),
            row.interval or "–",
            row.tolerance,
        ]
    elif then is not None:
        changed = format_percent(found[0] / then - 1, signed=True) if then and found is not None else "–"
        cells += [before, changed]
    return row_of(*cells)


_NODE_HEADINGS = ("Node", "Replicas", "Cores", "CPU", "Peak memory", "CPU of engine")


def node_table(nodes: Sequence[NodeFigures]) -> Markup | None:
    """A row for each node; None without a cluster."""
    if not nodes:
        return None
    rows = [
        row_of(
            node.node,
            str(node.replicas),
            f"{node.cores:g}",
            format_percent(node.cpu_share),
            format_size(node.peak_rss_bytes),
            format_percent(node.serve_cpu_share),
        )
        for node in nodes
    ]
    return table_of(_NODE_HEADINGS, rows, name="Nodes", class_="figures nodes")


def environment_table(result: TestResult) -> Markup | None:
    """Every fact that differs, before and now; None if nothing does, or if one side is not known."""
    if not result.judged.facts_changed:
        return None
    rows = [row_of(breakable(one.label), *map(breakable, one.values)) for one in result.judged.facts_changed]
    heads = ("Changed in the environment", "Before", "Now")
    return table_of(heads, rows, name="Changes in the environment", class_="figures environment")
