"""``python -m pytest_mlpatterns history backfill`` measures old commits for a history."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.cli.bisect_command import ended_by_signals, require_here, search_times
from pytest_mlpatterns.cli.project_history import add_history_option, history_place
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wording import count, listed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from pytest_mlpatterns.history.backfill import BackfillEnd, BackfillPlan, Filled
    from pytest_mlpatterns.history.place import History

__all__ = ["add_backfill_command"]

_NOT_MEASURED = 1
"""Exit code if commits gave no line, such as those that do not have the test."""
_LEFT = 3
"""Exit code if there was no time for all commits."""
_INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell."""
_MOST_NAMED = 4
"""Most tests that a line names."""


def add_backfill_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], for_people: Callable[[str], str]
) -> None:
    """Add the command to a parser."""
    what = "measure old commits for a history"
    command = commands.add_parser(
        "history backfill",
        help=what,
        description=f"{what[0].upper()}{what[1:]}, each interleaved with one reference. Exits with 0 if all were "
        "measured, 1 if some could not be, 2 after an error, and 3 if there was no time for all; the same command goes "
        "on then.",
    )
    command.add_argument("backfill", metavar="GOOD..BAD", help="the commits, along first parents, such as v1.0..main")
    add_history_option(command)
    command.add_argument(
        "--every", metavar="NUMBER", type=int, default=1, help="distance of the commits (default: %(default)s)"
    )
    command.add_argument(
        "--test", metavar="ID", action="append", dest="tests", help="a test (default: those of the history)"
    )
    command.add_argument(
        "--against", metavar="GITREF", help="what all commits are compared with (default: GOOD, before the range)"
    )
    command.add_argument("--budget", metavar="TIME", default="30s", help="of one measurement (default: %(default)s)")
    command.add_argument(
        "--at-most", metavar="TIME", default="60min", help="time of all together (default: %(default)s)"
    )
    command.add_argument(
        "--files", metavar="PATTERN", action="append", help="files that the tests need and git does not track"
    )
    command.set_defaults(run=lambda options: _run(options, for_people))


def _run(options: argparse.Namespace, for_people: Callable[[str], str]) -> int:
    from pytest_mlpatterns.engines.engine import engine_names
    from pytest_mlpatterns.history.backfill import Backfill
    from pytest_mlpatterns.history.checkout import position_in
    from pytest_mlpatterns.history.commit_runs import CommitRuns
    from pytest_mlpatterns.system.environment import environment

    def say(text: str) -> None:
        sys.stdout.write(for_people(f"{text}\n"))
        sys.stdout.flush()

    project = Path.cwd()
    history = history_place(options.history).history
    plan = _plan(options, history)
    say(_announced(plan, history.name))
    machine = environment(name for name in engine_names() if name != "local").machine
    try:
        with ended_by_signals(), CommitRuns(project, extra=options.files or (), show=say) as runs:
            measures = {test: runs.of(test) for test in plan.tests}
            position_of = functools.partial(position_in, project)
            fill = Backfill(plan, measures, history, position_of=position_of, show=lambda one: say(_line(one)))
            end = fill.run(machine)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it ended")
        return _INTERRUPTED
    say(_summary(end, history.name))
    if end.left:
        return _LEFT
    return _NOT_MEASURED if end.skipped else 0


def _plan(options: argparse.Namespace, history: History) -> BackfillPlan:
    from pytest_mlpatterns.history.backfill import BackfillPlan, chosen_positions
    from pytest_mlpatterns.history.checkout import read_range, tagged
    from pytest_mlpatterns.revision.commits import resolve_revision

    if options.every < 1:
        raise SettingError(f"--every is {options.every}, expected at least 1; write --every 5")
    budget_ns, most_ns = search_times(options)
    project = Path.cwd()
    commits = read_range(project, options.backfill)
    with_tag = tagged(project, commits.shas)
    always = [number for number, sha in enumerate(commits.shas) if sha in with_tag]
    tests = tuple(options.tests or sorted({line.test for line in history.read().lines}))
    if not tests:
        raise SettingError(f"{history.name} has no line that names a test; name tests with --test ID")
    for test in tests:
        require_here(test, project)
    return BackfillPlan(
        tests,
        commits,
        chosen_positions(len(commits.shas) - 1, options.every, always),
        resolve_revision(project, options.against) if options.against else commits.good,
        budget_ns,
        most_ns,
    )


def _announced(plan: BackfillPlan, place: str) -> str:
    more = "" if len(plan.tests) <= _MOST_NAMED else " and more"
    return (
        f"{count(len(plan.positions), 'commit')} of {count(len(plan.commits.shas) - 1, 'commit')}, each against "
        f"{plan.reference.name} ({plan.reference.short}), of {listed(plan.tests[:_MOST_NAMED])}{more}, into {place}"
    )


def _line(filled: Filled) -> str:
    short = filled.commit.sha[:12]
    why = f"no line: {filled.skipped}" if filled.skipped else "added"
    return "\n".join([f"{filled.left:>5} left  {short}  {filled.test}: {why}", *filled.notes])


def _summary(end: BackfillEnd, place: str) -> str:
    parts = [f"{place} has {count(end.added, 'new line')}"]
    parts += [f"{end.known} known before"] if end.known else []
    parts += [f"{end.skipped} could not be measured"] if end.skipped else []
    parts += [f"{end.left} are left; the same command goes on"] if end.left else []
    return ", ".join(parts)
