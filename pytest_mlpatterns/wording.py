"""Words and text: brackets, plurals, lists and suggestions, as messages and settings need them."""

from __future__ import annotations

__all__ = ["split_outside_brackets"]


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """The parts between separators that stand in no bracket."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == separator and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
