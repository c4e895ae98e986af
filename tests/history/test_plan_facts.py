"""What a plan rests on: launches of trial runs and of a history, by test and metric."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.synthetic import ENVIRONMENT, changed, counterpart, result

from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.baseline.updates import RunFacts, update_of
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.history.plan_facts import facts_of_lines, facts_of_trials, name_in_ids
from pytest_mlpatterns.history.trial_runs import Trials
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.result_parts import Terms
from pytest_mlpatterns.records.verdict import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.records.result import TestResult

TEST = "test_perf.py::test_digits"
MACHINE = "Test Processor 3000, 2 cores"
TERMS = Terms(20 * 10**9, 6, {"rtm": 0.05, "p99": 0.1})


def run(*rtm_ms: float, terms: Terms | None = TERMS, test: str = TEST, spent_s: float = 6.0) -> TestResult:
    """A result of some launches."""
    launches = {"rtm": tuple((1e6 * one, 0.01) for one in rtm_ms), "memory_growth": ((0.0, 0.0),) * len(rtm_ms)}
    found = result(test, launches=launches, launch_count=len(rtm_ms), seconds_spent=spent_s)
    return replace(found, definition=replace(found.definition, terms=terms))


def beside(*ratios: float) -> TestResult:
    """A result of pairs."""
    reference = replace(counterpart(kind="revision"), log_ratios={"rtm": tuple((one, 0.01) for one in ratios)})
    return changed(run(4.0), reference=reference, seconds_spent=12.0)


def test_trial_runs_are_sittings_of_each_metric() -> None:
    trials = Trials(((run(4.0, 4.1, 4.2),), (run(4.3, 4.4),)), ((beside(0.01, 0.02, 0.0),),))
    (facts,) = facts_of_trials(trials, baselines={}, machine=MACHINE)
    assert [len(one) for one in facts.launches["rtm"]] == [3, 2]
    assert facts.launches["rtm"][0][0] == (math.log(4e6), 0.01)
    assert "memory_growth" not in facts.launches
    assert facts.pairs["rtm"] == (((0.01, 0.01), (0.02, 0.01), (0.0, 0.01)),)
    assert (facts.tolerances, facts.budget_ns, facts.most_launches) == ({"rtm": 0.05, "p99": 0.1}, 20 * 10**9, 6)
    assert (facts.launch_s, facts.pair_s, facts.recorded) == (2.5, 4.0, 8)
    assert facts.in_flight == 8


def test_a_tolerance_of_the_plan_takes_the_place_of_that_of_the_test() -> None:
    trials = Trials(((run(4.0, 4.1),),), ())
    (facts,) = facts_of_trials(trials, tolerances=Tolerances(0.02), baselines={}, machine=MACHINE)
    assert facts.tolerances == {"rtm": 0.02, "p99": 0.04}


def test_results_of_older_versions_have_the_default_terms() -> None:
    trials = Trials(((run(4.0, 4.1, terms=None),),), ())
    (facts,) = facts_of_trials(trials, baselines={}, machine=MACHINE)
    assert facts.tolerances["rtm"] == 0.1
    assert (facts.budget_ns, facts.most_launches) == (None, 8)


def test_launches_of_the_entry_of_this_machine_count() -> None:
    entry = update_of(run(4.0, 4.1, 4.2), None, RunFacts(ENVIRONMENT.versions, None, "2026-11-01")).after
    trials = Trials(((run(4.0, 4.1),),), ())
    for machine, expected in ((MACHINE, 3), ("another", 8)):
        (facts,) = facts_of_trials(trials, baselines={TEST: {MACHINE: entry}}, machine=machine)
        assert facts.recorded == expected


# --- a history --------------------------------------------------------------------------------------------------------


def line(day: int, *rtm_ms: float, **changes: object) -> HistoryLine:
    plain = HistoryLine(
        test=TEST,
        machine=MACHINE,
        date=f"2026-11-{day:02d}T08:00:00Z",
        at=CommitPosition("1a2b3c4d5e6f", day),
        clean=True,
        setup="0123456789",
        facts="abcdef0123",
        kind=Kind.PASSED,
        values={"rtm": tuple(LaunchValue(1e6 * one, 0.01) for one in rtm_ms)},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_lines_alike_are_sittings() -> None:
    lines = [
        line(3, 4.2, 4.1, ratios={"rtm": (PairedRatio(0.01, 0.02),)}),
        line(1, 4.0, 4.1, 4.2),
        line(2, 9.0, 9.1, setup="9876543210"),
        line(2, 9.0, 9.1, kind=Kind.INVALID),
        line(2, 9.0, 9.1, machine="another"),
        line(2, 4.1, 4.1, runs=4),  # of a compaction, which keeps the means of runs
    ]
    (facts,) = facts_of_lines(lines, machine=MACHINE)
    assert [len(one) for one in facts.launches["rtm"]] == [3, 2]
    assert facts.pairs["rtm"] == (((0.01, 0.02),),)
    assert facts.tolerances == {"rtm": 0.1}
    assert (facts.budget_ns, facts.launch_s) == (None, None)


def test_undecided_runs_are_counted() -> None:
    lines = [line(day, 4.0, 4.1, kind=Kind.UNDECIDED if day % 2 else Kind.PASSED) for day in range(1, 6)]
    lines.append(line(7, 4.0, 4.1, kind=Kind.UNDECIDED, runs=4))
    (facts,) = facts_of_lines(lines, machine=MACHINE)
    assert facts.undecided == (7, 9)


def test_tests_are_chosen_as_pytest_does() -> None:
    names = ("tests/a.py::test_x[one]", "tests/a.py::test_y", "tests/b.py::test_x")
    lines = [line(1, 4.0, 4.1, test=name) for name in names]

    def chosen(*tests: str) -> list[str]:
        return [one.test for one in facts_of_lines(lines, machine=MACHINE, tests=tests)]

    assert chosen("tests/a.py") == list(names[:2])
    assert chosen("tests/a.py::test_x") == [names[0]]
    assert chosen("tests/") == list(names)
    assert chosen() == list(names)


def test_a_history_of_other_machines_is_an_error_that_names_them() -> None:
    with pytest.raises(SettingError, match="has lines of 'another', expected lines of this machine"):
        facts_of_lines([line(1, 4.0, machine="another")], machine=MACHINE)
    with pytest.raises(SettingError, match=r"has no line of 'test_other.py', .*expected a test of it: "):
        facts_of_lines([line(1, 4.0)], machine=MACHINE, tests=[TEST, "test_other.py"])
    with pytest.raises(SettingError, match="the history has no line, expected"):
        facts_of_lines([], machine=MACHINE)


def test_a_path_is_as_ids_have_it(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    file = "tests/test_perf.py"
    for here, given, expected in (
        ("", "./tests/test_perf.py", file),
        ("", f"{tmp_path}/tests/test_perf.py::test_x[a/../b::c]", f"{file}::test_x[a/../b::c]"),
        ("", f"{tmp_path}/link/tests/test_perf.py", file),
        ("other", "../tests/test_perf.py", file),
        ("tests", "test_perf.py::test_x", f"{file}::test_x"),
        ("tests", ".", "tests"),
        ("", "tests/", "tests"),
        ("", ".", "."),
    ):
        assert name_in_ids(given, here=tmp_path / here, root=tmp_path) == expected
    assert facts_of_lines([line(1, 4.0, 4.1)], machine=MACHINE, tests=["."])
