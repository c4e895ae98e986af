"""Which commit is meant: what a branch, tag, hash or merge base names, and at which one a baseline entry was recorded.

People record in a tree with changes and commit test, model and baseline together; branches are squashed and rebased. So
the commit that the entry names may not exist any more, while the history of the file still knows the code.
This module must not know what is measured, nor verdicts.
"""

import functools
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from msgspec import Struct

from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.records.baseline_entry import EntryKey
from pytest_mlpatterns.records.json_text import parsed
from pytest_mlpatterns.system.git import Git, commit_digest, tree_digest

_MERGE_BASE = "merge-base:"
_SHALLOW = (
    "this clone is shallow, so it may only be missing here: `git fetch --unshallow`, and `git fetch origin NAME` for "
    "another branch; with actions/checkout, `fetch-depth: 0`"
)
_NAME = "the baseline's commit"
_DEEPEN = (100, 1_000)  # Commits by which a shallow clone is deepened, in turn, before all of its history is fetched
_MOST_STEPS = 1_000  # Changes of the baseline file that the search goes back at most; each takes some 20 ms


class Revision(Struct, frozen=True):
    """A commit."""

    sha: str
    name: str  # the user's name for it; with the name of the remote if only a remote has such a branch
    subject: str
    short: str


def resolve_revision(project: Path, ref: str) -> Revision:
    """Find the commit that a reference names.

    ``ref``: a branch, tag or commit, or ``merge-base:BRANCH`` for the last commit that HEAD and that branch share. The
    name of the remote may be left out if one remote only has the branch.
    """
    git = Git(project)
    top = git.position().top
    if not git.succeeds("rev-parse", "--verify", "--quiet", "HEAD"):
        raise SettingError(f"HEAD has no commit yet in {top}, expected a commit to compare with; commit first")
    name, sha = _commit(git, top, ref.removeprefix(_MERGE_BASE))
    if ref.startswith(_MERGE_BASE):
        if not git.succeeds("merge-base", "HEAD", sha):
            raise SettingError(
                f"{ref}: HEAD and {name} have no common commit in {top}, expected at least one{_if_shallow(git)}"
            )
        name, sha = f"{_MERGE_BASE}{name}", git.run("merge-base", "HEAD", sha).strip()
    described = git.run("log", "-1", "--no-show-signature", "--encoding=UTF-8", "--format=%h%n%s", sha)
    short, subject, *_ = described.split("\n")
    return Revision(sha, name, os.fsencode(subject).decode(errors="replace"), short)


def _commit(git: Git, top: Path, ref: str) -> tuple[str, str]:
    """Name and hash of a revision."""
    remotes = git.run("remote").split("\n")[:-1]
    found = {name: sha for name in (ref, *(f"{remote}/{ref}" for remote in remotes)) if (sha := commit_hash(git, name))}
    if ref in found or len(found) == 1:
        name = ref if ref in found else next(iter(found))
        return name, found[name]
    names = git.run("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes").split()
    close = list(found) or get_close_matches(ref, names, n=5) or names[:5]
    such = f" such as {', '.join(close)}" if close else ""
    raise SettingError(f"{ref!r} is no revision of {top}, expected a branch, tag or commit{such}{_if_shallow(git)}")


