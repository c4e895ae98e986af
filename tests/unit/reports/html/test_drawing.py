"""Charts as SVG and as tables with bars: scales, ticks, and that any values make a drawing with finite places."""

import re
from collections.abc import Sequence
from html import escape
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.histories import CHANGES, SERIES, series_from
from support.reported import everything
from support.synthetic import PROPERTY

from pytest_mlpatterns.reports.html.chart import Chart, Column, Track, Unit
from pytest_mlpatterns.reports.html.charts import charts_of
from pytest_mlpatterns.reports.html.drawing import chart_figure, scale_of, ticks_of
from pytest_mlpatterns.reports.html.history_page import course_chart

VALUES = st.lists(st.floats(0, 1e15), min_size=1, max_size=20)


def course(rows: Sequence[tuple[float, ...]], *names: str, is_level: bool = False) -> str:
    track = Track("Memory", "size", names or ("resident",), tuple(rows), "steady", is_level)
    return str(chart_figure(Chart("tracks", "Over time", "", tracks=(track,), spans=((0.5, 0.5, "kill"),))))


@PROPERTY
@given(VALUES, st.booleans())
def test_every_value_has_a_place_inside_of_its_scale(values: list[float], tight: bool) -> None:
    scale = scale_of(values, 10.0, 110.0, tight=tight)
    assert all(9.9 <= scale.at(value) <= 110.1 for value in values)


@PROPERTY
@given(VALUES, st.sampled_from([unit for unit in get_args(Unit) if unit != "text"]))
def test_a_scale_has_a_few_ticks_in_order(values: list[float], unit: Unit) -> None:
    scale = scale_of(values, 10.0, 110.0)
    ticks = ticks_of(scale, unit)
    assert 1 <= len(ticks) <= 6
    assert ticks == sorted({*ticks})
    assert all(9.9 <= scale.at(tick) <= 110.1 for tick in ticks)


def test_ticks_are_round_in_their_unit() -> None:
    assert ticks_of(scale_of([0, 10e6], 0, 100), "duration") == [0, 5e6, 10e6]
    assert ticks_of(scale_of([0, 3 * 2**20], 0, 100), "size") == [0, 2**20, 2 * 2**20, 3 * 2**20]
    assert ticks_of(scale_of([1e6, 1e9], 0, 100), "duration") == [1e6, 1e7, 1e8, 1e9]


@PROPERTY
@given(st.lists(st.floats(0, 1e12), min_size=2, max_size=40), st.booleans())
def test_any_course_is_drawn_with_finite_places(values: list[float], is_level: bool) -> None:
    drawn = course([(float(at), value) for at, value in enumerate(values)], is_level=is_level)
    assert not re.search("nan|inf", drawn.lower())
    assert 'role="img"' in drawn


def test_a_level_changes_at_once() -> None:
    (path,) = re.findall(r'class="present" d="([^"]*)"', course([(0, 1), (1, 2), (2, 2)], is_level=True))
    assert re.fullmatch(r"M[\d. ]+H[\d.]+V[\d.]+H[\d.]+V[\d.]+", path)


def test_the_words_of_a_course_have_its_extent_and_a_step_its_name() -> None:
    drawn = course([(0.0, 2.0**20, 0.0), (1.0, 2.0**21, 2.0**22)], "now", "peak")
    words = re.sub("<[^>]+>", "", drawn[drawn.index("<p>") : drawn.index("</p>")])
    assert words == "Memory: now 1.00 MiB to 2.00 MiB; peak 0 B to 4.00 MiB; steady"
    assert re.findall(r"<title>(\w+)</title>", drawn) == ["kill"]


def test_every_chart_of_a_result_and_of_a_history_is_drawn() -> None:
    charts = [chart for result in everything() for chart in charts_of(result)]
    charts += [course_chart(series, CHANGES) for series in SERIES]
    assert {chart.kind for chart in charts} == {"bars", "ranges", "tracks", "history", "histogram"}
    for chart in charts:
        drawn = str(chart_figure(chart))
        assert not re.search(r"\b(nan|inf)\b", drawn)
        assert escape(chart.title) in drawn


@pytest.mark.parametrize("levels", [[1.0], [5e6, 5e6], [1e-30, 1e29], [1e6] * 900])
def test_odd_courses_are_drawn(levels: list[float]) -> None:
    drawn = str(chart_figure(course_chart(series_from("rtm", levels, error=0.0), ())))
    assert '<path class="present" d="M' in drawn
    assert not re.search(r"\b(nan|inf)\b", drawn)


def test_values_are_titles_and_a_long_course_has_some_of_them() -> None:
    drawn = str(chart_figure(course_chart(series_from("rtm", [4e6] * 90), ())))
    assert re.search(r"<title>run 4; commit \w+; date [\d-]+; median latency 4.00 ms; from", drawn)
    assert drawn.count("<title>") <= 24


def test_bars_of_one_unit_share_a_scale() -> None:
    columns = (Column("part", "text"), *(Column(name, "duration") for name in ("this run", "baseline")))
    drawn = str(chart_figure(Chart("bars", "Parts", "", columns, (("wire", 50.0, 100.0),))))
    assert re.findall(r'class="(\w+)" d="M0 \d+h([\d.]+)', drawn) == [("present", "50"), ("other", "100")]


def test_an_interval_is_a_line_with_its_value() -> None:
    columns = (Column("load", "text"), *(Column(name, "rate") for name in ("goodput", "from", "to")))
    drawn = str(chart_figure(Chart("ranges", "Goodput", "", columns, (("5/s", 5.0, 4.0, 6.0), ("9/s", 8.0, 8.0, 8.0)))))
    assert "<td>5/s<td" in drawn
    assert "<td>5<td>4 to 6" in drawn
    assert drawn.count('class="range"') == 2
