"""Runs git on the repository of one directory, and changes nothing in passing.

It covers tracked files and untracked ones that git does not ignore. Nothing is written to the repository. A file counts
by its mode and content, as git stores it.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.system.orphans import guarded

_ENVIRONMENT_KEPT = re.compile(r"GIT_(CONFIG_|SSH|SSL_|EXEC_PATH$|CEILING_DIRECTORIES$|DISCOVERY_ACROSS_FILESYSTEM$)")
"""Variables of git's that are passed on: those that do not select another repository or index."""
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",  # would leave a daemon behind for a temporary directory
    "submodule.recurse": "false",  # would fetch
    "worktree.useRelativePaths": "false",  # would change the repository's format
    "filter.lfs.smudge": "",  # would fetch; objects that are here are filled in without it
    "filter.lfs.process": "",
    "filter.lfs.required": "false",
    "gc.auto": "0",  # would leave a process behind that goes on after a fetch
    "http.lowSpeedLimit": "1000",  # bytes per second; a remote that sends fewer is given up
    "http.lowSpeedTime": "30",  # after this number of seconds
}
"""Settings for each call of git, by which it starts nothing, fetches nothing and changes no format."""
_SSH = "ssh -o ConnectTimeout=30 -o ServerAliveInterval=10 -o ServerAliveCountMax=3"
_SSH_VARIABLES = frozenset({"GIT_SSH", "GIT_SSH_COMMAND"})  # With which a user names another program, as in settings
_ASKING = ("fetch", "worktree")  # Commands that ask a remote; the second for what a partial clone has left out
_LIMIT_S = 600.0  # Longest time of a call of git, in seconds; a filter of the repository can hang
_LIMITS_S = {"fetch": 300.0, "describe": 10.0}  # Longest time of these commands
_CACHES = ("__pycache__", ".pytest_cache")
"""Directories that a test run fills; many repositories do not list them in ``.gitignore``."""
_LARGE_BYTES = 100 * 2**20
"""Size from which a file that no commit holds counts by its size and time: reading it would take seconds."""
_DIGITS = 20
"""Length of a digest in hexadecimal digits; enough that two trees of one repository never share it by chance."""


def commit(directory: Path) -> str | None:
    """The abbreviated hash of HEAD, with ``+`` if tracked files differ from it; None outside of git."""
    try:
        return Git(directory).run("describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*").strip()
    except (OSError, DeploymentError):
        return None


def repository_above(directory: Path) -> Path | None:
    """The nearest directory, this one or above it, that holds a repository; git is not asked. None if none does."""
    return next((one for one in (directory, *directory.parents) if (one / ".git").exists()), None)


