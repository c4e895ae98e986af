"""Lines for a terminal: pieces of text with a style by meaning, measured in columns, and spelled in ASCII where needed.

Pure. A style says what a piece means; which colour that is, and whether there are colours, is the writer's business.
No meaning is carried by a style alone.
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
    """What a piece of text means."""

    PLAIN = "plain"
    STRONG = "strong"
    FAINT = "faint"
    GOOD = "good"
    BAD = "bad"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line."""

    text: str
    style: Style = Style.PLAIN


Line = tuple[Span, ...]


def line(text: str, style: Style = Style.PLAIN) -> Line:
    """A line of one piece."""
    return (Span(text, style),)


def text_of(spans: Line) -> str:
    """A line without its styles, and without spaces at its end."""
    return "".join(span.text for span in spans).rstrip()


def in_ascii(text: str) -> str:
    """The same for a stream that shows ASCII only: our signs are spelled, any other is escaped."""
    return text.translate(_SPELLED).encode("ascii", "backslashreplace").decode("ascii")


def width_of(text: str) -> int:
    """How many columns a text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def padded(text: str, width: int, *, right: bool = False) -> str:
    """A text filled up with spaces to a width in columns, after it or, where it stands right, before it."""
    space = " " * max(width - width_of(text), 0)
    return space + text if right else text + space


def cut(text: str, width: int, *, left: bool = False) -> str:
    """A text shortened to a width in columns, with a sign where something is missing: at its end, or on its left."""
    if width_of(text) <= width:
        return text
    kept = text
    while kept and width_of(kept) > max(width - 1, 0):
        kept = kept[1:] if left else kept[:-1]
    return f"…{kept}" if left else f"{kept}…"
