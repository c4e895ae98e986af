"""What to say of a test that fails at a revision: the last line of its error, and the files that it lacks there.

This module reads text and looks for files; it changes nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.system.git import Git

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_mlpatterns.revision.worktree import Worktree

__all__ = ["error_line", "hint_at_files", "without_markers"]

_ERROR = re.compile(r"(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Failure|Failed|Skipped|Exit|Warning)\b(?:: .*)?")
_BEFORE = re.compile(r"(?:E\s+)?(?:\| )?")
"""What stands before the text of a line: pytest's mark of an error, and ours of what a service printed."""
_MARKERS = re.compile(rf"{_BEFORE.pattern}[\s~^]*\^[\s~^]*")
"""A row under a line of a traceback that points into it."""
_QUOTED = re.compile(r"""(?<!\w)(['"])([^'"\n]{1,300})\1""")
_MODULE = re.compile(r"[A-Za-z_][\w.]*")
_SHOWN = 3


def error_line(text: str) -> str:
    """The line of a traceback or message that names the error: its last one, or else its last line with text."""
    lines = [_BEFORE.sub("", line, count=1).strip() for line in without_markers(text).splitlines()]
    lines = [line for line in lines if line]
    return next((line for line in reversed(lines) if _ERROR.fullmatch(line)), lines[-1] if lines else "")


def without_markers(text: str) -> str:
    """The text without the rows of ``^^^^`` that point into the line above."""
    return "\n".join(line for line in text.splitlines() if not _MARKERS.fullmatch(line))


def hint_at_files(text: str, test: str, worktree: Worktree) -> str:
    """What to do about files that an error names, that the working tree has and the revision does not.

    Args:
        text: the error.
        test: id of the test that failed.
        worktree: the revision's files.

    Returns:
        A sentence; empty if the error names no such file.
    """
    found = list(dict.fromkeys(_absent(text, test, worktree)))[:_SHOWN]
    if not found:
        return ""
    below = os.path.relpath(worktree.directory, worktree.root)
    git = Git(worktree.present_root)
    tracked = all(git.succeeds("ls-files", "--error-unmatch", "--", str(file)) for file in found)
    names = [os.path.relpath(file, below) for file in found]
    option = shlex.quote(",".join(names)) if len(names) > 1 else f'"{names[0]}"'
    why = "exists here" if tracked else "exists here, but git does not track it"
    return (
        f"{', '.join(names)} {why}, so {worktree.revision.name} runs without it; take it along: "
        f"--perf-against-files {option}"
    )


def _absent(text: str, test: str, worktree: Worktree) -> Iterator[Path]:
    """Paths relative to the top, of files that are only in the working tree."""
    named = [match[2] for match in _QUOTED.finditer(text)]
    named += re.findall(re.escape(str(worktree.root)) + r"[^\s'\",;:)]*", text)
    for name in named:
        for place in _places(name, test, worktree):
            if place.is_relative_to(worktree.root) and place != worktree.root:
                inside = place.relative_to(worktree.root)
                # unlike Path.exists, this takes what is no path at all
                if os.path.exists(worktree.present_root / inside) and not os.path.exists(place):
                    yield inside


def _places(name: str, test: str, worktree: Worktree) -> Iterator[Path]:
    """Where in the worktree a path, or a module of that name, would be."""
    yield Path(os.path.normpath(worktree.directory / name))
    if _MODULE.fullmatch(name):
        module = name.replace(".", os.sep)
        for folder in (worktree.directory, worktree.directory / "src", (worktree.directory / test).parent):
            yield folder / f"{module}.py"
            yield folder / module
