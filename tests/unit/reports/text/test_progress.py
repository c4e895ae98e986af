"""The live line in words: which test, how far the run is, how long it will take still, within a width."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import MS, PROPERTY, S

from pytest_mlpatterns.judging.budget import Forecast
from pytest_mlpatterns.plugin.terminal import Standing, live_text, plain_text
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.reports.text.terminal_text import in_ascii, width_of

FIRST = Standing("tests/test_perf.py::test_digits[single]", 1, 1, 2 * S, 0, 3 * S)
THIRD = Standing("tests/test_perf.py::test_digits[single]", 3, 7, 4 * S, 20 * S, 3 * S)
PROGRESS = Progress(1_500_000_000, 1234, 4 * MS)


@each_row(
    ("standing", "progress", "text"),
    (FIRST, None, "test_digits[single] ██████·········· starting, about 3 s left"),
    (
        replace(FIRST, test="t[1]/test_perf.py::test_digits[cv::Mat]"),
        None,
        "test_digits[cv::Mat] ██████·········· starting, about 3 s left",
    ),
    (FIRST, PROGRESS, "test_digits[single] ██████·········· 2 s, median 4.00 ms, 1,234 requests, about 3 s left"),
    (
        FIRST,
        replace(PROGRESS, median_ttft_ns=90 * MS),
        "test_digits[single] ██████·········· 2 s, median TTFT 90.0 ms, 1,234 requests, about 3 s left",
    ),
    (THIRD, PROGRESS, "test_digits[single] 3/7 █████··········· 4 s, median 4.00 ms, 1,234 requests, about 46 s left"),
    (
        Standing("t.py::test_a", 2, 20, 0, 60 * S, 3 * S),
        Progress(0, 0, None),
        "test_a 2/20 █··············· 0 s, 0 requests, about 19 min left",
    ),
    (
        Standing("t.py::test_a", 2, 2, 90 * S, 60 * S, 3 * S),
        PROGRESS,
        "test_a 2/2 ████████████████ 90 s, median 4.00 ms, 1,234 requests",
    ),
    (
        replace(FIRST, forecast=Forecast(4, 7 * S, 23 * S), since_ns=3 * S),
        PROGRESS,
        "test_digits[single] █··············· 2 s, median 4.00 ms, 1,234 requests, 4 launches of 7 s, up to 20 s left",
    ),
    (
        replace(THIRD, forecast=Forecast(4, 7 * S, 23 * S), since_ns=3 * S),
        PROGRESS,
        "test_digits[single] 3/7 █████··········· 4 s, median 4.00 ms, 1,234 requests, 4 launches of 7 s, "
        "about 60 s left",
    ),
    (
        replace(FIRST, search="searching for the cause, 12 s left"),
        PROGRESS,
        "test_digits[single] ██████·········· searching for the cause, 12 s left",
    ),
)
def test_the_live_line_shows_the_progress_of_the_run(standing: Standing, progress: Progress | None, text: str) -> None:
    assert live_text(standing, progress, 140, spell=str) == text


def test_a_note_is_part_of_the_line_as_long_as_there_is_room() -> None:
    note = "at 4.0 answers a second p99 latency needs 115 s; judged are median latency, throughput"
    noted = replace(THIRD, note=note)
    shown = live_text(noted, PROGRESS, 200, spell=str)
    assert shown == (
        "test_digits[single] 3/7 █████··········· 4 s, median 4.00 ms, 1,234 requests, "
        "at 4.0 answers a second p99 latency needs 115 s; judged are median latency, throughput, about 46 s left"
    )
    assert live_text(noted, PROGRESS, 80, spell=str) == live_text(THIRD, PROGRESS, 80, spell=str)
    assert plain_text(noted) == f"{plain_text(THIRD)}; {note}"


def test_the_time_that_is_left_is_counted_down_from_what_the_budget_allows() -> None:
    foreseen = replace(FIRST, forecast=Forecast(4, 7 * S, 23 * S))
    texts = [plain_text(replace(foreseen, elapsed_ns=(7 + since) * S, since_ns=since * S)) for since in (0, 20, 23)]
    test = f"measuring {FIRST.test} for"
    assert texts == [
        f"{test} 7 s, up to 23 s left: 4 launches of 7 s",
        f"{test} 27 s, up to 3 s left: 4 launches of 7 s",
        f"{test} 30 s",
    ]


@each_row(
    ("width", "text"),
    (80, "test_digits[single] 3/7 █████··········· 4 s, median 4.00 ms, about 46 s left"),
    (70, "…its[single] 3/7 █████··········· 4 s, median 4.00 ms, about 46 s left"),
    (60, "…st_digits[single] 3/7 █████··········· 4 s, about 46 s left"),
    (40, "…its[single] 3/7 █████··········· 4 s, …"),
)
def test_the_least_important_parts_are_left_out_first(width: int, text: str) -> None:
    found = live_text(THIRD, PROGRESS, width, spell=str)
    assert found == text
    assert width_of(found) <= width


@each_row(
    ("width", "text"),
    (80, "test_cut[caf\\xe9] 3/7 #####----------- 4 s, median 4.00 us, about 46 s left"),
    (71, "..ut[caf\\xe9] 3/7 #####----------- 4 s, median 4.00 us, about 46 s left"),
    (40, "..t[caf\\xe9] 3/7 #####----------- 4 s,.."),
)
def test_without_unicode_the_spelled_line_is_measured_and_cut(width: int, text: str) -> None:
    cafe = replace(THIRD, test="test_perf.py::test_cut[café]")
    found = live_text(cafe, replace(PROGRESS, median_ns=4_000), width, spell=in_ascii)
    assert found == text
    assert width_of(found) <= width


@PROPERTY
@given(
    st.text(max_size=60),
    st.integers(1, 50),
    st.integers(0, 50),
    st.tuples(st.integers(0, 10**12), st.integers(0, 10**13)),
    st.integers(0, 200),
)
def test_the_live_line_fits_any_width_and_shows_a_share(
    test: str, number: int, more: int, times_ns: tuple[int, int], width: int
) -> None:
    elapsed_ns, finished_ns = times_ns
    standing = Standing(test, number, number + more, elapsed_ns, max(finished_ns, number), 3 * S)
    assert 0 <= standing.share <= 1
    assert standing.left_ns >= 0
    assert width_of(live_text(standing, PROGRESS, width, spell=str)) <= max(width, 1)
    assert width_of(live_text(standing, PROGRESS, width, spell=in_ascii)) <= max(width, 2)
