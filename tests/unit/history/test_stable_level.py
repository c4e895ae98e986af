"""The level of a test since its last change, and why there is none."""

import hashlib
import math
import random
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from pytest_mlpatterns.analysis.changes.stretches import FEWEST_RUNS
from pytest_mlpatterns.history.stable_level import MOST_LAUNCHES, stable_levels
from pytest_mlpatterns.records.baseline_entry import Level
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind

TEST = "t.py::test_a"


def history(*levels: float, slope: float = 0.0) -> list[HistoryLine]:
    """A line at each of these levels of RTM, in multiples of 5 ms: three launches that scatter by 1 %."""
    draw = random.Random(9)
    found = []
    for number, level in enumerate(levels):
        middle = 5e6 * level * math.exp(slope * number)
        values = {
            "rtm": tuple(LaunchValue(middle * math.exp(draw.gauss(0, 0.01)), 0.004) for _ in range(3)),
            "peak_memory": tuple(LaunchValue(1e8 + draw.randint(0, 9), 0.0) for _ in range(3)),
        }
        commit = hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest()
        found.append(
            HistoryLine(
                test=TEST,
                machine="here",
                date=f"2026-10-{number // 24 + 1:02}T{number % 24:02}:00:00+00:00",
                at=CommitPosition(commit, number + 1),
                clean=True,
                setup="0123456789",
                facts="abcdef0123",
                kind=Kind.PASSED,
                values=values,
            )
        )
    return found


def level_of(lines: Sequence[HistoryLine]) -> Level:
    return stable_levels(lines[:-1], lines[-1:])[TEST]


def test_the_launches_of_all_runs_are_the_level() -> None:
    lines = history(*[1.0] * 8)
    found = level_of(lines)
    assert (found.runs, found.since, found.why_not) == (8, "2026-10-01", "")
    assert found.metrics["rtm"] == tuple(launch for line in lines for launch in line.values["rtm"])
    assert set(found.metrics) == {"rtm", "peak_memory"}


def test_runs_before_the_last_change_do_not_count() -> None:
    lines = history(*[1.0] * 15, *[1.2] * 7)
    found = level_of(lines)
    assert found.runs == 7
    assert found.metrics["rtm"] == tuple(launch for line in lines[15:] for launch in line.values["rtm"])


def test_a_change_a_few_runs_ago_is_named_in_the_refusal() -> None:
    why = level_of(history(*[1.0] * 20, *[1.4] * 3)).why_not
    assert why.startswith("the history has 3 runs since the last change (median latency +")
    assert "expected at least 5" in why


def test_a_single_slow_run_is_no_change() -> None:
    assert level_of(history(*[1.0] * 10, 1.5, *[1.0] * 5)).runs == 16


def test_too_few_runs_are_refused() -> None:
    assert level_of(history(*[1.0] * FEWEST_RUNS)).runs == FEWEST_RUNS
    why = level_of(history(*[1.0] * (FEWEST_RUNS - 1))).why_not
    assert why == (
        "the history has 4 runs with this set-up and environment on this machine, expected at least 5; "
        "run it again later"
    )


@pytest.mark.parametrize("changes", [{"setup": "9876543210"}, {"facts": "0000000000"}])
def test_runs_of_another_set_up_or_environment_begin_another_level(changes: dict[str, str]) -> None:
    lines = history(*[1.0] * 20)
    mixed = [replace(line, **changes) if 8 <= number < 12 else line for number, line in enumerate(lines)]  # type: ignore[arg-type]
    assert level_of(mixed).runs == 8


def test_other_tests_and_machines_do_not_count() -> None:
    lines = history(*[1.0] * 10)
    others = [replace(line, test="t.py::test_b") for line in lines] + [replace(line, machine="there") for line in lines]
    assert stable_levels([*others, *lines[:-1]], lines[-1:])[TEST].runs == 10


@pytest.mark.parametrize("kind", [Kind.REGRESSION, Kind.LIMIT])
def test_a_failed_run_among_them_is_refused(kind: Kind) -> None:
    lines = history(*[1.0] * 10)
    lines[4] = replace(lines[4], kind=kind)
    assert level_of(lines).why_not.startswith("1 of the last 10 runs failed, the latest on 2026-10-01, expected runs")


def test_undecided_and_accepted_runs_and_those_without_a_baseline_count() -> None:
    kinds = (Kind.UNDECIDED, Kind.ACCEPTED, Kind.NOT_COMPARED, Kind.PASSED, Kind.PASSED)
    assert level_of([replace(line, kind=kind) for line, kind in zip(history(*[1.0] * 5), kinds, strict=True)]).runs == 5


def test_a_run_of_changed_files_or_of_another_branch_gives_no_level() -> None:
    lines = history(*[1.0] * 10)
    changed = [*lines[:-1], replace(lines[-1], clean=False)]
    assert level_of(changed).why_not == "the line of this run does not count, since files differ from the commit"
    order = [line.at.commit for line in lines[:-1]]
    found = stable_levels(lines[:-1], lines[-1:], order)[TEST]
    assert found.why_not == "the line of this run does not count, since its commit is not among the first parents"


def test_a_change_that_only_ratios_of_another_machine_show_counts() -> None:
    lines = history(*[1.0] * 30)
    first = lines[0].at
    theirs = [
        replace(
            line,
            machine="there",
            date=line.date.replace(":00:00+", ":30:00+"),
            ratios={"rtm": (PairedRatio(0.0 if number < 20 else 0.2, 0.003),) * 3},
            reference=first,
            values={},
        )
        for number, line in enumerate(lines)
    ]
    found = stable_levels([*theirs, *lines[:-1]], lines[-1:])[TEST]
    assert (found.runs, found.since) == (10, lines[20].date[:10])
    not_here = [*lines[:19], *lines[22:]]  # this machine did not measure the commits around the change
    assert stable_levels([*theirs, *not_here[:-1]], not_here[-1:])[TEST].runs == 8


def test_of_many_runs_the_latest_launches_are_kept() -> None:
    lines = history(*[1.0] * 40)
    found = level_of(lines)
    assert found.runs == 40
    assert len(found.metrics["rtm"]) == MOST_LAUNCHES
    assert found.metrics["rtm"][-3:] == lines[-1].values["rtm"]
