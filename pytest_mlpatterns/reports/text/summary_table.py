"""The terminal summary: one row per perf test, then what needs words. Takes results, returns lines.

What the live line says is here too; what a baseline update wrote is in
:mod:`pytest_mlpatterns.reports.text.baseline_changes`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import fmean
from textwrap import wrap
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import METRICS, objectives_of
from pytest_mlpatterns.records.result import State
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.text.styled_text import Line, Span, Style, cut, line, padded, width_of
from pytest_mlpatterns.units import format_duration, format_percent, format_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.records.result import TestResult

__all__ = ["VerdictMark", "cells_of", "summary_lines", "verdict_of"]

_NO_BASELINE = "no baseline"
_WIDE = 100
"""From so many columns on verdicts are words."""
_NARROWEST = 20
_MIN_TEST, _MIN_PATTERN = 8, 6
_SHOWN_PERCENTS = (50, 75, 90, 95, 99, 99.9)


@dataclass(frozen=True, slots=True)
class VerdictMark:
    """How the outcome of a test is shown: by a sign and a word, its first letter where room is scarce, and a colour."""

    sign: str
    word: str
    style: Style

    @property
    def letter(self) -> str:
        """The first letter of the word."""
        return self.word[0].upper()


_PASS = VerdictMark("✓", "pass", Style.GOOD)
_MEASURED = VerdictMark("·", "measured", Style.PLAIN)
_VERDICTS = {
    State.PASSED: _PASS,
    State.FAILED: VerdictMark("✗", "FAIL", Style.BAD),
    State.UNDECIDED: VerdictMark("?", "undecided", Style.OPEN),
    State.INTERRUPTED: VerdictMark("!", "interrupted", Style.OPEN),
}


def verdict_of(result: TestResult) -> VerdictMark:
    """How the outcome of a test is shown; one that passed without any verdict was only measured."""
    verdict = _VERDICTS[result.outcome]
    return _MEASURED if verdict is _PASS and not result.verdicts else verdict


def cells_of(result: TestResult) -> dict[str, str]:
    """The figures of a row, by their headings; a dash where one is not known."""
    return {
        "RTM": _shown(result, "rtm"),
        "±": _spread(result, "rtm"),
        "p95": _shown(result, "p95"),
        "req/s": _shown(result, "throughput").removesuffix(" req/s"),
        "NMRT": _capacity(result),
        "ASL": _shown(result, "asl"),
        "change": _change(result).text,
    }


def summary_lines(results: Sequence[TestResult], width: int, *, verbose: bool = False) -> list[Line]:
    """A table of all results, and below it, by test, what needs words.

    Args:
        results: in the order in which the tests ran, at least one.
        width: of the terminal, in columns; tests are shortened from the left to fit, patterns from the right.
        verbose: tell percentiles, the load generator's own figures and how steady the load was of every test.
    """
    lines = _table(results, width)
    if absent := _without_baseline(results):
        lines += [(), line(absent)]
    for result in results:
        said = [*_words(result), *(_details(result) if verbose else ())]
        if said:
            told = [part for text in said for part in _wrapped(text, width)]
            lines += [(), line(result.test, Style.STRONG), *map(line, told)]
    return lines


# --- the table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of the table: its heading, what stands in it, and whether it stands right.

    What stands left gives way where there is no room, but for the verdict.
    """

    heading: str
    cell: Callable[[TestResult], Span]
    right: bool = True


def _table(results: Sequence[TestResult], width: int) -> list[Line]:
    wide = width >= _WIDE
    whole = _Column("test", lambda result: Span(_group(result)), right=False)
    short = _Column("test", lambda result: Span(_group(result).partition("::")[2]), right=False)
    for test in (whole, short):
        columns = [test, *_columns(results, wide=wide)]
        rows = [[column.cell(result) for column in columns] for result in results]
        natural = [
            max(width_of(column.heading), *(width_of(row[position].text) for row in rows))
            for position, column in enumerate(columns)
        ]
        if sum(natural) + 2 * (len(columns) - 1) <= width:
            break
    gap, widths = _fitted(natural, sum(1 for column in columns[:-1] if not column.right), width)
    lines = [_row([Span(column.heading, Style.STRONG) for column in columns], columns, widths, gap)]
    file = ""
    for result, row in zip(results, rows, strict=True):
        if test is short and file != (file := result.test.partition("::")[0]):  # said once for all that follow
            lines.append(line(cut(file, width, left=True), Style.FAINT))
        lines.append(_row(row, columns, widths, gap))
    return lines if wide else [*lines, *_legend(results)]


