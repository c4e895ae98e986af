"""The HTML report's evaluation: every index of the patterns of a test side by side, their curves, and the decision.

It is there for tests that measured how they scale, or what they do beyond their limit. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_mlpatterns.analysis.capacity.overload import goodput_share
from pytest_mlpatterns.analysis.metrics.definitions import (
    METRICS,
    metric_named,
    objectives_of,
    priced_metric,
    with_role,
)
from pytest_mlpatterns.analysis.metrics.metric import Group, Role
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.reports.html.chart import Chart, Column, heading_of
from pytest_mlpatterns.reports.html.fragments import breakable, chart_figure, labels_of
from pytest_mlpatterns.reports.html.markup import Markup, tag
from pytest_mlpatterns.reports.text.notes import (
    BEHAVIOURS,
    describe_missing_indices,
    describe_recovery,
    scale_out_spread,
)
from pytest_mlpatterns.units import format_count, format_duration, format_percent
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_mlpatterns.records.overload import Overload
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.scaling import ScaleOutRecord, ScalingRecord

__all__ = ["evaluation_section", "overload_chart", "scaling_chart"]

_CONFIDENCE = 0.95
"""Confidence of the interval of a goodput, as of all intervals on the page."""
_LAW = {"contention": "Contention σ", "coherency": "Coherency κ"}


class _Cell(Struct, frozen=True):
    """One index of one pattern: its value, and its interval if it has one."""

    value: str
    interval: str = ""


_Row = tuple[str, list[_Cell | None]]


def evaluation_section(results: Sequence[TestResult], ranking: Sequence[Mapping[str, Any]]) -> Markup | None:
    """For each test that measured scaling or overload its patterns, their curves, and the decision.

    Args:
        results: all results; those of one test under several patterns stand side by side.
        ranking: as the result file has it; empty without one.
    """
    groups: dict[str, list[TestResult]] = {}
    for result in results:
        groups.setdefault(result.definition.group or result.test, []).append(result)
    evaluated = {
        name: some for name, some in groups.items() if any(one.limits.scaling or one.limits.overloads for one in some)
    }
    if not evaluated:
        return None
    decided = {ranked["group"]: ranked for ranked in ranking}
    cards = [
        _card(number, name, members, ranked=decided.get(name))
        for number, (name, members) in enumerate(evaluated.items())
    ]
    return tag("section", tag("h2", "Evaluation", id="evaluation"), *cards, aria_labelledby="evaluation")


def _card(number: int, name: str, members: Sequence[TestResult], *, ranked: Mapping[str, Any] | None) -> Markup:
    labels = labels_of(members)
    drawn = [
        chart
        for label, member in zip(labels, members, strict=True)
        for chart in (
            scaling_chart(label, member.limits.scaling) if member.limits.scaling else None,
            *(overload_chart(label, overload) for overload in member.limits.overloads),
        )
        if chart is not None
    ]
    figures = [chart_figure(f"evaluation-{number}-{position}", chart) for position, chart in enumerate(drawn)]
    return tag(
        "div",
        tag("h3", tag("span", breakable(name), class_="id")),
        _decision(ranked, several=len(members) > 1),
        _table(name, labels, members),
        _not_known(labels, members),
        tag("div", *figures, class_="charts") if figures else None,
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


def _decision(ranked: Mapping[str, Any] | None, *, several: bool) -> Markup | None:
    """Which pattern is first, why, and what excluded others; how to get a decision if there is none."""
    if ranked is None:
        how = "No decision: the run has no weights. Give them with --perf-rank, or later with the command rank."
        return tag("p", how, class_="muted") if several else None
    reasons = [*filter(None, [_why_first(ranked)])]
    reasons += [f"{row['pattern']} is excluded: {row['excluded']}." for row in ranked["rows"] if row["excluded"]]
    return Markup(
        tag("p", tag("b", "Decision:"), " ", ranked["sentence"], ".")
        + (tag("ul", *(tag("li", reason) for reason in reasons), class_="notes") if reasons else "")
    )


def _why_first(ranked: Mapping[str, Any]) -> str:
    """The share of the best that the first pattern has in each weighted metric, and its distance to the next."""
    scored = [row for row in ranked["rows"] if row["score"] is not None]
    if not scored:
        return ""
    first = scored[0]
    parts = [
        f"{format_percent(share)} of the best {metric_named(metric).label} (weight {ranked['weights'][metric]:.2g})"
        for metric, (share, *_) in first["parts"].items()
    ]
    score, low, high = map(format_count, first["score"])
    others = f"; the next, {scored[1]['pattern']}, has {format_count(scored[1]['score'][0])}" if scored[1:] else ""
    return f"{first['pattern']} has {', '.join(parts)}: score {score} ({low} to {high}){others}."


# --- the indices -----------------------------------------------------------------------------------------------------


def _table(name: str, labels: Sequence[str], members: Sequence[TestResult]) -> Markup:
    """A row for each index that some pattern has, a column for each pattern."""
    parts: dict[str, list[_Row]] = {
        Group.LATENCY: [*_metric_rows(_evaluated(Group.LATENCY), members)],
        Group.CAPACITY: [
            *_metric_rows([*_evaluated(Group.CAPACITY), *_searched(members)], members),
            *_scaling_rows(members),
        ],
        "Beyond the limit": [*_overload_rows(members)],
        Group.RESOURCES: [*_metric_rows(_evaluated(Group.RESOURCES), members), *_at_nmrt_rows(members)],
    }
    body = []
    for title, rows in parts.items():
        known = [(heading, cells) for heading, cells in rows if any(cells)]
        if known:
            body.append(tag("tr", tag("th", title, scope="rowgroup", colspan=1 + len(members)), class_="part"))
            body += [tag("tr", tag("td", heading), *map(_shown, cells)) for heading, cells in known]
    head = [tag("th", "Index", scope="col"), *(tag("th", label, scope="col", class_="number") for label in labels)]
    return tag(
        "div",
        tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), class_="indices"),
        class_="scroll",
        role="group",
        tabindex=0,
        aria_label=f"Indices of {name}",
    )


def _shown(cell: _Cell | None) -> Markup:
    if cell is None:
        return tag("td", "–", class_="number none")
    return tag("td", cell.value, tag("div", cell.interval, class_="less") if cell.interval else None, class_="number")


def _cell(found: Sequence[float] | None, show: Callable[[float], str]) -> _Cell | None:
    if found is None:
        return None
    value, low, high = map(show, found)
    return _Cell(value, f"{low} to {high}")


def _scale_out_cell(found: ScaleOutRecord | None) -> _Cell | None:
    if found is None or found.duration is None:
        return None
    return _Cell(format_duration(found.duration[0]), scale_out_spread(found))


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
    several = sorted({number for one in steps for number in one if number > 1})
    for replicas in several:
        found = [one.get(replicas, {}).get("nmrt") for one in steps]
        yield f"NMRT of {replicas} replicas", [_cell(one, METRICS["nmrt"].show) for one in found]
    for replicas in several:
        found = [one.get(replicas, {}).get("scaling_efficiency") for one in steps]
        yield f"Scaling efficiency of {replicas} replicas", [_cell(one, format_percent) for one in found]
    for name, label in _LAW.items():
        yield label, [_cell(one.law.get(name) if one else None, "{:.3f}".format) for one in scalings]
    outs = [one.scale_out if one else None for one in scalings]
    yield "Scale-out time", [_scale_out_cell(one) for one in outs]
    worst = [one.p99_ns if one else None for one in outs]
    yield "Highest p99 while scaling out", [None if one is None else _Cell(format_duration(one)) for one in worst]
    yield (
        "Failed requests while scaling out",
        [_Cell(f"{one.failed:,} of {one.requests:,}") if one and one.requests else None for one in outs],
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
    yield "Time to recover", [None if one is None else _Cell(_recovery(one)) for one in latest]
    yield "Behaviour", [None if one is None else _Cell(BEHAVIOURS[one.behaviour]) for one in latest]


def _goodput(result: TestResult, overload: Overload) -> _Cell | None:
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


def scaling_chart(name: str, scaling: ScalingRecord) -> Chart | None:
    """NMRT by number of replicas, beside as many times that of the fewest; None if fewer than two are known.

    Args:
        name: of the pattern.
        scaling: its measurement.
    """
    known = [(step, step.figures["nmrt"]) for step in scaling.steps if "nmrt" in step.figures and step.replicas]
    if len(known) < 2:
        return None
    (first, (each, _, _)), (last, _) = known[0], known[-1]
    efficiency = last.figures.get("scaling_efficiency")
    summary = f"up to {count(last.replicas, 'replica')}"
    if efficiency is not None:
        summary = f"efficiency of {count(last.replicas, 'replica')}: {format_percent(efficiency[0])}"
    return Chart(
        "scaling",
        f"NMRT in req/s by replicas: {name}",
        "; ".join(filter(None, [summary, scaling.ended_by])),
        (
            Column("replicas", "count"),
            *(Column(heading, "rate") for heading in ("NMRT", "from", "to", "linear scaling")),
        ),
        tuple((float(step.replicas), *nmrt, each * step.replicas / first.replicas) for step, nmrt in known),
    )


def overload_chart(name: str, overload: Overload) -> Chart | None:
    """Goodput by offered load, both as shares of the NMRT; None if fewer than two loads were offered.

    Args:
        name: of the pattern.
        overload: its measurement.
    """
    if len(overload.steps) < 2 or overload.nmrt_rps <= 0:
        return None
    return Chart(
        "overload",
        f"Goodput by offered load: {name}",
        f"{BEHAVIOURS[overload.behaviour]}; {describe_recovery(overload)}",
        (
            *(Column(heading, "ratio") for heading in ("offered, of NMRT", "goodput, of NMRT")),
            *(Column(heading, "ratio") for heading in ("rejected, of offered", "late", "timed out", "failed")),
            Column("p99 latency", "duration"),
        ),
        tuple(
            (
                step.load_ratio,
                step.goodput_rps / overload.nmrt_rps,
                step.rejected_ratio,
                step.late_ratio,
                step.timed_out_ratio,
                step.failed_ratio,
                step.p99_ns,
            )
            for step in overload.steps
        ),
    )
