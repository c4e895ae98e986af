"""The HTML report's part on each test: its verdict, every metric, its set-up and its charts. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import (
    GROWTHS,
    METRICS,
    is_known_metric,
    objectives_of,
    priced_metric,
)
from pytest_mlpatterns.records.outcomes import describe_failures
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.html.chart import heading_of
from pytest_mlpatterns.reports.html.charts import charts_of, deciding_charts
from pytest_mlpatterns.reports.html.environment_table import environment_table
from pytest_mlpatterns.reports.html.fragments import (
    breakable,
    chart_figure,
    state_mark,
    state_of,
    tone_of,
)
from pytest_mlpatterns.reports.html.markup import Markup, tag
from pytest_mlpatterns.reports.html.node_table import node_table
from pytest_mlpatterns.reports.html.stream_charts import is_goodput
from pytest_mlpatterns.reports.text.comparison import compared_line, comparison_row, comparisons_of, shown_change
from pytest_mlpatterns.reports.text.failure import measured_counts, next_step
from pytest_mlpatterns.reports.text.notes import tokens_text
from pytest_mlpatterns.reports.text.where import where_texts
from pytest_mlpatterns.units import format_percent
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["details_section"]

_PARTS = {
    "Streams": (
        *("ttft", "ttft:p95", "ttft:p99", "itl", "itl:p95", "itl:p99", "tpot", "tpot:p95", "tpot:p99"),
        *("output_tokens", "output_tokens_per_user"),
    ),
    "Latency": ("rtm", "p90", "p95", "p99", "error_rate"),
    "Capacity": ("throughput", "nmrt", "sc", "hsx", "hsxt", "hsxe", "hsxc"),
    "Resources": (
        "asl",
        "asl_at_nmrt",
        "pc",
        "cpu_per_request",
        "peak_memory",
        *GROWTHS,
        "cost",
        "given_cost",
        "cost_at_nmrt",
        "given_cost_at_nmrt",
        "energy_per_request",
        "cold_start",
    ),
}
_OTHERS = "Wire and pattern"
_MOST_OPEN = 3
"""Number of tests that are open at first."""
_OUTCOMES = {Outcome.PASS: "passed", Outcome.FAIL: "failed", Outcome.INCONCLUSIVE: "undecided"}


def details_section(results: Sequence[TestResult]) -> Markup | None:
    """One part per test: its verdict, its metrics and its charts."""
    if not results:
        return None
    few = len(results) <= _MOST_OPEN
    urgent = [number for number, result in enumerate(results) if state_of(result) == "failed"][:_MOST_OPEN]
    parts = [_test(number, result, is_open=few or number in urgent) for number, result in enumerate(results)]
    button = tag("button", "Open all", id="open-all", class_="plain", type="button") if len(results) > 1 else None
    return tag(
        "section",
        tag("div", tag("h2", "Tests", id="tests", tabindex=-1), button, class_="heading"),
        *parts,
        aria_labelledby="tests",
    )


def _test(number: int, result: TestResult, *, is_open: bool) -> Markup:
    state = state_of(result)
    brief = ", ".join(
        f"{METRICS[name].label} {METRICS[name].show(result.metrics[name][0])}"
        for name in (("rtm", "throughput") if result.stream is None else ("ttft", "tpot", "output_tokens"))
        if name in result.metrics
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
                tag("div", _figures(result), node_table(result.nodes)),
                tag("div", _set_up(result), tag("div", *decided, class_="charts")),
                class_="columns",
            ),
            tag("div", *measured, class_="charts"),
            class_="inside",
        ),
        class_="test",
        id=f"test-{number}",
        open=is_open,
    )


def _reasons(result: TestResult) -> Markup:
    """The verdicts in words; a passing comparison is a row of the table below only."""
    shown = [
        verdict
        for verdict in result.verdicts
        if verdict.against not in ("baseline", "revision") or verdict.outcome is not Outcome.PASS
    ]
    reasons = [
        tag(
            "li",
            state_mark(_OUTCOMES[verdict.outcome]),
            tag("span", verdict.reason),
        )
        for verdict in shown
    ]
    if not reasons:
        calm = "no compared metric is worse beyond its tolerance" if result.verdicts else ""
        word = {"failed": "the test failed for a reason other than a verdict"}.get(
            state_of(result), calm or "no limit and no baseline to compare with"
        )
        reasons = [tag("li", state_mark(state_of(result)), tag("span", word))]
    return tag("ul", *reasons, class_="reasons")


def _where(result: TestResult) -> Markup | None:
    """Where the time of a failure is; None if that is not known."""
    texts = where_texts(result, result.verdicts)
    return tag("p", tag("b", "Where:"), " ", texts[0], class_="next") if texts else None


def _next(result: TestResult) -> Markup | None:
    """The next step after a verdict that is not a pass."""
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        if judged := [verdict for verdict in result.verdicts if verdict.outcome is outcome]:
            lines = next_step(judged, result)
            parts = [tag("code", breakable(line)) if line.startswith("pytest ") else line for line in lines]
            spaced = [part for line in parts for part in (" ", line)]
            return tag("p", tag("b", "Next:"), *spaced, class_="next")
    return None


def _comparison(result: TestResult) -> Markup | None:
    """Each compared metric: both values, the change with its interval, the tolerance and the outcome."""
    if not comparisons_of(result):
        return None
    other = "Reference" if result.reference is None else result.reference.kind.capitalize()
    head = [
        tag("th", text, scope="col", class_=None if text in ("Compared", "Outcome") else "number")
        for text in ("Compared", other, "Present", "Change", "Interval", "Tolerance", "Outcome")
    ]
    rows = [_comparison_row(verdict, result.tolerance) for verdict in comparisons_of(result)]
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="figures comparison")
    missing = compared_line(result)
    note = tag("p", missing, class_="muted") if missing else ""
    return Markup(tag("div", table, class_="scroll") + note)


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
        tag("td", row.tolerance, class_="number less"),
        tag("td", mark),
    )


def _figures(result: TestResult) -> Markup | None:
    """Every metric with its interval, and with the reference that it was compared with."""
    if not result.metrics:
        return None
    other = result.reference
    named = {name for names in _PARTS.values() for name in names}
    searched = (
        *(name for name in result.metrics if is_goodput(name)),
        *(name for name, objective in objectives_of(result.metrics).items() if objective is not None),
    )
    rest = tuple(
        name for name in result.metrics if name not in named and name not in searched and is_known_metric(name)
    )
    parts = {**_PARTS, "Capacity": (*_PARTS["Capacity"], *searched), _OTHERS: rest}
    width = 5 if other else 3
    rows = []
    for title, names in parts.items():
        known = [name for name in names if name in result.metrics]
        if known:
            rows.append(tag("tr", tag("th", title, scope="rowgroup", colspan=width), class_="part"))
            rows += [_metric_row(name, result) for name in known]
    head = [
        tag("th", "Metric", scope="col"),
        tag("th", "Value", scope="col", class_="number"),
        tag("th", "95 % interval", scope="col", class_="number interval"),
    ]
    if other:
        head += [tag("th", text, scope="col", class_="number") for text in (other.kind.capitalize(), "Change")]
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="figures")
    return tag("div", table, class_="scroll")


def _metric_row(name: str, result: TestResult) -> Markup:
    metric = priced_metric(name, result.price)
    value, low, high = result.metrics[name]
    cells = [
        tag("td", heading_of(metric)),
        tag("td", metric.show(value), class_="number"),
        tag("td", f"{metric.show(low)} to {metric.show(high)}", class_="number less interval"),
    ]
    if (other := result.reference) is not None:
        then = other.metrics.get(name)
        now = other.present_metrics.get(name, (value,))[0]
        judged = next((one for one in result.verdicts if one.metric == name and one.change is not None), None)
        if judged is not None:
            changed, tone = shown_change(judged), tone_of(judged, result.tolerance)
        else:
            changed = format_percent(now / then[0] - 1, signed=True) if then and then[0] else "–"
            tone = "muted"
        cells.append(tag("td", metric.show(then[0]) if then else "–", class_="number less"))
        cells.append(tag("td", tag("span", changed, class_=tone), class_="number"))
    return tag("tr", *cells)


def _set_up(result: TestResult) -> Markup:
    """The set-up, the amount measured, the notes, and the command that runs the test again."""
    setup, other = result.setup, result.reference
    failed = sum(result.failed_requests.values())
    kinds = describe_failures(
        {int(code): count for code, count in result.failed_requests.items()}, result.first_failure
    )
    facts = {
        "Pattern": str(setup.pattern),
        "Load": str(setup.load),
        "Wire": setup.wire,
        "Engine": setup.engine,
        "Price": str(result.price or ""),
        "Payload": setup.payload[:19],
        "Model version": setup.model,
        "Compared with": other.name if other else "",
        "Baseline": result.baseline_note,
        "Measured": f"{', '.join(measured_counts(result))} in {result.seconds_spent:.1f} s",
        "Failed requests": f"{failed:,} ({kinds})" if failed else "",
        "Cancelled": count(result.cancelled_requests, "request") if result.cancelled_requests else "",
        "Tokens": tokens_text(result.stream) if result.stream is not None else "",
    }
    items = [part for name, text in facts.items() if text for part in (tag("dt", name), tag("dd", text))]
    if result.location is not None:
        where = tag("code", f"{result.location.file}:{result.location.line}")
        items += [tag("dt", "Defined at"), tag("dd", where)]
    items += [tag("dt", "Run again"), tag("dd", tag("code", breakable(f"pytest {shlex.quote(result.test)}")))]
    notes = [tag("li", text) for text in (*result.notes, *result.noise)]
    return Markup(tag("dl", *items, class_="facts") + (tag("ul", *notes, class_="notes") if notes else ""))
