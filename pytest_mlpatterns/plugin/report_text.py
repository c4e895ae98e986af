"""The text that pytest makes of a failing perf test, spelled as all text from elsewhere is.

pytest quotes the arguments of a user's check, which are answers of the service, and the values that an assertion
compares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["spell_report_text"]


def spell_report_text(text: Any, spell: Callable[[str], str]) -> None:
    """Spell the lines, arguments and local variables of each entry of a traceback in place.

    Args:
        text: ``longrepr`` of a report; what is no traceback stays as it is.
        spell: changes one text.
    """
    for traceback, *_ in getattr(text, "chain", ()):
        for entry in traceback.reprentries:
            entry.lines = [spell(line) for line in entry.lines]
            if (arguments := getattr(entry, "reprfuncargs", None)) is not None:
                arguments.args = [(name, spell(value)) for name, value in arguments.args]
            if (local := getattr(entry, "reprlocals", None)) is not None:
                local.lines = [spell(line) for line in local.lines]
