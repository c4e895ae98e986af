"""A history as text: sparklines with borders and marks, levels, changes in words; 80 columns, also without Unicode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.golden import check_golden
from support.histories import CHANGE, CHANGES, SERIES, change_of, series_from
from support.synthetic import PROPERTY

from pytest_mlpatterns.analysis.changes.findings import levels_of
from pytest_mlpatterns.records.history import CommitPosition, Course, NewChange
from pytest_mlpatterns.reports.text.history_text import (
    bisect_command,
    change_sentence,
    history_lines,
    in_order,
    level_text,
    new_change_lines,
    sketch_of,
)
from pytest_mlpatterns.reports.text.terminal_text import Style, in_ascii, text_of, width_of


@pytest.mark.parametrize("width", [80, 140])
def test_the_text_of_everything(width: int) -> None:
    lines = history_lines(SERIES, CHANGES, width)
    assert max(map(width_of, lines)) <= width
    check_golden(f"history-{width}.txt", "\n".join(lines) + "\n")


def test_the_text_in_ascii() -> None:
    lines = [in_ascii(line) for line in history_lines(SERIES, CHANGES, 80)]
    check_golden("history-80-ascii.txt", "\n".join(lines) + "\n")


def test_noise_looks_flat_and_a_step_does_not() -> None:
    noise = sketch_of(series_from("rtm", [1.0, 1.004, 0.997, 1.003, 0.996, 1.0]), (), 30).bars
    step = sketch_of(series_from("rtm", [1.0, 1.0, 1.0, 1.1, 1.1, 1.1]), (), 30).bars
    assert len({*noise}) <= 2
    assert step == "▁▁▁███"


def test_a_stray_run_does_not_flatten_the_others() -> None:
    sketch = sketch_of(series_from("rtm", [1.0, 1.0, 9.0, 1.0, 1.1, 1.1, 1.1]), (), 30)
    assert sketch.bars == "▁▁█▁███"


def test_more_runs_than_columns_are_averaged_and_a_border_keeps_its_place() -> None:
    series = series_from("rtm", [1.0] * 100 + [1.2] * 100, borders=[(100, "set-up")])
    sketch = sketch_of(series, [change_of(series, 150, (1.2, 1.1, 1.3))], 31)
    assert sketch.bars == "▁" * 15 + "│" + "█" * 15
    assert sketch.marks == " " * 23 + "^"


def test_a_change_that_is_not_confirmed_has_a_sign_of_its_own() -> None:
    series = series_from("rtm", [1.0, 1.0, 1.2])
    change = change_of(series, 2, (1.2, 1.1, 1.3), is_confirmed=False)
    assert sketch_of(series, [change], 20).marks == "  ?"
    assert (
        history_lines([series], [change], 80)[-1] == "? new, unconfirmed; median: half of the requests are faster (RTM)"
    )


def test_of_many_segments_the_last_ones_are_drawn() -> None:
    series = series_from("rtm", [1.0] * 40, borders=[(place, "environment") for place in range(1, 40)])
    assert sketch_of(series, (), 16).bars == "…▅│▅│▅│▅"


def test_many_changes_are_counted_and_the_last_ones_are_named() -> None:
    series = series_from("rtm", [1.1 ** (place // 5) for place in range(45)])
    changes = [change_of(series, place, (1.1, 1.05, 1.15)) for place in range(5, 45, 5)]
    lines = history_lines([series], changes, 80)
    assert sum(" near " in line for line in lines) == 5
    assert "  and 3 earlier changes" in lines


def test_the_machine_of_a_change_is_named_if_there_are_several() -> None:
    one, two = (series_from("rtm", [1.0, 1.0, 1.2], machine=name) for name in ("runner A", "runner B"))
    text = "\n".join(history_lines([one, two], [change_of(two, 2, (1.2, 1.1, 1.3))], 120))
    assert "on runner B" in text
    assert "on runner A" not in text


def test_a_level_has_the_unit_of_its_metric() -> None:
    for metric, course, shown in (
        ("rtm", Course.VALUES, "4.00 ms"),
        ("rtm", Course.RATIOS, "+399999900 %"),
        ("peak_memory", Course.VALUES, "3.81 MiB"),
        ("of_a_later_version", Course.VALUES, "4e+06"),
    ):
        series = series_from(metric, [4e6, 4e6], course=course, error=0.0)
        lines = history_lines([series], (), 80)
        assert any(line.endswith(f" {shown}") for line in lines)


def test_metrics_stand_in_the_order_of_reports_and_ratios_after_values() -> None:
    names = [(one.metric, one.course) for one in in_order(SERIES) if one.test.endswith("batched]")]
    assert names == [
        ("rtm", Course.VALUES),
        ("p95", Course.VALUES),
        ("throughput", Course.VALUES),
        ("rtm", Course.RATIOS),
    ]


def test_nothing_to_show_is_no_line() -> None:
    assert history_lines((), (), 80) == []


@PROPERTY
@given(
    levels=st.lists(st.floats(1e-3, 1e12), min_size=1, max_size=90),
    borders=st.sets(st.integers(1, 89), max_size=12),
    columns=st.integers(12, 72),
)
def test_a_sketch_is_never_wider_than_its_columns(levels: list[float], borders: set[int], columns: int) -> None:
    kept = [(place, "set-up") for place in sorted(borders) if place < len(levels)]
    series = series_from("rtm", levels, borders=kept)
    change = change_of(series, len(levels) - 1, (2, 1.9, 2.1)) if len(levels) > 1 else None
    sketch = sketch_of(series, [] if change is None else [change], columns)
    assert len(sketch.bars) <= columns
    assert len(sketch.marks) <= len(sketch.bars)
    assert change is None or sketch.marks.endswith("^")


def test_the_level_of_a_course_without_errors_has_no_interval() -> None:
    series = series_from("rtm", [4e6], error=0.0)
    assert level_text(series, levels_of(series, ())[-1]) == "4.00 ms"


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
