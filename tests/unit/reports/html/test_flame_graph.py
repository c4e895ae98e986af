"""The flame graph as text: a bar for each function with its times, and the table of functions."""

import re

from msgspec.structs import replace
from support.each_row import each_row
from support.profiles import nothing_stands_out, present_alone, slower_normalize
from support.reported import HOSTILE

from pytest_mlpatterns.records.profile import Frame, ProfileRecord
from pytest_mlpatterns.reports.html.drawing import flame_graph, function_table, sampled_line


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
