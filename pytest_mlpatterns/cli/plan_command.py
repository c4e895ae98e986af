"""``python -m pytest_mlpatterns plan``: which changes this machine sees, and what it takes to see smaller ones.

Unchanged tests are measured for it, bounded in time; or the launches of a history are taken, without measuring.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.cli.bisect_command import positive_time
from pytest_mlpatterns.cli.project_history import find_project, history_place
from pytest_mlpatterns.errors import BaselineFileError, SettingError
from pytest_mlpatterns.wording import visible

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
    from pytest_mlpatterns.history.plan import TestFacts
    from pytest_mlpatterns.records.baseline_entry import Baselines
    from pytest_mlpatterns.records.plan import TestPlan

__all__ = ["add_plan_command"]

_AT_MOST = "10min"
"""Time of all trial runs by default: three of each kind for a few tests."""
_SETTLED = (
    "What the file of a baseline does not decide, its commit does, unless --perf-settle is off: a test then sees what "
    "a revision shows."
)
"""What a reader should know in a git repository."""
_BASELINE_FILE = "perf-baseline.json"
"""The baseline file, by default."""


def add_plan_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], for_people: Callable[[str], str]
) -> None:
    """Add the command to a parser."""
    what = "show which changes of each test this machine sees, and the budget for smaller ones"
    command = commands.add_parser("plan", help=what, description=f"{what[0].upper()}{what[1:]}.")
    command.add_argument("tests", metavar="TEST", nargs="*", help="as pytest takes them (default: all)")
    command.add_argument(
        "--at-most", metavar="TIME", default=_AT_MOST, help="time that measuring may take (default: %(default)s)"
    )
    command.add_argument(
        "--tolerance", metavar="RATIO", help="plan for this one, as in --perf-tolerance (default: that of each test)"
    )
    command.add_argument(
        "--from", dest="history", metavar="HISTORY", help="take the launches of a history: a file, or git:NAME"
    )
    command.add_argument(
        "--baseline-file", metavar="PATH", default=_BASELINE_FILE, help="whose entries count (default: %(default)s)"
    )
    command.add_argument("--json", action="store_true", help="print plain values")
    command.set_defaults(run=lambda options: _run(options, for_people))


def _run(options: argparse.Namespace, for_people: Callable[[str], str]) -> int:
    from pytest_mlpatterns.history.plan import plan_of

    tolerances = _read_tolerances(options.tolerance)
    facts, notes = _measured(options, tolerances) if options.history is None else _kept(options, tolerances)
    plans = [plan for one in facts if (plan := plan_of(one)) is not None]
    if not plans:
        helps = "give --at-most 30min" if options.history is None else "leave --from out to measure here"
        kept = "" if options.history is None else " in lines of one run; those of a compaction have none"
        raise SettingError(f"no test has two launches{kept}, expected as many to know their scatter; {helps}")
    sys.stdout.write(for_people(_text(plans, notes, as_json=options.json)))
    return 0


def _text(plans: Sequence[TestPlan], notes: Sequence[str], *, as_json: bool) -> str:
    from pytest_mlpatterns.reports.text.plan_table import plan_lines

    if as_json:
        return json.dumps({"tests": [plan.to_json() for plan in plans], "notes": list(notes)}, indent=2) + "\n"
    return "\n".join(plan_lines(plans, shutil.get_terminal_size().columns, notes)) + "\n"


def _read_tolerances(text: str | None) -> Tolerances | None:
    from pytest_mlpatterns.config.converters import read_tolerances

    return None if text is None else read_tolerances(text, "--tolerance")


def _measured(options: argparse.Namespace, tolerances: Tolerances | None) -> tuple[tuple[TestFacts, ...], list[str]]:
    """What trial runs show, and what a reader should know of them."""
    from pytest_mlpatterns.history.plan_facts import facts_of_trials
    from pytest_mlpatterns.history.trial_runs import measure_trials
    from pytest_mlpatterns.system.environment import environment

    at_most_ns = positive_time(options.at_most, "--at-most")
    baselines = _baselines(Path(options.baseline_file), is_asked=options.baseline_file != _BASELINE_FILE)
    trials = measure_trials(options.tests, at_most_s=at_most_ns / 1e9, directory=Path.cwd(), report=_report)
    machine = environment().machine
    facts = facts_of_trials(trials, tolerances=tolerances, baselines=baselines, machine=machine)
    notes = [
        "All was measured within minutes. A stored baseline is of another day, on which the machine may be another "
        "one; a history shows by how much: --from."
    ]
    if trials.is_cut:
        notes.append("The time was over before all tests were measured; give more, such as --at-most 30min.")
    if noise := trials.noise:
        notes.append(f"The machine was not quiet, and sees more when it is: {noise}.")
    if trials.why_no_pairs:
        notes.append(f"What a revision shows is derived from single launches, since {trials.why_no_pairs}.")
    else:
        notes.append(_SETTLED)
    return facts, notes


def _kept(options: argparse.Namespace, tolerances: Tolerances | None) -> tuple[tuple[TestFacts, ...], list[str]]:
    """What a history shows, and what a reader should know of it."""
    from pytest_mlpatterns.history.plan_facts import facts_of_lines, name_in_ids
    from pytest_mlpatterns.system.environment import environment

    here = Path.cwd()
    place = history_place(options.history)
    place.require_file()
    read = place.history.read()
    root = find_project(here).root
    tests = [name_in_ids(name, here=here, root=root) for name in options.tests]
    facts = facts_of_lines(read.lines, machine=environment().machine, tests=tests, tolerances=tolerances)
    notes = ["A history does not hold the time of a launch, so that launches are counted instead of seconds."]
    return facts, [*notes, *read.warnings]


def _baselines(file: Path, *, is_asked: bool) -> Baselines:
    """The entries of the baseline file; none without one."""
    from pytest_mlpatterns.baseline.file import read_baselines

    if not file.exists():
        if is_asked:
            raise BaselineFileError(f"{file} does not exist; name a file that pytest --perf-baseline update wrote")
        return {}
    return read_baselines(file, option="--baseline-file")


def _report(text: str) -> None:
    sys.stderr.write(visible(f"{text}\n"))
    sys.stderr.flush()
