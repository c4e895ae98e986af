"""A project's dependency files: which changed, and a hash of their content.

It reads files and follows what they name, within bounds: a revision may contain anything. It installs nothing.
"""

import configparser
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pytest_mlpatterns.revision.worktree import Worktree
from pytest_mlpatterns.system.git import Git
from pytest_mlpatterns.wording import listed

_FILES = (
    "requirements*.txt",
    "requirements/*.txt",
    "constraints*.txt",
    "*.lock",
    "pylock*.toml",
    "environment*.yml",
    "environment*.yaml",
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
)
_LOCKS = {"poetry.lock": "package", "pdm.lock": "package", "pylock.toml": "packages"}
"""Lock files in TOML, and the array of tables that names the packages in each."""
_TABLES = ("project", "dependency-groups", "build-system")
_OF_PROJECT = ("dependencies", "optional-dependencies", "requires-python")
_OF_SETUP = (("options", "install_requires"), ("options", "python_requires"))
_MOST_BYTES = 1 << 20  # Largest file that is included; lists of packages with all hashes have some 100 KiB
_MOST_FILES = 100  # Number of files from which no more are included; projects have a file for each of some ten purposes
_INCLUDE = re.compile(r"\s*(?:-[rc]|--requirement\b|--constraint\b)[\s=]*")
"""The beginning of a line that includes another file, as pip reads it: ``-r base.txt  # why``."""
_NO_LISTS = (".lock", ".toml", ".cfg", ".py", ".yml", ".yaml")
"""Endings of dependency files that are no lists of requirements."""


def change_note(worktree: Worktree) -> str:
    """A sentence about the dependency files that changed since the revision; empty if none did."""
    if not (changed := changed_files(worktree)):
        return ""
    name = worktree.revision.name
    return (
        f"{listed(changed)} changed since {name}; both sides ran with the packages installed here "
        f"(--perf-against-env builds an environment for {name})"
    )


def changed_files(worktree: Worktree) -> list[str]:
    """The dependency files that differ in the dependencies that they name, relative to the top of the repository."""
    below = worktree.directory.relative_to(worktree.root)
    names = {
        Path(os.path.normpath(folder / name))
        for folder in {Path(), below}
        for top in (worktree.root, worktree.present_root)
        for name in _names_in(top / folder, top)
    }
    return [
        str(name)
        for name in sorted(names)
        if named_dependencies(worktree.root / name) != named_dependencies(worktree.present_root / name)
    ]


def named_dependencies(file: Path) -> object:
    """What a file names; None if it is not there. Other parts of the file may change."""
    if not file.is_file():
        return None
    if file.name == "pyproject.toml":
        return _dependencies_of(_read_toml(file))
    if file.name == "setup.cfg":
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, ValueError):  # no ini file, or no text
            return file.read_bytes()
        extras = dict(parser.items("options.extras_require")) if parser.has_section("options.extras_require") else {}
        return [parser.get(*place, fallback="").split("\n") for place in _OF_SETUP], extras
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix in (".txt", ".in"):
        lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
        return [line for line in lines if line]
    return text


def project_argument(directory: Path, *, is_installed: bool = False) -> str:
    """What an installer gets of a project: itself, or its dependencies if it is no package; empty without one.

    ``is_installed``: whether the project is installed here, which shows that it can be.
    """
    settings = _read_toml(directory / "pyproject.toml")
    match settings:
        case {"tool": {"uv": {"package": bool(is_package)}}}:
            pass
        case _:
            is_package = is_installed or "build-system" in settings or (directory / "setup.py").is_file()
    return "-e." if is_package else "-rpyproject.toml" if "project" in settings else ""


def locked_versions(directory: Path) -> tuple[str, list[str]] | None:
    """The lock file of Poetry, of PDM, or of PEP 751, and the versions in it as constraints of an installer.

    A package that is locked to several versions, one for each platform or Python, is left to the installer.

    Returns None if there is no such file.
    """
    for file, table in _LOCKS.items():
        if not (directory / file).is_file():
            continue
        versions: dict[str, set[str]] = {}
        packages = _read_toml(directory / file).get(table)
        for package in packages if isinstance(packages, list) else ():
            match package:
                case {"name": str(name), "version": str(version)}:  # one from a directory may have no version
                    versions.setdefault(name, set()).add(version)
        return file, [f"{name}=={found.pop()}" for name, found in versions.items() if len(found) == 1]
    return None


