"""What the terminal of a run can show, and how our lines get there.

Colours are pytest's business (``--color``, ``NO_COLOR``, ``FORCE_COLOR``); whether the stream has more than ASCII is
asked of the stream. In a distributed run the workers are told by the process that has the terminal.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.text.styled_text import Style, in_ascii

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pytest

    from pytest_mlpatterns.reports.text.styled_text import Line

__all__ = ["Terminal", "shows_unicode"]

_SIGNS = "→µ±–…×✓✗·█▁≥"
_MARKUP: Mapping[Style, Mapping[str, bool]] = {
    Style.PLAIN: {},
    Style.STRONG: {"bold": True},
    Style.FAINT: {"light": True},
    Style.GOOD: {"green": True},
    Style.BAD: {"red": True, "bold": True},
    Style.OPEN: {"yellow": True},
}


def shows_unicode(encoding: str | None) -> bool:
    """Whether a stream of this encoding has all of our signs; an unknown encoding has not."""
    try:
        _SIGNS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class Terminal:
    """The terminal of a run.

    Args:
        config: of the run.
        ascii_only: what the process that has the terminal says; None in that process.
    """

    def __init__(self, config: pytest.Config, *, ascii_only: bool | None = None) -> None:
        self._config = config
        stream = sys.__stdout__
        self.ascii_only = not shows_unicode(getattr(stream, "encoding", None)) if ascii_only is None else ascii_only

    @property
    def width(self) -> int:
        """In columns."""
        return self._config.get_terminal_writer().fullwidth

    def spell(self, text: str) -> str:
        """A text as the stream can show it."""
        return in_ascii(text) if self.ascii_only else text

    def write(self, lines: Iterable[Line]) -> None:
        """Write lines, with colours where the terminal has them."""
        writer = self._config.get_terminal_writer()
        for spans in lines:
            for span in spans:
                writer.write(self.spell(span.text), **_MARKUP[span.style])
            writer.line()
