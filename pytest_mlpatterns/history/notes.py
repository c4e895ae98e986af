"""A history in git notes: the lines of each run stand in a note on the commit that was measured.

The notes are in ``refs/notes/NAME``. They need no commit of their own on a branch, and no right to push one: a job of
CI adds notes to what it has measured, and :meth:`NotesHistory.push` merges them with those of other jobs, as
``git notes merge -s cat_sort_uniq`` does. But a line that one side has removed since both were equal stays removed, so
a compaction survives.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_mlpatterns.credentials import without_users
from pytest_mlpatterns.errors import DeploymentError, HistoryError, SettingError
from pytest_mlpatterns.history.compaction import compacted, month
from pytest_mlpatterns.history.line_texts import MOST_BYTES, LineReader, content_of, numbered
from pytest_mlpatterns.history.note_tree import NoteChange, NoteTree
from pytest_mlpatterns.records.history import NOTES_PREFIX, Compaction, HistoryRead, Transfer
from pytest_mlpatterns.system.git import Git
from pytest_mlpatterns.wording import listed, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_mlpatterns.records.history import HistoryLine

__all__ = ["NotesHistory"]

_STALLS = 3
"""Pushes that fail although the remote's notes stay as they are, after which it is given up. Another push may hold the
lock of the ref there for a moment."""
_PAUSE_MS = 500
"""Longest pause before another push, in milliseconds; it is random, so that jobs do not meet again."""
_SHOWN_DIGITS = 12
"""Digits of a commit's hash in warnings."""


@dataclass(frozen=True, slots=True)
class NotesHistory:
    """A history in the notes of a repository.

    Attributes:
        notes: the last part of the ref, ``perf`` for ``refs/notes/perf``.
        directory: any directory in the repository.
        option: that names another history, for messages.
    """

    notes: str
    directory: Path
    option: str = field(default="--perf-history", compare=False)

    @property
    def name(self) -> str:
        """The place as messages name it."""
        return f"{NOTES_PREFIX}{self.notes}"

    def read(self) -> HistoryRead:
        """Every line, in the order of their dates; see :meth:`pytest_mlpatterns.history.place.History.read`."""
        with self._errors("cannot be read"):
            tree = self._tree()
            contents = tree.contents(tree.tip(), most_bytes=MOST_BYTES)
        reader = LineReader(self.name)
        for commit, content in contents.items():
            reader.add(content, where=f"note on {commit[:_SHOWN_DIGITS]}, ")
        found = reader.result()
        lines = sorted(found.lines, key=lambda line: line.date)
        return HistoryRead(tuple(lines), found.warnings, found.skipped)

    def append(self, lines: Sequence[HistoryLine]) -> tuple[str, ...]:
        """Add lines to the notes on their commits; see :meth:`pytest_mlpatterns.history.place.History.append`."""
        if not lines:
            return ()
        by_commit: dict[str, list[HistoryLine]] = {}
        for line in lines:
            by_commit.setdefault(line.at.commit, []).append(line)
        is_new = False
        with self._errors("is unchanged"):
            tree = self._tree()
            full = tree.resolved(by_commit)
            added: dict[str, bytes] = {}
            for commit, of in by_commit.items():  # two names may be those of one commit
                added[full[commit]] = added.get(full[commit], b"") + content_of(of, self.name)

            def with_lines(state: str) -> NoteChange:
                nonlocal is_new
                is_new = not state
                old = tree.contents(state, added, most_bytes=MOST_BYTES)
                contents = {commit: _ended(old.get(commit, b"")) + content for commit, content in added.items()}
                return NoteChange(contents, "Add what a run has measured")

            tree.change(with_lines)
        return (self._offer(),) if is_new else ()

    def compact(self, before: str) -> Compaction:
        """Merge lines of older months; see :meth:`pytest_mlpatterns.history.place.History.compact`."""
        first = month(before)
        done = Compaction((0, 0), (0, 0))
        with self._errors("is unchanged"):
            tree = self._tree()

            def with_fewer_lines(state: str) -> NoteChange | None:
                nonlocal done
                old = tree.contents(state, most_bytes=MOST_BYTES)
                new = {commit: compacted(content, first) for commit, content in old.items()}
                done = _compaction(list(old.values()), list(new.values()))
                changed = {commit: content for commit, content in new.items() if content != old[commit]}
                return NoteChange(changed, f"Compact what is older than {first}") if changed else None

            tree.change(with_fewer_lines)
        return done

    def push(self, remote: str) -> Transfer:
        """Merge with a remote repository and send; see :meth:`pytest_mlpatterns.history.place.History.push`."""
        with self._errors("is not pushed"):
            tree = self._tree()
            _require_remote(tree.git, remote)
            received, stalls, before = 0, 0, None
            while True:
                theirs = _fetched(tree, remote)
                received += self._merge(tree, theirs, remote)
                ours = tree.tip()
                if ours == theirs:
                    return Transfer(received)
                try:
                    tree.git.run("push", "--quiet", "--recurse-submodules=no", remote, f"{ours}:{tree.ref}")
                except DeploymentError:  # another push came first, or there is no permission to push
                    stalls = stalls + 1 if theirs == before else 0
                    before = theirs
                    if stalls >= _STALLS:
                        raise
                else:
                    return Transfer(received, _differing(tree, theirs, ours))
                time.sleep(secrets.randbelow(_PAUSE_MS) / 1000)

    def pull(self, remote: str) -> Transfer:
        """Merge what a remote repository has; see :meth:`pytest_mlpatterns.history.place.History.pull`."""
        with self._errors("is not pulled"):
            tree = self._tree()
            _require_remote(tree.git, remote)
            return Transfer(self._merge(tree, _fetched(tree, remote), remote))

    def _merge(self, tree: NoteTree, theirs: str, remote: str) -> int:
        """Merge a state of the remote's notes into those here; returns the number of commits whose notes it changed."""
        changed = 0

        def with_theirs(state: str) -> NoteChange | None:
            nonlocal changed
            changed = 0
            if not theirs or (state and tree.is_part(theirs, state)):
                return None
            message = f"Merge {self.notes} of {without_users(remote)}"
            if not state or tree.is_part(state, theirs):
                changed = _differing(tree, state, theirs)
                return NoteChange({}, message, becomes=theirs)
            contents = _merged(tree, state, theirs)
            changed = len(contents)
            return NoteChange(contents, message, merges=theirs)

        tree.change(with_theirs)
        return changed

    def _tree(self) -> NoteTree:
        return NoteTree(Git(self.directory), f"refs/notes/{self.notes}")

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Raise the message of git as an error about this history."""
        try:
            yield
        except DeploymentError as error:
            try:
                Git(self.directory).position()
            except SettingError:
                raise SettingError(
                    f"{self.directory} is not in a git repository, expected one for the history {self.name}; "
                    f"name a file with {self.option} instead"
                ) from None
            raise HistoryError(f"{self.name} {what}: {without_users(str(error))}") from error

    def _offer(self) -> str:
        return (
            f"{self.name} is new. Git sends and fetches its notes only on request: "
            f"python -m pytest_mlpatterns history push --from {self.name}, and history pull --from {self.name}"
        )


def _require_remote(git: Git, remote: str) -> None:
    remotes = git.run("remote").split()
    is_address = ("/" in remote or ":" in remote) and not remote.startswith("-")
    if remote not in remotes and not is_address:
        expected = listed([*remotes, "the address of a repository"], "or")
        raise SettingError(f"there is no remote {shown(remote)} in {git.directory}, expected {expected}")


def _fetched(tree: NoteTree, remote: str) -> str:
    """The state of the remote's notes, which is then here too; empty if it has none."""
    lines = tree.git.run("ls-remote", remote, tree.ref).splitlines()
    theirs = {name: sha for sha, _, name in (line.partition("\t") for line in lines)}.get(tree.ref, "")
    if theirs and not tree.git.succeeds("cat-file", "-e", f"{theirs}^{{commit}}"):
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=", "--recurse-submodules=no")
        tree.git.run("fetch", *options, remote, tree.ref)
    return theirs


