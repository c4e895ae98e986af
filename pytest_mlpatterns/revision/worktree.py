"""The files of a git revision in a directory of their own, for as long as somebody needs them.

Whatever the user has (index, HEAD, branches, stash, configuration, hooks) stays as it is: a worktree is registered
while it stands, submodules are written out without one, nothing is fetched. Extra files are copies, never links, so
that the reference side cannot change a present file. This module must not know how a revision is chosen, nor what runs
in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.revision.resolve import Revision
from pytest_mlpatterns.system.git import Git
from pytest_mlpatterns.system.import_redirect import is_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Worktree", "compiled_parts", "laid_out", "remove_stale"]

_PREFIX = "mlpatterns-against-"
_OWNER = "owner"
"""The file whose lock says that the process that made a worktree still lives; the kernel frees it at the end of that
process and of the git that it may have left behind, and unlike a process id nobody else can have it by chance."""
_PATHS = ("root", "directory", "present_root")
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\n")


@dataclass(frozen=True, slots=True)
class Worktree:
    """A revision's files.

    Attributes:
        revision: which.
        root: top of the worktree.
        directory: the directory in it that corresponds to the project's.
        present_root: top of the tree in which the user works; ``root`` corresponds to it.
        notes: sentences on what is missing in it.
    """

    revision: Revision
    root: Path
    directory: Path
    present_root: Path
    notes: tuple[str, ...]

    def to_plain(self) -> dict[str, object]:
        """The same as text and lists, for another process of this run."""
        plain = asdict(self)
        return {**plain, **{name: str(plain[name]) for name in _PATHS}, "notes": list(self.notes)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Worktree:
        """The inverse of :meth:`to_plain`."""
        paths = {name: Path(plain[name]) for name in _PATHS}
        return cls(revision=Revision(**plain["revision"]), notes=tuple(plain["notes"]), **paths)


@contextlib.contextmanager
def laid_out(project: Path, revision: Revision, extra: Sequence[str] = ()) -> Iterator[Worktree]:
    """The revision's files in a temporary directory, for the time of the context.

    A process that is killed in it leaves the directory to :func:`remove_stale`.

    Args:
        project: the project's directory, which may be below the top of the repository.
        revision: from :func:`resolve_revision`.
        extra: glob patterns relative to ``project`` of files, or directories with all that is in them, that the
            revision does not hold and its tests need. What it does hold is left as it is there.

    Raises:
        SettingError: a pattern matches nothing, or something outside the repository.
        DeploymentError: it cannot be laid out, or has no such directory.
    """
    place = Git(project).place()
    top, below = place.top, place.below
    base = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")).resolve()
    owner = os.open(base / _OWNER, os.O_RDWR | os.O_CREAT, 0o600)
    root = base / (top.name or "top")  # a top that is itself a package is imported by its name
    try:
        fcntl.flock(owner, fcntl.LOCK_EX)
        Git(top, inherits=(owner,)).run("worktree", "add", "--quiet", "--detach", str(root), revision.sha)
        if not (root / below).is_dir():
            raise DeploymentError(f"{below} does not exist at {revision.name} ({revision.short}), expected a directory")
        git = Git(root)
        notes = [*_written_submodules(git, top, base), *_filled_pointers(git, revision.sha)]
        for pattern in extra:
            _copy(pattern, top / below, top, base, root)
        yield Worktree(revision, root, root / below, top, (*notes, *compiled_parts(top, root)))
    finally:
        _remove(top, root)
        os.close(owner)


def remove_stale(project: Path) -> list[Path]:
    """Remove the worktrees of this repository that processes which are gone have left.

    Returns:
        Their directories.
    """
    git = Git(project)
    top = git.place().top
    listed = (line.removeprefix("worktree ") for line in git.run("worktree", "list", "--porcelain").split("\n"))
    left = [root for root in map(Path, listed) if root.parent.name.startswith(_PREFIX) and _has_no_owner(root.parent)]
    for root in left:
        _remove(top, root)
    return left


def compiled_parts(project_top: Path, worktree_top: Path) -> list[str]:
    """Say which extension modules were built in place in the present tree and are missing in the worktree."""
    built: dict[str, list[str]] = {}
    for folder, folders, files in os.walk(project_top):
        place = os.path.relpath(folder, project_top)
        folders[:] = [
            name
            for name in sorted(folders)
            if name != ".git"
            and not re.match(r"(lib|temp|bdist)\.", name)  # where setuptools builds before it copies into place
            and not is_environment(os.path.join(folder, name))
            and Path(folder, name) != worktree_top
        ]
        for name in sorted(files):
            stem = name.partition(".")[0]
            if name[len(stem) :] in EXTENSION_SUFFIXES and not (worktree_top / place / name).exists():
                built.setdefault(place, []).append(name)
    return [
        f"{', '.join(names)} in {place} was built in the present tree and is not tracked, so the revision runs without "
        "it: take it along with perf_against_files if the revision has the same source for it"
        for place, names in built.items()
    ]


def _has_no_owner(base: Path) -> bool:
    try:
        owner = os.open(base / _OWNER, os.O_RDWR)
    except FileNotFoundError:  # the system has emptied its temporary directory
        return True
    except OSError:  # another user's, or nothing that we made
        return False
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(owner)
    return True


def _remove(top: Path, root: Path) -> None:
    """Remove a worktree and the directory of ours around it, in whatever state they are."""
    _delete(root)
    # Of a worktree whose files are gone git removes its own notes; `git worktree prune` would do the same to those of
    # the user's that lie on a disk which is not connected now. Twice --force also ends one that was half made.
    with contextlib.suppress(DeploymentError):  # it was never registered, or the repository is gone
        Git(top).run("worktree", "remove", "--force", "--force", str(root))
    _delete(root.parent)


def _delete(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():  # a test has made a directory in it read-only
        for folder, _, _ in os.walk(directory):
            os.chmod(folder, 0o700)
        shutil.rmtree(directory, ignore_errors=True)


def _written_submodules(git: Git, present: Path, base: Path) -> list[str]:
    """Write out the submodules of a tree from the repositories that the present tree has of them.

    Raises:
        DeploymentError: the present tree has no such commit of one.
    """
    notes = []
    for entry in git.run("ls-files", "--stage", "-z").split("\0"):
        if not entry.startswith("160000 "):
            continue
        sha, path = entry.split()[1], entry.partition("\t")[2]
        held = next((place for place in _repositories(git, present, path) if _holds(place, sha)), None)
        tree, here = git.directory / path, present / path
        if held is not None:
            inside = Git(
                tree,
                ("--git-dir", str(held), "--work-tree", "."),
                Path(tempfile.mkdtemp(prefix="index-", dir=base)) / "index",
            )
            inside.run("read-tree", sha)
            inside.run("checkout-index", "--all", "--force")
            notes += [*_written_submodules(inside, here, base), *_filled_pointers(inside, sha)]
        elif here.is_dir() and not any(here.iterdir()):
            notes.append(f"submodule {path} is empty, as it is in the present tree")
        else:
            raise DeploymentError(
                f"submodule {path} is at commit {sha[:12]} there, which is not in this clone, expected it to be: "
                f"`git submodule update --init {path}`, then `git -C {path} fetch origin {sha}`"
            )
    return notes


def _repositories(git: Git, present: Path, path: str) -> Iterator[Path]:
    """Where the present tree may have a submodule's repository: checked out, or kept from when it was."""
    if (present / path / ".git").exists():
        yield Path(Git(present / path).run("rev-parse", "--absolute-git-dir").rstrip("\n"))
    if (git.directory / ".gitmodules").is_file():
        listed = git.run("config", "--file", ".gitmodules", "--null", "--list").split("\0")
        for key, _, place in (item.partition("\n") for item in listed):
            if key.endswith(".path") and place == path:
                yield _common(git) / "modules" / key.removeprefix("submodule.").removesuffix(".path")


