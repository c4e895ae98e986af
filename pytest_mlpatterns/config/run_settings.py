"""Settings of a whole run: modes, files and policies."""

import os
import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from pytest_mlpatterns.analysis.choice.criteria import SelectionCriteria, parse_criteria
from pytest_mlpatterns.config.converters import read_choice, read_flag, read_positive
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.verdict import ACCEPTED_FILE
from pytest_mlpatterns.removed import why_removed
from pytest_mlpatterns.system.empty_results import head_of, is_results
from pytest_mlpatterns.wording import named, shown

_TRUTHS = ("true", "false")  # Truth values of an ini file, which would be odd names of files
_Choice = TypeVar("_Choice", bound=StrEnum)
_PAGE = (b"<!doctype html", b"<html")  # Beginnings of pages
_KINDS = {"json": "result file", "html": "page"}
"""What a run replaces, by the name of its option; a baseline and a history are read before they are written."""
_EXAMPLES = {"html": "report.html", "json": "results.json", "history": "perf-history.jsonl"}


class BaselineMode(StrEnum):
    """The modes of ``--perf-baseline``."""

    CHECK = "check"
    UPDATE = "update"
    REQUIRE = "require"
    PRUNE = "prune"
    OFF = "off"


class SettleMode(StrEnum):
    """The modes of ``--perf-settle``: whether the recorded code decides what the baseline file does not."""

    AUTO = "auto"
    OFF = "off"
    FETCH = "fetch"


class BaselineSource(StrEnum):
    """The sources of ``--perf-baseline-from``: what an update of the baseline records."""

    RUN = "run"
    HISTORY = "history"


class HistoryFail(StrEnum):
    """The modes of ``--perf-history-fail``: which changes in the history fail the run that finds them."""

    NEW = "new"
    NEVER = "never"


class RunSettings(Struct, frozen=True):
    """Settings of a whole run.

    ``always_ranks``: the weights come from the ini file, so a run without alternatives to rank is not an error.
    ``against_required``: a test that is not compared with the revision fails, also if it is new.
    ``history``: absolute path of the history file; None without a history.
    ``invoked_in``: directory in which the run was started. ``time_ns``: time that its perf tests share; None for any.
    """

    invoked_in: Path
    baseline: BaselineMode
    baseline_file: Path
    html_file: Path | None
    json_file: Path | None
    smoke: bool
    rank: SelectionCriteria | None
    always_ranks: bool
    against: str | None
    against_required: bool
    against_env: bool
    against_files: tuple[str, ...]
    settle: SettleMode = SettleMode.AUTO
    baseline_source: BaselineSource = BaselineSource.RUN
    history: Path | None = None
    history_fail: HistoryFail = HistoryFail.NEVER
    time_ns: int | None = None

    @property
    def accepted_file(self) -> Path:
        """The file of acceptances."""
        return self.baseline_file.with_name(ACCEPTED_FILE)

    @property
    def accepted_from_here(self) -> str:
        """The same as a command names it that is run in the same directory."""
        return Path(os.path.relpath(self.accepted_file, self.invoked_in)).as_posix()

    @property
    def results_from_here(self) -> str:
        """The result file as a command names it that is run in the same directory; empty without one."""
        file, here = self.json_file, self.invoked_in
        if file is None:
            return ""
        return str(file.relative_to(here) if file.is_relative_to(here) else file)

    @property
    def results_files(self) -> tuple[Path, ...]:
        """The files that the run writes beside a baseline, which are no part of what it measures."""
        return tuple(file for file in (self.json_file, self.html_file, self.history) if file is not None)