def commit_hash(git: Git, name: str) -> str | None:
    """The full hash of the commit that a name or an abbreviated hash stands for; None if there is none here."""
    verify = ("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    return git.run(*verify).strip() if name.lstrip("-^") == name != "" and git.succeeds(*verify) else None


def _if_shallow(git: Git) -> str:
    return f"; {_SHALLOW}" if git.is_shallow else ""


class UnknownRevisionError(DeploymentError):
    """The code that an entry was recorded from cannot be found here; the message has advice."""


class ShallowCloneError(UnknownRevisionError):
    """The commits that would show it are not in this clone."""


class RecordedRevision(Struct, frozen=True):
    """The code that an entry was recorded from."""

    revision: Revision | None  # its commit; None if the working tree is that very code and no commit holds it yet
    is_present: bool  # whether the working tree has the same files, so that there is nothing to compare
    # half a sentence on how the commit differs from what was measured; empty if it does not, or is unknown
    note: str = ""


class RecordedRevisions:
    """Finds the commits of the entries of one baseline file."""

    def __init__(self, root: Path, file: Path, leave_out: tuple[Path, ...] = (), *, fetch: bool = False) -> None:
        self._root = root
        self._file = file
        self._leave_out = (file, *leave_out)
        self._fetches = fetch
        self._depth = 0

    def find(self, key: EntryKey) -> RecordedRevision:
        """The code that an entry was recorded from."""
        try:
            return self._find(key)
        except UnknownRevisionError:
            raise
        except (SettingError, DeploymentError) as error:
            raise UnknownRevisionError(str(error)) from error

    def _find(self, key: EntryKey) -> RecordedRevision:
        if key.tree and key.tree == self._present_digest:
            return RecordedRevision(None, is_present=True)
        if key.tree and (measured := self._clean_commit(key)) is not None:
            return self._at(measured, key)
        sha = self._commit_of(key)
        while sha is not None and self._fetches and self._is_shallow_at(sha) and self._deepen():
            sha = self._commit_of(key)
        if sha is not None and self._is_shallow_at(sha):
            raise ShallowCloneError(
                "this clone is shallow, so the commit that recorded the baseline is not known here: fetch the history "
                "(with actions/checkout, `fetch-depth: 0`), or run with --perf-settle fetch"
            )
        return self._at(self._recorded_commit(key) if sha is None else sha, key)

    def _clean_commit(self, key: EntryKey) -> str | None:
        """The commit that the entry names, if this clone has it and it holds the very files that were measured."""
        if not (commit := key.unchanged_commit):
            return None
        sha = commit_hash(self._git, commit)
        return sha if sha is not None and self._digest_of(sha) == key.tree else None

    def _at(self, sha: str, key: EntryKey) -> RecordedRevision:
        digest = self._digest_of(sha)
        revision = resolve_revision(self._root, sha)
        note = ""
        if key.tree and digest != key.tree:
            note = f"whose files differ from those that {self._file.name} was recorded from"
        named = Revision(revision.sha, _NAME, revision.subject, revision.short)
        return RecordedRevision(named, is_present=digest == self._present_digest, note=note)

    def _commit_of(self, key: EntryKey) -> str | None:
        """The commit that brought the entry's present content into the file; None if no commit holds it."""
        wanted = _entry_of(self._file.read_text(encoding="utf-8"), key)
        sha, path = commit_hash(self._git, "HEAD"), self._path
        if wanted is None or sha is None or self._stored(sha, path, key) != wanted:
            return None
        for _ in range(_MOST_STEPS):
            sha = self._last_change(sha, path)
            for parent in self._parents(sha):
                before = self._path_in(parent, sha, path)
                if before is not None and self._stored(parent, before, key) == wanted:
                    sha, path = parent, before
                    break
            else:
                return sha
        raise UnknownRevisionError(
            f"{self._file.name} was changed more than {_MOST_STEPS:,} times since it was recorded: record it anew with "
            "--perf-baseline update"
        )

    def _recorded_commit(self, key: EntryKey) -> str:
        """The commit that an entry names which is not committed itself."""
        if not (commit := key.unchanged_commit):
            raise UnknownRevisionError(
                f"{self._file.name} is not committed, and was recorded in a tree with changes, so no commit holds the "
                "code that it was recorded from: commit it together with that code"
            )
        if (sha := commit_hash(self._git, commit)) is None:
            raise UnknownRevisionError(
                f"{self._file.name} was recorded at {commit}, which is not in this clone, and is not committed: "
                "commit it together with the code that it was recorded from"
            )
        return sha

    @functools.cache  # noqa: B019 - lives as long as the session, as this object does
    def _last_change(self, sha: str, path: str) -> str:
        return self._git.run("rev-list", "-1", sha, "--", f":(top,literal){path}").strip()

    @functools.cache  # noqa: B019 - as above
    def _path_in(self, parent: str, sha: str, path: str) -> str | None:
        """The path of the baseline file in a parent, also if the commit moved it; None if the parent has none."""
        if self._git.succeeds("cat-file", "-e", f"{parent}:{path}"):
            return path
        moved = self._git.run("diff-tree", "-r", "-z", "-M20%", "--diff-filter=R", "--name-status", parent, sha)
        fields = moved.split("\0")[:-1]
        return next((before for before, now in zip(fields[1::3], fields[2::3], strict=True) if now == path), None)

    @functools.cache  # noqa: B019 - as above
    def _parents(self, sha: str) -> tuple[str, ...]:
        return tuple(self._git.run("rev-list", "--parents", "-1", sha).split()[1:])

    @functools.cache  # noqa: B019 - as above
    def _file_at(self, sha: str, path: str) -> str | None:
        name = f"{sha}:{path}"
        return self._git.run("cat-file", "blob", name) if self._git.succeeds("cat-file", "-e", name) else None

    def _stored(self, sha: str, path: str, key: EntryKey) -> object:
        text = self._file_at(sha, path)
        return None if text is None else _entry_of(text, key)

    @functools.cache  # noqa: B019 - as above
    def _digest_of(self, sha: str) -> str:
        return commit_digest(self._root, sha, self._leave_out)

    @functools.cached_property
    def _present_digest(self) -> str:
        return tree_digest(self._root, self._leave_out)

    @functools.cached_property
    def _git(self) -> Git:
        return Git(Git(self._root).position().top)

    @functools.cached_property
    def _path(self) -> str:
        """The baseline file relative to the top of the repository, with slashes."""
        file, top = Path(os.path.realpath(self._file)), Path(os.path.realpath(self._git.directory))
        if not file.is_relative_to(top):
            raise UnknownRevisionError(f"{self._file} is not in the repository {top}, which knows no commit of it")
        return file.relative_to(top).as_posix()

    def _is_shallow_at(self, sha: str) -> bool:
        """Whether the history of this clone ends at this commit, so that an earlier one may have brought the entry."""
        shallow = Path(self._git.directory, self._git.run("rev-parse", "--git-path", "shallow").rstrip("\n"))
        return shallow.is_file() and sha in shallow.read_text(encoding="ascii").split()

    def _deepen(self) -> bool:
        """Fetch more of the history of a shallow clone; returns whether there was more to ask for."""
        if not self._git.is_shallow:
            return False
        how = f"--deepen={_DEEPEN[self._depth]}" if self._depth < len(_DEEPEN) else "--unshallow"
        self._depth += 1
        self._fetches = False  # a remote that does not answer is not asked again
        self._git.run("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", how)
        self._fetches = True
        for cached in (self._last_change, self._path_in, self._parents, self._file_at):
            cached.cache_clear()
        return True


def _entry_of(text: str, key: EntryKey) -> Any:
    """One entry of the text of a baseline file, as plain values; None if it has none, or is damaged."""
    try:
        return parsed(text)["tests"][key.test][key.machine]
    except (ValueError, LookupError, TypeError):
        return None
