"""The chart of a long load: memory over requests."""

import pytest
from support.synthetic import result

from pytest_mlpatterns.records.samples import GrowthRecord
from pytest_mlpatterns.reports.html.charts import charts_of, growth_chart

MIB = 2**20
REQUESTS = (0, 1000, 2000, 3000, 4000)
SIZES = tuple(100 * MIB + 1024 * requests for requests in REQUESTS)


def test_memory_is_drawn_over_requests_with_the_growth_of_the_second_half_in_words() -> None:
    chart = growth_chart(result(growth=GrowthRecord(REQUESTS, SIZES, (1024.0, 1000.0, 1048.0), levels_off=False)))
    assert (chart.title, chart.summary) == ("Memory over requests", "4,000 requests")
    (track,) = chart.tracks
    assert track.note == "1.00 KiB (±24.0 B) per request in the second half, not levelling off"
    assert track.rows == tuple(zip(REQUESTS, SIZES, strict=True))
    assert chart in charts_of(result(growth=GrowthRecord(REQUESTS, SIZES, (1024.0, 1000.0, 1048.0), levels_off=False)))


@pytest.mark.parametrize(
    ("low", "levels_off", "said"),
    [(10.0, True, "in the second half, levelling off"), (-10.0, True, "in the second half")],
)
def test_the_summary_says_whether_it_goes_on(low: float, levels_off: bool, said: str) -> None:
    chart = growth_chart(result(growth=GrowthRecord(REQUESTS, SIZES, (20.0, low, 30.0), levels_off)))
    assert chart.tracks[0].note.endswith(said)


def test_without_a_slope_nothing_is_said_of_it() -> None:
    chart = growth_chart(result(growth=GrowthRecord(REQUESTS, SIZES, None, levels_off=False)))
    assert chart.tracks[0].note == ""


@pytest.mark.parametrize("growth", [None, GrowthRecord((1,), (1,), None, levels_off=False)])
def test_without_a_long_load_there_is_no_chart(growth: GrowthRecord | None) -> None:
    assert growth_chart(result(growth=growth)) is None
