"""The HTML report's comparison of the patterns of a test: the decision, every index side by side, and overloads.

A test that measured how it scales, or what it does beyond its limit, has its part here with one pattern too. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.analysis.capacity.overload import goodput_share
from pytest_mlpatterns.analysis.metrics.definitions import (
    METRICS,
    metric_named,
    objectives_of,
    priced_metric,
    streams_first,
    with_role,
)
from pytest_mlpatterns.analysis.metrics.metric import Group, Role
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.layer_kinds import layer_kind
from pytest_mlpatterns.reports.html.chart import Chart, Column, heading_of
from pytest_mlpatterns.reports.html.drawing import chart_figure
from pytest_mlpatterns.reports.html.fragments import (
    Content,
    Markup,
    breakable,
    group_of,
    labels_of,
    row_of,
    section,
    table_of,
    tag,
)
from pytest_mlpatterns.reports.text.notes import (
    BEHAVIOURS,
    describe_missing_indices,
    describe_recovery,
    scale_out_spread,
)
from pytest_mlpatterns.reports.text.ranking_table import SCORE_MEANING
from pytest_mlpatterns.units import format_duration, format_percent
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from pytest_mlpatterns.records.capacity import Overload
    from pytest_mlpatterns.records.result import TestResult

_CONFIDENCE = 0.95  # Confidence of the interval of a goodput, as of all intervals on the page
_UNDECIDED = "No decision: the run has no weights. Give them with --perf-rank, or later with the command rank."
"""Below patterns that were evaluated and not ranked."""
_LAW = {"contention": "Contention σ", "coherency": "Coherency κ"}


_Row = tuple[str, Sequence[Content]]  # The name of an index and its cells; None where a pattern does not have it


def patterns_section(results: Sequence[TestResult], ranking: Sequence[Mapping[str, Any]]) -> Markup | None:
    """For each test with several patterns, or with a scaling or an overload: the decision and the indices.

    Args:
        ranking: as the result file has it; empty without one.
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


# --- the decision ----------------------------------------------------------------------------------------------------


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


# --- the indices -----------------------------------------------------------------------------------------------------


def _table(name: str, labels: Sequence[str], members: Sequence[TestResult]) -> Markup | None:
    """A row for each index that some pattern has, a column for each pattern; None if they share none."""
    wires = _of_wires() if len({member.setup.wire for member in members}) > 1 else []
    parts: dict[str, list[_Row]] = {
        Group.LATENCY: [*_metric_rows(_evaluated(Group.LATENCY), members)],
        Group.CAPACITY: [
            *_metric_rows([*_evaluated(Group.CAPACITY), *_searched(members)], members),
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


def _of_wires() -> list[str]:
    """What is compared if one test ran over several wires."""
    return [*with_role(Role.WIRE), *(figure.name for figure in layer_kind("wire").figures if figure.name)]


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


def _searched(members: Sequence[TestResult]) -> list[str]:
    """NMRT under objectives."""
    found = objectives_of(name for member in members for name in member.metrics)
    return [name for name, objective in found.items() if objective is not None]


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
        yield f"Goodput at {peak:g} × NMRT, of NMRT", cells
    yield "Time to recover", [None if one is None else _recovery(one) for one in latest]
    yield "Behaviour", [None if one is None else BEHAVIOURS[one.behaviour] for one in latest]


def _goodput(result: TestResult, overload: Overload) -> Content:
    if overload.nmrt_rps <= 0:
        return None
    searched = (one.nmrt for one in result.limits.capacities if one.nmrt.value == overload.nmrt_rps)
    nmrt = next(searched, LaunchValue(overload.nmrt_rps, 0.0))
    share = goodput_share([overload], nmrt, overload.peak.load_ratio, confidence=_CONFIDENCE)
    return _cell((share.value, share.low, share.high), format_percent)


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
            Column("offered, of NMRT", "text"),
            Column("goodput, of NMRT", "ratio"),
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
