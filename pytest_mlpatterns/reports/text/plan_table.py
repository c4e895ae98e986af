"""The plan for the terminal: what is seen of each test → lines. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.records.plan import WANTED_CHANGES, Advice, Help
from pytest_mlpatterns.reports.text.terminal_text import Span, TextColumn, table_lines, text_of, wrapped
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import count, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.plan import MetricPlan, Seen, TestPlan

__all__ = ["PLAN_MEANING", "plan_lines"]

_INDENT = "  "
_NOTHING = "–"
_OFTEN = 0.2
"""Share of undecided runs from which a test is named: of unchanged tests one of forty is undecided."""
_FEWEST_RUNS = 5
"""Runs from which that share counts."""
_HELPS: Mapping[Help, str] = {
    Help.REVISION: "compare with a revision",
    Help.BUDGET: 'give budget="{}s"',
    Help.LAUNCHES: "give launches={}",
    Help.DURATION: "measure longer in each launch (duration=)",
    Help.CORES: "give the deployment a fixed number of cores (cpus=)",
    Help.METRIC: "judge {}",
    Help.TOLERANCE: "set a tolerance of {}",
}
"""What helps, in words; a figure stands for the braces."""
PLAN_MEANING = (
    "Seen: the smallest change for the worse that fails in 95 % of runs at the tolerance. The columns for 2, 5 and 10 "
    "% have what it takes to see such a change with half of it as the tolerance; – if no number of launches does. "
    "Beyond 8 launches, launches= has to allow them. A tolerance with ! is not seen: twice as much passes too often. "
    "All rests on the 90 % quantile of the scatter of launches."
)
"""Explanation of the table, below it."""


def plan_lines(plans: Sequence[TestPlan], width: int, notes: Sequence[str] = ()) -> list[str]:
    """For each test what is seen against a stored baseline and against a revision, and what helps.

    Args:
        plans: of the tests.
        width: width of the terminal in columns.
        notes: what holds for all of them, a sentence each.
    """
    lines: list[str] = []
    for plan in plans:
        lines += [*_of_test(plan, width), ""]
    often = [plan for plan in plans if _is_often_undecided(plan)]
    if often:
        named = listed([f"{plan.test} ({_undecided(plan)})" for plan in often])
        lines += wrapped(f"Often undecided: {named}.", width, others=_INDENT)
    for note in notes:
        lines += wrapped(note, width, others=_INDENT)
    return [*lines, *wrapped(PLAN_MEANING, width)]


def _of_test(plan: TestPlan, width: int) -> list[str]:
    known = f"{count(plan.launches, 'launch', 'launches')} in {count(plan.sittings, 'run')}"
    pairs = f", {count(plan.pairs, 'paired launch', 'paired launches')}" if plan.pairs else ""
    budget = "" if plan.budget_s is None else f", budget {format_duration(plan.budget_s * 1e9)}"
    lines = wrapped(f"{plan.test}: {known}{pairs}{budget}", width, others=_INDENT)
    lines += _part(plan, is_file=True, width=width)
    lines += _part(plan, is_file=False, width=width)
    if plan.left_out:
        names = listed([metric_named(name).label for name in plan.left_out])
        lines += wrapped(
            f"not planned, since no scatter of launches decides them: {names}", width, first=_INDENT, others=2 * _INDENT
        )
    return lines


def _part(plan: TestPlan, *, is_file: bool, width: int) -> list[str]:
    """The table of one kind of comparison, and a line for each tolerance that is not seen."""
    found = [(one, seen) for one in plan.metrics if (seen := one.file if is_file else one.revision) is not None]
    if not found:
        return []
    each_s = plan.launch_s if is_file else plan.pair_s
    launches = max(seen.launches for _, seen in found)
    lines = wrapped(_heading(plan, launches, is_file=is_file), width, first=_INDENT, others=2 * _INDENT)
    lines += [2 * _INDENT + text_of(row) for row in table_lines(_columns(found, each_s))]
    for metric, seen in found:
        if seen.advice and not seen.sees(metric.tolerance):
            lines += wrapped(_advice(metric, seen, each_s), width, first=2 * _INDENT, others=3 * _INDENT)
    return lines


def _heading(plan: TestPlan, launches: int, *, is_file: bool) -> str:
    each_s = plan.launch_s if is_file else plan.pair_s
    each = "; the last columns count launches" if each_s is None else f" of {format_duration(each_s * 1e9)}"
    if is_file:
        return f"against a baseline of {plan.recorded} launches, with {count(launches, 'launch', 'launches')}{each}"
    derived = "" if plan.pairs else "; derived from single launches"
    return f"against a revision, with {count(launches, 'paired launch', 'paired launches')}{each}{derived}"


def _columns(found: Sequence[tuple[MetricPlan, Seen]], each_s: float | None) -> list[TextColumn]:
    wanted = [
        TextColumn(
            f"for {_percent(change)}",
            [Span(_needed(seen.needed[place], each_s) if seen.needed else "") for _, seen in found],
        )
        for place, change in enumerate(WANTED_CHANGES)
    ]
    return [
        TextColumn("metric", [Span(metric_named(metric.metric).short) for metric, _ in found], right=False),
        TextColumn("differs by", [Span(_percent(seen.differs_by, digits=2)) for _, seen in found]),
        TextColumn("tolerance", [Span(_tolerance(metric, seen)) for metric, seen in found]),
        TextColumn("seen", [Span(_change(seen.change)) for _, seen in found]),
        *wanted,
    ]


def _tolerance(metric: MetricPlan, seen: Seen) -> str:
    mark = "" if seen.sees(metric.tolerance) else "! "
    return f"{mark}{_percent(metric.tolerance)}"


def _change(change: float | None) -> str:
    return _NOTHING if change is None else f"+{_percent(_rounded_up(change))}"


def _percent(share: float, digits: int = 3) -> str:
    """A share without digits that mean nothing: ``10 %``, ``4.7 %``."""
    return f"{100 * share:.{digits}g} %" if share < 1 else f"{100 * share:.0f} %"


def _rounded_up(share: float) -> float:
    """A share with two significant digits, never less than it is: a promise holds as it is printed."""
    if share <= 0:
        return share
    step = math.pow(10, math.floor(math.log10(share)) - 1)
    return math.ceil(share / step - 1e-9) * step


def _needed(launches: int | None, each_s: float | None) -> str:
    """A budget, or the number of launches if their time is not known."""
    if launches is None:
        return _NOTHING
    return f"{launches}" if each_s is None else f"{math.ceil(launches * each_s)} s"


def _advice(metric: MetricPlan, seen: Seen, each_s: float | None) -> str:
    """Why a tolerance is not seen, and what helps."""
    label = metric_named(metric.metric).label
    seen_from = "no change is seen" if seen.change is None else f"changes from {_change(seen.change)} on are seen"
    helps = listed([_words(one, each_s) for one in seen.advice], "or")
    return f"! {label}: {seen_from} at the tolerance of {_percent(metric.tolerance)}; {helps}"


def _words(advice: Advice, each_s: float | None) -> str:
    amount, figure = advice.amount or 0.0, ""
    match advice.by:
        case Help.BUDGET:
            figure = f"{amount:.0f}"
        case Help.LAUNCHES:
            figure = f"{amount:.0f}" + ("" if each_s is None else f' and budget="{math.ceil(amount * each_s)}s"')
        case Help.METRIC:
            figure = metric_named(advice.metric).label
        case Help.TOLERANCE:
            figure = _percent(_rounded_up(amount))
    return _HELPS[advice.by].format(figure)


def _is_often_undecided(plan: TestPlan) -> bool:
    if plan.undecided is None:
        return False
    undecided, runs = plan.undecided
    return runs >= _FEWEST_RUNS and undecided >= _OFTEN * runs


def _undecided(plan: TestPlan) -> str:
    undecided, runs = plan.undecided or (0, 0)
    return f"{undecided} of {count(runs, 'run')}"
