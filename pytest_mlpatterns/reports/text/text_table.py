"""Text tables and wrapped text: columns aligned, and cut to the width of the terminal if necessary. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.text.styled_text import Line, Span, Style, cut, padded, width_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TextColumn", "natural_width", "table_lines", "wrapped"]

_NARROWEST = 20
_GAP = 2
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|ns|µs|ms|s|min|B|[KMGT]iB|req/s|tok/s)(?![\w/]))")


@dataclass(frozen=True, slots=True)
class TextColumn:
    """One column of a text table.

    Attributes:
        heading: its first line.
        cells: the others, one for each row.
        right: whether the text is aligned right.
        least: the width down to which it may be cut if the table is too wide; None: it is never cut.
        cut_left: whether it loses its beginning instead of its end.
    """

    heading: str
    cells: Sequence[Span]
    right: bool = True
    least: int | None = None
    cut_left: bool = False

    @property
    def width(self) -> int:
        """The width of the longest text in it."""
        return max(map(width_of, [self.heading, *(cell.text for cell in self.cells)]))


def natural_width(columns: Sequence[TextColumn]) -> int:
    """The width of the table if nothing is cut."""
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


def table_lines(columns: Sequence[TextColumn], width: int | None = None) -> list[Line]:
    """The heading and the rows of a table, one line each.

    Args:
        columns: those that may be cut come first.
        width: of the terminal, in columns; None: nothing is cut.
    """
    gap, widths = (_GAP, [column.width for column in columns]) if width is None else _fitted(columns, width)
    headings = [Span(column.heading, Style.STRONG) for column in columns]
    rows = zip(*(column.cells for column in columns), strict=True)
    return [_row(cells, columns, widths, gap=gap) for cells in (headings, *rows)]


def wrapped(text: str, width: int, first: str = "", *, others: str = "") -> list[str]:
    """Break a text into lines at spaces, so that test ids and patterns stay whole, and numbers keep their unit.

    Args:
        text: one paragraph.
        width: of the terminal, in columns; at least 20 are used.
        first: indent of the first line.
        others: indent of the following lines.
    """
    lines = wrap(
        _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text),
        max(width, _NARROWEST),
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _fitted(columns: Sequence[TextColumn], width: int) -> tuple[int, list[int]]:
    """The widths of the gaps and of the columns.

    If there is not enough room, the first column gets at least two fifths of what the uncut columns leave; the other
    columns that may be cut share the rest.
    """
    natural = [column.width for column in columns]
    least = [min(column.width, column.least) for column in columns if column.least is not None]
    flexible, gaps = len(least), len(columns) - 1
    fixed = sum(natural[flexible:])
    gap = _GAP if sum(least) + fixed + _GAP * gaps <= width else 1
    room = max(width - fixed - gap * gaps, sum(least))
    widths = natural[:flexible]
    for position in range(1, flexible):
        others = sum(least[:position]) + sum(widths[position + 1 : flexible])
        widths[position] = min(widths[position], max(room - max(others, room * 3 // 5), least[position]))
    widths[0] = min(widths[0], max(room - sum(widths[1:]), least[0]))
    return gap, [*widths, *natural[flexible:]]


def _row(cells: Sequence[Span], columns: Sequence[TextColumn], widths: Sequence[int], *, gap: int) -> Line:
    spans = []
    count = len(cells) if cells[-1].text else len(cells) - 1
    for position, (cell, column, width) in enumerate(zip(cells[:count], columns, widths, strict=False)):
        text = padded(cut(cell.text, width, left=column.cut_left), width, right=column.right)
        spans.append(Span(text.rstrip() if position == count - 1 else text + " " * gap, cell.style))
    return tuple(spans)
