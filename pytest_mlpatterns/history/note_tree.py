"""A ref of git notes as a mapping from commits to bytes, which is changed at once or not at all.

`git notes` moves its ref without a look at what other processes did meanwhile, so parallel ones lose notes. Here each
change names the state that it was made from, and git moves the ref only from there (`git fast-import` compares and
swaps). Otherwise the change is made anew from the new state. Processes of one machine wait for each other before, so
that this is rare. This module must not know what the notes hold.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import DeploymentError, HistoryError
from pytest_mlpatterns.system.files import locked
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from pytest_mlpatterns.system.git import Git

__all__ = ["NoteChange", "NoteTree"]

_TIMEOUT_S = 60.0
"""Longest time for which a change is made anew because other processes came first, in seconds."""
_LOCK_S = 30.0
"""Longest wait for the processes that change notes of this repository, in seconds."""
_FAILURES = 5
"""Failures of git in a row, without a change by another process, after which it is not tried again. Another process may
hold the lock of the ref for a moment."""
_PAUSE_MS = 50
"""Longest pause before a change is made anew, in milliseconds; it is random, so that processes do not meet again."""
_DIVIDED = 256
"""Notes from which new ones are in directories by the first two digits of their commit, as git lays them out too."""
_UNKNOWN = "pytest-mlpatterns <pytest-mlpatterns@localhost>"
"""Author of notes where git knows none, such as in CI."""


@dataclass(frozen=True, slots=True)
class NoteChange:
    """A change of notes.

    Attributes:
        contents: new bytes by the commit's full hash; empty to remove a note.
        message: subject of the commit that holds the change.
        merges: another state whose notes are in it; empty for none.
        becomes: a later state that is taken as it is, without a commit of its own; empty for none.
    """

    contents: Mapping[str, bytes]
    message: str
    merges: str = ""
    becomes: str = ""


@dataclass(frozen=True, slots=True)
class _Blob:
    """A file in a tree of notes."""

    path: str
    sha: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class NoteTree:
    """The notes of one ref.

    Attributes:
        git: the repository.
        ref: its full name, ``refs/notes/perf``.
    """

    git: Git
    ref: str

    def tip(self) -> str:
        """The commit that holds the notes as they are now; empty if there are none.

        Raises:
            DeploymentError: git failed, or this is no repository.
        """
        lines = self.git.run("for-each-ref", "--format=%(refname) %(objectname)", self.ref).splitlines()
        return dict(line.split(" ", 1) for line in lines).get(self.ref, "")

    def blobs(self, state: str) -> dict[str, str]:
        """The hash of each note's content by that of its commit, of a state of the notes."""
        return {commit: blob.sha for commit, blob in self._listed(state).items()}

    def contents(self, state: str, commits: Collection[str] | None = None, *, most_bytes: int) -> dict[str, bytes]:
        """The notes of a state by the full hash of their commit.

        Args:
            state: a commit that :meth:`tip` gave; none if it is empty.
            commits: those whose notes are read; None for all.
            most_bytes: largest sum of their sizes.

        Raises:
            HistoryError: they are larger.
        """
        blobs = self._listed(state)
        wanted = sorted(blobs if commits is None else blobs.keys() & set(commits))
        if sum(blobs[commit].size_bytes for commit in wanted) > most_bytes:
            raise HistoryError(f"the notes in {self.ref} are larger than {most_bytes >> 20} MiB; compact them")
        asked = "".join(f"{blobs[commit].sha}\n" for commit in wanted).encode()
        answer = os.fsencode(self.git.run("cat-file", "--batch", stdin=asked)) if asked else b""
        found = _objects(answer)
        if len(found) < len(wanted):
            raise HistoryError(
                f"the notes in {self.ref} cannot be read: the repository lacks the note on {wanted[len(found)]}; "
                "fetch the notes again, or restore them from another clone"
            )
        return dict(zip(wanted, found, strict=True))

    def resolved(self, commits: Collection[str]) -> dict[str, str]:
        """The full hash of each commit.

        Raises:
            HistoryError: a commit is not in the repository.
        """
        names = sorted(commits)
        asked = "".join(f"{name}^{{commit}}\n" for name in names).encode()
        answers = self.git.run("cat-file", "--batch-check=%(objectname)", stdin=asked).splitlines()
        for name, answer in zip(names, answers, strict=True):
            if " " in answer:  # the name and what is wrong with it
                fetch = "fetch it, for example with git fetch --unshallow" if self.git.is_shallow else "fetch it"
                raise HistoryError(
                    f"the commit {name or 'without a hash'} is not in {self.git.directory}, "
                    f"expected it there, since a note belongs to a commit; {fetch}, or keep the history in a file"
                )
        return dict(zip(names, answers, strict=True))

    def change(self, make: Callable[[str], NoteChange | None]) -> None:
        """Change notes, from the state in which no other process changes them meanwhile.

        Args:
            make: gives the change of a state, which is empty if there are no notes yet; None for none.

        Raises:
            HistoryError: git failed, or other processes came first for a minute.
        """
        committer = self._committer()
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):  # without it, a change is made anew more often
                held.enter_context(locked(self._directory() / self.ref.replace("/", "-"), timeout_s=_LOCK_S))
            self._change(make, committer)

    def _change(self, make: Callable[[str], NoteChange | None], committer: str) -> None:
        until, failures, before = time.monotonic() + _TIMEOUT_S, 0, None
        while True:
            state = self.tip()
            change = make(state)
            if change is None:
                return
            failures = failures + 1 if state == before else 0
            before = state
            try:
                self._write(state, change, committer)
            except DeploymentError as error:
                if failures >= _FAILURES or time.monotonic() > until:
                    raise HistoryError(f"the notes in {self.ref} are unchanged: {error}") from error
            else:
                return
            time.sleep(secrets.randbelow(_PAUSE_MS) / 1000)

    def is_part(self, old: str, new: str) -> bool:
        """Whether a state contains all changes of another one."""
        return self.git.succeeds("merge-base", "--is-ancestor", old, new)

    def common(self, one: str, other: str) -> str:
        """The last state that two have in common; empty if they have none."""
        return self.git.run("merge-base", one, other).strip() if self.git.succeeds("merge-base", one, other) else ""

    def _listed(self, state: str) -> dict[str, _Blob]:
        """The notes of a state; files that are none are left out."""
        if not state:
            return {}
        found = {}
        for entry in self.git.run("ls-tree", "-r", "-l", "-z", "--full-tree", state).split("\0")[:-1]:
            head, _, path = entry.partition("\t")
            _, kind, sha, size = head.split()
            commit = path.replace("/", "")
            if kind == "blob" and len(commit) == len(sha) and set(commit) <= set("0123456789abcdef"):
                found[commit] = _Blob(path, sha, int(size) if size.isdigit() else 0)  # git lacks a damaged one
        return found

    def _write(self, state: str, change: NoteChange, committer: str) -> None:
        if change.becomes:
            nothing = "0" * len(change.becomes)
            self.git.run("update-ref", "-m", change.message, self.ref, change.becomes, state or nothing)
            return
        message = f"{change.message}\n\n{count(len(change.contents), 'note')}\n".encode()
        parts = [os.fsencode(f"commit {self.ref}\ncommitter {committer}\n"), _data(message)]
        parts += [
            f"{word} {parent}\n".encode() for word, parent in (("from", state), ("merge", change.merges)) if parent
        ]
        present = self._listed(state)
        is_divided = len(present) >= _DIVIDED or any("/" in blob.path for blob in present.values())
        for commit, content in sorted(change.contents.items()):
            # by paths, not as fast-import's notes, which must be on commits that a shallow clone may lack
            new_path = f"{commit[:2]}/{commit[2:]}" if is_divided else commit
            path = present[commit].path if commit in present else new_path
            parts += [f"M 100644 inline {path}\n".encode(), _data(content)] if content else [f"D {path}\n".encode()]
        self.git.run("fast-import", "--quiet", "--done", stdin=b"".join([*parts, b"done\n"]))

    def _directory(self) -> Path:
        """The directory that all worktrees of the repository share."""
        return self.git.directory / self.git.run("rev-parse", "--git-common-dir").removesuffix("\n")

    def _committer(self) -> str:
        try:
            return self.git.run("var", "GIT_COMMITTER_IDENT").strip()
        except DeploymentError:
            return f"{_UNKNOWN} {int(time.time())} +0000"


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _objects(answer: bytes) -> list[bytes]:
    """The contents in an answer of ``git cat-file --batch``, each after a line with its size, up to a missing one."""
    found, place = [], 0
    while place < len(answer):
        end = answer.index(b"\n", place)
        size = answer[place:end].rsplit(b" ", 1)[1]
        if not size.isdigit():
            break
        found.append(answer[end + 1 : end + 1 + int(size)])
        place = end + 2 + int(size)
    return found
