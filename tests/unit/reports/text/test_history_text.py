"""A history as text: sparklines with borders and marks, levels, changes in words; 80 columns, also without Unicode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.golden import check_golden
from support.histories import CHANGES, SERIES, change_of, series_from
from support.synthetic import PROPERTY

from pytest_mlpatterns.analysis.changes.findings import levels_of
from pytest_mlpatterns.records.history import Course
from pytest_mlpatterns.reports.text.history_text import history_lines, in_order, level_text, sketch_of
from pytest_mlpatterns.reports.text.terminal_text import in_ascii, width_of


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
