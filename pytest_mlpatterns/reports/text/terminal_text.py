"""Text for a terminal: spans with a style by meaning, tables and wrapped paragraphs, measured in columns.

Pure. A style names a meaning; the terminal writer chooses the colour. The text is complete without styles.

Sparklines show the latency distribution, with the one it is compared with, and system load over time, in at most 60
columns. A latency sparkline is the density over the logarithm of latency, computed from percentiles, so that two equal
distributions look equal even if one has more known percentiles.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence
from enum import Enum
from itertools import pairwise
from math import exp, log
from statistics import fmean
from textwrap import wrap

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.records.latency import Percentiles, interpolated
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.reports.text.comparison import LATENCY, distributions_of
from pytest_mlpatterns.units import format_duration, format_percent

_COLUMNS = 36  # Width of a sketch
BARS = " ▁▂▃▄▅▆▇█"  # Eight heights of a bar, and none
_LABEL = 10  # Width of the labels of the rows
_FEWEST_POINTS = 3  # Fewest points of a distribution that has a shape
_MARGIN = 0.02  # Room at both ends of the axis, on the logarithm of the latency
_FLAT = 0.25  # Range of a load up to which its picture is flat: two of the eight heights of a bar
_SHORTEST_NS = 1_000.0
"""Shorter times are drawn as this one: tokens that arrive together are apart by nothing, which has no logarithm."""


def latency_picture(result: TestResult, quantity: str = LATENCY) -> list[str]:
    """A distribution, below the reference's; empty if too few percentiles are known.

    ``quantity``: ``latency``, or a time of streams: ``ttft``, ``itl``, ``tpot``.
    """
    rows = _rows(result, quantity)
    if not rows or any(len(shape) < _FEWEST_POINTS for shape in rows.values()):
        return []
    edges = _edges(list(rows.values()))
    densities = {label: _density(shape, edges) for label, shape in rows.items()}
    highest = max(max(density) for density in densities.values())
    lines = [
        f"{label:<{_LABEL}}{_bars(densities[label], highest)}  {_p95(shape)}".rstrip() for label, shape in rows.items()
    ]
    return [*lines, f"{'':<{_LABEL}}{_axis(edges)}"]


def load_picture(result: TestResult) -> list[str]:
    """The share of the cores that the deployment and the whole machine used in the last window; empty if unknown."""
    series = result.conditions.load_over_time
    if not series:
        return []
    lines = []
    for label, position in (("service", 1), ("machine", 2)):
        shares = [moment[position] for moment in series]
        lines.append(f"{label:<{_LABEL}}{_bars(_sketched(shares), 1.0)}  mean {format_percent(fmean(shares))}")
    return [*lines, f"{'':<{_LABEL}}{_spaced('0 s', f'{series[-1][0]:.3g} s')}  of 100 %"]


def load_varies(result: TestResult) -> bool:
    """Whether the load of the last window went up or down, so that its picture is more than two flat lines."""
    shares = [[moment[position] for moment in result.conditions.load_over_time] for position in (1, 2)]
    return any(max(_sketched(one)) - min(_sketched(one)) > _FLAT for one in shares if one)


def _rows(result: TestResult, quantity: str) -> dict[str, Percentiles]:
    """The distributions to draw, by label: at the percents that are known of all, without the maximum."""
    found, reference = distributions_of(result, quantity), result.reference
    present = _without_slowest(found.present)
    if reference is None or not found.other or not present:
        return {"now": present}
    other = tuple(point for point in _without_slowest(found.other) if point[0] <= present[-1][0])
    label = "baseline" if reference.kind == "baseline" else "revision"
    return {label: other, "now": tuple((percent, interpolated(present, percent)) for percent, _ in other)}


def _without_slowest(shape: Percentiles) -> Percentiles:
    """Percentiles without the maximum, which would take most of the width."""
    return tuple((percent, max(ns, _SHORTEST_NS)) for percent, ns in shape if percent < 100)


def _edges(shapes: Sequence[Percentiles]) -> list[float]:
    """Borders of the columns in nanoseconds, evenly spaced on a log scale, wide enough for every distribution."""
    low = log(min(shape[0][1] for shape in shapes)) - _MARGIN
    high = log(max(shape[-1][1] for shape in shapes)) + _MARGIN
    return [exp(low + (high - low) * column / _COLUMNS) for column in range(_COLUMNS + 1)]


def _density(shape: Percentiles, edges: Sequence[float]) -> list[float]:
    """The share of the requests in each column."""
    return [max(percent_below(shape, high) - percent_below(shape, low), 0.0) for low, high in pairwise(edges)]


def percent_below(shape: Percentiles, ns: float) -> float:
    """The percent of the requests up to this latency, interpolated on a log scale of latency."""
    position = bisect_right([value for _, value in shape], ns)
    if position == 0:
        return 0.0
    if position == len(shape):
        return 100.0
    (before, low), (after, high) = shape[position - 1], shape[position]
    low = max(low, 1.0)
    return before + (after - before) * log(ns / low) / log(high / low)


def _sketched(values: Sequence[float]) -> list[float]:
    """One value for each column; if there are more values, neighbours are averaged."""
    if len(values) <= _COLUMNS:
        return [values[len(values) * column // _COLUMNS] for column in range(_COLUMNS)]
    borders = [len(values) * column // _COLUMNS for column in range(_COLUMNS + 1)]
    return [fmean(values[first:last]) for first, last in pairwise(borders)]


def _bars(heights: Sequence[float], highest: float) -> str:
    """One character for each height; a small height above zero stays visible."""
    top = len(BARS) - 1
    levels = [min(max(round(height / highest * top), 1 if height > highest / 500 else 0), top) for height in heights]
    return "".join(BARS[level] for level in levels).ljust(_COLUMNS)


def _p95(shape: Percentiles) -> str:
    """The 95th percentile, if it is known."""
    return f"p95 {format_duration(dict(shape)[95])}" if 95 in dict(shape) else ""


def _axis(edges: Sequence[float]) -> str:
    middle = format_duration((edges[0] * edges[-1]) ** 0.5)
    return _spaced(format_duration(edges[0]), middle, format_duration(edges[-1]))


def _spaced(*labels: str) -> str:
    """Labels at the left end, in the middle if there are three, and at the right end."""
    first, *between, last = labels
    row = first + f"{between[0] if between else '':^{_COLUMNS}}"[len(first) : _COLUMNS - len(last)] + last
    return row.rstrip()


_SPELLED = str.maketrans(
    {
        "→": "->",
        "µ": "u",
        "μ": "u",
        "±": "+-",
        "–": "-",
        "−": "-",
        "…": "..",
        "×": "x",
        "✓": "+",
        "✗": "x",
        "·": "-",
        "│": "|",
        "≥": ">=",
        **dict(zip(BARS[1:], "._-=+*%#", strict=True)),
    }
)


class Style(Enum):
    """The meaning of a span."""

    PLAIN = "plain"
    STRONG = "strong"
    FAINT = "faint"
    GOOD = "good"
    BAD = "bad"
    OPEN = "open"


class Span(Struct, frozen=True):
    """A part of a line with one style."""

    text: str
    style: Style = Style.PLAIN


Line = tuple[Span, ...]


def line(text: str, style: Style = Style.PLAIN) -> Line:
    """A line of one span."""
    return (Span(text, style),)


def text_of(spans: Line) -> str:
    """The text of a line without styles and trailing spaces."""
    return "".join(span.text for span in spans).rstrip()


def in_ascii(text: str) -> str:
    """The text in ASCII: known signs are replaced, other characters are escaped."""
    return text.translate(_SPELLED).encode("ascii", "backslashreplace").decode("ascii")


def width_of(text: str) -> int:
    """The width of a text in columns: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def padded(text: str, width: int, *, right: bool = False) -> str:
    """A text padded with spaces to a width in columns; aligned left, or right if ``right``."""
    space = " " * max(width - width_of(text), 0)
    return space + text if right else text + space


