"""Text of messages and settings: plurals, lists, suggestions, and splitting outside brackets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["count", "did_you_mean", "listed", "named", "shown", "split_outside_brackets"]

_LONGEST = 300
"""Longest text of a value in a message."""


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


def shown(value: object) -> str:
    """A user's value in a message: its ``repr`` in one line, cut if it is long, or its type if it has no ``repr``."""
    try:
        text = " ".join(map(str.strip, repr(value).split("\n")))
    except Exception:  # a number of 5,000 digits, a list inside a list without end, or any error of the user's class
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 50]}… ({len(text):,} characters)"


def named(text: object) -> str:
    """The name of a file or option in a message: as it is, or as :func:`shown` if it is long or cannot be printed."""
    name = str(text)
    return name if name.isprintable() and len(name) <= _LONGEST else shown(name)


def did_you_mean(given: str, known: Iterable[str], form: str = "{}") -> str:
    """The question whether the most similar known name was meant, followed by a space; empty if none is similar.

    Args:
        given: the name that is not known.
        known: the names that are.
        form: how a name is written, such as ``"{}="`` for an argument.
    """
    import difflib

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
