"""A digest of the files of a working tree or of a commit, so that both can be compared without a checkout.

It covers tracked files and untracked ones that git does not ignore. Nothing is written to the repository. A file counts
by its mode and content, as git stores it.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from pytest_mlpatterns.system.git import Git

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

__all__ = ["commit_digest", "tree_digest"]

_CACHES = ("__pycache__", ".pytest_cache")
"""Directories that a test run fills; many repositories do not list them in ``.gitignore``."""
_LARGE_BYTES = 100 * 2**20
"""Size from which a file that no commit holds counts by its size and time: reading it would take seconds."""
_DIGITS = 20
"""Length of a digest in hexadecimal digits; enough that two trees of one repository never share it by chance."""


def tree_digest(directory: Path, leave_out: Collection[Path] = ()) -> str:
    """The digest of the files as they are now.

    Args:
        directory: a directory of the repository; the digest is of the whole repository.
        leave_out: files that do not count, such as the baseline file and result files.

    Raises:
        SettingError: the directory is in no repository.
        DeploymentError: git is missing or fails.
    """
    git = Git(Git(directory).position().top)
    files = dict(_listed(git.run("ls-files", "--stage", "-z"), fields=3))
    changed = {
        *_names(git, "diff-files", "--name-only", "--ignore-submodules=none"),
        *_names(git, "ls-files", "--others", "--exclude-standard"),
    }
    for path in changed:
        files.pop(path, None)
    files |= _present(git, sorted(changed))
    return _digest(files, git.directory, leave_out)


def commit_digest(directory: Path, sha: str, leave_out: Collection[Path] = ()) -> str:
    """The digest of the files of a commit; arguments and errors as for :func:`tree_digest`."""
    git = Git(Git(directory).position().top)
    files = dict(_listed(git.run("ls-tree", "-r", "-z", "--full-tree", sha), fields=3))
    return _digest(files, git.directory, leave_out)


def _names(git: Git, *command: str) -> list[str]:
    return git.run(*command, "-z").split("\0")[:-1]


def _listed(text: str, *, fields: int) -> Iterator[tuple[str, str]]:
    """``(path, mode and object)`` of each line of ``ls-files --stage`` or ``ls-tree``, whose fields differ in order."""
    for line in text.split("\0")[:-1]:
        head, _, path = line.partition("\t")
        mode, *rest = head.split(" ", fields - 1)
        yield path, f"{mode} {max(rest, key=len)}"  # an object's hash is longer than its type or its stage


def _present(git: Git, paths: Iterable[str]) -> dict[str, str]:
    """Mode and object of files that differ from the index, by path; deleted ones are absent."""
    found, regular = {}, []
    for path in paths:
        file = git.directory / path
        if file.is_symlink():
            content = os.fsencode(os.readlink(file))
            found[path] = f"120000 {git.run('hash-object', '--stdin', stdin=content).strip()}"
        elif file.is_file():
            read = file.stat()
            if read.st_size > _LARGE_BYTES:
                found[path] = f"100644 {read.st_size} {read.st_mtime_ns}"
            else:
                regular.append(path)
        elif file.is_dir():  # a submodule, or another repository in this one
            found[path] = f"160000 {_commit_and_changes(file)}"
    for path, sha in zip(regular, _hashes(git, regular), strict=True):
        mode = "100755" if os.access(git.directory / path, os.X_OK) else "100644"
        found[path] = f"{mode} {sha}"
    return found


def _commit_and_changes(repository: Path) -> str:
    """The commit of a repository in this one, and the digest of its files if they differ from it."""
    git = Git(repository)
    sha = git.run("rev-parse", "HEAD").strip()
    return sha if git.run("status", "--porcelain") == "" else f"{sha} {tree_digest(repository)}"


def _hashes(git: Git, paths: list[str]) -> list[str]:
    """The objects that git would store for these files."""
    if any("\n" in path or path.startswith('"') for path in paths):
        return [git.run("hash-object", "--", path).strip() for path in paths]
    return git.run("hash-object", "--stdin-paths", stdin=os.fsencode("\n".join(paths))).split() if paths else []


def _digest(files: dict[str, str], top: Path, leave_out: Collection[Path]) -> str:
    left_out = {os.path.relpath(os.path.realpath(path), os.path.realpath(top)) for path in leave_out}
    digest = hashlib.sha256()
    for path, stored in sorted(files.items()):
        if path not in left_out and not any(part in _CACHES for part in path.split("/")):
            digest.update(os.fsencode(f"{stored} {path}\0"))
    return digest.hexdigest()[:_DIGITS]
