"""The ranking of patterns for the terminal: rankings → lines. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.reports.text.terminal_text import Span, TextColumn, natural_width, table_lines, text_of, wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.ranking import RankedPattern, Ranking
    from pytest_mlpatterns.records.result import TestResult

_NOTHING = (
    "nothing to rank: no test was measured under several patterns; "
    "give its marker a list, pattern=[Single(), Cached()], or the run --perf-patterns"
)
SCORE_MEANING = (
    "Score: weighted geometric mean of the shares of the best value of each metric; 1 is the best in all. "
    "Their intervals are at 95 % confidence."
)
"""Explanation of the scores, below a ranking."""
_INDENT = "  "


def ranking_lines(rankings: Sequence[Ranking], results: Sequence[TestResult], width: int) -> list[str]:
    """For each test the decision in a sentence, the table, and the notes."""
    if not rankings:
        return wrapped(_NOTHING, width)
    measured = {result.test: result.metrics for result in results}
    lines: list[str] = []
    for ranking in rankings:
        lines += wrapped(f"{ranking.group}: {ranking.sentence}", width, others=_INDENT)
        lines += _table(ranking, measured, width)
        words = [f"{row.pattern}: {row.excluded}" for row in ranking.rows if row.excluded is not None]
        words += [f"{row.pattern}: {doubt}" for row in ranking.rows for doubt in row.doubts]
        words += ranking.notes
        for text in words:
            lines += wrapped(text, width, first=_INDENT, others=2 * _INDENT)
        lines.append("")
    return lines + wrapped(SCORE_MEANING, width)


def _table(ranking: Ranking, measured: Mapping[str, Mapping[str, Sequence[float]]], width: int) -> list[str]:
    """The patterns that can be chosen, with measured values beside their shares if there is room.

    A long pattern is written above its figures instead of being cut, because its arguments distinguish it from others.
    """
    rows = [row for row in ranking.rows if row.rank is not None]
    if not rows:
        return []
    headings = ["rank", "score", "95 %"]
    headings += [f"{metric_named(name).label} × {weight:.2f}" for name, weight in ranking.weights.items()]
    full = _columns(headings, [_cells(row, measured[row.test]) for row in rows])
    terse = _columns(headings, [_cells(row, {}) for row in rows])
    patterns = TextColumn("pattern", [Span(row.pattern) for row in rows], right=False)
    for columns in ([patterns, *full], [patterns, *terse]):
        if natural_width(columns) + len(_INDENT) <= width:
            return [_INDENT + text_of(row) for row in table_lines(columns)]
    columns = full if natural_width(full) + 2 * len(_INDENT) <= width else terse
    heading, *figures = [2 * _INDENT + text_of(row) for row in table_lines(columns)]
    pairs = zip(rows, figures, strict=True)
    return [heading, *(text for row, texts in pairs for text in (_INDENT + row.pattern, texts))]


def _columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[TextColumn]:
    cells = zip(*rows, strict=True)
    return [TextColumn(heading, list(map(Span, column))) for heading, column in zip(headings, cells, strict=True)]


def _cells(row: RankedPattern, values: Mapping[str, Sequence[float]]) -> list[str]:
    assert row.score is not None
    score, low, high = row.score
    shares = [
        f"{metric_named(name).show(values[name][0])}  {_number(share)}" if name in values else _number(share)
        for name, (share, _) in row.parts.items()
    ]
    return [f"{row.rank}", _number(score), f"{_number(low)}–{_number(high)}", *shares]


def _number(score: float) -> str:
    """Two decimals, or two significant digits below 0.1."""
    return f"{score:.2f}" if score >= 0.1 else f"{score:#.2g}"
