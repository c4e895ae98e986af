"""Text of messages and settings: plurals, lists, suggestions, and splitting outside brackets."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["count", "did_you_mean", "listed", "split_outside_brackets"]


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: ``count(1, "launch", "launches")`` is ``1 launch``, ``count(2_000, "request")`` is
    ``2,000 requests``.

    Args:
        number: how many.
        one: the singular.
        many: the plural; the singular with an s by default.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str], joint: str = "and") -> str:
    """Names in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    return f"{', '.join(names[:-1])} {joint} {names[-1]}" if len(names) > 1 else "".join(names)


def did_you_mean(given: str, known: Iterable[str], form: str = "{}") -> str:
    """The question whether the most similar known name was meant, followed by a space; empty if none is similar.

    Args:
        given: the name that is not known.
        known: the names that are.
        form: how a name is written, such as ``"{}="`` for an argument.
    """
    close = difflib.get_close_matches(given, list(known), n=1)
    return f"did you mean {form.format(close[0])}? " if close and close[0] != given else ""


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """Split at each separator that is not inside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == separator and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
