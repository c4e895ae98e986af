"""``python -m pytest_mlpatterns history``: what a history shows, as text, page or JSON.

The history that a command is about: what its option names, else what the project's pytest configuration does.

The configuration is read without pytest, from the file that pytest would take: the first one that configures it, in the
directory or in those above it. Paths in it are relative to the file's directory. Only plain values are read: what
command lines, plugins and conftest files change is not known.
"""

from __future__ import annotations

import argparse
import configparser
import fnmatch
import shutil
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_mlpatterns.cli.output import Commands, add_command, for_people, require_other, write_document, write_file
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.files import read_text
from pytest_mlpatterns.wording import count, did_you_mean, first_line, listed, named, shown, visible

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.changes.series import Series
    from pytest_mlpatterns.history.file import History
    from pytest_mlpatterns.records.history import Change

_FILE = "perf-history.jsonl"  # The history, if neither ``--from`` nor the project names one
_KEY = "perf_history"
_TOML = {"pytest.toml": ("pytest",), ".pytest.toml": ("pytest",), "pyproject.toml": ("tool", "pytest")}
"""Files in TOML with the table that configures pytest."""
_INI = {"pytest.ini": "pytest", ".pytest.ini": "pytest", "tox.ini": "pytest", "setup.cfg": "tool:pytest"}
"""Files with sections, with the one that configures pytest."""
_ORDER = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
"""Order in which pytest looks for them in one directory."""
_ALWAYS = frozenset({"pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini"})
"""Files that pytest takes even if they are empty."""
_LEGACY = "ini_options"  # Table of ``pyproject.toml`` that older versions of pytest read


class ProjectFile(Struct, frozen=True):
    """A project's pytest configuration."""

    root: Path  # its directory, to which paths in it are relative
    values: Mapping[str, Any]  # its keys

    def text(self, key: str) -> str:
        """The text of a key; empty if it is not there, or no text."""
        value = self.values.get(key)
        return value.strip() if isinstance(value, str) else ""


def find_project(directory: Path) -> ProjectFile:
    """The configuration of a directory or of the nearest one above it; else an empty one of the directory itself."""
    here = directory.resolve()
    for place in (here, *here.parents):
        for name in _ORDER:
            file = place / name
            if file.is_file() and (values := _values_of(file)) is not None:
                return ProjectFile(place, values)
    return ProjectFile(here, {})


class HistoryPlace(Struct, frozen=True):
    """A history, and the project that it is of."""

    history: History  # where its lines are
    root: Path  # a directory of the project's repository


def history_place(named_by_option: str | None) -> HistoryPlace:
    """The history that a command in the working directory is about."""
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


_MOST_NAMED = 5  # Most tests that an error names


def add_history_command(commands: Commands) -> None:
    """Add the command to a parser. ``for_people``: makes text fit for standard output."""
    what = "show how the metrics of each test went from run to run, and what changed"
    command = add_command(commands, "history", what)
    command.add_argument(
        "--from",
        dest="history",
        metavar="PATH",
        help=f"the file of the history (default: {_KEY} of the project, or {_FILE})",
    )
    command.add_argument("test", metavar="TEST", nargs="?", help="an id, a part of one, or a pattern such as '*slow*'")
    command.add_argument("--metric", metavar="NAME", action="append", help="this metric only; may be repeated")
    command.add_argument(
        "--course", choices=("values", "ratios"), help="values, or ratios to revisions (default: both)"
    )
    command.add_argument("--machine", metavar="TEXT", help="a part of the machine whose values are shown")
    command.add_argument("--html", metavar="FILE", help="write a page with a chart for each test and metric")
    command.add_argument("--json", action="store_true", help="print every point, level and change as JSON")
    command.add_argument("-o", "--output", metavar="FILE", help="file to write instead of standard output")
    command.set_defaults(run=_show)


class _Everything(Struct, frozen=True):
    """What a history holds."""

    name: str  # the place of the history
    all_series: tuple[Series, ...]  # its courses
    changes: tuple[Change, ...]  # of all of these


def _read(place: HistoryPlace) -> _Everything:
    """Read a history and find its changes."""
    from pytest_mlpatterns.analysis.changes.findings import find_changes
    from pytest_mlpatterns.analysis.changes.series import commit_key, series_of
    from pytest_mlpatterns.history.checkout import first_parents
    from pytest_mlpatterns.records.history import CommitPosition

    name = place.history.name
    if not place.history.path.exists():
        raise SettingError(
            f"the history {named(name)} does not exist, expected one with lines of runs; add them with pytest "
            f"--perf-history={named(name)}, or name another history: --from PATH"
        )
    read = place.history.read()
    _warn(read.warnings)
    if not read.lines:
        raise SettingError(
            f"the history {name} has no lines, expected those of runs; add them with pytest --perf-history={name}, "
            "or name another history: --from PATH"
        )
    order = first_parents(place.root)
    known = {commit_key(CommitPosition(commit)) for commit in order}
    kept = sum(commit_key(line.at) in known for line in read.lines)
    if not kept:
        order = ()
    elif kept < len(read.lines):
        _warn([f"{count(len(read.lines) - kept, 'line')} left out, of commits that are no first parents of this one"])
    all_series = series_of(read.lines, order)
    if not all_series:
        raise SettingError(
            f"the history {name} has no run that can be shown, expected one without changed files; commit them first"
        )
    return _Everything(name, all_series, find_changes(all_series))


