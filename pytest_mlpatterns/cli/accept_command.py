"""``python -m pytest_mlpatterns accept``: agrees to what a failed test measured, in ``perf-accepted.toml``."""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.verdicts.tolerances import changes_to_accept
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.acceptance import ACCEPTED_FILE, rounded_ceiling
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.system.files import read_text, replace_file
from pytest_mlpatterns.wording import count, listed, shown

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.verdict import Verdict
    from pytest_mlpatterns.reports.files.result_file import Results

__all__ = ["add_accept_command"]

_TABLE = "[[accepted]]"


def add_accept_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], read: Callable[[str], Results]
) -> None:
    """Add the command to a parser."""
    what = "accept what a failed test measured, with a reason"
    command = commands.add_parser("accept", help=what, description=f"{what[0].upper()}{what[1:]}.")
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
        "--file", metavar="PATH", default=ACCEPTED_FILE, help="beside the baseline file (default: %(default)s)"
    )
    command.set_defaults(run=lambda options: _run(options, read(options.results)))


def _run(options: argparse.Namespace, read: Results) -> int:
    file = Path(options.file)
    if options.prune:
        sys.stdout.write(f"{_pruned(file, read.results)}\n")
        return 0
    if options.test is None or not (options.reason or "").strip():
        raise SettingError('accept needs a test and a reason; write accept RESULTS TEST --reason "larger model"')
    if options.until is not None:
        _check_day(options.until)
    result = _result_of(options.test, read.results)
    tables = [_table(verdict, result.test, options, since=read.commit) for verdict in _wanted(result, options.metric)]
    _extend(file, tables)
    sys.stdout.write(f"{file} accepts {count(len(tables), 'change')} of {result.test}; commit it with the change\n")
    return 0


def _check_day(text: str) -> None:
    """Check ``--until``, which stands in the file without quotes."""
    try:
        is_day = date.fromisoformat(text).isoformat() == text
    except ValueError:
        is_day = False
    if not is_day:
        raise SettingError(f"--until is {shown(text)}, expected a day; write --until 2026-12-31")


def _result_of(test: str, results: Sequence[TestResult]) -> TestResult:
    for result in results:
        if test in (result.test, result.definition.group):
            return result
    known = listed([result.test for result in results]) or "none"
    raise SettingError(f"there is no result of {shown(test)}; the file has results of {known}")


def _wanted(result: TestResult, metrics: Sequence[str] | None) -> list[Verdict]:
    """The changes to accept: those that failed or are suspected, without what follows from another one."""
    compared = {one.metric: one for one in result.verdicts if one.change is not None}
    if metrics:
        if unknown := [name for name in metrics if name not in compared]:
            raise SettingError(f"{unknown[0]} of {result.test} was not compared; compared are {listed([*compared])}")
        return [compared[name] for name in metrics]
    failed = [one for one in compared.values() if one.outcome is Outcome.FAIL or one.suspected]
    found = [compared[name] for name, _ in changes_to_accept(failed)]
    if not found:
        raise SettingError(f"{result.test} has no change beyond its tolerance, so there is nothing to accept")
    return found


def _table(verdict: Verdict, test: str, options: argparse.Namespace, *, since: str | None) -> str:
    """One table of the file."""
    assert verdict.change is not None
    ceiling = options.ceiling or f"{rounded_ceiling(verdict.change.high):g} %"
    values = {
        "test": test,
        "metric": verdict.metric,
        "ceiling": ceiling,
        "reason": " ".join(options.reason.split()),
        "issue": options.issue,
        "since": since or "",
    }
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items() if value]
    return "\n".join([_TABLE, *lines, *([f"until = {options.until}"] if options.until else [])]) + "\n"


def _extend(file: Path, tables: Sequence[str]) -> None:
    """Add tables to the file, which is read with them before it is written."""
    from pytest_mlpatterns.config.acceptances import read_acceptances

    def extended() -> str:
        before = read_text(file) if file.exists() else ""
        text = "\n".join([*([before.rstrip("\n") + "\n"] if before.strip() else []), *tables])
        read_acceptances(file, text)
        return text

    replace_file(file, extended)


def _pruned(file: Path, results: Sequence[TestResult]) -> str:
    """Remove the acceptances that no result needs and that ended in one; what was removed, in a sentence."""
    from pytest_mlpatterns.config.acceptances import read_acceptances

    states = [state for result in results for state in result.judged.accepted.items()]
    needed = {text for text, why in states if not why}
    over = {text for text, why in states if why} - needed
    removed: list[str] = []

    def rest() -> str:
        text = read_text(file)
        accepted = read_acceptances(file, text)
        head, *tables = text.split(_TABLE)
        kept = [table for table, one in zip(tables, accepted, strict=True) if str(one) not in over]
        removed.extend(str(one) for one in accepted if str(one) in over)
        return head + "".join(_TABLE + table for table in kept)

    if over and file.exists():
        replace_file(file, rest)
    return f"removed from {file}: {'; '.join(removed)}" if removed else f"{file} has nothing that these results ended"
