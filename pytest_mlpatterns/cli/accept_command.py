"""``python -m pytest_mlpatterns accept``: agrees to what a failed test measured, in ``perf-accepted.toml``."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.verdicts.tolerances import can_more_than_double, changes_to_accept
from pytest_mlpatterns.cli.output import Commands, add_command, read_results_file, require_other
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import ACCEPTED_FILE, Acceptance, Verdict, pattern_of, rounded_ceiling
from pytest_mlpatterns.system.files import read_text, replace_file
from pytest_mlpatterns.system.git import repository_above
from pytest_mlpatterns.units import format_percent
from pytest_mlpatterns.wording import count, listed, named, shown

if TYPE_CHECKING:
    from pytest_mlpatterns.reports.files.result_file import Results

_TABLE = "[[accepted]]"
_TABLES = re.compile(r"(?m)^(?=[ \t]*\[\[\s*accepted\s*\]\])")
"""Begins of the tables of a file, whose comments may name tables too."""


def add_accept_command(commands: Commands) -> None:
    """Add the command to a parser."""
    command = add_command(commands, "accept", "accept what a failed test measured, with a reason")
    command.add_argument("results", metavar="RESULTS", help="file written by pytest --perf-json")
    command.add_argument("test", metavar="TEST", nargs="?", help="pytest's id of the test")
    command.add_argument("--reason", metavar="TEXT", help="why the change is wanted")
    command.add_argument(
        "--metric", metavar="NAME", action="append", help="this metric only (default: all that failed)"
    )
    command.add_argument("--ceiling", metavar="SHARE", help="largest accepted worsening, 60%% (default: as measured)")
    command.add_argument("--issue", metavar="TEXT", default="", help="where it was discussed, such as #123")
    command.add_argument("--until", metavar="DAY", help="last day on which it holds, such as 2026-12-31")
    command.add_argument("--prune", action="store_true", help="remove the acceptances that ended by these results")
    command.add_argument(
        "--file", metavar="PATH", help=f"file of acceptances (default: {ACCEPTED_FILE} beside the run's baseline file)"
    )
    command.set_defaults(run=lambda options: _run(options, read_results_file(options.results, are_needed=True)))


def _run(options: argparse.Namespace, read: Results) -> int:
    from pytest_mlpatterns.config.acceptances import require_no_day

    file = _file_for(options.file, read.baseline.get("accepted_file", ""))
    if options.prune:
        if not file.exists() and options.file is not None:
            raise SettingError(f"{named(file)} does not exist, expected a file of acceptances; name it with --file")
        with _problems_of(file):
            done = _pruned(file, read.results)
        sys.stdout.write(f"{done}\n")
        return 0
    if options.test is None or not (options.reason or "").strip():
        raise SettingError('accept needs a test and a reason; write accept RESULTS TEST --reason "larger model"')
    if options.until is not None:
        _check_day(options.until)
    require_no_day(options.reason, "--reason", "the day in an option of its own; write --until 2026-12-31")
    result = _result_of(options.test, read.results)
    wanted = _wanted(result, options.metric)
    if options.ceiling is not None:
        for verdict in wanted:
            _check_ceiling(options.ceiling, verdict)
    tables = [_table(verdict, result.test, options, since=read.commit) for verdict in wanted]
    with _problems_of(file):
        replaced = _extend(file, tables)
    instead = f", {count(replaced, 'table')} of them in place of an earlier one" if replaced else ""
    sys.stdout.write(
        f"{file} accepts {count(len(tables), 'change')} of {result.test}{instead}; commit it with the change\n"
    )
    return 0


def _file_for(option: str | None, noted: str) -> Path:
    """The file of acceptances: the option's, else the one which the results note, in this project only."""
    if option is not None:
        require_other("--file", option)
        return Path(option)
    file, here = Path(noted).parent / ACCEPTED_FILE, Path.cwd()  # older results note none: here
    top = repository_above(here) or here
    if not Path(os.path.normpath(here / file)).is_relative_to(top):
        raise SettingError(
            f"the results name {named(file)} for acceptances, expected a file in {top}; if it is the right one, "
            f"write --file {named(file)}"
        )
    return file


