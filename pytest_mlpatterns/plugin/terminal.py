"""The terminal of a run: its characters, its width, and colours.

pytest decides on colours (``--color``, ``NO_COLOR``, ``FORCE_COLOR``); the encoding of the stream decides on characters
beyond ASCII. The workers of a distributed run get that decision from the controller, which has the terminal.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.text.styled_text import Style, in_ascii
from pytest_mlpatterns.wording import spelled, visible

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
    """Whether an encoding has all characters of our output; an unknown one does not."""
    try:
        _SIGNS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class Terminal:
    """The terminal of a run.

    Args:
        config: of the run.
        ascii_only: the controller's decision, in a worker; None in the process that has the terminal.
    """

    def __init__(self, config: pytest.Config, *, ascii_only: bool | None = None) -> None:
        self._config = config
        stream = sys.__stdout__
        self.ascii_only: bool = (
            not shows_unicode(getattr(stream, "encoding", None)) if ascii_only is None else ascii_only
        )

    @property
    def width(self) -> int:
        """Width in columns."""
        return self._config.get_terminal_writer().fullwidth

    def spell(self, text: str) -> str:
        """The text as :func:`~pytest_mlpatterns.wording.visible` has it, in characters that the stream has."""
        return in_ascii(visible(text)) if self.ascii_only else visible(text)

    def spell_error(self, error: BaseException | None) -> None:
        """Spell the texts of an exception, and of those that it came from."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            error.args = tuple(self.spell(part) if isinstance(part, str) else part for part in error.args)
            error = error.__cause__ or error.__context__

    def write(self, lines: Iterable[Line]) -> None:
        """Write lines, with colours if the terminal has them."""
        writer = self._config.get_terminal_writer()
        for spans in lines:
            for span in spans:
                writer.write(self.spell(span.text), **_MARKUP[span.style])
            writer.line()

    def write_commands(self, texts: Iterable[str]) -> None:
        """Write commands of GitHub's runner, a line each."""
        writer = self._config.get_terminal_writer()
        for text in texts:
            writer.line(in_ascii(spelled(text)) if self.ascii_only else spelled(text))