def cut(text: str, width: int, *, left: bool = False, dots: str = "…") -> str:
    """A text cut to a width in columns, with an ellipsis at its end, or at its beginning if ``left``."""
    if width_of(text) <= width:
        return text
    shortened = text
    while shortened and width_of(shortened) > max(width - width_of(dots), 0):
        shortened = shortened[1:] if left else shortened[:-1]
    return f"{dots}{shortened}" if left else f"{shortened}{dots}"


_NARROWEST = 20  # Narrowest column that text is wrapped in
_GAP = 2  # Spaces between two columns
_LONGEST_NAME = 16  # Longest name of a pattern that is not cut
_PART = re.compile(r"(?=[(|])|(?<=, )")
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|ns|µs|ms|s|min|B|[KMGT]iB|req/s|tok/s)(?![\w/]))")


class TextColumn(Struct, frozen=True):
    """One column of a text table."""

    heading: str  # its first line
    cells: Sequence[Span]  # the others, one for each row
    right: bool = True  # whether the text is aligned right
    least: int | None = None  # the width down to which it may be cut if the table is too wide; None: it is never cut
    cut_left: bool = False  # whether it loses its beginning instead of its end
    dots: str = "…"  # what stands for what was cut

    @property
    def width(self) -> int:
        """The width of the longest text in it."""
        return max(map(width_of, [self.heading, *(cell.text for cell in self.cells)]))

    def spelled(self, spell: Callable[[str], str]) -> TextColumn:
        """The column as the terminal will have it, so that what is measured and cut is what is written."""
        cells = [replace(cell, text=spell(cell.text)) for cell in self.cells]
        return replace(self, heading=spell(self.heading), cells=cells, dots=spell(self.dots))