def _differing(tree: NoteTree, old: str, new: str) -> int:
    """Number of commits whose notes differ between two states."""
    before, after = tree.blobs(old), tree.blobs(new)
    return sum(before.get(commit) != after.get(commit) for commit in before.keys() | after.keys())


def _merged(tree: NoteTree, ours: str, theirs: str) -> dict[str, bytes]:
    """The notes that a merge changes in ours; an empty one is removed."""
    base = tree.common(ours, theirs)
    before, after = tree.blobs(base), tree.blobs(theirs)
    commits = {commit for commit in before.keys() | after.keys() if before.get(commit) != after.get(commit)}
    sides = [tree.contents(state, commits, most_bytes=MOST_BYTES) for state in (base, ours, theirs)]
    merged = {}
    for commit in commits:
        common, own, other = (side.get(commit, b"") for side in sides)
        lines = other if own == common else _merged_lines(common, own, other)
        if lines != own:
            merged[commit] = lines
    return merged


def _merged_lines(common: bytes, own: bytes, other: bytes) -> bytes:
    """Lines of both sides, sorted and each once, without those that one side has removed."""
    base, ours, theirs = ({text for _, text in numbered(content)} for content in (common, own, other))
    lines = (ours & theirs) | (ours - base) | (theirs - base)
    return b"".join(line + b"\n" for line in sorted(lines))


def _ended(content: bytes) -> bytes:
    return content if not content or content.endswith(b"\n") else content + b"\n"


def _compaction(old: Sequence[bytes], new: Sequence[bytes]) -> Compaction:
    lines = [sum(1 for content in side for _ in numbered(content)) for side in (old, new)]
    sizes = [sum(map(len, side)) for side in (old, new)]
    return Compaction((lines[0], lines[1]), (sizes[0], sizes[1]))
