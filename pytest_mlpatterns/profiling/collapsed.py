"""Reads the collapsed stacks that py-spy writes (``--format raw --threads --full-filenames``).

A line is a stack and how often it was seen: ``thread (17): MainThread;main (/srv/app.py:3);work (/srv/a.py:9) 42``.
Frames of native code have no file. From version 0.4.3 on names are qualified, ``Digits.predict``. Pure: it must not
know where the text comes from.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from pytest_mlpatterns.profiling.recording import RawFrame, RawStack

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read_collapsed"]

_THREAD = re.compile(r"thread \((0[xX][0-9a-fA-F]+|\d+)\)(?:: (.*))?", re.DOTALL)
_FRAME = re.compile(r"(.*?) \((.*?)(?::(\d+))?\)", re.DOTALL)


def read_collapsed(text: str) -> Mapping[RawStack, int]:
    """How often each stack was seen.

    Args:
        text: the lines; one that is not complete, as a writer that was killed leaves it, is refused.

    Raises:
        ValueError: a line is no collapsed stack.
    """
    counts: Counter[RawStack] = Counter()
    for line in text.splitlines():
        if line:
            stack, _, seen = line.rpartition(" ")
            counts[_stack(stack)] += int(seen)
    return counts


def _stack(text: str) -> RawStack:
    first, *rest = text.split(";")
    if (found := _THREAD.fullmatch(first)) is None:
        raise ValueError(f"a stack that does not begin with its thread: {text[:80]!r}")
    identity = found[1]
    thread = (
        0 if identity[:2].lower() == "0x" else int(identity)
    )  # else an address, which names no thread of the system
    return RawStack(thread, found[2] or "", tuple(map(_frame, rest)))


@lru_cache(maxsize=4096)
def _frame(text: str) -> RawFrame:
    if (found := _FRAME.fullmatch(text)) is None:
        return RawFrame(text, "", 0)
    qualified = found[1] if "." in found[1] else ""
    return RawFrame(found[1].rpartition(".")[2] or found[1], found[2], int(found[3] or 0), qualified)