def _warn(warnings: Iterable[str]) -> None:
    sys.stderr.write("".join(f"WARNING: {visible(warning)}\n" for warning in warnings))


def _selected(everything: _Everything, options: argparse.Namespace) -> list[Series]:
    """The courses that the options name."""
    found = list(everything.all_series)
    if options.test is not None:
        found = [one for one in found if options.test in one.test or fnmatch.fnmatchcase(one.test, options.test)]
        if not found:
            tests = list(dict.fromkeys(one.test for one in everything.all_series))
            raise SettingError(
                f"{shown(options.test)} is in no test of {everything.name}; "
                f"{did_you_mean(options.test, tests)}it has {_some(tests)}"
            )
    if options.metric:
        from pytest_mlpatterns.analysis.metrics.definitions import which_metric

        metrics = list(dict.fromkeys(one.metric for one in found))
        if unknown := next((name for name in options.metric if name not in metrics), None):
            raise SettingError(
                f"--metric is {shown(unknown)}, {which_metric(unknown, metrics)}the history has {listed(metrics)}"
            )
        found = [one for one in found if one.metric in options.metric]
    if options.course is not None:
        found = [one for one in found if one.course == options.course]
        if not found:
            raise SettingError(f"--course is {options.course}, and the history has none of these tests")
    if options.machine is not None:
        machines = list(dict.fromkeys(one.machine for one in found if one.machine))
        found = [one for one in found if not one.machine or options.machine in one.machine]
        if not any(one.machine for one in found):
            raise SettingError(f"--machine is {shown(options.machine)}, expected a part of {_some(machines, 'or')}")
    return found


def _some(names: Sequence[str], joint: str = "and") -> str:
    """Names in a sentence, the first few of many."""
    left = len(names) - _MOST_NAMED
    return listed([*names[:_MOST_NAMED], *([f"{left:,} more"] if left > 0 else [])], joint) or "none"


def _show(options: argparse.Namespace) -> int:
    place = history_place(options.history)
    require_other("--html", options.html, place.history.path)
    require_other("-o", options.output, place.history.path)
    everything = _read(place)
    found = _selected(everything, options)
    if options.html is not None:
        from pytest_mlpatterns.reports.html.history_page import history_page

        directory = Path(options.html).parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"{directory} cannot be made: {error.strerror or error}; name another directory") from error
        write_file(options.html, history_page(found, everything.changes, everything.name))
    if options.json:
        from pytest_mlpatterns.reports.files.history_json import history_json
        from pytest_mlpatterns.reports.text.history_text import in_order

        text = history_json(in_order(found), everything.changes)
    elif options.html is not None and options.output is None:
        text = f"{options.html} has the history of {_tests(found)}\n"
    else:
        text = _text(everything, found, is_asked=options.test is not None or bool(options.metric))
    if options.output is not None:
        write_file(options.output, text)
    elif options.json:
        write_document(text)
    else:
        sys.stdout.write(for_people(text, sys.stdout))
    return 0


def _text(everything: _Everything, found: Sequence[Series], *, is_asked: bool) -> str:
    """The history for a terminal: of all tests the primary metrics and those that changed, else everything."""
    from pytest_mlpatterns.analysis.changes.findings import changes_in
    from pytest_mlpatterns.analysis.metrics.definitions import with_role
    from pytest_mlpatterns.analysis.metrics.metric import Role
    from pytest_mlpatterns.reports.text.history_text import history_lines

    primary = with_role(Role.PRIMARY)
    shown_series = [one for one in found if is_asked or one.metric in primary or changes_in(one, everything.changes)]
    width = shutil.get_terminal_size().columns
    lines = [_head(everything, found), "", *history_lines(shown_series or found, everything.changes, width)]
    left = len(found) - len(shown_series or found)
    if left > 0:
        lines += ["", f"{count(left, 'more course')} without a change; name a test or --metric to see them"]
    return "\n".join(lines) + "\n"


def _head(everything: _Everything, found: Sequence[Series]) -> str:
    from pytest_mlpatterns.analysis.changes.findings import changes_in

    changes = [one for series in found for one in changes_in(series, everything.changes)]
    new = sum(not one.is_confirmed for one in changes)
    doubt = f", {new:,} of them new and unconfirmed" if new else ""
    what = f"{count(len(changes), 'change')}{doubt}" if changes else "no change"
    return f"{everything.name}: {_tests(found)}, {what}"


def _tests(found: Sequence[Series]) -> str:
    return count(len({one.test for one in found}), "test")
