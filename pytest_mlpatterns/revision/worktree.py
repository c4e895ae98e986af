"""The files of a git revision in a temporary worktree.

The user's index, HEAD, branches, stash, configuration and hooks are not changed. git knows the worktree while it
exists; submodules are written out without a worktree; nothing is fetched. Extra files are copies, never links, so that
tests at the revision cannot change a file of the working tree.

git itself removes no file: ``git worktree remove`` follows the path that it has noted, which may meanwhile be another
user's directory or a link. Directories are removed as :mod:`pytest_mlpatterns.system.owned_files` does it.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.system.git import Git
from pytest_mlpatterns.system.import_redirect import is_environment
from pytest_mlpatterns.system.owned_files import (
    NotOwnedError,
    OwnedDirectory,
    owned_directory,
    remove_empty,
    remove_tree,
)
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from pytest_mlpatterns.revision.commits import Revision
    from pytest_mlpatterns.revision.environment import RevisionEnvironment

_PREFIX = "mlpatterns-against-"
_OWNER = "owner"
"""Lock file, locked while the process that made a worktree runs. The kernel releases the lock when that process and the
git processes it started have ended. Unlike a process id, a lock is never reused."""
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\n")


class Place(Struct, frozen=True):
    """A private directory for one worktree."""

    base: Path
    root: Path  # top directory of the worktree, in it; git makes it
    owner: int  # descriptor of the lock, for git processes to keep open


def unheard(_: str) -> None:
    """Takes a sentence, for callers that show none."""


@contextlib.contextmanager
def place_worktree(top: Path, say: Callable[[str], None] = unheard) -> Iterator[Place]:
    """Make a place for a worktree, which is removed when the context ends."""
    above = Path(tempfile.gettempdir()).resolve()
    base = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=above))
    root = base / (top.name or "top")  # a top that is itself a package is imported by its name
    with owned_directory(base) as directory:
        owner = directory.open(_OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX)
            yield Place(base, root, owner)
        finally:
            directory.empty(keep=(_OWNER,))
            _forget(top, root)
            try:
                directory.remove()
            except OSError as error:
                say(f"{base}, where the revision was laid out, is left: {error.strerror}")
            os.close(owner)


def remove_stale(project: Path, say: Callable[[str], None] = unheard) -> list[Path]:
    """Remove the worktrees of this repository whose processes have ended.

    A worktree is only removed from a directory of this user that has the lock of an ended run. If another user's
    directory or a link has taken the place of the directory, that is left as it is, and git forgets the worktree.
    """
    git = Git(project)
    top = git.position().top
    listed = (line.removeprefix("worktree ") for line in git.run("worktree", "list", "--porcelain").split("\n"))
    removed = []
    for root in map(Path, listed):
        if not root.parent.name.startswith(_PREFIX):
            continue
        try:
            if _is_cleared(root, say) and _forget(top, root):
                removed.append(root)
        except NotOwnedError as error:
            if _forget(top, root):  # else it may be in use by another user
                say(
                    f"{root.parent}, where a run that was killed had laid out a revision, is left as it is: "
                    f"{error.strerror}; git forgets the worktree there"
                )
    return removed


def common_directory(git: Git) -> Path:
    """The directory of a repository that its worktrees share, such as ``.git``."""
    return git.directory / git.run("rev-parse", "--git-common-dir").rstrip("\n")


def _is_cleared(root: Path, say: Callable[[str], None]) -> bool:
    """Remove the files of a worktree whose run has ended; False if they are left, and git is to know them."""
    try:
        with owned_directory(root.parent) as directory:
            if not os.listdir(directory.descriptor):  # the run was killed during the removal
                directory.remove()
                return True
            try:
                owner = directory.open(_OWNER, os.O_RDWR)
            except OSError:
                say(
                    f"{root} has no lock of a run of --perf-against, so it is left as it is; if it is no worktree of "
                    f"your own, remove it: git worktree remove --force {root}"
                )
                return False
            return _is_removed(directory, owner)
    except FileNotFoundError:  # the system has cleaned its temporary directory
        return True
    except NotOwnedError:
        raise
    except OSError:  # a directory above it belongs to another user
        return False


def _is_removed(directory: OwnedDirectory, owner: int) -> bool:
    """Remove the directory if no process holds its lock, and close the lock."""
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its run goes on, or the file system has no locks
        return False
    else:
        directory.empty(keep=(_OWNER,))
        directory.remove()
        return True
    finally:
        os.close(owner)


def _forget(top: Path, root: Path) -> bool:
    """Let git forget a worktree; False if git does not know it, or another user's git has noted it.

    ``git worktree prune`` would also forget the user's worktrees on a disk that is not connected.
    """
    with contextlib.suppress(DeploymentError, OSError):  # the repository was removed, or has no other worktree
        known = common_directory(Git(top)) / "worktrees"
        for noted in known.iterdir():
            if _is_of(noted, root):
                remove_tree(noted)
                with contextlib.suppress(OSError):  # others are left
                    remove_empty(known)
                return True
    return False


def _is_of(noted: Path, root: Path) -> bool:
    try:
        return os.fsdecode((noted / "gitdir").read_bytes()).rstrip("\n") == str(root / ".git")
    except OSError:
        return False


class Worktree(Struct, frozen=True):
    """The files of a revision."""

    revision: Revision
    root: Path
    directory: Path  # directory in the worktree that corresponds to the project's directory
    present_root: Path  # top directory of the user's working tree; corresponds to ``root``
    notes: tuple[str, ...]  # sentences about files that are missing in the worktree
    # one with the packages that the revision asks for; None to run it with this run's
    environment: RevisionEnvironment | None = None


@contextlib.contextmanager
def checkout(
    project: Path, revision: Revision, extra: Sequence[str] = (), *, say: Callable[[str], None] = unheard
) -> Iterator[Worktree]:
    """Write the files of a revision to a temporary directory, which is removed when the context ends.

    If the process is killed, :func:`~pytest_mlpatterns.revision.worktree.remove_stale` removes the directory in a
    later run.

    ``extra``: glob patterns relative to ``project`` of untracked files or directories that the tests need. Files that
    the revision has are not replaced.
    """
    position = Git(project).position()
    top, below = position.top, position.below
    with place_worktree(top, say) as place:
        base, root = place.base, place.root
        Git(top, inherits=(place.owner,)).run("worktree", "add", "--quiet", "--detach", str(root), revision.sha)
        if not (root / below).is_dir():
            raise DeploymentError(f"{below} does not exist at {revision.name} ({revision.short}), expected a directory")
        git = Git(root)
        notes = [*_write_submodules(git, top, base), *_fill_pointers(git, revision.sha)]
        for pattern in extra:
            _copy(pattern, top / below, top, base=base, root=root)
        yield Worktree(revision, root, root / below, top, (*notes, *missing_extensions(top, root)))


def missing_extensions(project_top: Path, worktree_top: Path) -> list[str]:
    """Notes about extension modules that were built in place in the working tree and are missing in the worktree."""
    built: dict[str, list[str]] = {}
    for folder, folders, files in os.walk(project_top):
        subdirectory = os.path.relpath(folder, project_top)
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
            if name[len(stem) :] in EXTENSION_SUFFIXES and not (worktree_top / subdirectory / name).exists():
                built.setdefault(subdirectory, []).append(name)
    return [
        f"{', '.join(names)} in {subdirectory} was built in the working tree and is not tracked, so the revision runs "
        "without it: name it in perf_against_files if the revision has the same source for it"
        for subdirectory, names in built.items()
    ]


def _write_submodules(git: Git, present: Path, base: Path) -> list[str]:
    """Write the files of submodules, from their repositories in the working tree; returns notes."""
    notes = []
    for entry in git.run("ls-files", "--stage", "-z").split("\0"):
        if not entry.startswith("160000 "):
            continue
        sha, path = entry.split()[1], entry.partition("\t")[2]
        repository = next((one for one in _repositories(git, present, path) if _has_commit(one, sha)), None)
        tree, here = git.directory / path, present / path
        if repository is not None:
            submodule = Git(
                tree,
                ("--git-dir", str(repository), "--work-tree", "."),
                Path(tempfile.mkdtemp(prefix="index-", dir=base)) / "index",
            )
            submodule.run("read-tree", sha)
            submodule.run("checkout-index", "--all", "--force")
            notes += [*_write_submodules(submodule, here, base), *_fill_pointers(submodule, sha)]
        elif here.is_dir() and not any(here.iterdir()):
            notes.append(f"submodule {path} is empty, as it is in the working tree")
        else:
            raise DeploymentError(
                f"submodule {path} is at commit {sha[:12]} at the revision, but this clone does not have that commit; "
                f"run `git submodule update --init {path}`, then `git -C {path} fetch origin {sha}`"
            )
    return notes


def _repositories(git: Git, present: Path, path: str) -> Iterator[Path]:
    """Possible repositories of a submodule in the working tree: checked out, or in ``.git/modules``."""
    if (present / path / ".git").exists():
        yield Path(Git(present / path).run("rev-parse", "--absolute-git-dir").rstrip("\n"))
    if (git.directory / ".gitmodules").is_file():
        listed = git.run("config", "--file", ".gitmodules", "--null", "--list").split("\0")
        for key, _, value in (item.partition("\n") for item in listed):
            if key.endswith(".path") and value == path:
                name = key.removeprefix("submodule.").removesuffix(".path")
                if Path(name).is_absolute() or ".." in Path(name).parts:  # git refuses such names too
                    raise DeploymentError(
                        f".gitmodules of the revision names submodule {path} {shown(name)}, which leads out of "
                        ".git/modules, expected a name without `..`; name it anew there"
                    )
                yield common_directory(git) / "modules" / name


def _has_commit(repository: Path, sha: str) -> bool:
    options = ("--git-dir", ".", "--work-tree", ".")  # the configured work tree may be gone
    return Git(repository, options).succeeds("cat-file", "-e", f"{sha}^{{commit}}")


def _fill_pointers(git: Git, sha: str) -> list[str]:
    """Replace Git LFS pointers by the content that this clone has; returns notes about those that remain."""
    objects, remaining = common_directory(git) / "lfs" / "objects", []
    for path in git.run("ls-files", "-z", "--", ":(attr:filter=lfs)").split("\0")[:-1]:
        file = git.directory / path
        pointer = None
        if file.is_file() and not file.is_symlink():
            with file.open("rb") as content:
                pointer = _POINTER.match(content.read(1024))
        if pointer is not None:
            oid = pointer[1].decode()
            try:
                shutil.copyfile(objects / oid[:2] / oid[2:4] / oid, file)
            except FileNotFoundError:
                remaining.append(path)
    shown = f"{', '.join(remaining[:5])}{', …' if remaining[5:] else ''}"
    if not remaining:
        return []
    return [f"{shown}: this clone has the Git LFS pointer only; run `git lfs fetch origin {sha}`"]


def _copy(pattern: str, project: Path, top: Path, *, base: Path, root: Path) -> None:
    found = sorted(glob.glob(pattern, root_dir=project, recursive=True))
    if not found:
        raise SettingError(
            f"perf_against_files: {pattern!r} matches nothing in {project}, expected a file or directory; "
            "patterns are relative to that directory"
        )
    for name in found:
        source = Path(os.path.normpath(project / name))
        if not source.is_relative_to(top):
            raise SettingError(f"perf_against_files: {pattern!r} matches {source}, expected files in {top}")
        for file in _files(source, base):
            target = root / file.relative_to(top)
            if os.path.lexists(target):
                continue
            if not (real := target.parent.resolve()).is_relative_to(root):
                raise DeploymentError(
                    f"perf_against_files: {file} would be copied to {real}, through a link that the revision has, "
                    "expected a directory in the worktree; leave it out"
                )
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target)
            except OSError as error:
                raise DeploymentError(
                    f"perf_against_files: {file} cannot be copied to {target}: {error.strerror}; TMPDIR sets the "
                    "directory"
                ) from error


def _files(source: Path, base: Path) -> Iterator[Path]:
    """A file, or all files in a directory; follows symbolic links, leaves out ``.git`` and the worktree itself."""
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
