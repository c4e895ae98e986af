"""The parts of the HTML report: the overview, the ranking, patterns side by side, and one section per test. Pure.

Every part takes finished results and returns markup, or None where there is nothing to show. What is drawn is decided
in :mod:`pytest_mlpatterns.reports.charts`, and how in the files under ``page``.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.catalog import METRICS, metric_named
from pytest_mlpatterns.load.job import describe_failures
from pytest_mlpatterns.records import Outcome
from pytest_mlpatterns.reports.charts import Chart, Column, charts_of, deciding_charts, heading_of, interval_chart
from pytest_mlpatterns.reports.markup import Markup, data_script, tag
from pytest_mlpatterns.units import format_count, format_percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records import Judgement
    from pytest_mlpatterns.result import TestResult

__all__ = ["STATES", "details_section", "groups_section", "overview_section", "ranking_section", "state_of", "tally"]

STATES = ("failed", "undecided", "interrupted", "passed", "measured")
"""What a test can come to, the most urgent first; a measured one was compared with nothing."""
_OVERVIEW = ("rtm", "p95", "throughput", "nmrt", "asl")
_OVERVIEW_LABELS = {"rtm": "RTM", "p95": "p95", "throughput": "Throughput", "nmrt": "NMRT", "asl": "ASL"}
_SIDE_BY_SIDE = ("rtm", "p95", "throughput", "nmrt", "asl", "cpu_per_request", "peak_memory", "cold_start")
_PARTS = {
    "Latency": ("rtm", "p90", "p95", "p99", "error_rate"),
    "Capacity": ("throughput", "nmrt"),
    "Resources": ("asl", "cpu_per_request", "peak_memory", "cold_start"),
}
_OTHERS = "Wire and pattern"
_BY_NAME = ("changes", "intervals", "parts")
"""Charts that are as high as they have rows."""
_MOST_OPEN = 3
"""So many tests are open from the start."""
_OUTCOMES = {Outcome.PASS: "passed", Outcome.FAIL: "failed", Outcome.INCONCLUSIVE: "undecided"}


def state_of(result: TestResult) -> str:
    """One of :data:`STATES`."""
    return "measured" if result.outcome == "passed" and not result.judgements else str(result.outcome)


def tally(results: Sequence[TestResult]) -> Markup:
    """How many tests came to what, the most urgent first."""
    counts = Counter(map(state_of, results))
    items = [
        tag("li", tag("span", f"{counts[state]} {state}", class_=f"state {state}")) for state in STATES if counts[state]
    ]
    return tag("ul", *items or [tag("li", "no perf test was measured")], class_="tally")


# --- across tests ----------------------------------------------------------------------------------------------------


def overview_section(results: Sequence[TestResult]) -> Markup | None:
    """A table with a row per test, which can be searched, filtered and sorted."""
    if not results:
        return None
    present = {state_of(result) for result in results}
    filters = [
        tag(
            "label",
            tag("input", type="checkbox", name="state", value=state, checked=True),
            tag("span", state, class_=f"state {state}"),
        )
        for state in STATES
        if state in present
    ]
    shown = [name for name in _OVERVIEW if any(name in result.metrics for result in results)]
    compared = any(_change(result) for result in results)
    headings = [("Test", False), ("Verdict", False), *((_OVERVIEW_LABELS[name], True) for name in shown)]
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
    rows = [_overview_row(number, result, shown, compared) for number, result in enumerate(results)]
    search = tag(
        "input", id="search", type="search", placeholder="Search tests and patterns", aria_label="Search the tests"
    )
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), id="overview-table")
    return tag(
        "section",
        tag("h2", "Overview", id="overview"),
        tag("div", search, *filters, tag("span", id="shown", class_="muted", aria_live="polite"), id="filters"),
        tag("div", tag("div", table, class_="scroll"), class_="card"),
        aria_labelledby="overview",
    )


def _overview_row(number: int, result: TestResult, shown: Sequence[str], compared: bool) -> Markup:
    state = state_of(result)
    cells = [
        tag("td", tag("a", _breakable(result.test), href=f"#test-{number}", class_="id"), data_value=result.test),
        tag("td", tag("span", state, class_=f"state {state}"), data_value=str(STATES.index(state))),
        *(_number_cell(name, result) for name in shown),
    ]
    if compared:
        change = _change(result)
        cells.append(
            tag(
                "td",
                "–" if change is None else tag("span", _changed(change), class_=_tone(change, result.tolerance)),
                class_="number" if change else "number none",
                data_value="" if change is None or change.change is None else f"{change.change.value:.6g}",
                data_label="RTM change",
            )
        )
    words = " ".join((result.test, state, result.setup.pattern, result.setup.load, result.setup.wire))
    return tag("tr", *cells, data_state=state, data_test=f"test-{number}", data_words=words.lower())


def _number_cell(name: str, result: TestResult) -> Markup:
    known = name in result.metrics
    value = result.metrics[name][0] if known else 0.0
    return tag(
        "td",
        METRICS[name].show(value) if known else "–",
        class_="number" if known else "number none",
        data_value=f"{value:.6g}" if known else "",
        data_label=_OVERVIEW_LABELS[name],
    )


def _change(result: TestResult) -> Judgement | None:
    """By how much RTM differs from what the test was compared with."""
    compared = (one for one in result.judgements if one.metric == "rtm" and one.change is not None)
    return next((one for one in compared if one.against in ("baseline", "revision")), None)


def _changed(judgement: Judgement) -> str:
    """By how much the value changed; a judgement's own change is positive where it is worse."""
    assert judgement.change is not None
    sign = 1 if metric_named(judgement.metric).better == "lower" else -1
    return format_percent(sign * judgement.change.value, signed=True)


