"""The HTML report's part on each test: its verdict, every metric, its set-up and its charts. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.records.outcomes import describe_failures
from pytest_mlpatterns.records.verdict import Outcome
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
from pytest_mlpatterns.reports.html.markup import Markup, tag
from pytest_mlpatterns.reports.html.tables import environment_table, metric_table, node_table
from pytest_mlpatterns.reports.text.comparison import compared_line, comparison_row, comparisons_of, figure_of
from pytest_mlpatterns.reports.text.failure import measured_counts, next_step
from pytest_mlpatterns.reports.text.notes import tokens_text
from pytest_mlpatterns.reports.text.suspicions import Command
from pytest_mlpatterns.reports.text.where import where_texts
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["details_section"]

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
        "Cancelled": count(result.measured.cancelled_requests, "request") if result.measured.cancelled_requests else "",
        "Tokens": tokens_text(result.stream) if result.stream is not None else "",
    }
    items = [part for name, text in facts.items() if text for part in (tag("dt", name), tag("dd", text))]
    if result.definition.location is not None:
        where = tag("code", f"{result.definition.location.file}:{result.definition.location.line}")
        items += [tag("dt", "Defined at"), tag("dd", where)]
    items += [tag("dt", "Run again"), tag("dd", tag("code", breakable(f"pytest {shlex.quote(result.test)}")))]
    items += [tag("dt", "Link"), tag("dd", link_to(anchor, "#", breakable(anchor)))]
    notes = [tag("li", text) for text in (*result.judged.notes, *map(str, result.conditions.noise))]
    return Markup(tag("dl", *items, class_="facts") + (tag("ul", *notes, class_="notes") if notes else ""))