def read_run_settings(
    options: Mapping[str, object], ini: Mapping[str, object], *, invoked_in: Path, root: Path
) -> RunSettings:
    """Merge the settings of a whole run.

    ``options``: command-line values by option name, None if not given. ``ini``: ini values by option name, None or
    empty if not given. ``invoked_in``: directory that paths from the command line are relative to. ``root``: directory
    that paths from the ini file are relative to, and default directory of the baseline file.
    """

    given = _Given(options, ini, invoked_in, root)
    against = given.reference()
    mode, history = _mode(given.choice("baseline", BaselineMode.CHECK), against), given.history()
    baseline_file = given.path("baseline-file") or root / "perf-baseline.json"
    html_file, json_file = given.path("html"), given.path("json")
    given.require_apart({"baseline-file": baseline_file, "html": html_file, "json": json_file, "history": history})
    return RunSettings(
        invoked_in=invoked_in,
        baseline=mode,
        baseline_file=baseline_file,
        html_file=html_file,
        json_file=json_file,
        smoke=given.flag("smoke"),
        rank=given.criteria(),
        always_ranks=options.get("rank") is None,
        against=against,
        against_required=against is not None and given.text("baseline") == BaselineMode.REQUIRE,
        against_env=given.flag("against-env"),
        against_files=_names_in(given.text("against-files")),
        settle=given.choice("settle", SettleMode.AUTO),
        baseline_source=_source(given.choice("baseline-from", BaselineSource.RUN), mode, history),
        history=history,
        history_fail=given.history_fail(history),
        time_ns=given.time(),
    )


class _Given(Struct, frozen=True):
    """What the command line and the ini file give, the command line first; arguments of :func:`read_run_settings`."""

    options: Mapping[str, object]
    ini: Mapping[str, object]
    invoked_in: Path
    root: Path

    def value(self, name: str) -> tuple[Any, str]:
        """What is given, or None, and where the user gave it, for messages."""
        option, ini = self.options.get(name), self.ini.get(name)
        if option is None and ini:
            return ini, f"ini key perf_{name.replace('-', '_')}"
        return option, f"--perf-{name}"

    def path(self, name: str) -> Path | None:
        """A file; None if not given."""
        given, source = self.value(name)
        is_option = self.options.get(name) is not None
        if given is None:
            return None
        if is_option and not str(given).strip():
            raise SettingError(
                f"{source} is {shown(str(given))}, expected the path of a file; if a variable of the shell names it, "
                "the variable is empty"
            )
        source = f"{source} {named(given)}"
        file = _writable((self.invoked_in if is_option else self.root) / str(given), source, is_option=is_option)
        _require_replaceable(name, file, source)
        return file

    def require_apart(self, files: Mapping[str, Path | None]) -> None:
        """Check that no two files are one, since the last one written would be all that is left."""
        known: dict[str, str] = {}
        for name, file in files.items():
            if file is None or (file.exists() and not file.is_file()):
                continue
            place = os.path.realpath(file)
            if place in known:
                raise SettingError(
                    f"{self.value(known[place])[1]} and {self.value(name)[1]} are both {named(file)}, expected a file "
                    "for each; name another one"
                )
            known[place] = name

    def flag(self, name: str) -> bool:
        """A switch; off if not given."""
        return read_flag(*self.value(name))

    def text(self, name: str) -> str:
        """A text; empty if not given."""
        return str(self.options.get(name) or self.ini.get(name) or "")

    def choice(self, name: str, default: _Choice) -> _Choice:
        """A member of the default's enumeration."""
        given, source = self.value(name)
        chosen: _Choice = read_choice(type(default), given or default, source)
        return chosen

    def time(self) -> int | None:
        """The time of all perf tests; None if not given."""
        given, source = self.value("time")
        return None if given is None else read_positive(given, source)

    def criteria(self) -> SelectionCriteria | None:
        """The criteria of the ranking; None without one."""
        given, source = self.value("rank")
        return None if given is None else parse_criteria(str(given), source)

    def reference(self) -> str | None:
        """The revision to compare with; None without one."""
        given, source = self.value("against")
        text = str(given or "").strip()
        if not text and self.options.get("against") is not None:
            raise SettingError(
                f"{source} is {shown(str(given))}, expected a branch, tag or commit such as main; if a variable of the "
                "shell names it, the variable is empty"
            )
        return text or None

    def history(self) -> Path | None:
        """The file of the history; None if not given."""
        if self.options.get("history") == "":  # leaves out the ini file's
            return None
        refuse_notes(self.text("history"), self.value("history")[1])
        return self.path("history")

    def history_fail(self, history: Path | None) -> HistoryFail:
        """Which changes in the history fail the run."""
        chosen = self.choice("history-fail", HistoryFail.NEVER)
        if chosen is HistoryFail.NEW and not history and self.options.get("history-fail"):
            raise SettingError(
                "--perf-history-fail new without a history, expected one to find changes in; name it: "
                "--perf-history=PATH"
            )
        return chosen


