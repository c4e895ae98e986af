"""Settings of a whole run: modes, files and policies."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.choice.criteria import parse_criteria
from pytest_mlpatterns.config.converters import (
    read_choice,
    read_flag,
)
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wording import named, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_mlpatterns.analysis.choice.criteria import SelectionCriteria

__all__ = ["BaselineMode", "RunSettings", "SettleMode", "read_run_settings"]

_TRUTHS = ("true", "false")
"""Truth values of an ini file, which would be odd names of files."""


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


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Settings of a whole run.

    ``always_ranks``: the weights come from the ini file, so a run without alternatives to rank is not an error.
    ``against_required``: a test that is not compared with the revision fails, also if it is new.
    """

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


def read_run_settings(
    options: Mapping[str, object], ini: Mapping[str, object], *, invoked_in: Path, root: Path
) -> RunSettings:
    """Merge the settings of a whole run.

    Args:
        options: command-line values by option name, None if not given.
        ini: ini values by option name, None or empty if not given.
        invoked_in: directory that paths from the command line are relative to.
        root: directory that paths from the ini file are relative to, and default directory of the baseline file.

    Raises:
        SettingError: an invalid value, or a file in a directory that does not exist.
    """

    def path(name: str) -> Path | None:
        given, base = (options[name], invoked_in) if options.get(name) is not None else (ini.get(name), root)
        if not given:
            return None
        is_option = options.get(name) is not None
        source = f"--perf-{name}" if is_option else f"ini key perf_{name.replace('-', '_')}"
        return _writable(base / str(given), f"{source} {named(given)}", is_option=is_option)

    def flag(name: str) -> bool:
        given = options[name] if options.get(name) is not None else ini.get(name)
        return read_flag(given, f"ini key perf_{name.replace('-', '_')}")

    def text(name: str) -> str:
        return str(options.get(name) or ini.get(name) or "")

    against = _reference(options.get("against"), ini.get("against"))
    return RunSettings(
        baseline=_mode(text("baseline"), against),
        baseline_file=path("baseline-file") or root / "perf-baseline.json",
        html_file=path("html"),
        json_file=path("json"),
        smoke=flag("smoke"),
        rank=_criteria(options.get("rank"), ini.get("rank")),
        always_ranks=options.get("rank") is None,
        against=against,
        against_required=against is not None and text("baseline") == BaselineMode.REQUIRE,
        against_env=flag("against-env"),
        against_files=_names_in(text("against-files")),
        settle=read_choice(SettleMode, text("settle") or SettleMode.AUTO, "ini key perf_settle"),
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


def _reference(option: object, ini: object) -> str | None:
    """The revision to compare with; None without one."""
    if option is not None and not str(option).strip():
        raise SettingError(
            f"--perf-against is {shown(str(option))}, expected a branch, tag or commit such as main; if a variable of "
            "the shell names it, the variable is empty"
        )
    return str(option or ini or "").strip() or None


def _mode(given: str, against: str | None) -> BaselineMode:
    """The baseline mode; off in a run that compares with a revision, which does not use the baseline file.

    Args:
        given: the mode from the command line or the ini file, empty if not given.
    """
    mode: BaselineMode = read_choice(BaselineMode, given or BaselineMode.CHECK, "ini key perf_baseline")
    if against is None:
        return mode
    if mode in (BaselineMode.UPDATE, BaselineMode.PRUNE):
        raise SettingError(
            f"--perf-against {against} beside --perf-baseline {mode}, expected one of them; a comparison with a "
            "revision does not use the baseline file"
        )
    return BaselineMode.OFF


def _criteria(option: object, ini: object) -> SelectionCriteria | None:
    """The criteria of the ranking, from the command line or else from the ini file; None without a ranking."""
    if option is not None:
        return parse_criteria(str(option), "--perf-rank")
    return parse_criteria(str(ini), "ini key perf_rank") if ini else None


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
