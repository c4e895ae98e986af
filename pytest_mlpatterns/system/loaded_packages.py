"""Which installed packages a process has loaded, and the distribution and version that a file belongs to.

A process lists files of its own modules. Another process finds their distributions in the lists of files that
installers leave, since ``importlib.metadata`` parses every description too: 0.3 s for 140 distributions. This module
must not know what a package is compared for.
"""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

_FILE = re.compile(r"(?P<folder>.*/(?:site|dist)-packages)/(?P<path>.+)")
_METADATA = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-.*)?\.(?:dist|egg)-info")
_REQUIREMENT = re.compile(r"^Requires-Dist: *([A-Za-z0-9._-]+)(?!.*\bextra *==)", re.MULTILINE)
_IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t]+([A-Za-z]\w*)", re.MULTILINE)
_TESTS = re.compile(r"(?:test_.*|.*_test|conftest)\.py")
_NO_SOURCES = ("tests", "test", "node_modules", "site-packages")
_MOST_SOURCES = 2_000  # Most files of a project that are read for what they import


class Distribution(NamedTuple):
    """An installed distribution."""

    name: str  # as the index of packages spells it: ``scikit-learn``
    version: str
    metadata: Path


def spelled(name: str) -> str:
    """The name of a distribution as the index of packages spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def loaded_modules() -> list[str]:
    """A file of each installed package that this process has loaded.

    A package without a file of its own, such as ``google``, gives one for each package in it.
    """
    found: list[str] = []
    listed: set[str] = set()
    for name in sorted(sys.modules.copy()):  # a package before what is in it
        module = sys.modules.get(name)
        if name.startswith(("_", "threadpoolctl")) or type(module) is not ModuleType:
            continue  # a lazy module may run code of its package; threadpoolctl is loaded to describe this process
        file = vars(module).get("__file__")
        if isinstance(file, str) and _FILE.fullmatch(file):
            if listed.isdisjoint(name[: dot.start()] for dot in re.finditer(r"\.", name)):
                found.append(file)
            listed.add(name)
    return found


def log_modules(directory: str) -> None:
    """Write what this process has loaded to a file of its own in a directory, for :func:`logged_modules`."""
    with contextlib.suppress(OSError):
        Path(directory, f"modules-{os.getpid()}.json").write_text(json.dumps(loaded_modules()), encoding="utf-8")


def logged_modules(directory: Path, pid: int) -> list[str] | None:
    """What a process wrote with :func:`log_modules`; None if it wrote nothing."""
    with contextlib.suppress(OSError, ValueError):
        found: list[str] = json.loads((directory / f"modules-{pid}.json").read_text(encoding="utf-8"))
        return found
    return None


def distributions_of(files: Iterable[str]) -> list[Distribution]:
    """The distributions that these files belong to; an editable project is none of them."""
    folders: dict[str, set[str]] = {}
    for file in files:
        if match := _FILE.fullmatch(file):
            folders.setdefault(match["folder"], set()).add(match["path"])
    return [one for folder, paths in folders.items() for one in _owners(_installed_in(folder), frozenset(paths))]


def imported_distributions(python: Path, project: Path) -> list[Distribution]:
    """What files of a project, but tests, import of the environment of an interpreter, and what that requires."""
    folders = [_installed_in(str(folder)) for folder in python.parent.parent.glob("lib/python3*/*-packages")]
    installed = {one.name: one for folder in folders for one in folder}
    found = {one.name: one for folder in folders for one in _owners(folder, _imported_files(project))}
    for one in (waiting := [*found.values()]):
        for name in map(spelled, _REQUIREMENT.findall(_text(one.metadata / "METADATA"))):
            if name in installed and name not in found:
                found[name] = installed[name]
                waiting.append(installed[name])
    return waiting


@lru_cache(maxsize=8)
def _imported_files(project: Path) -> frozenset[str]:
    """The files that the imports of a project may mean, below a folder of installed packages."""
    names = {name for text in islice(_sources(project), _MOST_SOURCES) for name in _IMPORT.findall(text)}
    return frozenset(path for name in names for path in (f"{name}/__init__.py", f"{name}.py"))


def _sources(project: Path) -> Iterator[str]:
    for folder, inner, files in os.walk(project):
        inner[:] = [one for one in inner if one[0] != "." and one not in _NO_SOURCES]
        yield from (_text(Path(folder, one)) for one in files if one.endswith(".py") and not _TESTS.fullmatch(one))


@lru_cache(maxsize=64)
def _owners(installed: Sequence[Distribution], paths: frozenset[str]) -> Sequence[Distribution]:
    """The distributions of one folder that these files belong to."""
    tops = {re.split(r"[/.]", path, maxsplit=1)[0] for path in paths}
    found = []
    for one in installed:
        listed = {line.partition(",")[0] for line in _text(one.metadata / "RECORD").splitlines()}
        if paths & listed if listed else tops & {one.name, *_text(one.metadata / "top_level.txt").split()}:
            found.append(one)
    return found


def _installed_in(folder: str) -> Sequence[Distribution]:
    with contextlib.suppress(OSError):
        matches = ((entry, _METADATA.fullmatch(entry)) for entry in sorted(os.listdir(folder)))
        return tuple(Distribution(spelled(one[1]), one[2], Path(folder, entry)) for entry, one in matches if one)
    return ()


def _text(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text(encoding="utf-8", errors="replace")
    return ""
