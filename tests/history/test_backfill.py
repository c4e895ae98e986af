"""A history filled up from old commits: which, in which order, and that nothing is measured twice."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.old_commits import run_with_ratios
from support.synthetic import ENVIRONMENT, PROPERTY

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.history.backfill import (
    Backfill,
    BackfillEnd,
    BackfillPlan,
    Filled,
    chosen_positions,
    halving_order,
)
from pytest_mlpatterns.history.checkout import CommitRange
from pytest_mlpatterns.history.commit_runs import CommitRun, MeasuredAs, NotRun, WhyNotRun
from pytest_mlpatterns.history.place import open_history
from pytest_mlpatterns.records.history import CommitPosition
from pytest_mlpatterns.revision.commits import Revision

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes  # git

TESTS = ("t.py::a", "t.py::b")
MACHINE = ENVIRONMENT.machine


def sha(number: int) -> str:
    return f"{number:040x}"


def revision(number: int, name: str = "") -> Revision:
    return Revision(sha(number), name or sha(number)[:12], "", sha(number)[:12])


GOOD = revision(0, "v1")


def plan_of(last: int, *, tests: tuple[str, ...] = TESTS[:1], at_most_s: float = 1e6) -> BackfillPlan:
    commits = CommitRange(GOOD, revision(last, "main"), tuple(map(sha, range(last + 1))))
    return BackfillPlan(tests, commits, chosen_positions(last, 1), GOOD, 10 * 10**9, int(at_most_s * 1e9))


class Measured:
    """Measures all commits alike, 20 s of its clock each, but for those that do not run."""

    def __init__(self, broken: dict[int, NotRun] | None = None) -> None:
        self.broken = broken or {}
        self.asked: list[tuple[str, int]] = []
        self.now_s = 0.0

    def of(self, test: str) -> object:
        def measure(
            commit: Revision, reference: Revision, measured_as: MeasuredAs, *, most_s: float | None = None
        ) -> CommitRun | NotRun:
            assert reference == GOOD
            assert most_s is not None
            assert measured_as.metric == ""
            number = int(commit.sha, 16)
            self.asked.append((test, number))
            self.now_s += 20.0
            if number in self.broken:
                return self.broken[number]
            found = run_with_ratios({"rtm": ((0.01, 0.002), (0.02, 0.002))}, test)
            assert found.result.reference is not None
            seen = replace(found.result, reference=replace(found.result.reference, revision_commit=reference.sha))
            return CommitRun(replace(found.results, results=(seen,)), seen)

        return measure


def filled(
    plan: BackfillPlan, measured: Measured, file: Path, machine: str = MACHINE
) -> tuple[BackfillEnd, list[Filled]]:
    shown: list[Filled] = []
    fill = Backfill(
        plan,
        {test: measured.of(test) for test in plan.tests},  # type: ignore[misc]
        open_history(str(file), root=file.parent, invoked_in=file.parent),
        position_of=lambda commit: CommitPosition(commit, int(commit, 16) + 1),
        show=shown.append,
        clock=lambda: measured.now_s,
    )
    return fill.run(machine), shown


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


@given(size=st.integers(min_value=0, max_value=200))
@PROPERTY
def test_each_number_has_one_turn(size: int) -> None:
    assert sorted(halving_order(size)) == list(range(size))


@given(size=st.integers(min_value=3, max_value=200), share=st.floats(min_value=0.1, max_value=1.0))
@PROPERTY
def test_an_early_end_covers_the_range(size: int, share: float) -> None:
    done = max(3, int(size * share))
    found = sorted(list(halving_order(size))[:done])
    gaps = [after - before for before, after in pairwise(found)]
    assert (found[0], found[-1]) == (0, size - 1)
    assert max(gaps) <= 4 * size / done + 1


def test_the_newest_commit_and_each_fifth_before_it_are_measured_and_those_with_a_tag() -> None:
    assert chosen_positions(12, 5) == (12, 2, 7)
    assert sorted(chosen_positions(12, 5, (0, 4, 12, 13))) == [2, 4, 7, 12]
    assert chosen_positions(1, 9) == (1,)


def test_each_commit_adds_a_line_with_its_ratios_and_its_position(file: Path) -> None:
    measured = Measured()
    end, shown = filled(plan_of(3, tests=TESTS), measured, file)
    assert end == BackfillEnd(added=6, known=0, skipped=0, left=0)
    assert measured.asked == [(test, number) for number in (3, 1, 2) for test in TESTS]
    assert [one.left for one in shown] == [5, 4, 3, 2, 1, 0]
    lines = open_history(str(file), root=file.parent, invoked_in=file.parent).read().lines
    assert len(lines) == 6
    assert lines[0].at == CommitPosition(sha(3), 4)
    assert lines[0].reference == CommitPosition(sha(0), 1)
    assert [round(one.log_ratio, 4) for one in lines[0].ratios["rtm"]] == [0.01, 0.02]
    assert (lines[0].clean, lines[0].machine) == (True, MACHINE)
    assert lines[0].date == "2026-10-03T10:00:00+00:00"


def test_what_the_history_has_is_not_measured_again(file: Path) -> None:
    first = Measured()
    end, _ = filled(plan_of(8, at_most_s=45.0), first, file)
    assert end == BackfillEnd(added=2, known=0, skipped=0, left=6)
    second = Measured()
    end, _ = filled(plan_of(8), second, file)
    assert end == BackfillEnd(added=6, known=2, skipped=0, left=0)
    assert {number for _, number in first.asked}.isdisjoint(number for _, number in second.asked)
    assert filled(plan_of(8), Measured(), file)[0] == BackfillEnd(0, 8, 0, 0)
    assert filled(plan_of(8), Measured(), file, "another machine")[0].added == 8
    assert filled(replace(plan_of(8), reference=GOOD), Measured(), file)[0].known == 8


def test_a_commit_that_does_not_run_adds_no_line(file: Path) -> None:
    end, shown = filled(plan_of(3), Measured({1: NotRun(WhyNotRun.IMPORT, "ImportError: no")}), file)
    assert end == BackfillEnd(added=2, known=0, skipped=1, left=0)
    assert shown[1].skipped == "import error: ImportError: no"


def test_a_result_without_a_verdict_adds_no_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_mlpatterns.history.backfill.line_of", lambda *_: None)
    end, shown = filled(plan_of(1), Measured(), file)
    assert end.skipped == 1
    assert shown[0].skipped == "passed supports no line"


def test_a_measurement_that_the_end_of_the_time_cuts_is_left(file: Path) -> None:
    measured = Measured({1: NotRun(WhyNotRun.TIMEOUT, "took longer")})
    assert filled(plan_of(3, at_most_s=45.0), measured, file)[0] == BackfillEnd(1, 0, 0, 2)


def test_a_reference_without_the_test_is_an_error(file: Path) -> None:
    broken = {3: NotRun(WhyNotRun.NOT_COMPARED, "new: nothing to compare with")}
    with pytest.raises(SettingError, match=r"at main cannot be compared with v1, .* with --against, such as main"):
        filled(plan_of(3), Measured(broken), file)