@contextlib.contextmanager
def _problems_of(file: Path) -> Iterator[None]:
    """Name the file of acceptances in an error of the system."""
    try:
        yield
    except UnicodeDecodeError:
        raise SettingError(
            f"{named(file)} is not in UTF-8, expected TOML; convert it, or name another --file"
        ) from None
    except OSError as error:
        raise SettingError(
            f"{named(file)} cannot be read or written: {error.strerror or error}; name a file that can be, in a "
            "directory that exists: --file PATH"
        ) from error


def _check_day(text: str) -> None:
    """Check ``--until``, which stands in the file without quotes."""
    try:
        is_day = datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        is_day = False
    if not is_day:
        raise SettingError(f"--until is {shown(text)}, expected a day; write --until 2026-12-31")
    today = datetime.datetime.now().astimezone().date()
    if datetime.date.fromisoformat(text) < today:
        raise SettingError(
            f"--until is {text}, which is over, expected a day from {today} on; name the last day on which it holds"
        )


def _check_ceiling(text: str, verdict: Verdict) -> None:
    """Check that ``--ceiling`` covers what was measured."""
    from pytest_mlpatterns.config.converters import read_worsening

    assert verdict.change is not None
    assert verdict.needed_ceiling is not None
    plain, change = text.replace(" ", "").removeprefix("+"), verdict.change
    ceiling = read_worsening(plain, "--ceiling", can_more_than_double(verdict.metric))
    if ceiling <= 0:
        raise SettingError(f"--ceiling is {shown(text)}, expected more than 0; write --ceiling 60%")
    advice = f"write --ceiling {rounded_ceiling(verdict.needed_ceiling):g}%, leave it out, or name another --metric"
    if verdict.ceiling is not None and ceiling < verdict.ceiling:
        raise SettingError(
            f"--ceiling is {shown(text)}, with which the slowest requests still fail {verdict.metric}, expected at "
            f"least {format_percent(verdict.ceiling)}; {advice}"
        )
    if ceiling < change.value:
        value, low, high = (format_percent(one, signed=True) for one in (change.value, change.low, change.high))
        raise SettingError(
            f"--ceiling is {shown(text)}, below what was measured of {verdict.metric}: {value} ({low} to {high}); "
            f"{advice}"
        )


def _result_of(test: str, results: Sequence[TestResult]) -> TestResult:
    """The result of a test; of a group the one whose change can be accepted."""
    of_group = [result for result in results if result.definition.group == test]
    worse = [result for result in of_group if _failed(result)]
    found = [result for result in results if result.test == test] or worse or of_group
    if not found:
        known = listed([result.test for result in results]) or "none"
        raise SettingError(f"there is no result of {shown(test)}; the file has results of {known}")
    if len(found) > 1 and worse:
        names = listed([result.test for result in worse], "or")
        raise SettingError(
            f"{shown(test)} has {count(len(worse), 'test')} that became worse, expected one; name {names}"
        )
    return found[0]


def _wanted(result: TestResult, metrics: Sequence[str] | None) -> list[Verdict]:
    """The changes to accept: those that failed or are suspected, without what follows from another one."""
    compared = {one.metric: one for one in _compared(result)}
    if metrics:
        if twice := next((name for name in metrics if metrics.count(name) > 1), None):
            raise SettingError(f"--metric names {twice} twice, expected each metric once; leave one out")
        if unknown := [name for name in metrics if name not in compared]:
            raise SettingError(f"{unknown[0]} of {result.test} was not compared; compared are {listed([*compared])}")
        return _acceptable([compared[name] for name in metrics], result)
    failed = _acceptable(_failed(result), result)
    if not failed:
        raise SettingError(f"{result.test} has no change beyond its tolerance, so there is nothing to accept")
    return [compared[name] for name, _ in changes_to_accept(failed)]


