"""An environment with the packages that a revision asks for, so that a slower dependency is seen.

It is a virtual environment in pytest's cache, built by uv, and is kept for the next run: its name is a hash of the
revision's dependency files. The project is installed in place. What the revision does not ask for, such as pytest and
its plugins, comes from the environment of this run; this package always does.
"""

import contextlib
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path

from msgspec import Struct, ValidationError, convert

from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.records.codec import plain
from pytest_mlpatterns.revision.commits import Revision
from pytest_mlpatterns.revision.dependencies import dependency_key, locked_versions, project_argument
from pytest_mlpatterns.revision.worktree import Worktree
from pytest_mlpatterns.system.installed_copies import project_name
from pytest_mlpatterns.system.orphans import guarded
from pytest_mlpatterns.system.owned_files import OwnedDirectory, owned_directory, remove_tree
from pytest_mlpatterns.wording import listed, marked

_TIMEOUT_S = 900.0  # Time limit for building an environment, in seconds: a download of large packages by a slow line
_KEPT_S = 30 * 24 * 3600.0  # Environments that no run used for this long are removed
_READY = "ready.json"
_UNREAD = ("Pipfile.lock", "pixi.lock", "environment.yml")  # Files of other programs, which are not read
_LINES = 15  # Last lines of uv's output in a message
_PROBE = "import json, sys; from {} import project_paths; print(json.dumps(project_paths(sys.argv[1])))"


class RevisionEnvironment(Struct, frozen=True):
    """An environment of a revision."""

    python: Path
    project_paths: tuple[str, ...]  # folders that the project adds to ``sys.path``, relative to the top of the worktree
    contents: str


@contextlib.contextmanager
def revision_environment(worktree: Worktree, cache: Path, say: Callable[[str], None]) -> Iterator[RevisionEnvironment]:
    """The environment of a revision, built if the cache does not have it. It is not removed while the context lasts."""
    installer = _Installer(worktree, say)
    with _private(cache, worktree, say) as directory:
        _remove_unused(directory)
        key = dependency_key(worktree, ["uv", sys.version, platform.platform(), sys.prefix, *_site_folders()])
        folder = directory.path / key
        try:
            lock = directory.open(f"{key}.lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise _not_usable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.utime(lock)
            if (found := _built_in(folder)) is None:
                try:
                    remove_tree(folder)
                except OSError as error:
                    raise _not_usable(error) from error
                found = installer.build(folder)
                (folder / _READY).write_text(json.dumps(plain(found)), encoding="utf-8")
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield found
        finally:
            os.close(lock)


def project_paths(top: str) -> list[str]:
    """The folders in a source tree that this interpreter imports from, relative to the top of the tree."""
    top = os.path.realpath(top)
    folders = [os.path.realpath(entry) for entry in sys.path if entry]
    for finder in sys.meta_path:  # setuptools' finders of editable installs
        mapping = vars(sys.modules.get(getattr(finder, "__module__", ""), object)).get("MAPPING")
        for package, path in mapping.items() if isinstance(mapping, dict) else ():
            folders.append(os.path.realpath(os.path.join(path, *[os.pardir] * len(package.split(".")))))
    inside = (folder for folder in folders if folder == top or folder.startswith(os.path.join(top, "")))
    return list(dict.fromkeys(os.path.relpath(folder, top) for folder in inside))


class _Installer:
    """Installs what a revision names, with uv."""

    def __init__(self, worktree: Worktree, say: Callable[[str], None]) -> None:
        self._worktree = worktree
        self._say = say
        self._deadline = time.monotonic() + _TIMEOUT_S

    def build(self, folder: Path) -> RevisionEnvironment:
        """Build the environment in a folder that does not exist."""
        revision = self._worktree.revision
        _uv_for(revision)  # if it is missing, nothing is announced
        contents, wanted = self._wanted(folder)
        if not wanted:
            raise DeploymentError(
                f"--perf-against-env: {self._worktree.directory.name} at {revision.name} ({revision.short}) has no "
                "pyproject.toml, setup.py or requirements.txt, expected one that names its dependencies"
            )
        self._say(f"building an environment for {revision.name} ({revision.short}): {contents}")
        python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        self._run("venv", "--quiet", "--python", sys.executable, str(folder))
        self._run("pip", "install", "--quiet", "--python", str(python), *wanted)
        site = next(folder.glob("lib/python*/site-packages"))
        if any(site.glob("pytest_mlpatterns*")):  # both sides talk to each other in one version
            self._run("pip", "uninstall", "--quiet", "--python", str(python), "pytest-mlpatterns")
        lines = "".join(f"import site; site.addsitedir({one!r})\n" for one in _site_folders())
        (site / "zz_of_this_run.pth").write_text(lines, encoding="utf-8")
        printed = self._printed(str(python), "-P", "-c", _PROBE.format(__name__), str(self._worktree.root))
        return RevisionEnvironment(python, tuple(json.loads(printed.splitlines()[-1])), contents)

    def _wanted(self, folder: Path) -> tuple[str, list[str]]:
        """What is installed, for people, and as arguments of the installer."""
        directory = self._worktree.directory
        found: dict[str, str] = {}
        name = project_name(directory)
        project = project_argument(directory, is_installed=bool(name) and any(distributions(name=name)))
        if any((top / "uv.lock").is_file() for top in (directory, self._worktree.root)):
            found["uv.lock"] = f"-r{self._exported(folder)}"
        elif (directory / "requirements.txt").is_file():
            found["requirements.txt"] = "-rrequirements.txt"
        elif project != "-e." and (directory / "pylock.toml").is_file():
            found["pylock.toml"] = "-rpylock.toml"
        elif project and (lock := locked_versions(directory)):
            name, versions = lock
            file = self._locked_file(folder)
            file.write_text("".join(f"{version}\n" for version in versions), encoding="utf-8")
            found[name] = f"-c{file}"
        if project == "-e.":
            found["the project"] = project
        elif project and found.keys().isdisjoint(("uv.lock", "pylock.toml")):  # these name what it asks for
            found["pyproject.toml"] = project
        unread = [name for name in _UNREAD if (directory / name).is_file()]
        note = f" ({listed(unread)} {'are' if len(unread) > 1 else 'is'} not read)" if unread else ""
        return listed(list(found)) + note, list(found.values())

    def _exported(self, folder: Path) -> Path:
        """The packages of ``uv.lock`` as a file of requirements."""
        file = self._locked_file(folder)
        self._run("export", "--frozen", "--no-emit-project", "--no-hashes", "--quiet", "--output-file", str(file))
        return file

    @staticmethod
    def _locked_file(folder: Path) -> Path:
        """Turns a lock file into a file of requirements."""
        return folder.with_name(f"{folder.name}-locked.txt")

    def _run(self, *arguments: str) -> None:
        """Run uv in the worktree."""
        self._printed(_uv_for(self._worktree.revision), *arguments)

    def _printed(self, *command: str) -> str:
        """Run a command in the worktree; returns what it printed."""
        revision = self._worktree.revision
        variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        with tempfile.TemporaryFile() as log:
            with guarded(
                command, cwd=self._worktree.directory, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            ) as process:
                try:
                    code = process.wait(max(0.0, self._deadline - time.monotonic()))
                    how = f"ended with exit code {code}"
                except subprocess.TimeoutExpired:
                    code, how = None, f"took longer than {_TIMEOUT_S / 60:.0f} minutes"
            log.seek(0)
            text = log.read().decode(errors="replace").strip()
        if code != 0:
            last = marked("\n".join(text.splitlines()[-_LINES:]))
            raise DeploymentError(
                f"--perf-against-env: uv could not build the environment of {revision.name} "
                f"({revision.short}): it {how}; it printed last:\n{last}"
            )
        return text


def _uv_for(revision: Revision) -> str:
    """The program that builds the environment of a revision."""
    if found := shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable)):
        return found
    raise DeploymentError(
        f"--perf-against-env: no uv is installed, expected uv on PATH or beside {sys.executable}, to build the "
        f"environment of {revision.name} ({revision.short}); run pip install uv"
    )


