"""Lines for a terminal: spans of text with a style by meaning, measured in columns, and in ASCII if necessary.

Pure. A style names a meaning; the terminal writer chooses the colour. The text is complete without styles.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import Enum

__all__ = ["Line", "Span", "Style", "cut", "in_ascii", "line", "padded", "text_of", "width_of"]

_BARS = "▁▂▃▄▅▆▇█"
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
        **dict(zip(_BARS, "._-=+*%#", strict=True)),
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


@dataclass(frozen=True, slots=True)
class Span:
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


def cut(text: str, width: int, *, left: bool = False) -> str:
    """A text cut to a width in columns, with an ellipsis at its end, or at its beginning if ``left``."""
    if width_of(text) <= width:
        return text
    shortened = text
    while shortened and width_of(shortened) > max(width - 1, 0):
        shortened = shortened[1:] if left else shortened[:-1]
    return f"…{shortened}" if left else f"{shortened}…"
