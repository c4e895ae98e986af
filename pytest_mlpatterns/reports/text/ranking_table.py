"""Which pattern to choose, for the terminal: rankings → lines."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import metric_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.analysis.ranking import RankedPattern, Ranking
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["ranking_lines"]

_NOTHING = (
    "nothing to rank: no test was measured under several patterns; "
    "give its marker a list, pattern=[Single(), Cached()], or the run --perf-patterns"
)
_MEANING = (
    "A score is the product of the shares of the best, each to the power of its weight: 1 is the best in everything. "
    "Ranks and scores are at 95 % confidence."
)
_INDENT = "  "


def ranking_lines(rankings: Sequence[Ranking], results: Sequence[TestResult], width: int) -> list[str]:
    """The decision on each test in a sentence, its table, and what needs words.

    Args:
        rankings: as :func:`pytest_mlpatterns.analysis.ranking.rank` makes them.
        results: those that were ranked.
        width: of the terminal, in characters.
    """
    if not rankings:
        return _wrapped(_NOTHING, width)
    measured = {result.test: result.metrics for result in results}
    lines: list[str] = []
    for ranking in rankings:
        lines += _wrapped(f"{ranking.group}: {ranking.sentence}", width, others=_INDENT)
        lines += _table(ranking, measured, width)
        words = [f"{row.pattern}: {row.excluded}" for row in ranking.rows if row.excluded is not None]
        words += [f"{row.pattern}: {doubt}" for row in ranking.rows for doubt in row.doubts]
        words += ranking.notes
        for text in words:
            lines += _wrapped(text, width, first=_INDENT, others=2 * _INDENT)
        lines.append("")
    return lines + _wrapped(_MEANING, width)


def _wrapped(text: str, width: int, first: str = "", others: str = "") -> list[str]:
    """Lines that break at spaces only, so that ids and patterns stay whole; with these indents."""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )


def _table(ranking: Ranking, measured: Mapping[str, Mapping[str, Sequence[float]]], width: int) -> list[str]:
    """The patterns that can be chosen; measured values stand beside their shares where there is room.

    A long pattern stands above its figures rather than shortened, since its arguments tell it from others.
    """
    rows = [row for row in ranking.rows if row.rank is not None]
    if not rows:
        return []
    headings = ["rank", "score", "95 %"]
    headings += [f"{metric_named(name).label} × {weight:.2f}" for name, weight in ranking.weights.items()]
    full = _columns([headings, *(_cells(row, measured[row.test]) for row in rows)])
    terse = _columns([headings, *(_cells(row, {}) for row in rows)])
    names = ["pattern", *(row.pattern for row in rows)]
    longest = max(map(len, names))
    for columns in (full, terse):
        if longest + len(columns[0]) + 2 * len(_INDENT) <= width:
            return [f"{_INDENT}{name.ljust(longest)}{_INDENT}{line}" for name, line in zip(names, columns, strict=True)]
    columns = full if len(full[0]) + 2 * len(_INDENT) <= width else terse
    pairs = zip(names[1:], columns[1:], strict=True)
    return [
        2 * _INDENT + columns[0],
        *(line for name, figures in pairs for line in (_INDENT + name, 2 * _INDENT + figures)),
    ]


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [_INDENT.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]


def _cells(row: RankedPattern, values: Mapping[str, Sequence[float]]) -> list[str]:
    assert row.score is not None
    score, low, high = row.score
    places = f"{row.rank_low}–{row.rank_high}" if row.rank_low != row.rank_high else f"{row.rank}"
    shares = [
        f"{metric_named(name).show(values[name][0])}  {_number(share)}" if name in values else _number(share)
        for name, (share, _) in row.parts.items()
    ]
    return [places, _number(score), f"{_number(low)}–{_number(high)}", *shares]


def _number(score: float) -> str:
    """Two digits behind the point, or two that count."""
    return f"{score:.2f}" if score >= 0.1 else f"{score:#.2g}"
