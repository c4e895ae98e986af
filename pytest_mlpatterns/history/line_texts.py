"""Bytes that a history holds, as lines: which are damaged, which occur twice, and whether it is a history at all.

A file and git notes hold the same bytes. This module must not know where they come from.
"""

from __future__ import annotations

import contextlib
import gc
import re
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import HistoryError
from pytest_mlpatterns.records.history import HistoryLine, HistoryRead
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MOST_BYTES", "LineReader", "content_of", "is_history", "numbered"]

MOST_BYTES = 256 << 20
"""Largest history that is read; 50,000 lines have a tenth of it."""
_MOST_LINE_BYTES = 64 << 10
"""Longest line; a usual one has a hundredth of it."""
_SHOWN_FAULTS = 5
"""Damaged lines that a warning names; it counts the others."""
_BEGIN = re.compile(rb'\s*\{\s*"at"\s*:\s*\[')
"""Beginning of a line: its members are sorted."""
_BEGINNING = b'{"at":['
"""The same as this package writes it."""


class LineReader:
    """Reads lines, leaves out damaged ones and exact duplicates, and remembers why.

    Args:
        name: the history as messages name it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: dict[bytes, HistoryLine] = {}
        self._faults: list[str] = []

    def add(self, content: bytes, where: str = "") -> None:
        """Read lines.

        Args:
            where: what stands before the number of a damaged line, such as the commit of a note.
        """
        with _without_collector():
            for number, found in numbered(content):
                if found in self._lines:
                    continue
                try:
                    self._lines[found] = line_of(found)
                except ValueError as error:
                    is_cut = content.endswith(found) and not found.endswith(b"}")
                    self._faults.append(f"{where}line {number:,} {'is cut off' if is_cut else error}")

    def result(self) -> HistoryRead:
        """What was read so far."""
        faults = self._faults
        if not faults:
            return HistoryRead(tuple(self._lines.values()))
        further = f"; and {count(len(faults) - _SHOWN_FAULTS, 'other')}" if len(faults) > _SHOWN_FAULTS else ""
        left_out = "1 line is" if len(faults) == 1 else f"{len(faults):,} lines are"
        warning = f"{self._name}: {left_out} left out: {'; '.join(faults[:_SHOWN_FAULTS])}{further}"
        return HistoryRead(tuple(self._lines.values()), (warning,), len(faults))


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the collector of cycles, of which lines have none: it would look at all of them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def numbered(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Each line that is not empty, with its number from 1, without white space around it."""
    for number, line in enumerate(content.split(b"\n"), 1):
        if text := line.strip():
            yield number, text


def line_of(text: bytes) -> HistoryLine:
    """The line of these bytes.

    Raises:
        ValueError: they are no line of a history; the message continues a sentence about the line.
    """
    if len(text) > _MOST_LINE_BYTES:
        raise ValueError(f"has {len(text) >> 10} KiB, expected at most {_MOST_LINE_BYTES >> 10}")
    try:
        return HistoryLine.from_text(text.decode())
    except UnicodeDecodeError:
        raise ValueError("is not in UTF-8") from None


def content_of(lines: Iterable[HistoryLine], name: str) -> bytes:
    """Bytes of lines.

    Args:
        name: the history as messages name it.

    Raises:
        HistoryError: a line is longer than those that are read.
    """
    texts = []
    for line in lines:
        text = line.to_text().encode()
        if len(text) > _MOST_LINE_BYTES:
            raise HistoryError(
                f"the line of {line.test} for {name} has {len(text) >> 10} KiB, "
                f"expected at most {_MOST_LINE_BYTES >> 10}; measure fewer launches or metrics"
            )
        texts.append(text + b"\n")
    return b"".join(texts)


def is_history(content: bytes) -> bool:
    """Whether these bytes are a history or the beginning of one: a line begins as its lines do, or there is none.

    Damaged lines before that one may be anything, such as the marks of a merge with conflicts.
    """
    others = []
    for _, found in numbered(content):
        if _BEGIN.match(found):
            return True
        others.append(found)
    if len(others) == 1:
        return _BEGINNING.startswith(others[0])  # a writer was killed at its first letters
    return not others
