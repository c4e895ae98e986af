"""Charts as SVG and as tables with bars: scales, ticks, and that any values make a drawing with finite places."""

import re
from collections.abc import Sequence
from html import escape
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.histories import CHANGES, SERIES, series_from
from support.profiles import nothing_stands_out, present_alone, slower_normalize
from support.reported import HOSTILE, everything
from support.synthetic import PROPERTY

from pytest_mlpatterns.records.profile import Frame, ProfileRecord
from pytest_mlpatterns.reports.html.chart import Chart, Column, Track, Unit
from pytest_mlpatterns.reports.html.charts import charts_of
from pytest_mlpatterns.reports.html.drawing import (
    chart_figure,
    flame_graph,
    function_table,
    sampled_line,
    scale_of,
    ticks_of,
)
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


def rows_of(profile: ProfileRecord) -> list[list[str]]:
    """The cells of the table as a reader sees them."""
    rows = str(function_table(profile)).partition("</table>")[0].split("<tr>")[1:]
    return [[re.sub(r"<[^>]+>", " ", cell).split() for cell in re.split(r"<t[dh]>", row)[1:]] for row in rows]  # type: ignore[misc]


def test_the_table_has_both_sides_of_each_function_its_change_and_what_it_took_itself() -> None:
    head, first, second, *_, gone, _ = [[" ".join(cell) for cell in row] for row in rows_of(slower_normalize())]
    assert head == ["Function", "Before", "Now", "Change", "95 % interval", "Itself"]
    assert first[0] == "Digits.predict model.py:30"
    assert second == ["normalize model.py:41", "400 µs", "2.70 ms", "+2.30 ms", "+2.10 ms to +2.50 ms", "420 µs"]
    assert gone[1:4] == ["60.0 µs", "0 ns", "-60.0 µs"]


def test_a_change_has_a_colour_only_if_its_interval_excludes_zero() -> None:
    page = str(function_table(slower_normalize()))
    assert '<span class="worse">+2.30 ms</span>' in page
    assert '<span class="better">-60.0 µs</span>' in page
    assert "<span>+90.0 µs</span>" in page


def test_one_side_alone_has_no_change() -> None:
    head, first, _ = [[" ".join(cell) for cell in row] for row in rows_of(present_alone())]
    assert head == ["Function", "Now", "Itself"]
    assert first == ["Digits.predict model.py:30", "482 µs", "62.0 µs"]
    assert "slower" not in str(flame_graph(present_alone()))


@each_row(
    ("profile", "line"),
    (
        slower_normalize(),
        "3.00 ms → 5.34 ms in all, sampled by py-spy 0.4.2, 500 times a second, 8 short loads of each side, "
        "2.1 % slower while it was sampled (±1.3 %), 3 of 1,600 samples without a whole stack",
    ),
    (present_alone(), "492 µs in all, sampled by py-spy 0.4.2, 500 times a second, 4 short loads"),
    (
        replace(present_alone(), profiler="", rate_hz=0.0, blocks=0, slowdown=(0.99, 0.9, 1.1), notes=("No awaits.",)),
        "492 µs in all, 1.0 % faster while it was sampled (±10.0 %); No awaits.",
    ),
    (
        replace(present_alone(), slowdown=(1.227, 0.907, 1.66)),
        "492 µs in all, sampled by py-spy 0.4.2, 500 times a second, 4 short loads",
    ),
)
def test_the_caption_says_what_the_profile_is_made_of(profile: ProfileRecord, line: str) -> None:
    assert sampled_line(profile) == line


BAR = re.compile(
    r"<svg x=\"([\d.]+)%\" y=\"(\d+)\" width=\"([\d.]+)%\" height=\"20\"><title>([^<]*)</title>"
    r"<rect width=\"100%\" height=\"19\" class=\"(\w+)\"/>(?:<text[^>]*>([^<]*)</text>)?</svg>"
)


def bars_of(profile: ProfileRecord) -> dict[str, tuple[float, int, float, str]]:
    """Left end, depth, width in percent and kind of each function by its title."""
    found = BAR.findall(str(flame_graph(profile)))
    return {title: (float(x), int(y) // 20, float(width), kind) for x, y, width, title, kind, _ in found}


def test_every_function_is_below_its_caller_inside_of_it_and_as_wide_as_its_time() -> None:
    bars = bars_of(slower_normalize())
    names = {title.partition(" ")[0].rstrip(":"): bar for title, bar in bars.items()}
    assert names["worker"][:3] == (0.0, 0, 100.0)
    for caller, callee in (("Digits.predict", "normalize"), ("normalize", "sort")):
        (left, depth, width, _), (own_left, own_depth, own_width, _) = names[caller], names[callee]
        assert own_depth == depth + 1
        assert left <= own_left
        assert own_left + own_width <= left + width + 0.02
    assert names["normalize"][3] == "slower"
    assert names["sort"][3] == "new"
    assert "normalize (model.py:41): 400 µs → 2.70 ms per request" in bars


def test_one_side_alone_has_one_time_and_no_colours() -> None:
    bars = bars_of(present_alone())
    assert {kind for *_, kind in bars.values()} == {"same"}
    assert "→" not in "".join(bars)


def test_a_function_too_narrow_to_see_is_left_to_the_table() -> None:
    profile = slower_normalize()
    wide = replace(profile.nodes[-1], now_ns=profile.nodes[-1].now_ns + 1e12)
    assert len(bars_of(replace(profile, nodes=(*profile.nodes[:-1], wide)))) < len(bars_of(profile))


def test_without_stacks_there_is_the_reason_or_nothing() -> None:
    note = ProfileRecord(note="no profile: py-spy may not read the process")
    assert flame_graph(note) == '<p class="muted">No profile: py-spy may not read the process</p>'
    assert flame_graph(ProfileRecord()) is None
    assert function_table(replace(nothing_stands_out(), functions=())) is None


def test_names_of_functions_stay_text() -> None:
    hostile = replace(present_alone(), frames=tuple(Frame(HOSTILE, HOSTILE) for _ in present_alone().frames))
    page = str(flame_graph(hostile))
    assert "<script>alert" not in page
    assert "<img" not in page