def natural_width(columns: Sequence[TextColumn]) -> int:
    """The width of the table if nothing is cut."""
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


def table_lines(columns: Sequence[TextColumn], width: int | None = None) -> list[Line]:
    """The heading and the rows of a table, one line each.

    ``width``: of the terminal, in columns; None: nothing is cut.
    """
    gap, widths = (_GAP, [column.width for column in columns]) if width is None else _fitted(columns, width)
    headings = [Span(column.heading, Style.STRONG) for column in columns]
    rows = zip(*(column.cells for column in columns), strict=True)
    return [_row(cells, columns, widths, gap=gap) for cells in (headings, *rows)]


def folded(columns: Sequence[TextColumn], width: int) -> tuple[list[TextColumn], list[list[str]]]:
    """The columns with as much of the second one, which holds patterns, as fits beside the others."""
    first, column, *others = columns
    names = [len(part) for cell in column.cells for part in _parts(cell.text) if not part.startswith("(")]
    taken = [one.width if one.least is None else min(one.width, one.least) for one in (first, *others)]
    free = width - sum(taken) - len(taken)
    roomy = replace(column, least=max(column.least or 0, min(max(names, default=0), _LONGEST_NAME, free)))
    _, widths = _fitted([first, roomy, *others], width)
    heads, rests = zip(*(_head_of(cell.text, widths[1], column.dots) for cell in column.cells), strict=True)
    cells = [Span(head, cell.style) for head, cell in zip(heads, column.cells, strict=True)]
    found = [first, replace(roomy, cells=cells), *others]
    gap, widths = _fitted(found, width)
    start = widths[0] + gap
    return found, [[" " * start + line for line in _joined(rest, max(width - start, _NARROWEST))] for rest in rests]


def _parts(text: str) -> list[str]:
    """The parts of a pattern: names, and arguments in brackets."""
    return [part for part in _PART.split(text) if part]


def _head_of(text: str, width: int, dots: str) -> tuple[str, str]:
    """What of a pattern fits, and the rest of it; all of it, if its first name does not fit."""
    first, *further = _joined(text, width) or [""]
    return (cut(text, width, dots=dots), text) if width_of(first) > width else (first, "".join(further))


def _joined(text: str, width: int) -> list[str]:
    """The lines of a pattern: as many of its parts in each as fit."""
    lines: list[str] = []
    for part in _parts(text):
        if lines and width_of(lines[-1] + part.rstrip()) <= width:
            lines[-1] += part
        else:
            lines.append(part)
    return lines


def wrapped(text: str, width: int, first: str = "", *, others: str = "") -> list[str]:
    """Break a text into lines at spaces, so that test ids and patterns stay whole, and numbers keep their unit.

    ``width``: of the terminal, in columns; at least 20 are used.
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
    count = max((number for number, cell in enumerate(cells, 1) if cell.text), default=1)
    for position, (cell, column, width) in enumerate(zip(cells[:count], columns, widths, strict=False)):
        text = padded(cut(cell.text, width, left=column.cut_left, dots=column.dots), width, right=column.right)
        spans.append(Span(text.rstrip() if position == count - 1 else text + " " * gap, cell.style))
    return tuple(spans)
