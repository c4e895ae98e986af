"""The flame graph as text: the table of functions that is read without a script, and the data that the script draws.

How it is drawn is tested in a browser, in test_flame_page.py.
"""

from __future__ import annotations

import json
import re

import pytest
from msgspec.structs import replace
from support.profiles import nothing_stands_out, present_alone, slower_normalize
from support.reported import HOSTILE, report
from support.synthetic import result

from pytest_mlpatterns.records.profile import Frame, ProfileRecord
from pytest_mlpatterns.reports.html.flame_graph import flame_graph, function_table, sampled_line
from pytest_mlpatterns.reports.html.page import FLAME_LIBRARY


def rows_of(profile: ProfileRecord) -> list[list[str]]:
    """The cells of the table as a reader sees them."""
    rows = re.findall(r"<tr>(.*?)</tr>", str(function_table(profile)))
    return [[re.sub(r"<[^>]+>", " ", cell).split() for cell in re.findall(r"<t[dh].*?</t[dh]>", row)] for row in rows]  # type: ignore[misc]


def test_the_table_has_both_sides_of_each_function_its_change_and_what_it_took_itself() -> None:
    head, first, second, *_, gone, _ = [[" ".join(cell) for cell in row] for row in rows_of(slower_normalize())]
    assert head == ["Function", "Before", "Present", "Change", "95 % interval", "Itself"]
    assert first[0] == "Digits.predict model.py:30"
    assert second == [
        "normalize model.py:41",
        "400 µs",
        "2.70 ms",
        "+2.30 ms",
        "+2.10 ms to +2.50 ms",
        "420 µs",
    ]
    assert gone[1:4] == ["60.0 µs", "0 ns", "-60.0 µs"]


def test_a_change_has_a_colour_only_if_its_interval_excludes_zero() -> None:
    page = str(function_table(slower_normalize()))
    assert '<span class="worse">+2.30 ms</span>' in page
    assert '<span class="better">-60.0 µs</span>' in page
    assert "<span>+90.0 µs</span>" in page


def test_one_side_alone_has_no_change() -> None:
    head, first, _ = [[" ".join(cell) for cell in row] for row in rows_of(present_alone())]
    assert head == ["Function", "Present", "Itself"]
    assert first == ["Digits.predict model.py:30", "482 µs", "62.0 µs"]
    page = str(flame_graph("f", present_alone()))
    assert 'class="legend"' not in page
    assert "radio" not in page


@pytest.mark.parametrize(
    ("profile", "line"),
    [
        (
            slower_normalize(),
            "3.00 ms → 5.34 ms in all, sampled by py-spy 0.4.2, 500 times a second, 8 blocks of each side, "
            "2.1 % slower while it was sampled (±1.3 %), 3 of 1,600 samples without a whole stack",
        ),
        (present_alone(), "492 µs in all, sampled by py-spy 0.4.2, 500 times a second, 4 blocks"),
        (
            replace(
                present_alone(), profiler="", rate_hz=0.0, blocks=0, slowdown=(0.99, 0.9, 1.1), notes=("No awaits.",)
            ),
            "492 µs in all, 1.0 % faster while it was sampled (±10.0 %); No awaits.",
        ),
        (
            replace(present_alone(), slowdown=(1.227, 0.907, 1.66)),
            "492 µs in all, sampled by py-spy 0.4.2, 500 times a second, 4 blocks",
        ),
    ],
)
def test_the_caption_says_what_the_profile_is_made_of(profile: ProfileRecord, line: str) -> None:
    assert sampled_line(profile) == line


def test_the_script_gets_names_places_and_the_time_of_each_stack_on_both_sides() -> None:
    (data,) = re.findall(r"<script[^>]*>(.*?)</script>", str(flame_graph("f", slower_normalize())))
    known = json.loads(data)
    assert known["frames"][5] == ["normalize", "model.py:41", "project"]
    assert known["nodes"][5] == [4, 5, 400_000, 420_000]
    assert known["sides"] == ["now_ns", "before_ns"]


def test_without_stacks_there_is_the_reason_or_nothing() -> None:
    note = ProfileRecord(note="no profile: py-spy may not read the process")
    assert flame_graph("f", note) == '<p class="muted">No profile: py-spy may not read the process</p>'
    assert flame_graph("f", ProfileRecord()) is None
    assert function_table(replace(nothing_stands_out(), functions=())) is None


def test_names_of_functions_stay_text() -> None:
    hostile = replace(present_alone(), frames=tuple(Frame(HOSTILE, HOSTILE) for _ in present_alone().frames))
    page = str(flame_graph("f", hostile))
    assert "<script>alert" not in page
    assert "<img" not in page


def test_only_a_page_with_a_profile_has_what_draws_it_and_its_licence() -> None:
    (name,) = FLAME_LIBRARY
    plain, drawn = report([result()]), report([result(profile=slower_normalize())])
    assert name in drawn
    assert "Apache License" in drawn
    assert name not in plain
    assert "Apache License" not in plain
    assert "flamegraph" not in plain
    assert name not in report([result(profile=ProfileRecord(note="no time"))])