def _environment() -> dict[str, str]:
    """The environment without what selects a repository, as git sets it for its hooks."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or _ENVIRONMENT_KEPT.match(name)
    }


class RepositoryPosition(Struct, frozen=True):
    """Position of a directory in its repository: the top level, and the path below it."""

    top: Path
    below: Path


class Git(Struct, frozen=True):
    """Runs git on the repository of a directory, never on one that the environment selects."""

    directory: Path
    options: tuple[str, ...] = ()
    index: Path | None = None  # file to use as the index
    inherits: tuple[int, ...] = ()

    def succeeds(self, *arguments: str) -> bool:
        """Whether the git command exits with 0."""
        return self._process(arguments).returncode == 0

    def run(self, *arguments: str, stdin: bytes = b"") -> str:
        """Output of a git command; bytes that are no text are decoded as in file names."""
        process = self._process(arguments, stdin)
        if process.returncode:
            message = process.stderr.decode(errors="replace").strip()
            raise DeploymentError(f"`git {arguments[0]}` failed in {self.directory}: {message}")
        return os.fsdecode(process.stdout)

    @property
    def is_shallow(self) -> bool:
        """Whether this clone lacks earlier commits."""
        return self.run("rev-parse", "--is-shallow-repository").strip() == "true"

    def position(self) -> RepositoryPosition:
        """Position of the directory in its repository."""
        try:
            top, below, *_ = self.run("rev-parse", "--show-toplevel", "--show-prefix").split("\n")
        except DeploymentError as error:
            if "not a git repository" not in str(error):
                raise
            raise SettingError(
                f"{self.directory} is not in a git repository, expected one to compare with a revision of it"
            ) from None
        return RepositoryPosition(Path(top), Path(below))

    def _process(self, arguments: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        executable = shutil.which("git")
        if executable is None:
            raise DeploymentError("found no `git` on PATH, expected it to lay out a revision: install git")
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        variables = {} if self.index is None else {"GIT_INDEX_FILE": str(self.index)}
        command = arguments[0]
        if (
            command in _ASKING
            and _SSH_VARIABLES.isdisjoint(os.environ)
            and not self.succeeds("config", "core.sshCommand")
        ):
            variables["GIT_SSH_COMMAND"] = _SSH
        with guarded(
            [executable, "-C", str(self.directory), *settings, *self.options, *arguments],
            env={**_environment(), **variables, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            cleans_up=command == "fetch",  # which removes its locks; what else is written has a place of its own
            pass_fds=self.inherits,
        ) as process:
            limit_s = _LIMITS_S.get(command, _LIMIT_S)
            try:
                output, messages = process.communicate(stdin, limit_s)
            except subprocess.TimeoutExpired:
                raise DeploymentError(
                    f"`git {command}` was stopped after {limit_s:g} s in {self.directory}, expected an end before; run "
                    "it there to see what it waits for"
                ) from None
        return subprocess.CompletedProcess(arguments, process.returncode, output, messages)


def tree_digest(directory: Path, leave_out: Collection[Path] = ()) -> str:
    """The digest of the files as they are now."""
    git = Git(Git(directory).position().top)
    files = dict(_listed(_names(git, "ls-files", "--stage"), fields=3))
    changed = {
        *_names(git, "diff-files", "--name-only", "--ignore-submodules=none"),
        *_names(git, "ls-files", "--others", "--exclude-standard"),
        *_unwatched(git),
    }
    for path in changed:
        files.pop(path, None)
    files |= _present(git, sorted(changed))
    return _digest(files, git.directory, leave_out)


def commit_digest(directory: Path, sha: str, leave_out: Collection[Path] = ()) -> str:
    """The digest of the files of a commit; arguments and errors as for :func:`tree_digest`."""
    git = Git(Git(directory).position().top)
    files = dict(_listed(_names(git, "ls-tree", "-r", "--full-tree", sha), fields=3))
    return _digest(files, git.directory, leave_out)


def changed_files(directory: Path, leave_out: Collection[Path] = ()) -> tuple[str, ...]:
    """The files that differ from the commit that is checked out, and those that it does not hold, relative to the top.

    Files that git ignores do not count. Arguments and errors are as in :func:`tree_digest`.
    """
    git = Git(Git(directory).position().top)
    changed = [line[3:] for line in _names(git, "status", "--porcelain", "--no-renames", "--untracked-files=all")]
    unwatched = _unwatched(git)
    now, left_out = _present(git, unwatched), _relative(leave_out, git.directory)
    changed += [path for path, stored in unwatched.items() if now.get(path) != stored]
    return tuple(path for path in changed if path not in left_out and not _is_cache(path))


def _unwatched(git: Git) -> dict[str, str]:
    """Mode and object in the index of files whose changes git does not look for, by path.

    ``git update-index`` marked them assume-unchanged or skip-worktree. Those that a sparse checkout leaves out have the
    second mark too; they do not count as deleted.
    """
    lines = _names(git, "ls-files", "-v", "--stage")  # each begins with a tag, in lower case for the first mark
    marked = {line[2:]: line[0] for line in lines if line[0] == "S" or line[0].islower()}
    return {
        path: stored
        for tag, (path, stored) in zip(marked.values(), _listed(marked, fields=3), strict=True)
        if tag not in "Ss" or os.path.lexists(git.directory / path)
    }


def _names(git: Git, *command: str) -> list[str]:
    """The lines of a command that ends them with a zero byte."""
    return git.run(command[0], "-z", *command[1:]).split("\0")[:-1]


def _listed(lines: Iterable[str], *, fields: int) -> Iterator[tuple[str, str]]:
    """``(path, mode and object)`` of each line of ``ls-files --stage`` or ``ls-tree``, whose fields differ in order."""
    for line in lines:
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
    if not git.succeeds("rev-parse", "--verify", "--quiet", "HEAD"):
        return tree_digest(repository)  # it has no commit yet
    sha = git.run("rev-parse", "HEAD").strip()
    return f"{sha} {tree_digest(repository)}" if changed_files(repository) else sha


def _hashes(git: Git, paths: list[str]) -> list[str]:
    """The objects that git would store for these files."""
    if any("\n" in path or path.startswith('"') for path in paths):
        return [git.run("hash-object", "--", path).strip() for path in paths]
    return git.run("hash-object", "--stdin-paths", stdin=os.fsencode("\n".join(paths))).split() if paths else []


def _digest(files: dict[str, str], top: Path, leave_out: Collection[Path]) -> str:
    left_out = _relative(leave_out, top)
    digest = hashlib.sha256()
    for path, stored in sorted(files.items()):
        if path not in left_out and not _is_cache(path):
            digest.update(os.fsencode(f"{stored} {path}\0"))
    return digest.hexdigest()[:_DIGITS]


def _relative(paths: Collection[Path], top: Path) -> set[str]:
    """Files as git names them, relative to the top of the repository."""
    return {os.path.relpath(os.path.realpath(path), os.path.realpath(top)) for path in paths}


def _is_cache(path: str) -> bool:
    """Whether a file is of a directory that a test run fills."""
    return any(part in _CACHES for part in path.split("/"))
