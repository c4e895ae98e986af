"""A change of a history in words."""

from msgspec.structs import replace
from support.each_row import each_row
from support.histories import CHANGE

from pytest_mlpatterns.records.history import CommitPosition, Course, NewChange
from pytest_mlpatterns.reports.text.history_text import bisect_command, change_sentence, new_change_lines
from pytest_mlpatterns.reports.text.terminal_text import Style, text_of

STEP = "median latency +4.2 % (+3.1 to +5.3 %) near d4e5f6a (a1b2c3d..d4e5f6a), 2026-10-03"
EACH = "each run passed, since each step was below the tolerance"


def test_a_step_is_named_with_its_size_its_commits_and_its_date() -> None:
    assert change_sentence(CHANGE) == STEP
    assert change_sentence(replace(CHANGE, factor=(0.9, 0.85, 0.95))).startswith(
        "median latency -10.0 % (-15.0 to -5.0 %) near"
    )


def test_that_each_run_passed_is_explained_by_the_tolerance_only_if_the_step_is_below_it() -> None:
    assert change_sentence(CHANGE, passed=True, tolerance=0.1) == f"{STEP}; {EACH}"
    assert change_sentence(CHANGE, passed=True, tolerance=0.02) == f"{STEP}; each run passed"
    assert change_sentence(CHANGE, passed=True) == f"{STEP}; each run passed"
    assert change_sentence(CHANGE, tolerance=0.1) == STEP


@each_row(
    ("old", "new", "where"),
    (CHANGE.old, CommitPosition(), "(+3.1 to +5.3 %), 2026-10-03"),
    (CommitPosition(), CHANGE.new, "(+3.1 to +5.3 %) near d4e5f6a, 2026-10-03"),
    (CHANGE.new, CHANGE.new, "(+3.1 to +5.3 %) between two runs of d4e5f6a, 2026-10-03"),
)
def test_unknown_commits_are_neither_named_nor_searched(old: CommitPosition, new: CommitPosition, where: str) -> None:
    change = replace(CHANGE, old=old, new=new)
    assert change_sentence(change) == f"median latency +4.2 % {where}"
    assert bisect_command(change) == ""


def test_what_is_less_sure_or_holds_on_any_machine_is_said() -> None:
    assert (
        change_sentence(replace(CHANGE, is_confirmed=False)) == f"{STEP}; new, unconfirmed: too few runs are after it"
    )
    ratios = replace(CHANGE, course=Course.RATIOS, machine="")
    assert change_sentence(ratios) == f"{STEP}; beside revisions, so on any machine"


def test_a_metric_of_a_later_version_has_its_name() -> None:
    assert change_sentence(replace(CHANGE, metric="joules")).startswith("joules +4.2 %")


def test_the_command_names_the_test_for_a_shell_and_the_commits() -> None:
    command = "python -m pytest_mlpatterns bisect 'test_perf.py::test_digits[small-cached]' a1b2c3d00000..d4e5f6a00000"
    assert bisect_command(CHANGE) == command
    assert bisect_command(CHANGE, "../t.py::test_a") == command.replace(
        "'test_perf.py::test_digits[small-cached]'", "../t.py::test_a"
    )


def test_new_changes_stand_by_test_with_one_command_each() -> None:
    worse = NewChange(CHANGE, STEP, "python bisect", fails=True, location=None)
    more = NewChange(replace(CHANGE, metric="p95"), "p95 +5 %", "python bisect", fails=False, location=None)
    better = NewChange(
        replace(CHANGE, test="t.py::test_b", is_worse=False), "median latency -5 %", "", fails=False, location=None
    )
    lines = new_change_lines([worse, better, more])
    assert [text_of(one) for one in lines] == [
        "",
        f"{CHANGE.test} changed in the history",
        f"  {STEP}",
        "  p95 +5 %",
        "  which commit it was: python bisect",
        "",
        "t.py::test_b changed in the history",
        "  median latency -5 %",
        "the run fails, since a change for the worse is new: --perf-history-fail new",
    ]
    assert [one[0].style for one in lines if one][4:6] == [Style.PLAIN, Style.PLAIN]
    assert new_change_lines([]) == []
