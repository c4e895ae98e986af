"""The terminal summary: one row per perf test, then what needs words. Takes results, returns lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.catalog import METRICS, metric_named
from pytest_mlpatterns.records import Outcome
from pytest_mlpatterns.statistics import estimate
from pytest_mlpatterns.units import format_duration, format_percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.baseline import Entry, Update
    from pytest_mlpatterns.load.job import Progress
    from pytest_mlpatterns.result import TestResult

__all__ = ["gone_lines", "live_text", "summary_lines", "update_lines"]

_HEADINGS = ("test", "RTM", "±", "p95", "req/s", "ASL", "change", "verdict")
_MIN_TEST_WIDTH = 16
_MOST_GONE = 10
_NO_BASELINE = "no baseline"
_WRITTEN = ("rtm", "throughput")


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


def update_lines(updates: Sequence[Update]) -> list[str]:
    """What ``--perf-baseline update`` wrote: old → new for every test, and in a list of their own those that got worse.

    Args:
        updates: at least one.
    """
    lines = [f"{update.test}: {_written(update)}" for update in updates]
    worse = [f"  {update.test}: {judgement.reason}" for update in updates for judgement in update.worse]
    return [*lines, *(["recorded although worse:", *worse] if worse else [])]


def gone_lines(entries: Mapping[str, int]) -> list[str]:
    """The entries that belong to no test, and how they are removed.

    Args:
        entries: how many a test has, by the test's id; at least one.
    """
    count = sum(entries.values())
    what = "1 entry of the baseline belongs" if count == 1 else f"{count} entries of the baseline belong"
    shown = [f"  {test}" for test in entries][:_MOST_GONE]
    more = [f"  and {len(entries) - _MOST_GONE} more tests"] if len(entries) > _MOST_GONE else []
    return [f"{what} to no test; remove what is not needed: pytest --perf-baseline prune", *shown, *more]


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


def _written(update: Update) -> str:
    """What was written of one test."""
    then, now = update.before, update.after
    names = [name for name in _WRITTEN if name in now.metrics]
    names += [name for name in now.metrics if name.startswith("nmrt")]
    if then is None or update.differences:
        how = "new" if then is None else f"measured anew ({'; '.join(update.differences)})"
        return ", ".join([how, *(f"{metric_named(name).label} {_recorded(now, name)}" for name in names)])
    changes = [
        f"{metric_named(name).label} {_recorded(then, name)} → {_recorded(now, name)}{_percent(then, now, name)}"
        for name in names
        if name in then.metrics
    ]
    return ", ".join(changes) or "recorded"


def _recorded(entry: Entry, name: str) -> str:
    return metric_named(name).show(_value(entry, name))


def _percent(then: Entry, now: Entry, name: str) -> str:
    before = _value(then, name)
    return f" ({format_percent(_value(now, name) / before - 1, signed=True)})" if before else ""


def _value(entry: Entry, name: str) -> float:
    return estimate(entry.metrics[name], metric_named(name).launch_sd).value


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
        if judgement.against == "baseline" and not result.baseline_note
        if judgement.change is not None and judgement.change.high < -result.tolerance
    ]
    note = [result.baseline_note] if result.baseline_note not in ("", _NO_BASELINE) else []
    return [*undecided, *better, *note, *result.notes, *(f"noise: {text}" for text in result.noise)]


def _without_baseline(results: Sequence[TestResult]) -> str:
    absent = sum(1 for result in results if result.baseline_note == _NO_BASELINE)
    if not absent:
        return ""
    tests = "1 test has" if absent == 1 else f"{absent} tests have"
    return f"{tests} no baseline on this machine; record it: pytest --perf-baseline update"
