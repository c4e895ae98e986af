"""An acceptance as a value: which tests and metrics it is of, and what its text says."""

import datetime

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import verdict

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.verdicts.tolerances import accepted_ceiling, changes_to_accept
from pytest_mlpatterns.records.verdict import Acceptance, Accepted, Outcome, pattern_of, rounded_ceiling

LARGER = Acceptance("rtm", 0.6, "larger model", "tests/*::test_digits", issue="#123", until=datetime.date(2026, 12, 31))


def test_its_text_is_what_the_marker_takes() -> None:
    assert str(LARGER) == "rtm +60 %: larger model, #123, until 2026-12-31"


@each_row(
    ("pattern", "test", "expected"),
    ("*", "test_a.py::test_b[single]", True),
    ("test_a.py::test_b", "test_a.py::test_b[single]", True),
    ("test_a.py::test_b[single]", "test_a.py::test_b[single]", True),
    ("test_a.py::test_b[single]", "test_a.py::test_b[cached]", False),
    ("test_a.py::*", "test_b.py::test_b", False),
    ("test_a.py::test_b[1]", "test_a.py::test_b1", False),  # brackets are no class of characters
    ("test_a.py::test_b[small-*]", "test_a.py::test_b[small-cached]", True),
    (r"test_a.py::test_b[\*-?]", "test_a.py::test_b[*-1]", True),
    (r"test_a.py::test_b[\*-?]", "test_a.py::test_b[a-1]", False),
    (r"test_a.py::test_b[a\?]", "test_a.py::test_b[ab]", False),
    (r"test_a.py::test_b[\u4e2d\*]", r"test_a.py::test_b[\u4e2d*]", True),
    (r"test_a.py::test_b[\*]", r"test_a.py::test_b[\*]", True),  # equal texts match
)
def test_an_acceptance_is_of_the_tests_that_its_pattern_names(pattern: str, test: str, expected: bool) -> None:
    assert Acceptance("rtm", 0.6, "why", pattern).is_of(test) is expected


@each_row("inside", ["SELECT *", "a?", r"\*", r"a\\*?", r"\u4e2d", "[!a]", "[a]*"])
def test_the_pattern_of_an_id_is_of_that_test_alone(inside: str) -> None:
    accepted = replace(LARGER, test=pattern_of(f"test_a.py::test_q[{inside}-single]"))
    assert accepted.is_of(f"test_a.py::test_q[{inside}-single]")
    others = (inside.replace("*", "x").replace("?", "y"), f"{inside}x", f"x{inside}")
    assert not [one for one in others if one != inside and accepted.is_of(f"test_a.py::test_q[{one}-single]")]


@pytest.mark.parametrize(("metric", "ceiling"), [("rtm", 0.6), ("throughput", 0.375), ("p95", None), ("tpot", None)])
def test_the_rate_may_fall_by_as_much_as_the_time_may_grow(metric: str, ceiling: float | None) -> None:
    found = accepted_ceiling(LARGER, METRICS[metric])
    assert found == (None if ceiling is None else pytest.approx(ceiling))


@each_row(("share", "percent"), [(0.47, 50), (0.50, 50), (0.501, 55), (0.021, 3), (0.1, 10), (4.86, 490)])
def test_a_ceiling_is_a_round_number_above_what_was_measured(share: float, percent: float) -> None:
    assert rounded_ceiling(share) == percent


def test_what_follows_from_another_change_needs_no_acceptance() -> None:
    slower = verdict(Outcome.FAIL, change=(0.5, 0.4, 0.6))
    rarer = verdict(Outcome.FAIL, metric="throughput", change=(0.33, 0.3, 0.36))
    assert changes_to_accept([slower, rarer]) == [("rtm", 0.6)]
    assert changes_to_accept([rarer]) == [("throughput", 0.36)]


def test_an_ended_one_says_so() -> None:
    accepted = Accepted((), ((LARGER, "that day is over"),))
    assert accepted.states == {str(LARGER): "that day is over"}
    assert accepted.notes == (f"accepted is {LARGER}; that day is over, so remove it",)


def test_one_for_the_same_reason_from_another_commit_on_is_another_one() -> None:
    first, second = (replace(LARGER, since=since) for since in ("1a2b3c4", "5d6e7f8"))
    assert str(first) == str(second)
    assert Accepted((second,), ((first, "main has it already"),)).states == {
        f"{LARGER}, since 5d6e7f8": "",
        f"{LARGER}, since 1a2b3c4": "main has it already",
    }