@contextlib.contextmanager
def _private(cache: Path, worktree: Worktree, say: Callable[[str], None]) -> Iterator[OwnedDirectory]:
    """The cache, closed to other users; the directory of the worktree if the cache is not this user's."""
    with contextlib.ExitStack() as opened:
        try:
            directory = opened.enter_context(owned_directory(cache))
        except OSError as error:
            say(
                f"{cache} is not used: {error.strerror}; the environment of {worktree.revision.name} is built for this "
                "run alone; name a cache of your own to keep it: -o cache_dir=DIRECTORY"
            )
            directory = opened.enter_context(owned_directory(worktree.root.parent))
        directory.close_to_others()
        yield directory


def _not_usable(error: OSError) -> DeploymentError:
    return DeploymentError(
        f"--perf-against-env: {error.filename} cannot be used: {error.strerror}; expected a file or directory of this "
        "user, remove it"
    )


def _built_in(folder: Path) -> RevisionEnvironment | None:
    """The environment in a folder of this user; None if it is not complete, or was moved, or its Python is gone."""
    try:
        with owned_directory(folder) as directory, open(directory.open(_READY, os.O_RDONLY), encoding="utf-8") as file:
            found = convert(json.load(file), RevisionEnvironment, dec_hook=lambda path, text: path(text))
    except (OSError, ValueError, ValidationError):
        return None
    return found if found.python.exists() else None


def _site_folders() -> list[str]:
    """The folders of installed packages of this process."""
    named = ("site-packages", "dist-packages")
    return [entry for entry in dict.fromkeys(map(os.path.abspath, sys.path)) if os.path.basename(entry) in named]


def _remove_unused(cache: OwnedDirectory) -> None:
    """Remove the environments that no run has used for a long time, and that none uses."""
    for name in os.listdir(cache.descriptor):
        if name.endswith(".lock"):
            with contextlib.suppress(OSError):  # it is in use, or not this user's
                _remove_if_unused(cache, name)


def _remove_if_unused(cache: OwnedDirectory, name: str) -> None:
    lock = cache.open(name, os.O_RDWR)
    try:
        if os.fstat(lock).st_mtime < time.time() - _KEPT_S:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(cache.path / name.removesuffix(".lock"))
    finally:
        os.close(lock)