def _tone(judgement: Judgement, tolerance: float) -> str | None:
    if judgement.outcome is Outcome.FAIL:
        return "worse"
    return "better" if judgement.change is not None and judgement.change.high < -tolerance else None


def ranking_section(ranking: Sequence[Mapping[str, Any]]) -> Markup | None:
    """The order of the patterns of each test that has several, where that was asked for."""
    if not ranking:
        return None
    return tag(
        "section",
        tag("h2", "Which pattern to choose", id="ranking"),
        *(_ranked(number, ranked) for number, ranked in enumerate(ranking)),
        aria_labelledby="ranking",
    )


def _ranked(number: int, ranked: Mapping[str, Any]) -> Markup:
    weights = ranked["weights"]
    said = ", ".join(f"{metric_named(name).label} {format_percent(weight)}" for name, weight in weights.items())
    must = f"; required: {', '.join(ranked['requirements'])}" if ranked["requirements"] else ""
    head = ["Rank", "Pattern", "Score", "95 % interval"]
    head += [f"{metric_named(name).label} × {weight:.3g}" for name, weight in weights.items()]
    rows = [_ranked_row(row, weights) for row in ranked["rows"]]
    scored = [row for row in ranked["rows"] if row["score"] is not None]
    chart = None
    if len(scored) > 1:
        columns = (Column("pattern", "text"), *(Column(name, "count") for name in ("score", "from", "to")))
        drawn = Chart(
            "intervals",
            "Scores",
            "with 95 % intervals; more is better",
            columns,
            tuple((row["pattern"], *row["score"]) for row in scored),
        )
        chart = tag("div", _figure(f"ranking-{number}", drawn), class_="charts")
    table = tag(
        "table",
        tag(
            "thead",
            tag("tr", *(tag("th", text, scope="col", class_="number" if text in head[2:] else None) for text in head)),
        ),
        tag("tbody", *rows),
    )
    return tag(
        "div",
        tag("h3", tag("span", _breakable(ranked["group"]), class_="id")),
        tag("p", ranked["sentence"]),
        tag("p", f"Each metric counts as a share of the best, × its weight: {said}{must}.", class_="muted"),
        *(tag("p", note, class_="muted") for note in ranked.get("notes", ())),
        tag("div", table, class_="scroll"),
        chart,
        class_="card",
    )


