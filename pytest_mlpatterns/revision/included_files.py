"""Which files the dependency files of a project include: by ``-r`` and ``-c`` lines, and by setuptools' ``file``.

It reads files and follows what they name, within bounds: a revision may contain anything. It installs nothing.
"""

from __future__ import annotations

import configparser
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["with_included"]

_MOST_BYTES = 1 << 20
"""Largest file that is included; lists of packages with all hashes have some 100 KiB."""
_MOST_FILES = 100
"""Number of files from which no more are included; projects have a file for each of some ten purposes."""
_INCLUDE = re.compile(r"\s*(?:-[rc]|--requirement\b|--constraint\b)[\s=]*")
"""The beginning of a line that includes another file, as pip reads it: ``-r base.txt  # why``."""
_NO_LISTS = (".lock", ".toml", ".cfg", ".py", ".yml", ".yaml")
"""Endings of dependency files that are no lists of requirements."""


def with_included(files: Iterable[Path], root: Path) -> set[Path]:
    """The files, and those that they include, directly or through others.

    A file is left out if it is not there, is no regular file, lies outside of ``root``, also through a link, or is too
    large.

    Args:
        files: dependency files of a project.
        root: the directory that included files have to be in.
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
