"""The history that a command is about: what its option names, else what the project's pytest configuration does.

The configuration is read without pytest, from the file that pytest would take: the first one that configures it, in the
directory or in those above it. Paths in it are relative to the file's directory. Only plain values are read: what
command lines, plugins and conftest files change is not known.
"""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.files import read_text
from pytest_mlpatterns.wording import first_line, named

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from pytest_mlpatterns.history.file import History

__all__ = ["HistoryPlace", "ProjectFile", "add_history_option", "find_project", "history_place"]

_FILE = "perf-history.jsonl"
"""The history, if neither ``--from`` nor the project names one."""
_KEY = "perf_history"
_TOML = {"pytest.toml": ("pytest",), ".pytest.toml": ("pytest",), "pyproject.toml": ("tool", "pytest")}
"""Files in TOML with the table that configures pytest."""
_INI = {"pytest.ini": "pytest", ".pytest.ini": "pytest", "tox.ini": "pytest", "setup.cfg": "tool:pytest"}
"""Files with sections, with the one that configures pytest."""
_ORDER = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
"""Order in which pytest looks for them in one directory."""
_ALWAYS = frozenset({"pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini"})
"""Files that pytest takes even if they are empty."""
_LEGACY = "ini_options"
"""Table of ``pyproject.toml`` that older versions of pytest read."""


class ProjectFile(Struct, frozen=True):
    """A project's pytest configuration.

    Attributes:
        root: its directory, to which paths in it are relative.
        values: its keys.
    """

    root: Path
    values: Mapping[str, Any]

    def text(self, key: str) -> str:
        """The text of a key; empty if it is not there, or no text."""
        value = self.values.get(key)
        return value.strip() if isinstance(value, str) else ""


def find_project(directory: Path) -> ProjectFile:
    """The configuration of a directory or of the nearest one above it; an empty one of the directory itself without it.

    Raises:
        SettingError: the file that pytest would take cannot be read.
    """
    here = directory.resolve()
    for place in (here, *here.parents):
        for name in _ORDER:
            file = place / name
            if file.is_file() and (values := _values_of(file)) is not None:
                return ProjectFile(place, values)
    return ProjectFile(here, {})


class HistoryPlace(Struct, frozen=True):
    """A history, and the project that it is of.

    Attributes:
        history: where its lines are.
        root: a directory of the project's repository.
    """

    history: History
    root: Path

    def require_file(self) -> None:
        """Check that the file of the history is there.

        Raises:
            SettingError: it is not.
        """
        if not self.history.path.exists():
            name = named(self.history.name)
            raise SettingError(
                f"the history {name} does not exist, expected one with lines of runs; add them with pytest "
                f"--perf-history {name}, or name another history: --from PATH"
            )


def add_history_option(command: argparse.ArgumentParser) -> None:
    """Add the option that names the history to a command."""
    command.add_argument(
        "--from",
        dest="history",
        metavar="PATH",
        help=f"the file of the history (default: {_KEY} of the project, or {_FILE})",
    )


def history_place(named_by_option: str | None) -> HistoryPlace:
    """The history that a command in the working directory is about.

    Args:
        named_by_option: what the option names; None if it was not given.

    Raises:
        SettingError: it names no place, or the project's configuration cannot be read.
    """
    from pytest_mlpatterns.config.run_settings import refuse_notes
    from pytest_mlpatterns.history.file import History

    here = Path.cwd()
    if named_by_option is not None:
        text, directory, source = named_by_option, here, "--from"
        if not text.strip():
            raise SettingError(f"--from is {text!r}, expected the path of a file")
    else:
        project = find_project(here)
        text, directory, source = project.text(_KEY) or _FILE, project.root, f"ini key {_KEY}"
    refuse_notes(text, source)
    return HistoryPlace(History(directory / text, text, option="--from"), directory)


def _values_of(file: Path) -> Mapping[str, Any] | None:
    """The keys of a file; None if pytest would pass it by."""
    try:
        text = read_text(file)
        found = _of_toml(text, _TOML[file.name]) if file.name in _TOML else _of_ini(text, _INI[file.name])
    except (OSError, ValueError, configparser.Error) as error:
        raise SettingError(
            f"{named(file)} cannot be read: {first_line(error)}; mend it, or name the history: --from PATH"
        ) from error
    return {} if found is None and file.name in _ALWAYS else found


def _of_toml(text: str, table: tuple[str, ...]) -> Mapping[str, Any] | None:
    found: Any = tomllib.loads(text)
    for name in table:
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        return None
    legacy = found.get(_LEGACY)
    return legacy if isinstance(legacy, dict) else found


def _of_ini(text: str, section: str) -> Mapping[str, Any] | None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return dict(parser[section]) if parser.has_section(section) else None