def dependency_key(worktree: Worktree, facts: Sequence[str]) -> str:
    """A hash of the dependency files of a revision, and of the directories and files in it that they name.

    Files that an installer reads because another one includes them, by ``-r base.txt`` for example, are in it too.
    """
    root = worktree.root
    texts = {name: (worktree.directory / name).read_bytes() for name in _names_in(worktree.directory, root)}
    texts |= {f"/{name}": (root / name).read_bytes() for name in _names_in(root, root)}
    git = Git(worktree.directory)
    parts = [*facts, *(f"{name} {hashlib.sha256(text).hexdigest()}" for name, text in sorted(texts.items()))]
    for path in sorted({path for text in texts.values() for path in _paths_in(text.decode(errors="replace"))}):
        place = Path(os.path.normpath(worktree.directory / path))
        if place.exists() and place != worktree.directory and place.is_relative_to(root):
            inside = f"HEAD:{place.relative_to(root).as_posix()}"
            parts.append(
                f"{path} {git.run('rev-parse', inside).strip() if git.succeeds('cat-file', '-e', inside) else ''}"
            )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _names_in(directory: Path, root: Path) -> list[str]:
    """The dependency files of a directory, relative to it, and those inside ``root`` that they include."""
    found = {file for pattern in _FILES for file in directory.glob(pattern)}
    return sorted(Path(os.path.relpath(file, directory)).as_posix() for file in with_included(found, root))


def _paths_in(text: str) -> Iterator[str]:
    """What may be a path in a dependency file."""
    for word in re.findall(r"[^\s\"'=,;@\[\]{}()]+", text):
        if "/" in word or word.endswith(".whl"):
            yield word.removeprefix("file:")


def _dependencies_of(settings: dict[str, object]) -> str:
    """The dependencies in the content of a ``pyproject.toml``, as text to compare."""
    parts = {name: settings.get(name) for name in _TABLES}
    if isinstance(project := parts["project"], dict):
        parts["project"] = {name: project.get(name) for name in _OF_PROJECT}
    tools = settings.get("tool")
    if isinstance(tools, dict):
        for tool, keys in {
            "poetry": ("dependencies", "group"),
            "uv": ("sources", "dev-dependencies"),
            "pdm": ("dev-dependencies",),
        }.items():
            if isinstance(given := tools.get(tool), dict):
                parts[tool] = {key: given.get(key) for key in keys}
    return json.dumps(parts, sort_keys=True, default=str)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def with_included(files: Iterable[Path], root: Path) -> set[Path]:
    """The files, and those that they include, directly or through others.

    A file is left out if it is not there, is no regular file, lies outside of ``root``, also through a link, or is too
    large.
    """
    found = {file for file in files if file.is_file()}
    waiting = sorted(found)
    inside = root.resolve()
    while waiting:
        file = waiting.pop(0)
        for name in _included_by(file):
            place = Path(os.path.normpath(file.parent / name))
            if place not in found and len(found) < _MOST_FILES and _may_be_read(place, inside):
                found.add(place)
                waiting.append(place)
    return found


def _may_be_read(file: Path, inside: Path) -> bool:
    try:
        return file.is_file() and file.resolve().is_relative_to(inside) and file.stat().st_size <= _MOST_BYTES
    except (OSError, ValueError):  # a name that no file system takes, or a ring of links
        return False


def _included_by(file: Path) -> Iterator[str]:
    """The names of the files that a dependency file includes, relative to its directory."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace") if file.stat().st_size <= _MOST_BYTES else ""
    except OSError:
        return
    if file.name == "pyproject.toml":
        yield from _included_by_project(text)
    elif file.name == "setup.cfg":
        yield from _included_by_setup(text)
    elif file.suffix not in _NO_LISTS:
        for line in text.replace("\\\n", "").splitlines():
            if match := _INCLUDE.match(line):
                yield re.split(r"\s#", line[match.end() :], maxsplit=1)[0].strip().strip("'\"")


def _included_by_project(text: str) -> Iterator[str]:
    """What ``[tool.setuptools.dynamic]`` names: ``dependencies = {file = ["requirements.in"]}``."""
    try:
        settings: Any = tomllib.loads(text)
    except (ValueError, RecursionError):
        return
    for key in ("tool", "setuptools", "dynamic"):
        settings = settings.get(key) if isinstance(settings, dict) else None
    if not isinstance(settings, dict):
        return
    extras = settings.get("optional-dependencies")
    for given in (settings.get("dependencies"), *(extras.values() if isinstance(extras, dict) else ())):
        files = given.get("file") if isinstance(given, dict) else None
        yield from (name for name in (files if isinstance(files, list) else [files]) if isinstance(name, str))


def _included_by_setup(text: str) -> Iterator[str]:
    """What ``file:`` names: ``install_requires = file: requirements.in, more.in``."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except (configparser.Error, ValueError):
        return
    extras = parser.items("options.extras_require") if parser.has_section("options.extras_require") else []
    for value in (parser.get("options", "install_requires", fallback=""), *(value for _, value in extras)):
        if value.strip().startswith("file:"):
            yield from filter(None, (name.strip() for name in value.strip().removeprefix("file:").split(",")))