def _holds(repository: Path, sha: str) -> bool:
    elsewhere = ("--git-dir", ".", "--work-tree", ".")  # where it says that its files are, there may be nothing now
    return Git(repository, elsewhere).succeeds("cat-file", "-e", f"{sha}^{{commit}}")


def _common(git: Git) -> Path:
    return git.directory / git.run("rev-parse", "--git-common-dir").rstrip("\n")


def _filled_pointers(git: Git, sha: str) -> list[str]:
    """Put the content that is in this clone in the place of Git LFS pointers, and note which remain."""
    store, remain = _common(git) / "lfs" / "objects", []
    for path in git.run("ls-files", "-z", "--", ":(attr:filter=lfs)").split("\0")[:-1]:
        file = git.directory / path
        pointer = None
        if file.is_file() and not file.is_symlink():
            with file.open("rb") as content:
                pointer = _POINTER.match(content.read(1024))
        if pointer is not None:
            oid = pointer[1].decode()
            try:
                shutil.copyfile(store / oid[:2] / oid[2:4] / oid, file)
            except FileNotFoundError:
                remain.append(path)
    shown = f"{', '.join(remain[:5])}{', …' if remain[5:] else ''}"
    return [f"{shown}: only the Git LFS pointer is in this clone; `git lfs fetch origin {sha}`"] if remain else []


def _copy(pattern: str, project: Path, top: Path, base: Path, root: Path) -> None:
    found = sorted(glob.glob(pattern, root_dir=project, recursive=True))
    if not found:
        raise SettingError(
            f"perf_against_files: {pattern!r} matches nothing in {project}, expected a file or directory"
        )
    for name in found:
        source = Path(os.path.normpath(project / name))
        if not source.is_relative_to(top):
            raise SettingError(f"perf_against_files: {pattern!r} matches {source}, expected files in {top}")
        for file in _files(source, base):
            target = root / file.relative_to(top)
            if os.path.lexists(target):
                continue
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target)
            except OSError as error:
                raise DeploymentError(
                    f"perf_against_files: {file} cannot be copied to {target}: {error.strerror}; TMPDIR decides where"
                ) from error


def _files(source: Path, base: Path) -> Iterator[Path]:
    """A file, or the files in a directory, through symbolic links; no repository's own, and not the worktree."""
    if source.is_file():
        yield source
    for folder, folders, files in os.walk(source, followlinks=True):
        real = Path(folder).resolve()
        targets = {name: Path(folder, name).resolve() for name in folders}
        folders[:] = [
            name
            for name in sorted(folders)
            if name != ".git" and targets[name] != base and not real.is_relative_to(targets[name])
        ]
        yield from (Path(folder, name) for name in sorted(files) if name != ".git" and Path(folder, name).is_file())