def _columns(results: Sequence[TestResult], *, wide: bool) -> list[_Column]:
    """The columns after the test's."""
    names = [_Column("pattern", lambda result: Span(str(result.setup.pattern)), right=False)]
    if len({result.setup.wire for result in results}) > 1:
        names.append(_Column("wire", lambda result: Span(result.setup.wire), right=False))
    figures = [
        _Column("RTM", lambda result: Span(_shown(result, "rtm"))),
        _Column("±", lambda result: Span(_spread(result, "rtm"), Style.FAINT)),
        _Column("p95", lambda result: Span(_shown(result, "p95"))),
        _Column("req/s", lambda result: Span(_shown(result, "throughput").removesuffix(" req/s"))),
    ]
    if any(result.capacities for result in results):
        figures.append(_Column("NMRT", lambda result: Span(_capacity(result))))
    return [
        *names,
        *figures,
        _Column("ASL", lambda result: Span(_shown(result, "asl"))),
        _Column("change", _change),
        _Column("verdict" if wide else "", lambda result: _verdict(result, wide=wide), right=False),
    ]


def _fitted(natural: Sequence[int], flexible: int, width: int) -> tuple[int, list[int]]:
    """How wide the gaps and the columns are; the first few give way where there is not room for all."""
    least = [min(natural[0], _MIN_TEST), *(min(one, _MIN_PATTERN) for one in natural[1:flexible])]
    fixed = sum(natural[flexible:])
    gaps = len(natural) - 1
    gap = 2 if sum(least) + fixed + 2 * gaps <= width else 1
    room = max(width - fixed - gap * gaps, sum(least))
    widths = list(natural[:flexible])
    for position in range(1, flexible):  # what tells tests of one name apart gets up to its share, the name the rest
        others = sum(least[:position]) + sum(widths[position + 1 : flexible])
        widths[position] = min(widths[position], max(room - max(others, room * 3 // 5), least[position]))
    widths[0] = min(widths[0], max(room - sum(widths[1:]), least[0]))
    return gap, [*widths, *natural[flexible:]]


def _row(cells: Sequence[Span], columns: Sequence[_Column], widths: Sequence[int], gap: int) -> Line:
    spans = []
    count = len(cells) if cells[-1].text else len(cells) - 1
    for position, (cell, column, width) in enumerate(zip(cells[:count], columns, widths, strict=False)):
        text = padded(cut(cell.text, width, left=position == 0), width, right=column.right)
        spans.append(Span(text.rstrip() if position == count - 1 else text + " " * gap, cell.style))
    return tuple(spans)


def _legend(results: Sequence[TestResult]) -> list[Line]:
    """What the letters mean, of those that are neither a pass nor a failure."""
    plain = (_PASS, _VERDICTS[State.FAILED])
    found = dict.fromkeys(verdict for result in results if (verdict := verdict_of(result)) not in plain)
    told = ", ".join(f"{verdict.letter} {verdict.word}" for verdict in found)
    return [line(told, Style.FAINT)] if told else []


def _group(result: TestResult) -> str:
    return result.group or result.test


def _shown(result: TestResult, name: str) -> str:
    return METRICS[name].show(result.metrics[name][0]) if name in result.metrics else "–"


def _spread(result: TestResult, name: str) -> str:
    if name not in result.metrics:
        return "–"
    value, low, high = result.metrics[name]
    return format_percent((high - low) / (2 * value)) if value else "–"


def _capacity(result: TestResult) -> str:
    """NMRT, alone or under the objective that was asked for first; a bound where no search came to its end."""
    found = list(objectives_of(result.metrics))
    if found:
        return format_rate(result.metrics[found[0]][0]).removesuffix(" req/s")
    bounds = [capacity.nmrt.value for capacity in result.capacities]
    return f"≥{format_rate(max(bounds)).removesuffix(' req/s')}" if bounds else "–"


def _change(result: TestResult) -> Span:
    for verdict in result.verdicts:
        if verdict.metric == "rtm" and verdict.change is not None:
            better = verdict.change.high < -result.tolerance
            style = Style.BAD if verdict.outcome is Outcome.FAIL else Style.GOOD if better else Style.PLAIN
            return Span(format_percent(verdict.change.value, signed=True), style)
    return Span("–")


def _verdict(result: TestResult, *, wide: bool) -> Span:
    verdict = verdict_of(result)
    return Span(f"{verdict.sign} {verdict.word if wide else verdict.letter}", verdict.style)


# --- words -----------------------------------------------------------------------------------------------------------


def _words(result: TestResult) -> list[str]:
    undecided = [
        f"undecided: {verdict.reason}" for verdict in result.verdicts if verdict.outcome is Outcome.INCONCLUSIVE
    ]
    better = [
        f"better than its baseline: {verdict.reason}; record it to keep it: --perf-baseline update"
        for verdict in result.verdicts
        if verdict.against == "baseline" and not result.baseline_note
        if verdict.change is not None and verdict.change.high < -result.tolerance
    ]
    note = [result.baseline_note] if result.baseline_note not in ("", _NO_BASELINE) else []
    return [*undecided, *better, *note, *result.notes, *(f"noise: {text}" for text in result.noise)]


def _wrapped(text: str, width: int) -> list[str]:
    """A text below its test; what does not fit goes on further in, and a name that is too long stays whole."""
    return wrap(
        text,
        max(width, _NARROWEST),
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _without_baseline(results: Sequence[TestResult]) -> str:
    absent = sum(1 for result in results if result.baseline_note == _NO_BASELINE)
    if not absent:
        return ""
    tests = "1 test has" if absent == 1 else f"{absent} tests have"
    return f"{tests} no baseline on this machine; record it: pytest --perf-baseline update"


def _details(result: TestResult) -> list[str]:
    """What ``-v`` adds: the distribution in figures, the load generator's own, and how the load became steady."""
    parts = [("latency", _percentiles(result)), ("generator", _generator(result)), ("warm-up", _warmups(result))]
    if result.reference is not None:
        parts.append(("against", result.reference.name))
    return [f"{label:<10}{text}" for label, text in parts if text]


def _percentiles(result: TestResult) -> str:
    if result.latency is None:
        return ""
    told = dict(result.latency.percentiles)
    shown = [f"p{percent:g} {format_duration(told[percent])}" for percent in _SHOWN_PERCENTS if percent in told]
    return ", ".join([*shown, f"slowest {format_duration(result.latency.percentiles[-1][1])}"])


def _generator(result: TestResult) -> str:
    """The generator's figures, of those that are known."""
    found = result.generator
    parts = []
    if isinstance(cpu := found.get("cpu_ns_per_request"), float):
        parts.append(f"{format_duration(cpu)} of CPU a request")
    if isinstance(share := found.get("core_share"), float):
        parts.append(f"{format_percent(share)} of a core")
    if isinstance(ceiling := found.get("ceiling_rps"), float):
        parts.append(f"reaches {format_rate(ceiling)} here against a server that does nothing")
    if isinstance(lag := found.get("send_lag_p99_ns"), float) and lag > 0:
        parts.append(f"99 % sent at most {format_duration(lag)} late")
    if isinstance(connections := found.get("connections"), int | float):
        parts.append(f"{connections:.0f} connections")
    return ", ".join(parts)


def _warmups(result: TestResult) -> str:
    """How long the warm-ups took, and whether the data ended them."""
    if not result.warmups:
        return ""
    count = Counter(warmup.steady for warmup in result.warmups)
    ended = {True: "steady", False: "not steady at the time limit", None: "a fixed time"}
    how = ", ".join(
        f"{number} {ended[steady]}" if len(count) > 1 else ended[steady] for steady, number in count.items()
    )
    mean_ns = fmean(warmup.duration_ns for warmup in result.warmups)
    requests = fmean(warmup.requests for warmup in result.warmups)
    launches = f", mean of {len(result.warmups)} launches" if len(result.warmups) > 1 else ""
    return f"{how}: {format_duration(mean_ns)} and {requests:,.0f} requests{launches}"