def refuse_notes(history: str, source: str) -> None:
    """Refuse the place ``git:NAME`` of a history, which was once kept in git notes."""
    if history.startswith("git:"):
        raise SettingError(
            f"{source} is {shown(history)}: {why_removed('git notes')}; for a file of this name, write ./{history}"
        )


def _writable(file: Path, given: str, *, is_option: bool) -> Path:
    """The file, if its directory exists and it is no directory itself; ``given`` names it in the message."""
    if not is_option and file.name.lower() in _TRUTHS:
        raise SettingError(f"{given} is a truth value, expected the path of a file; name one")
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # longer than the file system allows, a loop of links, a NUL character
        problem = getattr(error, "strerror", None) or error
        raise SettingError(f"{given} cannot be used: {problem}; name a file in a directory that exists") from None
    if file.is_dir() or not file.parent.is_dir():
        problem = "is a directory" if file.is_dir() else f"is in {named(file.parent)}, which does not exist"
        raise SettingError(f"{given} {problem}; name a file in a directory that exists")
    return file


def _require_replaceable(name: str, file: Path, given: str) -> None:
    """Check that a run may write to a file: a forgotten value makes the next word, such as a test file, the value."""
    if file.suffix == ".py" or ".py::" in file.name:
        raise SettingError(
            f"{given} is a Python file or a test, expected a file to write; name one, such as --perf-{name}="
            f"{_EXAMPLES.get(name, 'perf.json')}"
        )
    if name not in _KINDS or not file.is_file():
        return
    try:
        head = head_of(file)
    except OSError as error:
        raise SettingError(f"{given} cannot be read: {error.strerror or error}; name another file") from None
    is_ours = is_results(head) if name == "json" else head.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith(_PAGE)
    if head.strip() and not is_ours:
        raise SettingError(
            f"{given} exists and is no {_KINDS[name]}, expected a new file or one that --perf-{name} wrote; name "
            "another one, or move this one away"
        )


def _mode(mode: BaselineMode, against: str | None) -> BaselineMode:
    """The baseline mode; off in a run that compares with a revision, which does not use the baseline file."""
    if against is None:
        return mode
    if mode in (BaselineMode.UPDATE, BaselineMode.PRUNE):
        raise SettingError(
            f"--perf-against {against} beside --perf-baseline {mode}, expected one of them; a comparison with a "
            "revision does not use the baseline file"
        )
    return BaselineMode.OFF


def _source(source: BaselineSource, mode: BaselineMode, history: Path | None) -> BaselineSource:
    """What an update of the baseline records. ``history``: its file; None without one."""
    if source is BaselineSource.HISTORY and mode is BaselineMode.UPDATE and not history:
        raise SettingError(
            "--perf-baseline-from history without a history, expected one to take the values from; name it: "
            "--perf-history=PATH"
        )
    return source


def _names_in(text: str) -> tuple[str, ...]:
    """Names separated by commas or white space; a name that contains either is quoted."""
    words = shlex.shlex(text, posix=True)
    words.whitespace += ","
    words.whitespace_split = True
    words.commenters = ""
    try:
        return tuple(words)
    except ValueError as error:
        raise SettingError(f"--perf-against-files {named(text)}: {error}; close the quotes") from None