def _ranked_row(row: Mapping[str, Any], weights: Mapping[str, float]) -> Markup:
    if row["score"] is None:
        return tag(
            "tr", tag("td", "–"), tag("td", row["pattern"]), tag("td", row["excluded"], colspan=2 + len(weights))
        )
    low, high = row["rank_low"], row["rank_high"]
    value, least, most = row["score"]
    parts = [row["parts"].get(name) for name in weights]
    return tag(
        "tr",
        tag("td", f"{row['rank']}" if low == high else f"{low}–{high}"),
        tag("td", row["pattern"], *(tag("div", doubt, class_="muted") for doubt in row.get("doubts", ()))),
        tag("td", format_count(value), class_="number"),
        tag("td", f"{format_count(least)} to {format_count(most)}", class_="number less"),
        *(tag("td", "–" if part is None else format_count(part[0]), class_="number") for part in parts),
    )


def groups_section(results: Sequence[TestResult]) -> Markup | None:
    """The patterns of each test that has several, metric by metric, with intervals."""
    groups: dict[str, list[TestResult]] = {}
    for result in results:
        groups.setdefault(result.group or result.test, []).append(result)
    shown = [_group(number, name, members) for number, (name, members) in enumerate(groups.items())]
    parts = [part for part in shown if part is not None]
    if not parts:
        return None
    return tag("section", tag("h2", "Patterns side by side", id="groups"), *parts, aria_labelledby="groups")


def _group(number: int, name: str, members: Sequence[TestResult]) -> Markup | None:
    if len(members) < 2:
        return None
    rows = list(zip(_labels(members), members, strict=True))
    searched = dict.fromkeys(metric for member in members for metric in member.metrics if metric.startswith("nmrt("))
    drawn = [chart for metric in (*_SIDE_BY_SIDE, *searched) if (chart := interval_chart(metric, rows)) is not None]
    if not drawn:
        return None
    figures = (_figure(f"group-{number}-{place}", chart) for place, chart in enumerate(drawn))
    return tag(
        "details",
        tag(
            "summary",
            tag("span", tag("h3", _breakable(name), class_="id"), class_="name"),
            tag("span", f"{len(members)} patterns", class_="brief"),
        ),
        tag("div", tag("div", *figures, class_="charts small"), class_="inside"),
        class_="group",
        open=number < _MOST_OPEN,
    )


def _labels(members: Sequence[TestResult]) -> list[str]:
    """What tells the tests of a group apart: the pattern, with as much of the set-up as it takes; or their ids."""
    for parts in (("pattern",), ("pattern", "wire"), ("pattern", "wire", "load")):
        labels = [", ".join(getattr(member.setup, part) for part in parts) for member in members]
        if len({*labels}) == len(labels):
            return labels
    return [member.test for member in members]


# --- one test --------------------------------------------------------------------------------------------------------


