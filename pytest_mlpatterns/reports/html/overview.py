"""The HTML report across tests: the tally, the overview, the ranking and the comparison of patterns. Pure.

Each part takes finished results and returns markup, or None if it has nothing to show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytest_mlpatterns.analysis.metrics.definitions import (
    METRICS,
    metric_named,
    objectives_of,
    priced_metric,
    streams_first,
    with_role,
)
from pytest_mlpatterns.analysis.metrics.metric import LatencyPercentile, Role
from pytest_mlpatterns.records.layer_kinds import layer_kind
from pytest_mlpatterns.records.verdict import Kind
from pytest_mlpatterns.reports.html.chart import Chart, Column, heading_of
from pytest_mlpatterns.reports.html.charts import interval_chart
from pytest_mlpatterns.reports.html.fragments import (
    NO_VERDICT,
    STATES,
    anchors_of,
    breakable,
    chart_figure,
    labels_of,
    link_to,
    scrolling,
    state_mark,
    state_of,
    tone_of,
)
from pytest_mlpatterns.reports.html.latency_charts import goodput_charts
from pytest_mlpatterns.reports.html.markup import Markup, tag
from pytest_mlpatterns.reports.text.comparison import figure_of, named_change, worst_comparison
from pytest_mlpatterns.reports.text.notes import found_nmrt
from pytest_mlpatterns.reports.text.ranking_table import SCORE_MEANING
from pytest_mlpatterns.reports.text.summary_table import counted, incompleteness, kinds_of
from pytest_mlpatterns.reports.text.where import where_sentence
from pytest_mlpatterns.units import format_count, format_percent
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.result import FailedTest, TestResult
    from pytest_mlpatterns.reports.files.result_file import Results

__all__ = [
    "failures_section",
    "goodput_section",
    "groups_section",
    "history_section",
    "overview_section",
    "ranking_section",
    "tally",
]

_STATE_OF_KIND = {
    Kind.UNDECIDED: "undecided",
    Kind.NOT_COMPARED: "undecided",
    Kind.ACCEPTED: "passed",
    Kind.PASSED: "passed",
}
"""Sign and colour of a kind in the tally; all others failed."""
_MOST_FAILURES = 20
"""Number of measured tests that failed at the top, with their reasons; the overview below has all."""
_MOST_OPEN = 3
"""Number of groups that are open at first."""


def tally(results: Results) -> Markup:
    """The number of tests of each kind, the most urgent first, and what is missing from the run."""
    kinds = kinds_of(results.results, results.unmeasured).values()
    items = [tag("li", state_mark(_STATE_OF_KIND.get(kind, "failed"), text)) for kind, text in counted(kinds).items()]
    if missing := incompleteness(results.run):
        items.append(tag("li", state_mark("interrupted", missing)))
    return tag("ul", *items or [tag("li", "no perf test was measured")], class_="tally")


def failures_section(results: Sequence[TestResult], unmeasured: Sequence[FailedTest] = ()) -> Markup | None:
    """What failed, why, and where its time is; None if nothing failed.

    Args:
        results: in the order of the page.
        unmeasured: tests that failed before anything was measured, which the page has nowhere else.
    """
    measured = [
        _failure(link_to(anchor, breakable(result.test)), _reasons(result))
        for anchor, result in zip(anchors_of(results), results, strict=True)
        if state_of(result) == "failed"
    ]
    broken = [_failure(tag("code", breakable(failed.test)), failed.reason.splitlines()) for failed in unmeasured]
    if not measured and not broken:
        return None
    left = len(measured) - _MOST_FAILURES
    more = tag("p", f"and {count(left, 'more test')} in the overview", class_="muted") if left > 0 else None
    items = [*measured[:_MOST_FAILURES], *broken]
    return tag(
        "section",
        tag("h2", "Failures", id="failures"),
        tag("div", tag("ul", *items, class_="reasons failures"), more, class_="card"),
        aria_labelledby="failures",
    )


def _failure(name: Markup, reasons: Sequence[str]) -> Markup:
    return tag("li", state_mark("failed"), tag("div", name, tag("ul", *(tag("li", text) for text in reasons))))


def _reasons(result: TestResult) -> list[str]:
    """Why a test failed, and where its time is."""
    where = where_sentence(result)
    return [*(result.failures or [NO_VERDICT]), *([where] if where else [])]


def history_section(history: Mapping[str, Any], results: Sequence[TestResult], page: str = "") -> Markup | None:
    """What the run made known of the history; None without a history, or if there is nothing to show.

    Args:
        history: what the run did with the history, as the result file has it.
        results: in the order of the page.
        page: name of a page of the history in the same directory; empty without one.
    """
    changes = history.get("changes", ())
    if not changes and not page:
        return None
    anchors = {result.test: anchor for result, anchor in zip(results, anchors_of(results), strict=True)}
    items = [tag("li", _history_mark(change), tag("div", *_history_change(change, anchors))) for change in changes]
    link = tag("p", tag("a", "The history of every test", href=quote(page))) if page else None
    return tag(
        "section",
        tag("h2", "Changes in the history", id="history"),
        tag(
            "div",
            tag("ul", *items, class_="reasons failures") if items else tag("p", "This run made no change known."),
            link,
            class_="card",
        ),
        aria_labelledby="history",
    )


def _history_mark(change: Mapping[str, Any]) -> Markup:
    if not change["is_confirmed"]:
        return state_mark("undecided", "new")
    return state_mark("failed", "worse") if change["is_worse"] else state_mark("passed", "better")


def _history_change(change: Mapping[str, Any], anchors: Mapping[str, str]) -> list[Markup]:
    """The test, the change in words, and the command that finds its commit."""
    name = breakable(change["test"])
    anchor = anchors.get(change["test"])
    parts = [
        link_to(anchor, name) if anchor is not None else tag("code", name),
        tag("div", change["sentence"]),
    ]
    if change["command"]:
        parts.append(tag("div", "which commit it was: ", tag("code", change["command"]), class_="less"))
    return parts


def overview_section(results: Sequence[TestResult]) -> Markup | None:
    """A table with a row per test; a script lets the reader search, filter and sort it."""
    if not results:
        return None
    present = {state_of(result) for result in results}
    filters = [
        tag(
            "label",
            tag("input", type="checkbox", name="state", value=state, checked=True),
            state_mark(state),
        )
        for state in STATES
        if state in present
    ]
    shown = [name for name in _columns(results) if any(_is_known(name, result) for result in results)]
    compared = any(worst_comparison(result) for result in results)
    headings = [("Test", False), ("Verdict", False), *((_heading(name), True) for name in shown)]
    headings += [("Change", True)] if compared else []
    head = [
        tag(
            "th",
            tag("button", heading, type="button"),
            scope="col",
            class_="number" if numbers else None,
            data_numbers=numbers,
        )
        for heading, numbers in headings
    ]
    rows = [
        _overview_row(anchor, result, shown, compared=compared)
        for anchor, result in zip(anchors_of(results), results, strict=True)
    ]
    search = tag(
        "input", id="search", type="search", placeholder="Search tests and patterns", aria_label="Search the tests"
    )
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), id="overview-table")
    return tag(
        "section",
        tag("h2", "Overview", id="overview"),
        tag("div", search, *filters, tag("span", id="shown", class_="muted", aria_live="polite"), id="filters"),
        tag("div", scrolling(table, "Overview of the tests"), class_="card"),
        aria_labelledby="overview",
    )


def _columns(results: Sequence[TestResult]) -> list[str]:
    """The columns for which there is room.

    If the answers of all tests stream, there is no latency of whole answers; if those of some do, there is no tail.
    """
    streaming = {result.stream is not None for result in results}
    left_out = {
        name
        for name, metric in METRICS.items()
        if (streaming == {True} and isinstance(metric.kind, LatencyPercentile))
        or (len(streaming) > 1 and (metric.is_tail or metric.is_stream_tail))
    }
    return [name for name in streams_first(with_role(Role.COLUMN)) if name not in left_out]


def _heading(name: str) -> str:
    return heading_of(METRICS[name], METRICS[name].short)


def _overview_row(anchor: str, result: TestResult, shown: Sequence[str], *, compared: bool) -> Markup:
    state = state_of(result)
    cells = [
        tag("td", link_to(anchor, breakable(result.test)), data_value=result.test),
        tag("td", state_mark(state), data_value=str(STATES.index(state))),
        *(_number_cell(name, result) for name in shown),
    ]
    if compared:
        change = worst_comparison(result)
        cells.append(
            tag(
                "td",
                "–"
                if change is None
                else tag("span", named_change(change), class_=tone_of(change, result.definition.tolerance)),
                class_="number" if change else "number none",
                data_value="" if change is None or change.change is None else f"{change.change.value:.6g}",
                data_label="Change",
            )
        )
    words = " ".join((result.test, state, str(result.setup.pattern), str(result.setup.load), result.setup.wire))
    return tag("tr", *cells, data_state=state, data_test=anchor, data_words=words.lower())


def _is_known(name: str, result: TestResult) -> bool:
    return name in result.metrics or (name == "nmrt" and found_nmrt(result) is not None)


def _number_cell(name: str, result: TestResult) -> Markup:
    figure = figure_of(result, name)
    value = None if figure is None else figure[0]
    shown = "–" if value is None else priced_metric(name, result.definition.price).show(value)
    if value is None and name == "nmrt" and (found := found_nmrt(result)) is not None:
        value, is_bound = found
        shown = f"{'≥' if is_bound else ''}{METRICS[name].show(value)}"
    return tag(
        "td",
        shown,
        class_="number none" if value is None else "number",
        data_value="" if value is None else f"{value:.6g}",
        data_label=_heading(name),
    )


def ranking_section(ranking: Sequence[Mapping[str, Any]], results: Sequence[TestResult]) -> Markup | None:
    """The ranking of the patterns of each test that has several; None without a ranking.

    Args:
        ranking: as the result file has it.
        results: the results that were ranked.
    """
    if not ranking:
        return None
    measured = {result.test: result.metrics for result in results}
    return tag(
        "section",
        tag("h2", "Which pattern to choose", id="ranking"),
        *(_ranked(number, ranked, measured) for number, ranked in enumerate(ranking)),
        tag("p", SCORE_MEANING, class_="muted"),
        aria_labelledby="ranking",
    )


def _ranked(number: int, ranked: Mapping[str, Any], measured: Mapping[str, Mapping[str, Sequence[float]]]) -> Markup:
    weights = ranked["weights"]
    head = [tag("th", text, scope="col") for text in ("Rank", "Pattern")]
    figures = ["Score", "95 % interval", *(f"{metric_named(name).label} × {weights[name]:.3g}" for name in weights)]
    head += [tag("th", text, scope="col", class_="number") for text in figures]
    rows = [_ranked_row(row, weights, measured.get(row["test"], {})) for row in ranked["rows"]]
    scored = tuple((row["pattern"], *row["score"]) for row in ranked["rows"] if row["score"] is not None)
    columns = (Column("pattern", "text"), *(Column(name, "count") for name in ("score", "from", "to")))
    drawn = Chart("intervals", "Scores", "with 95 % intervals; more is better", columns, scored)
    required = f"Required: {', '.join(ranked['requirements'])}." if ranked["requirements"] else None
    return tag(
        "div",
        tag("h3", tag("span", breakable(ranked["group"]), class_="id")),
        tag("p", ranked["sentence"]),
        *(tag("p", text, class_="muted") for text in (required, *ranked.get("notes", ())) if text),
        tag(
            "div",
            tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows)),
            class_="scroll",
            role="group",
            tabindex=0,
            aria_label=f"Ranking of {ranked['group']}",
        ),
        tag("div", chart_figure(f"ranking-{number}", drawn), class_="charts") if len(scored) > 1 else None,
        class_="card",
    )


def _ranked_row(
    row: Mapping[str, Any], weights: Mapping[str, float], measured: Mapping[str, Sequence[float]]
) -> Markup:
    doubts = [tag("div", doubt, class_="less") for doubt in row.get("doubts", ())]
    pattern = tag("td", row["pattern"], *doubts)
    if row["score"] is None:
        return tag("tr", tag("td", "–"), pattern, tag("td", row["excluded"], colspan=2 + len(weights), class_="less"))
    low, high = row["rank_low"], row["rank_high"]
    value, least, most = row["score"]
    parts = []
    for name in weights:
        part = row["parts"].get(name)
        shown = metric_named(name).show(measured[name][0]) if name in measured else None
        share = None if part is None else tag("div", f"{format_percent(part[0])} of the best", class_="less")
        parts.append(tag("td", shown, share, class_="number"))
    return tag(
        "tr",
        tag("td", f"{row['rank']}" if low == high else f"{low}–{high}"),
        pattern,
        tag("td", format_count(value), class_="number"),
        tag("td", f"{format_count(least)} to {format_count(most)}", class_="number less"),
        *parts,
    )


def groups_section(results: Sequence[TestResult]) -> Markup | None:
    """For each test with several patterns, one chart of intervals per metric."""
    groups: dict[str, list[TestResult]] = {}
    for result in results:
        groups.setdefault(result.definition.group or result.test, []).append(result)
    shown = [_group(number, name, members) for number, (name, members) in enumerate(groups.items())]
    parts = [part for part in shown if part is not None]
    if not parts:
        return None
    return tag("section", tag("h2", "Comparison of patterns", id="groups"), *parts, aria_labelledby="groups")


def goodput_section(results: Sequence[TestResult]) -> Markup | None:
    """The goodput by load of the tests that were measured under several; None without one."""
    charts = goodput_charts(results)
    if not charts:
        return None
    figures = (chart_figure(f"goodput-{number}", chart) for number, chart in enumerate(charts))
    return tag(
        "section",
        tag("h2", "Goodput by load", id="goodput"),
        tag("div", tag("div", *figures, class_="charts"), class_="card"),
        aria_labelledby="goodput",
    )


def _of_wires() -> list[str]:
    """What a chart compares if one test ran over several wires."""
    return [*with_role(Role.WIRE), *(figure.name for figure in layer_kind("wire").figures if figure.name)]


def _group(number: int, name: str, members: Sequence[TestResult]) -> Markup | None:
    if len(members) < 2:
        return None
    rows = list(zip(labels_of(members), members, strict=True))
    patterns = {member.setup.pattern for member in members}
    found = objectives_of(metric for member in members for metric in member.metrics)
    searched = [metric for metric, objective in found.items() if objective is not None]
    of_wires = _of_wires() if len({member.setup.wire for member in members}) > 1 else []
    drawn = [
        chart
        for metric in (*streams_first(with_role(Role.SIDE_BY_SIDE)), *searched, *of_wires)
        if (chart := interval_chart(metric, rows)) is not None
    ]
    if not drawn:
        return None
    figures = (chart_figure(f"group-{number}-{position}", chart) for position, chart in enumerate(drawn))
    return tag(
        "details",
        tag(
            "summary",
            tag("span", tag("h3", breakable(name), class_="id"), class_="name"),
            tag("span", f"{len(members)} {'patterns' if len(patterns) == len(members) else 'set-ups'}", class_="brief"),
        ),
        tag("div", tag("div", *figures, class_="charts small"), class_="inside"),
        class_="group",
        open=number < _MOST_OPEN,
    )
