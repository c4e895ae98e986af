"""A cause whose truth is known: a small project in a git repository, and the change that makes its working tree slower.

The commit is the project as it was. The working tree has the change, so that ``--perf-against HEAD`` compares both.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Cause", "Edit", "make_repository"]

_ALWAYS = {
    "pytest.ini": "[pytest]\npythonpath = .\n",
    ".gitignore": "__pycache__/\n.pytest_cache/\n*.log\n",
}
_IDENTITY = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")


@dataclass(frozen=True)
class Edit:
    """One replacement in one file; ``old`` occurs there once. An empty ``old`` writes a new file."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Cause:
    """A change of a project that makes it slower, and what a failure should name.

    Attributes:
        name: what the change is, in words.
        files: the project before the change: texts by path.
        edits: the change.
        functions: qualified names of which the first line should name one; empty if no function got slower.
        parts: words for the part of a request's time that grew, such as ``"wire"``: one of them is enough if
            ``functions`` is empty.
        callers: qualified names that grow with it, mostly because they call what got slower: naming one is no help, and
            not wrong.
        part_suffices: whether one of ``parts`` is enough although there are functions.
    """

    name: str
    files: Mapping[str, str]
    edits: tuple[Edit, ...]
    functions: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    callers: tuple[str, ...] = ()
    part_suffices: bool = field(default=False)

    @property
    def folder(self) -> str:
        """Name of the folder of its repository."""
        return "_".join("".join(letter if letter.isalnum() else " " for letter in self.name.lower()).split())


def make_repository(top: Path, cause: Cause, *, changed: bool = True) -> None:
    """Write the project, commit it, and change the working tree; a folder that is there already is replaced.

    Args:
        top: the folder.
        cause: the project and its change.
        changed: whether the change is applied.

    Raises:
        ValueError: an edit does not fit its file.
    """
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir(parents=True)
    for name, text in {**_ALWAYS, **cause.files}.items():
        (top / name).write_text(text.lstrip(), encoding="utf-8")
    for command in (("init", "--quiet", "--initial-branch=main"), ("add", "."), ("commit", "--quiet", "-m", "Before")):
        subprocess.run(["git", *_IDENTITY, *command], cwd=top, check=True)
    for edit in cause.edits if changed else ():
        file = top / edit.file
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if edit.old and text.count(edit.old) != 1:
            raise ValueError(f"{cause.name}: {text.count(edit.old)} times in {edit.file}, expected once: {edit.old!r}")
        file.write_text(text.replace(edit.old, edit.new) if edit.old else f"{edit.new}\n", encoding="utf-8")
