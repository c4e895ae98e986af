"""The HTML report: one self-contained page. Takes results, returns text.

It names the parts of the page and their order, and makes those across tests: the tally, what broke, the overview, and
the patterns. :mod:`pytest_mlpatterns.reports.html.fragments` has what stands around them. Each takes finished results
and returns markup, or None if it has nothing to show.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from html import escape
from typing import Any
from urllib.parse import quote

from pytest_mlpatterns.analysis.capacity.overload import goodput_share, times_capacity
from pytest_mlpatterns.analysis.metrics.definitions import (
    METRICS,
    metric_named,
    objectives_of,
    priced_metric,
    streams_first,
    with_role,
)
from pytest_mlpatterns.analysis.metrics.metric import Group, LatencyPercentile, Role
from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE
from pytest_mlpatterns.records.capacity import Overload
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.package_layers import layer_kind
from pytest_mlpatterns.records.result import FailedTest, TestResult
from pytest_mlpatterns.records.setup import CLUSTER
from pytest_mlpatterns.records.verdict import Kind
from pytest_mlpatterns.reports.files.result_file import Results
from pytest_mlpatterns.reports.html.chart import Chart, Column, heading_of
from pytest_mlpatterns.reports.html.drawing import chart_figure
from pytest_mlpatterns.reports.html.fragments import (
    Content,
    Markup,
    anchors_of,
    breakable,
    facts_list,
    group_of,
    labels_of,
    link_to,
    most_urgent_first,
    page_of,
    row_of,
    section,
    state_mark,
    state_of,
    table_of,
    tag,
    tone_of,
    when,
)
from pytest_mlpatterns.reports.html.test_page import details_section
from pytest_mlpatterns.reports.text.comparison import figure_of, named_change, worst_comparison
from pytest_mlpatterns.reports.text.notes import (
    BEHAVIOURS,
    describe_missing_indices,
    describe_recovery,
    found_nmrt,
    scale_out_spread,
)
from pytest_mlpatterns.reports.text.summary_table import SCORE_MEANING, counted, incompleteness, kinds_of
from pytest_mlpatterns.reports.text.undecided import busy_machine
from pytest_mlpatterns.units import format_duration, format_percent
from pytest_mlpatterns.wording import count

_UNDECIDED = "No decision: the run has no weights. Give them with --perf-rank, or later with the command rank."
"""Below patterns that were evaluated and not ranked."""
_LAW = {"contention": "Contention σ", "coherency": "Coherency κ"}


_Row = tuple[str, Sequence[Content]]  # The name of an index and its cells; None where a pattern does not have it


def patterns_section(results: Sequence[TestResult], ranking: Sequence[Mapping[str, Any]]) -> Markup | None:
    """For each test with several patterns, or with a scaling or an overload: the decision and the indices.

    ``ranking``: as the result file has it; empty without one.
    """
    groups: dict[str, list[TestResult]] = {}
    for result in results:
        groups.setdefault(result.definition.group or result.test, []).append(result)
    decided = {ranked["group"]: ranked for ranked in ranking}
    found = [_card(name, members, decided.get(name)) for name, members in groups.items()]
    cards = [card for card in found if card is not None]
    return section("patterns", "Patterns", *cards) if cards else None


def _card(name: str, members: Sequence[TestResult], ranked: Mapping[str, Any] | None) -> Markup | None:
    is_evaluated = any(one.limits.scaling or one.limits.overloads for one in members)
    labels = labels_of(members)
    table = _table(name, labels, members) if len(members) > 1 or is_evaluated else None
    if table is None and ranked is None:
        return None
    drawn = [
        chart
        for label, member in zip(labels, members, strict=True)
        for overload in member.limits.overloads
        if (chart := overload_chart(label, overload)) is not None
    ]
    return tag(
        "div",
        tag("h3", breakable(name), class_="id"),
        *(_decision(ranked, {one.test: one.metrics for one in members}) if ranked is not None else ()),
        tag("p", _UNDECIDED, class_="muted") if ranked is None and is_evaluated and len(members) > 1 else None,
        table,
        _not_known(labels, members),
        tag("div", *map(chart_figure, drawn), class_="charts") if drawn else None,
        class_="card",
    )


def _not_known(labels: Sequence[str], members: Sequence[TestResult]) -> Markup | None:
    """Why an index of scalability is not known of a pattern that was measured at several numbers of replicas."""
    reasons = [
        tag("li", f"{label}: {text}")
        for label, member in zip(labels, members, strict=True)
        for text in describe_missing_indices(member.limits.missing_indices)
    ]
    return tag("ul", *reasons, class_="notes") if reasons else None


def _decision(ranked: Mapping[str, Any], measured: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Markup]:
    """Which pattern is first, the scores with what they are made of, and what excluded others."""
    required = f"required: {', '.join(ranked['requirements'])}" if ranked["requirements"] else ""
    notes = [required, *ranked.get("notes", ())]
    notes += [f"{row['pattern']} is excluded: {row['excluded']}" for row in ranked["rows"] if row["excluded"]]
    notes += [doubt for row in ranked["rows"] for doubt in row.get("doubts", ())]
    weights = ranked["weights"]
    columns = (
        Column("pattern", "text"),
        *(Column(name, "count") for name in ("score", "from", "to")),
        *(Column(f"{metric_named(name).label} × {weights[name]:.3g}", "text") for name in weights),
    )
    rows = [
        (
            f"{place}. {row['pattern']}",
            *row["score"],
            *(_part(row, name, measured.get(row["test"], {})) for name in weights),
        )
        for place, row in enumerate(ranked["rows"], start=1)
        if row["score"] is not None
    ]
    return [
        tag("p", tag("b", "Decision:"), " ", ranked["sentence"], "."),
        tag("ul", *(tag("li", text) for text in notes if text), class_="notes"),
        *([chart_figure(Chart("ranges", "Scores", SCORE_MEANING, columns, tuple(rows)))] if rows else []),
    ]


def _part(row: Mapping[str, Any], name: str, measured: Mapping[str, Sequence[float]]) -> str:
    """A weighted metric: its value, and its share of the best."""
    part = row["parts"].get(name)
    shown = metric_named(name).show(measured[name][0]) if name in measured else ""
    share = "" if part is None else f"{format_percent(part[0])} of the best"
    return ", ".join(filter(None, (shown, share))) or "–"


def _table(name: str, labels: Sequence[str], members: Sequence[TestResult]) -> Markup | None:
    """A row for each index that some pattern has, a column for each pattern; None if they share none."""
    of_wires = [*with_role(Role.WIRE), *(figure.name for figure in layer_kind("wire").figures if figure.name)]
    wires = of_wires if len({member.setup.wire for member in members}) > 1 else []
    objectives = objectives_of(name for member in members for name in member.metrics)
    searched = [name for name, objective in objectives.items() if objective is not None]
    parts: dict[str, list[_Row]] = {
        Group.LATENCY: [*_metric_rows(_evaluated(Group.LATENCY), members)],
        Group.CAPACITY: [
            *_metric_rows([*_evaluated(Group.CAPACITY), *searched], members),
            *_scaling_rows(members),
        ],
        "Beyond the limit": [*_overload_rows(members)],
        Group.RESOURCES: [*_metric_rows(_evaluated(Group.RESOURCES), members), *_at_nmrt_rows(members)],
    }
    named = {name for group in (Group.LATENCY, Group.CAPACITY, Group.RESOURCES) for name in _evaluated(group)}
    others = [one for one in (*streams_first(with_role(Role.SIDE_BY_SIDE)), *wires) if one not in named]
    parts[Group.OTHERS] = [*_metric_rows(others, members)]
    body = []
    for title, rows in parts.items():
        known = [(heading, cells) for heading, cells in rows if any(cells)]
        if known:
            body.append(group_of(title, 1 + len(members)))
            body += [row_of(heading, *("–" if cell is None else cell for cell in cells)) for heading, cells in known]
    return table_of(["Index", *labels], body, name=f"Indices of {name}", class_="figures indices") if body else None


def _cell(found: Sequence[float] | None, show: Callable[[float], str]) -> Content:
    """A value with its interval below it."""
    if found is None:
        return None
    value, low, high = map(show, found)
    return _with_less(value, f"{low} to {high}")


def _with_less(value: str, less: str) -> Markup:
    return Markup(escape(value) + tag("div", less, class_="less"))


def _evaluated(group: Group) -> list[str]:
    return [name for name, metric in with_role(Role.EVALUATED).items() if metric.group is group]


def _metric_rows(names: Sequence[str], members: Sequence[TestResult]) -> Iterator[_Row]:
    for name in names:
        cells = [_cell(one.metrics.get(name), priced_metric(name, one.definition.price).show) for one in members]
        yield heading_of(metric_named(name)), cells


def _scaling_rows(members: Sequence[TestResult]) -> Iterator[_Row]:
    scalings = [one.limits.scaling for one in members]
    steps = [{step.replicas: step.figures for step in one.steps} if one else {} for one in scalings]
    counts = sorted({number for one in steps for number in one if number})
    for replicas in counts if len(counts) > 1 else []:
        found = [one.get(replicas, {}).get("nmrt") for one in steps]
        yield f"NMRT of {count(replicas, 'replica')}", [_cell(one, METRICS["nmrt"].show) for one in found]
    for replicas in counts[1:]:
        found = [one.get(replicas, {}).get("scaling_efficiency") for one in steps]
        yield f"Scaling efficiency of {replicas} replicas", [_cell(one, format_percent) for one in found]
    for name, label in _LAW.items():
        yield label, [_cell(one.law.get(name) if one else None, "{:.3f}".format) for one in scalings]
    outs = [one.scale_out if one else None for one in scalings]
    times = [
        _with_less(format_duration(one.duration[0]), scale_out_spread(one)) if one and one.duration else None
        for one in outs
    ]
    yield "Scale-out time", times
    worst = [one.p99_ns if one else None for one in outs]
    yield "Highest p99 while scaling out", [None if one is None else format_duration(one) for one in worst]
    yield (
        "Failed requests while scaling out",
        [f"{one.failed:,} of {one.requests:,}" if one and one.requests else None for one in outs],
    )


def _overload_rows(members: Sequence[TestResult]) -> Iterator[_Row]:
    latest = [
        one.limits.overloads[-1] if one.limits.overloads and one.limits.overloads[-1].steps else None for one in members
    ]
    peaks = sorted({one.peak.load_ratio for one in latest if one is not None})
    for peak in peaks:
        cells = [
            _goodput(one, overload) if overload is not None and overload.peak.load_ratio == peak else None
            for one, overload in zip(members, latest, strict=True)
        ]
        yield f"Goodput at {times_capacity(peak)}, as a share of it", cells
    yield "Time to recover", [None if one is None else _recovery(one) for one in latest]
    yield "Behaviour", [None if one is None else BEHAVIOURS[one.behaviour] for one in latest]


def _goodput(result: TestResult, overload: Overload) -> Content:
    if overload.nmrt_rps <= 0:
        return None
    searched = (one.nmrt for one in result.limits.capacities if one.nmrt.value == overload.nmrt_rps)
    nmrt = next(searched, LaunchValue(overload.nmrt_rps, 0.0))
    share = goodput_share([overload], nmrt, overload.peak.load_ratio, confidence=CONFIDENCE)
    return _cell(astuple(share), format_percent)


def _recovery(overload: Overload) -> str:
    if overload.recovery_ns is None:
        return f"over {format_duration(overload.watched_ns)}"
    return "at once" if overload.recovery_ns == 0 else format_duration(overload.recovery_ns)


def _at_nmrt_rows(members: Sequence[TestResult]) -> Iterator[_Row]:
    """What one replica uses at its NMRT; the framework's ASL is this one, of the test's own search if it made one."""
    ones = [
        next((step.figures for step in one.limits.scaling.steps if step.replicas == 1), {})
        if one.limits.scaling
        else {}
        for one in members
    ]
    for name, metric in with_role(Role.AT_NMRT).items():
        cells = [
            _cell(
                member.metrics.get(f"{name}_at_nmrt", figures.get(name)),
                priced_metric(name, member.definition.price).show,
            )
            for figures, member in zip(ones, members, strict=True)
        ]
        yield f"{heading_of(metric)} at NMRT", cells


def overload_chart(name: str, overload: Overload) -> Chart | None:
    """Goodput by offered load, both as shares of the NMRT; None if fewer than two loads were offered."""
    if len(overload.steps) < 2 or overload.nmrt_rps <= 0:
        return None
    return Chart(
        "bars",
        f"Goodput by offered load: {name}",
        f"{BEHAVIOURS[overload.behaviour]}; {describe_recovery(overload)}",
        (
            Column("offered, of the capacity (NMRT)", "text"),
            Column("goodput, of the capacity (NMRT)", "ratio"),
            *(Column(heading, "text") for heading in ("rejected, of offered", "late", "timed out", "failed")),
            Column("p99 latency", "duration"),
        ),
        tuple(
            (
                format_percent(step.load_ratio),
                step.goodput_rps / overload.nmrt_rps,
                *map(format_percent, (step.rejected_ratio, step.late_ratio, step.timed_out_ratio, step.failed_ratio)),
                step.p99_ns,
            )
            for step in overload.steps
        ),
    )


_STATE_OF_KIND = {
    Kind.PROBABLY_SLOWER: "probable",
    Kind.UNDECIDED: "undecided",
    Kind.INTERRUPTED: "interrupted",
    Kind.NOT_COMPARED: "undecided",
    Kind.ACCEPTED: "passed",
    Kind.PASSED: "passed",
}
"""Sign and colour of a kind in the tally; all others failed."""


def tally(results: Results) -> Markup:
    """The number of tests of each kind, the most urgent first, and what is missing from the run."""
    kinds = kinds_of(results.results, results.unmeasured).values()
    items = [tag("li", state_mark(_STATE_OF_KIND.get(kind, "failed"), text)) for kind, text in counted(kinds).items()]
    if busy := busy_machine(results.results):
        items.append(tag("li", state_mark("undecided", busy)))
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

    ``results``: in the order of the page. ``page``: of the history, its name in the same directory; empty without one.
    """
    changes = history.get("changes", ())
    if not changes and not page:
        return None
    anchors = {
        result.test: anchor for result, anchor in zip(results, anchors_of(one.test for one in results), strict=True)
    }
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
    has_capacity = any(found_nmrt(result) for result in results)
    known = {name for result in results for name in result.metrics} | ({"nmrt"} if has_capacity else set())
    shown = [name for name in _columns(results) if name in known]
    compared = any(worst_comparison(result) for result in results)
    heads = ["Test", "Verdict", *map(_heading, shown), *(["Change"] if compared else [])]
    rows = [
        _overview_row(anchor, result, shown, compared=compared)
        for anchor, result in zip(anchors_of(one.test for one in results), results, strict=True)
    ]
    table = table_of(heads, rows, name="Overview of the tests", class_="figures overview")
    return section("overview", "Overview", tag("div", table, class_="card"))


def _columns(results: Sequence[TestResult]) -> list[str]:
    """The columns for which there is room."""
    streaming = {result.stream is not None for result in results}
    left_out = {
        name
        for name, metric in METRICS.items()
        if (streaming == {True} and isinstance(metric.kind, LatencyPercentile))
        or (len(streaming) > 1 and (metric.is_tail or metric.is_stream_tail))
        or (metric.is_counted and not any(name in one.metrics for one in results))
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


def html_report(results: Results, history_page: str = "", *, results_file: str = "") -> str:
    """The page's text.

    ``history_page``: name of a page of the history in the directory of this one, to link to; empty without one.
    ``results_file``: the file that has the results, as a command names it; empty if none has.
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
            details_section(ordered, results_file),
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
