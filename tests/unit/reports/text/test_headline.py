"""The headline of a run: each kind counted, the most urgent first, in one colour."""

from support.each_row import each_row
from support.synthetic import result, verdict

from pytest_mlpatterns.records.result import FailedTest
from pytest_mlpatterns.records.verdict import Gate, Kind, Outcome
from pytest_mlpatterns.reports.text.summary_table import headline, headline_style, kinds_of, let_pass
from pytest_mlpatterns.reports.text.terminal_text import Style


@each_row(
    ("kinds", "text", "style"),
    ([Kind.PASSED] * 12, "12 passed", Style.GOOD),
    ([Kind.PASSED, Kind.ACCEPTED], "1 accepted, 1 passed", Style.GOOD),
    ([Kind.PASSED, Kind.NOT_COMPARED, Kind.UNDECIDED], "1 undecided, 1 not compared, 1 passed", Style.OPEN),
    ([Kind.PASSED] * 12 + [Kind.TEST_ERROR, Kind.REGRESSION], "1 regression, 1 broken test, 12 passed", Style.BAD),
    ([Kind.LIMIT, Kind.LIMIT, Kind.INVALID], "2 missed limits, 1 invalid test", Style.BAD),
    ([], "no perf test", Style.GOOD),
)
def test_each_kind_is_counted_the_most_urgent_first(kinds: list[Kind], text: str, style: Style) -> None:
    assert headline(kinds) == text
    assert headline_style(kinds) is style


def test_every_kind_has_words() -> None:
    assert len(headline(Kind).split(", ")) == len(Kind)


def test_a_test_with_a_result_and_a_failure_counts_once_by_its_result() -> None:
    slow = result("t.py::test_slow", passed=False, verdicts=(verdict(Outcome.FAIL),))
    failures = [FailedTest(slow.test, "slower", None), FailedTest("t.py::test_broken", "no disk", None)]
    assert kinds_of([slow], failures) == {slow.test: Kind.REGRESSION, "t.py::test_broken": Kind.TEST_ERROR}


def test_tests_that_the_gate_let_pass_are_counted() -> None:
    advised = FailedTest("t.py::test_slow", "slower", None, Kind.REGRESSION, Gate.WARN)
    assert let_pass([], [advised, FailedTest("t.py::test_broken", "no disk", None)]).startswith("1 test would fail")
    assert let_pass([], [FailedTest("t.py::test_broken", "no disk", None)]) == ""
