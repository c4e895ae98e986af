"""The HTML report: one self-contained page. Takes results, returns text.

It names the parts of the page and their order. :mod:`pytest_mlpatterns.reports.html.frame` has what stands around them.

The HTML report across tests: the tally, what broke, the changes in the history, and the overview. Pure.

Each part takes finished results and returns markup, or None if it has nothing to show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytest_mlpatterns.analysis.metrics.definitions import METRICS, priced_metric, streams_first, with_role
from pytest_mlpatterns.analysis.metrics.metric import LatencyPercentile, Role
from pytest_mlpatterns.records.setup import CLUSTER
from pytest_mlpatterns.records.verdict import Kind
from pytest_mlpatterns.reports.html.chart import heading_of
from pytest_mlpatterns.reports.html.evaluation import patterns_section
from pytest_mlpatterns.reports.html.fragments import (
    Markup,
    anchors_of,
    breakable,
    link_to,
    most_urgent_first,
    section,
    state_mark,
    state_of,
    table_of,
    tag,
    tone_of,
)
from pytest_mlpatterns.reports.html.frame import facts_list, page_of, when
from pytest_mlpatterns.reports.html.test_page import details_section
from pytest_mlpatterns.reports.text.comparison import figure_of, named_change, worst_comparison
from pytest_mlpatterns.reports.text.notes import found_nmrt
from pytest_mlpatterns.reports.text.summary_table import counted, incompleteness, kinds_of
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.result import FailedTest, TestResult
    from pytest_mlpatterns.reports.files.result_file import Results

_STATE_OF_KIND = {
    Kind.UNDECIDED: "undecided",
    Kind.NOT_COMPARED: "undecided",
    Kind.ACCEPTED: "passed",
    Kind.PASSED: "passed",
}
"""Sign and colour of a kind in the tally; all others failed."""


def tally(results: Results) -> Markup:
    """The number of tests of each kind, the most urgent first, and what is missing from the run."""
    kinds = kinds_of(results.results, results.unmeasured).values()
    items = [tag("li", state_mark(_STATE_OF_KIND.get(kind, "failed"), text)) for kind, text in counted(kinds).items()]
    if missing := incompleteness(results.run):
        items.append(tag("li", state_mark("interrupted", missing)))
    return tag("ul", *items or [tag("li", "no perf test was measured")], class_="tally")


def broken_section(unmeasured: Sequence[FailedTest]) -> Markup | None:
    """The tests that failed before anything was measured, which the page has nowhere else; None without one."""
    if not unmeasured:
        return None
    items = [
        tag(
            "li",
            state_mark("failed"),
            tag("div", tag("code", breakable(failed.test)), *(tag("div", line) for line in failed.reason.splitlines())),
        )
        for failed in unmeasured
    ]
    return section("failures", "Not measured", tag("ul", *items, class_="reasons card"))


def history_section(history: Mapping[str, Any], results: Sequence[TestResult], page: str = "") -> Markup | None:
    """What the run made known of the history; None without a history, or if there is nothing to show.

    Args:
        results: in the order of the page.
        page: name of a page of the history in the same directory; empty without one.
    """
    changes = history.get("changes", ())
    if not changes and not page:
        return None
    anchors = {result.test: anchor for result, anchor in zip(results, anchors_of(results), strict=True)}
    items = [tag("li", _history_mark(change), tag("div", *_history_change(change, anchors))) for change in changes]
    link = tag("p", tag("a", "The history of every test", href=quote(page))) if page else None
    found = tag("ul", *items, class_="reasons") if items else tag("p", "This run made no change known.")
    return section("history", "Changes in the history", tag("div", found, link, class_="card"))


def _history_mark(change: Mapping[str, Any]) -> Markup:
    if not change["is_confirmed"]:
        return state_mark("undecided", "new")
    return state_mark("failed", "worse") if change["is_worse"] else state_mark("passed", "better")


def _history_change(change: Mapping[str, Any], anchors: Mapping[str, str]) -> list[Markup]:
    """The test, the change in words, and the command that finds its commit."""
    name = breakable(change["test"])
    anchor = anchors.get(change["test"])
    parts = [link_to(anchor, name) if anchor is not None else tag("code", name), tag("div", change["sentence"])]
    if change["command"]:
        parts.append(tag("div", "which commit it was: ", tag("code", change["command"]), class_="less"))
    return parts


def overview_section(results: Sequence[TestResult]) -> Markup | None:
    """A table with a row per test."""
    if not results:
        return None
    shown = [name for name in _columns(results) if any(_is_known(name, result) for result in results)]
    compared = any(worst_comparison(result) for result in results)
    heads = ["Test", "Verdict", *map(_heading, shown), *(["Change"] if compared else [])]
    rows = [
        _overview_row(anchor, result, shown, compared=compared)
        for anchor, result in zip(anchors_of(results), results, strict=True)
    ]
    table = table_of(heads, rows, name="Overview of the tests", class_="figures overview")
    return section("overview", "Overview", tag("div", table, class_="card"))


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
    cells = [
        tag("td", link_to(anchor, breakable(result.test))),
        tag("td", state_mark(state_of(result))),
        *(_number_cell(name, result) for name in shown),
    ]
    if compared:
        change = worst_comparison(result)
        tone = None if change is None else tone_of(change, result.definition.tolerance)
        words = None if change is None else tag("span", named_change(change), class_=tone)
        cells.append(tag("td", words or "–", data_label="Change" if words else None))
    return tag("tr", *cells)


def _is_known(name: str, result: TestResult) -> bool:
    return name in result.metrics or (name == "nmrt" and found_nmrt(result) is not None)


def _number_cell(name: str, result: TestResult) -> Markup:
    figure = figure_of(result, name)
    value = None if figure is None else figure[0]
    shown = "–" if value is None else priced_metric(name, result.definition.price).show(value)
    if value is None and name == "nmrt" and (found := found_nmrt(result)) is not None:
        value, is_bound = found
        shown = f"{'≥' if is_bound else ''}{METRICS[name].show(value)}"
    return tag("td", shown, data_label=None if value is None else _heading(name))


HISTORY_PAGE = "perf-history.html"
"""Name of a page of the history that the page of a run links to if both are in one directory."""


def html_report(results: Results, history_page: str = "") -> str:
    """The page's text.

    Args:
        history_page: name of a page of the history in the directory of this one, to link to; empty without one.
    """
    ordered = most_urgent_first(results.results)
    return page_of(
        f"Performance report, {when(results.date)}",
        _header(results),
        [
            broken_section(results.unmeasured),
            history_section(results.history, ordered, history_page if results.history else ""),
            overview_section(ordered) if len(ordered) > 1 else None,
            patterns_section(results.results, results.ranking),
            details_section(ordered),
        ],
        description=f"How {count(len(results.results), 'performance test')} went",
    )


def _header(results: Results) -> Markup:
    environment, mode = results.environment, results.baseline.get("mode")
    references = (result.reference for result in results.results)
    revisions = dict.fromkeys(one.name for one in references if one is not None and one.kind == "revision")
    clusters = (result.conditions.cluster for result in results.results if result.conditions.cluster)
    facts = {
        "Measured": when(results.date),
        "Commit": results.commit or "",
        "Machine": environment.machine,
        CLUSTER: "; ".join(dict.fromkeys(clusters)),
        "Compared with": ", ".join(revisions),
        "Baseline": f"--perf-baseline {mode}" if mode and not revisions else "",
        "Versions": ", ".join(f"{name} {version}" for name, version in environment.versions.items()),
    }
    return tag("header", tag("h1", "Performance report"), tally(results), facts_list(facts))
