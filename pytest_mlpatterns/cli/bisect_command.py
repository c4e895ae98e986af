"""``python -m pytest_mlpatterns bisect`` finds the commit that changed a metric of a test, by interleaved runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pytest_mlpatterns.cli.output import Commands, add_command, for_people, require_other
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.units import parse_ratio
from pytest_mlpatterns.wording import count, named, shown

if TYPE_CHECKING:
    from pytest_mlpatterns.history.bisect import BisectPlan

_NOTHING = 1  # Exit code if both ends do not differ
_RANGE = 3  # Exit code if only a range is known
_INTERRUPTED = 130  # Exit code after Ctrl-C, as of a shell
_STATE = "mlpatterns-bisect.json"  # State file in the directory of the repository that all worktrees share


def add_bisect_command(commands: Commands) -> None:
    """Add the command to a parser."""
    what = "find the commit that changed a metric of a test, by interleaved measurement"
    more = (
        " Exits with 0 if it was found, 1 if both ends do not differ, 2 after an error, and 3 if only a range is known."
        " The working tree is not touched; an interrupted search goes on."
    )
    command = add_command(commands, "bisect", what, more=more)
    command.add_argument("test", metavar="TEST", help="pytest's id of the test")
    command.add_argument("commits", metavar="GOOD..BAD", help="the commits, along first parents, such as v1.0..main")
    command.add_argument("--metric", metavar="NAME", default="rtm", help="the metric (default: %(default)s)")
    command.add_argument("--budget", metavar="TIME", default="30s", help="of one measurement (default: %(default)s)")
    command.add_argument(
        "--at-most", metavar="TIME", default="30min", help="time of the whole search (default: %(default)s)"
    )
    command.add_argument(
        "--smallest", metavar="SHARE", default="1%", help="smallest change that is searched for (default: %(default)s)"
    )
    command.add_argument(
        "--files", metavar="PATTERN", action="append", help="files that the test needs and git does not track"
    )
    command.add_argument(
        "--state", metavar="FILE", help="what an interrupted search measured (default: a file in the git directory)"
    )
    command.add_argument(
        "--json", action="store_true", help="print the result as JSON, and the steps to standard error"
    )
    command.set_defaults(run=_run)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt what runs here, as Ctrl-C does, so that trees and processes are removed."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    known = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    ours = [one for one in known if signal.getsignal(one) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _run(options: argparse.Namespace) -> int:
    from pytest_mlpatterns.history.bisect import Search, SearchState
    from pytest_mlpatterns.history.commit_runs import CommitRuns
    from pytest_mlpatterns.records.bisect import SearchEnd
    from pytest_mlpatterns.reports.text.history_text import announcement, result_lines, searched_line

    lines = sys.stderr if options.json else sys.stdout

    def say(text: str) -> None:
        lines.write(for_people(f"{text}\n", sys.stdout))
        lines.flush()

    plan = _plan(options)
    state = SearchState(_state_file(options), plan.key)
    for line in announcement(plan.extent):
        say(line)
    if state.was_other:
        say("the state file is of another search, so this one begins anew")
    if state.events:
        say(f"the search goes on after {count(len(state.events), 'measurement')}")
    try:
        with _ended_by_signals(), CommitRuns(Path.cwd(), extra=options.files or (), show=say) as runs:
            result = Search(plan, runs.of(plan.test), state, show=lambda one: say(searched_line(one))).run()
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it ended")
        return _INTERRUPTED
    if options.json:
        sys.stdout.write(
            json.dumps({"format": "pytest-mlpatterns-bisect-result", "version": 1, **result.to_json()}, indent=2) + "\n"
        )
    else:
        say("\n".join(result_lines(result)))
    return {SearchEnd.FOUND: 0, SearchEnd.NONE: _NOTHING, SearchEnd.RANGE: _RANGE}[result.end]


def _plan(options: argparse.Namespace) -> BisectPlan:
    from pytest_mlpatterns.analysis.changes.bisection import SearchRules
    from pytest_mlpatterns.analysis.metrics.definitions import bisectable, which_metric
    from pytest_mlpatterns.history.bisect import BisectPlan
    from pytest_mlpatterns.history.checkout import commit_names, read_range

    known = bisectable()
    if options.metric not in known:
        hint = which_metric(options.metric, known)
        raise SettingError(f"--metric is {shown(options.metric)}, {hint}expected one of {', '.join(known)}")
    smallest = parse_ratio(options.smallest, name="--smallest")
    if not 0 < smallest < 1:
        raise SettingError(
            f"--smallest is {shown(options.smallest)}, expected a share above 0 and below 100 %; write 1%"
        )
    budget_ns, at_most_ns = _search_times(options)
    project = Path.cwd()
    _require_here(options.test, project)
    commits = read_range(project, options.commits)
    return BisectPlan(
        options.test,
        options.metric,
        commits,
        commit_names(project, commits.shas),
        budget_ns,
        at_most_ns,
        SearchRules(smallest=smallest),
    )


def _search_times(options: argparse.Namespace) -> tuple[int, int]:
    """The time of one measurement, ``--budget``, and of all together, ``--at-most``, in nanoseconds."""
    from pytest_mlpatterns.config.converters import read_positive

    budget_ns, at_most_ns = read_positive(options.budget, "--budget"), read_positive(options.at_most, "--at-most")
    if at_most_ns <= budget_ns:
        raise SettingError(
            f"--at-most is {shown(options.at_most)}, expected more than the {options.budget} of one measurement, which "
            "takes longer than its --budget; write a longer --at-most, or a shorter --budget"
        )
    return budget_ns, at_most_ns


def _require_here(test: str, project: Path) -> None:
    """Check that the file of a test is not one that lies at this path from the top of the repository only.

    A file that is in neither place may belong to an old commit.
    """
    from pytest_mlpatterns.system.git import Git

    file, *name = test.split("::", 1)
    top = Git(project).position().top
    if not (project / file).exists() and (top / file).exists():
        below = Path(os.path.relpath(top / file, project)).as_posix()
        raise SettingError(
            f"{named(file)} is not in this directory, expected pytest's id from here; write {'::'.join([below, *name])}"
        )


def _state_file(options: argparse.Namespace) -> Path:
    from pytest_mlpatterns.revision.worktree import common_directory
    from pytest_mlpatterns.system.git import Git

    if options.state is not None:
        require_other("--state", options.state)
        return Path(options.state)
    return common_directory(Git(Path.cwd())) / _STATE