def details_section(results: Sequence[TestResult]) -> Markup | None:
    """One part per test: its verdict, what was measured, and what there is to draw."""
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
        for name in ("rtm", "throughput")
        if name in result.metrics
    )
    deciding = deciding_charts(result)
    figures = [_figure(f"test-{number}-{place}", chart) for place, chart in enumerate((*deciding, *charts_of(result)))]
    decided, measured = figures[: len(deciding)], figures[len(deciding) :]
    return tag(
        "details",
        tag(
            "summary",
            tag("span", state, class_=f"state {state}"),
            tag("span", tag("h3", _breakable(result.test), class_="id"), class_="name"),
            tag("span", brief, class_="brief"),
        ),
        tag(
            "div",
            _reasons(result),
            tag(
                "div",
                tag("div", _figures(result)),
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
    reasons = [
        tag(
            "li",
            tag("span", _OUTCOMES[judgement.outcome], class_=f"state {_OUTCOMES[judgement.outcome]}"),
            tag("span", judgement.reason),
        )
        for judgement in result.judgements
    ]
    if not reasons:
        word = {"failed": "the test failed before, or beside, its measurement"}.get(
            state_of(result), "compared with nothing"
        )
        reasons = [tag("li", tag("span", state_of(result), class_=f"state {state_of(result)}"), tag("span", word))]
    return tag("ul", *reasons, class_="reasons")


def _figures(result: TestResult) -> Markup | None:
    """Every metric, with its interval, and beside it what it was compared with."""
    if not result.metrics:
        return None
    other = result.reference
    named = {name for names in _PARTS.values() for name in names}
    searched = tuple(name for name in result.metrics if name.startswith("nmrt("))
    rest = tuple(name for name in result.metrics if name not in named and name not in searched)
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
    metric = metric_named(name)
    value, low, high = result.metrics[name]
    cells = [
        tag("td", heading_of(metric)),
        tag("td", metric.show(value), class_="number"),
        tag("td", f"{metric.show(low)} to {metric.show(high)}", class_="number less interval"),
    ]
    if (other := result.reference) is not None:
        then = other.metrics.get(name)
        now = other.present_metrics.get(name, (value,))[0]
        judged = next((one for one in result.judgements if one.metric == name and one.change is not None), None)
        if judged is not None:
            changed, tone = _changed(judged), _tone(judged, result.tolerance)
        else:
            changed = format_percent(now / then[0] - 1, signed=True) if then and then[0] else "–"
            tone = "muted"
        cells.append(tag("td", metric.show(then[0]) if then else "–", class_="number less"))
        cells.append(tag("td", tag("span", changed, class_=tone), class_="number"))
    return tag("tr", *cells)


def _set_up(result: TestResult) -> Markup:
    """What was measured and how, what it stands on, what there is to say of it, and how it is run again."""
    setup, other = result.setup, result.reference
    failed = sum(result.failed_requests.values())
    kinds = describe_failures({int(code): count for code, count in result.failed_requests.items()})
    facts = {
        "Pattern": setup.pattern,
        "Load": setup.load,
        "Wire": setup.wire,
        "Payload": setup.payload[:19],
        "Model version": setup.model,
        "Compared with": other.name if other else "",
        "Baseline": result.baseline_note,
        "Evidence": f"{_count(result.launch_count, 'launch', 'launches')}, {_count(result.blocks, 'block')}, "
        f"{_count(result.requests, 'request')} in {result.seconds_spent:.1f} s",
        "Failed requests": f"{failed:,} ({kinds})" if failed else "",
    }
    items = [part for name, text in facts.items() if text for part in (tag("dt", name), tag("dd", text))]
    if result.location is not None:
        where = tag("code", f"{result.location.file}:{result.location.line}")
        items += [tag("dt", "Defined at"), tag("dd", where)]
    items += [tag("dt", "Run again"), tag("dd", tag("code", _breakable(f"pytest {shlex.quote(result.test)}")))]
    notes = [tag("li", text) for text in (*result.notes, *result.noise)]
    return Markup(tag("dl", *items, class_="facts") + (tag("ul", *notes, class_="notes") if notes else ""))


def _breakable(test: str) -> Markup:
    """A test's id, which narrow places break where it has parts."""
    pieces = re.split(r"(?<=[:\[|,(/_])(?=[^:])", test)
    return Markup(tag("wbr").join(escape(piece) for piece in pieces))


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _figure(name: str, chart: Chart) -> Markup:
    return tag(
        "figure",
        tag(
            "figcaption",
            tag("span", chart.title, class_="title", id=f"{name}-title"),
            tag("span", chart.summary, class_="summary", id=f"{name}-summary"),
        ),
        tag("div", class_=f"plot {'rows' if chart.kind in _BY_NAME else ''}".strip()),
        tag("details", tag("summary", "Data"), class_="data"),
        data_script(chart.to_json()),
        class_="chart",
        id=name,
    )
