"""Where a history is kept, as an option names it: a file, or the notes of the git repository.

The lines are the same in both. This module must not know what is in them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.history.file import FileHistory
from pytest_mlpatterns.history.notes import NotesHistory
from pytest_mlpatterns.records.history import NOTES_PREFIX
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_mlpatterns.records.history import Compaction, HistoryLine, HistoryRead, Transfer

__all__ = ["History", "open_history"]

_NOTES = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,98}[A-Za-z0-9_-]|[A-Za-z0-9_]")
"""Name of notes that git takes as a part of a ref."""
_PEOPLE = "commits"
"""Name of the notes that ``git notes`` writes and ``git log`` shows by default."""


class History(Protocol):
    """What runs measured, line by line, in one place; other runs may read and append at the same time."""

    @property
    def name(self) -> str:
        """The place as messages name it: the path, or ``git:NAME``."""

    def read(self) -> HistoryRead:
        """Every line, of a file in the order of its lines, of notes in that of dates; exact duplicates count once.

        A history that does not exist yet has no lines. Damaged lines are left out, and a warning names them.

        Raises:
            HistoryError: the place holds something else, is too large, or cannot be read.
        """

    def append(self, lines: Sequence[HistoryLine]) -> tuple[str, ...]:
        """Add lines at the end; all of them or none.

        Returns:
            Sentences for the user, such as the line for ``.gitattributes`` when a file is made; usually none.

        Raises:
            HistoryError: the place holds something else, cannot be written, or another process kept it locked.
        """

    def compact(self, before: str) -> Compaction:
        """Merge lines of older months, those of one test, machine, set-up, environment and commit into one.

        Args:
            before: the first month that stays as it is, ``2026-10``.

        Raises:
            SettingError: it is no month.
            HistoryError: as for reading and appending; the history is as it was.
        """

    def push(self, remote: str) -> Transfer:
        """Send what a remote repository lacks, after what it has was merged here.

        Raises:
            SettingError: the history is a file, which is pushed as other files are, or there is no such remote.
            HistoryError: git failed, or other pushes came first each time.
        """

    def pull(self, remote: str) -> Transfer:
        """Merge what a remote repository has into the history here; errors as for :meth:`push`."""


def open_history(given: str, *, root: Path, invoked_in: Path) -> History:
    """The history of an option; nothing is read or written yet.

    Args:
        given: a path, or ``git:NAME`` for the notes ``refs/notes/NAME`` of the repository.
        root: pytest's root directory, or any directory in the repository.
        invoked_in: directory that a path is relative to.

    Raises:
        SettingError: it names no place.
    """
    if not given.strip():
        raise SettingError("the history is empty text, expected a path, or git:NAME for notes of the repository")
    if not given.startswith(NOTES_PREFIX):
        return FileHistory(invoked_in / given, given)
    name = given.removeprefix(NOTES_PREFIX)
    if not _NOTES.fullmatch(name) or name.endswith(".lock") or ".." in name:
        raise SettingError(
            f"the history is {shown(given)}, expected git: and a name of letters, digits, dots, - and _, "
            f"such as git:perf; for a file of this name, write ./{given}"
        )
    if name == _PEOPLE:
        raise SettingError(f"the history is {shown(given)}, whose notes are those that people write; write git:perf")
    return NotesHistory(name, root)