def _acceptable(verdicts: list[Verdict], result: TestResult) -> list[Verdict]:
    """The verdicts, all of which an acceptance lets pass."""
    if (found := next((one for one in verdicts if one.needed_ceiling is None), None)) is not None:
        raise SettingError(
            f"{found.metric} of {result.test} became worse without bound, as among failed requests, expected a "
            "change that a ceiling covers; repair it, or name another --metric"
        )
    return verdicts


def _compared(result: TestResult) -> list[Verdict]:
    """The verdicts of comparisons; a percentile among failed requests has no change."""
    return [one for one in result.verdicts if one.change is not None or one.tolerance is not None]


def _failed(result: TestResult) -> list[Verdict]:
    """The changes that failed, or may have."""
    return [one for one in _compared(result) if one.is_worse]


def _table(verdict: Verdict, test: str, options: argparse.Namespace, *, since: str | None) -> str:
    """One table of the file."""
    assert verdict.needed_ceiling is not None
    ceiling = options.ceiling or f"{rounded_ceiling(verdict.needed_ceiling):g} %"
    values = {
        "test": pattern_of(test),
        "metric": verdict.metric,
        "ceiling": ceiling,
        "reason": " ".join(options.reason.split()),
        "issue": options.issue,
        "since": since or "",
    }
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items() if value]
    return "\n".join([_TABLE, *lines, *([f"until = {options.until}"] if options.until else [])]) + "\n"


def _extend(file: Path, tables: Sequence[str]) -> int:
    """Add tables to the file, which is read with them before it is written; the number of those that they replace.

    A table of the same test, metric and commit is replaced: it is of the same results.
    """
    from pytest_mlpatterns.config.acceptances import read_acceptances

    replaced = 0

    def extended() -> str:
        nonlocal replaced
        before = read_text(file) if file.exists() else ""
        new = {_subject_of(one) for one in read_acceptances(file, "\n".join(tables))}
        over = [_subject_of(one) in new for one in read_acceptances(file, before)]
        replaced = sum(over)
        if replaced:
            head, old = _split(file, before, len(over))
            before = head + "".join(table for table, is_over in zip(old, over, strict=True) if not is_over)
        text = "\n".join([*([before.rstrip("\n") + "\n"] if before.strip() else []), *tables])
        read_acceptances(file, text)
        return text

    replace_file(file, extended)
    return replaced


def _subject_of(one: Acceptance) -> tuple[str, str, str]:
    """What two acceptances of the same results have in common."""
    return one.test, one.metric, one.since


def _split(file: Path, text: str, number: int) -> tuple[str, list[str]]:
    """What stands above the tables of a file, and its tables."""
    head, *tables = _TABLES.split(text)
    if len(tables) != number:
        raise SettingError(
            f"{file} has {count(number, 'table')}, of which {len(tables)} begin with a line {_TABLE}; write each so, "
            "or remove by hand what is over"
        )
    return head, tables


def _pruned(file: Path, results: Sequence[TestResult]) -> str:
    """Remove the acceptances that ended for a test of these results and hold for none; what it was, in a sentence."""
    from pytest_mlpatterns.config.acceptances import read_acceptances

    def is_over(one: Acceptance) -> bool:
        whys = [result.judged.accepted.get(one.identity) for result in results if one.is_of(result.test)]
        return any(whys) and "" not in whys

    removed: list[str] = []

    def rest() -> str:
        text = read_text(file)
        accepted = read_acceptances(file, text)
        head, tables = _split(file, text, len(accepted))
        kept = [table for table, one in zip(tables, accepted, strict=True) if not is_over(one)]
        removed.extend(str(one) for one in accepted if is_over(one))
        return head + "".join(kept)

    if file.exists() and any(why for result in results for why in result.judged.accepted.values()):
        replace_file(file, rest)
    return f"removed from {file}: {'; '.join(removed)}" if removed else f"{file} has nothing that these results ended"
