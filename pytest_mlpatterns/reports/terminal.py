"""The terminal summary: one row per perf test, then what needs words. Takes results, returns lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.metrics import METRICS
from pytest_mlpatterns.records import Outcome
from pytest_mlpatterns.units import format_duration, format_percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.baseline import Baselines
    from pytest_mlpatterns.load.job import Progress
    from pytest_mlpatterns.records import TestResult

__all__ = ["live_text", "summary_lines", "update_lines"]

_HEADINGS = ("test", "RTM", "±", "p95", "req/s", "ASL", "change", "verdict")
_MIN_TEST_WIDTH = 16


def summary_lines(results: Sequence[TestResult], width: int) -> list[str]:
    """A table of all results, and below it, by test, what needs words.

    Args:
        results: in the order in which the tests ran.
        width: of the terminal, in characters; ids are shortened from the left to fit.
    """
    rows = [_row(result) for result in results]
    widths = [max(len(row[column]) for row in [_HEADINGS, *rows]) for column in range(len(_HEADINGS))]
    room = width - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(room, _MIN_TEST_WIDTH))
    lines = [_line(_HEADINGS, widths), *(_line(row, widths) for row in rows)]
    if absent := _without_baseline(results):
        lines += ["", absent]
    for result in results:
        said = [*_words(result)]
        if said:
            lines += ["", result.test, *(f"  {text}" for text in said)]
    return lines


def update_lines(results: Sequence[TestResult], before: Baselines, machine: str) -> list[str]:
    """What ``--perf-baseline update`` wrote: old → new for every test it recorded."""
    lines = []
    for result in results:
        old = before.get(result.test, {}).get(machine)
        if old is None:
            lines.append(f"{result.test}: new, {_figure(result, 'rtm')}, {_figure(result, 'throughput')}")
            continue
        changes = []
        for name in ("rtm", "throughput"):
            if name in old.metrics and name in result.metrics:
                then = sum(launch.value for launch in old.metrics[name]) / len(old.metrics[name])
                now = result.metrics[name][0]
                show = METRICS[name].show
                change = f" ({format_percent(now / then - 1, signed=True)})" if then else ""
                changes.append(f"{METRICS[name].label} {show(then)} → {show(now)}{change}")
        lines.append(f"{result.test}: {', '.join(changes) or 'recorded'}")
    return lines


def live_text(test: str, launch: int, progress: Progress) -> str:
    """The live line while a test measures: what, how long, RTM so far."""
    rtm = "" if progress.median_ns is None else f", RTM {format_duration(progress.median_ns)}"
    seconds = progress.elapsed_ns / 1e9
    return f"{test.rpartition('::')[2]}: launch {launch}, {seconds:.1f} s, {progress.completed:,} requests{rtm}"


def _row(result: TestResult) -> tuple[str, ...]:
    return (
        result.test,
        _shown(result, "rtm"),
        _spread(result, "rtm"),
        _shown(result, "p95"),
        _shown(result, "throughput").removesuffix(" req/s"),
        _shown(result, "asl"),
        _change(result),
        _verdict(result),
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    test = cells[0] if len(cells[0]) <= widths[0] else "…" + cells[0][-(widths[0] - 1) :]
    rest = [cell.rjust(width) for cell, width in zip(cells[1:-1], widths[1:-1], strict=True)]
    return "  ".join([test.ljust(widths[0]), *rest, cells[-1]]).rstrip()


def _shown(result: TestResult, name: str) -> str:
    return METRICS[name].show(result.metrics[name][0]) if name in result.metrics else "–"


def _spread(result: TestResult, name: str) -> str:
    if name not in result.metrics:
        return "–"
    value, low, high = result.metrics[name]
    return format_percent((high - low) / (2 * value)) if value else "–"


def _figure(result: TestResult, name: str) -> str:
    return f"{METRICS[name].label} {_shown(result, name)}"


def _change(result: TestResult) -> str:
    for judgement in result.judgements:
        if judgement.metric == "rtm" and judgement.change is not None:
            return format_percent(judgement.change.value, signed=True)
    return "–"


def _verdict(result: TestResult) -> str:
    if result.interrupted:
        return "interrupted"
    if not result.passed:
        return "FAIL"
    if any(judgement.outcome is Outcome.INCONCLUSIVE for judgement in result.judgements):
        return "undecided"
    return "pass" if result.judgements else "measured"


def _words(result: TestResult) -> list[str]:
    undecided = [
        f"undecided: {judgement.reason}" for judgement in result.judgements if judgement.outcome is Outcome.INCONCLUSIVE
    ]
    better = [
        f"better than its baseline: {judgement.reason}; record it to keep it: --perf-baseline update"
        for judgement in result.judgements
        if judgement.change is not None and judgement.change.high < -0.10
    ]
    note = [result.baseline_note] if result.baseline_note.startswith("baseline not comparable") else []
    return [*undecided, *better, *note, *result.notes]


def _without_baseline(results: Sequence[TestResult]) -> str:
    absent = sum(
        1 for result in results if result.baseline_note and not result.baseline_note.startswith("baseline not")
    )
    if not absent:
        return ""
    tests = "1 test has" if absent == 1 else f"{absent} tests have"
    return f"{tests} no baseline on this machine; record it: pytest --perf-baseline update"
