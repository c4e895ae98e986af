"""Growth per request, and whether it goes on, from courses whose truth is known."""

import importlib
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import ROOT
from support.each_row import each_row
from support.synthetic import MS, PROPERTY, START_NS, S, usage

from pytest_mlpatterns.analysis.causes.growth import (
    growth_between,
    growth_of,
    growth_record,
    held_record,
    judge_leak,
    requests_to_decide,
    track_of,
)
from pytest_mlpatterns.analysis.metrics.blocks import growth_rate
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.profile import Frame
from pytest_mlpatterns.records.samples import Growth, HeldMemory, HeldRecord, MemorySite, ResourceTrack, Window
from pytest_mlpatterns.records.verdict import OpenBy, Outcome

READINGS = 200
REQUESTS = np.arange(READINGS, dtype=np.int64) * 25
BASE = 100 * 2**20
LEAST = 512 * 1024


def grown(amounts: NDArray[np.float64] | NDArray[np.int64], requests: NDArray[np.int64] = REQUESTS) -> Growth:
    found = growth_of(requests, np.asarray(BASE + amounts, dtype=np.int64))
    assert found is not None
    return found


@PROPERTY
@given(st.integers(2, 100_000), st.integers(32, 400))
def test_a_steady_growth_has_its_slope_and_goes_on(per_request: int, readings: int) -> None:
    requests = np.arange(readings, dtype=np.int64) * 10
    found = grown(per_request * requests, requests)
    assert found.slope.low == pytest.approx(per_request)
    assert found.slope.high == pytest.approx(per_request)
    assert not found.levels_off
    assert found.requests == requests[-1]


def test_one_descriptor_in_many_requests_goes_on_too() -> None:
    found = grown(REQUESTS // 20)
    assert found.slope.value == pytest.approx(0.05, rel=0.05)
    assert not found.levels_off


def test_a_steady_growth_is_a_leak_above_its_limit_and_if_it_gained_enough() -> None:
    found = grown(1024 * REQUESTS)
    assert found.exceeds(1000, LEAST)
    assert not found.exceeds(1100, LEAST)
    assert not found.exceeds(1000, 4 * 2**20)
    assert found.stays_below(1100)
    assert not found.stays_below(1000)


def test_what_does_not_grow_stays_below_any_limit() -> None:
    found = grown(np.zeros(READINGS))
    assert found.slope == Estimate(0, 0, 0)
    assert found.levels_off
    assert found.stays_below(0.001)
    assert grown(-1024 * REQUESTS).stays_below(0), "memory that is given back"


def test_peaks_between_two_readings_of_the_floor_do_not_count() -> None:
    peaks = 50 * 2**20 * (np.arange(READINGS) % 5 != 0)
    assert grown(1024 * REQUESTS + peaks).exceeds(1000, LEAST)


@pytest.mark.parametrize("full", [0.2, 0.5, 0.6, 0.8])
def test_a_cache_that_is_full_levels_off(full: float) -> None:
    assert grown(4096 * np.minimum(REQUESTS, full * REQUESTS[-1])).levels_off


def test_a_logarithm_levels_off_though_it_grows_to_the_end() -> None:
    found = grown(2**22 * np.log1p(REQUESTS / 100))
    assert found.slope.low > 0
    assert found.levels_off


def test_a_start_that_takes_memory_does_not_hide_a_leak() -> None:
    start = 20 * 2**20 * np.minimum(REQUESTS / (0.2 * REQUESTS[-1]), 1)
    assert grown(1024 * REQUESTS + start).exceeds(1000, LEAST)


def test_one_step_is_no_growth() -> None:
    found = grown(2**20 * (0.7 * REQUESTS[-1] < REQUESTS))
    assert found.slope.low <= 0
    assert found.levels_off


@each_row(
    ("requests", "amounts"),
    *((REQUESTS[:few], 1024 * REQUESTS[:few]) for few in (0, 1, 15)),
    (np.zeros(50, dtype=np.int64), np.arange(50)),
    (REQUESTS, None),
    (np.repeat([0, 1000], 20), np.repeat([0, 1000], 20)),  # in two places only
    (np.append(REQUESTS, 2 * REQUESTS[-1]),) * 2,  # one reading in the second half
)
def test_few_readings_in_few_places_say_nothing(requests: NDArray[np.int64], amounts: NDArray[np.int64] | None) -> None:
    assert growth_of(requests, amounts) is None


@pytest.mark.parametrize("requests", [np.repeat(np.arange(9) * 500, 10), REQUESTS[:20]], ids=["missed parts", "few"])
def test_few_readings_or_such_as_missed_many_parts_are_judged_by_fewer_parts(requests: NDArray[np.int64]) -> None:
    assert grown(1024 * requests, requests).slope.value == pytest.approx(1024)


def growth(low: float, high: float) -> Growth:
    slope = Estimate((low + high) / 2, low, high)
    return Growth(requests=1000, slope=slope, recent=slope, gained=1e9, levels_off=False)


def test_more_requests_are_needed_the_nearer_the_limit_and_as_many_as_gain_enough() -> None:
    far, near = (requests_to_decide(growth(0, 200), limit, 0) for limit in (150, 110))
    assert far == 2400  # half the interval is 100, the limit 50 away, and a fifth more
    assert near == pytest.approx(12_000, abs=1)
    assert requests_to_decide(growth(100, 300), 50, 1_000_000) == 12_000
    assert requests_to_decide(growth(0, 200), 100, 0) is None, "on the limit no number decides"


@pytest.mark.simulation
def test_leaks_are_found_and_nothing_else_is_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small part of ``benchmarks/leak_simulation.py``."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    simulation: ModuleType = importlib.import_module("leak_simulation")
    assert all(simulation.shares(course, 40)[0] >= 0.95 for course in simulation.LEAKS)
    assert all(simulation.shares(course, 40)[0] <= 0.05 for course in simulation.OTHERS)


KIB, MIB = 1024, 1024**2


def name(file: str, line: int) -> Frame:
    return Frame("Digits.__init__" if line < 20 else "Digits.predict", file.rpartition("/")[2], line // 20)


def record(before: HeldMemory, now: HeldMemory) -> HeldRecord:
    return held_record(before, now, names=(name, name), source_now=lambda _frame, line: f"line {line}")


def test_a_function_that_holds_more_is_named_with_the_line_that_holds_most() -> None:
    before = HeldMemory({("/then/model.py", 12): 30 * MIB, ("/then/model.py", 40): MIB}, 32 * MIB)
    now = HeldMemory(
        {("/now/model.py", 12): 20 * MIB, ("/now/model.py", 14): 141 * MIB, ("/now/model.py", 44): MIB}, 163 * MIB
    )
    assert record(before, now) == HeldRecord(
        "", False, 32 * MIB, 163 * MIB, (MemorySite("Digits.__init__", "model.py", 14, "line 14", 30 * MIB, 161 * MIB),)
    )


def test_little_is_not_named() -> None:
    before = HeldMemory({("model.py", 1): MIB}, MIB)
    assert record(before, HeldMemory({("model.py", 1): MIB + 200 * KIB}, MIB + 200 * KIB)).sites == ()
    several = {("model.py", 1): 2 * MIB, **{(f"other{number}.py", 1): 20 * MIB for number in range(2)}}
    assert [site.file for site in record(before, HeldMemory(several, 42 * MIB)).sites] == ["other0.py", "other1.py"]


def test_what_no_line_of_the_project_holds_or_what_shrinks_is_not_named() -> None:
    def owned(file: str, line: int) -> Frame:
        return Frame("<module>", file, line, "python" if file.startswith("<") else "project")

    before = HeldMemory({("<string>", 2): -600.0 * KIB, ("model.py", 3): -600.0 * KIB}, -1200.0 * KIB, 1)
    now = HeldMemory({("<string>", 2): 900.0 * KIB, ("model.py", 3): -100.0 * KIB}, 800.0 * KIB, 1)
    assert held_record(before, now, names=(owned, owned), source_now=lambda *_: "").sites == ()


def test_at_most_five_functions_are_named() -> None:
    now = {(f"model{number}.py", 1): (10 + number) * MIB for number in range(6)}
    found = record(HeldMemory({}, 0), HeldMemory(now, 75 * MIB)).sites
    assert [site.file for site in found] == [f"model{number}.py" for number in (5, 4, 3, 2, 1)]


def test_a_growth_is_counted_per_request() -> None:
    first = HeldMemory({("model.py", 30): MIB}, 2 * MIB)
    last = HeldMemory({("model.py", 30): 3 * MIB, ("model.py", 1): KIB}, 4 * MIB)
    growth = growth_between(first, last, 1024)
    assert growth == HeldMemory({("model.py", 30): 2 * MIB, ("model.py", 1): KIB}, 2 * MIB, 1024)
    found = record(HeldMemory({}, 0, 1000), growth)
    assert (found.per_request, found.before, found.now) == (True, 0, 2 * KIB)
    assert found.sites == (MemorySite("Digits.predict", "model.py", 30, "line 30", 0, 2 * KIB),)


WINDOW = Window(START_NS, START_NS + 3 * S)
DONE_NS = np.arange(START_NS - S, START_NS + 4 * S, 10 * MS)  # one every 10 ms, from a second before the window


def test_a_track_has_the_readings_of_the_windows_and_counts_every_answer() -> None:
    used = usage(seconds=3.0)
    counted = replace(used, descriptors=np.arange(used.time_ns.size), threads=np.full(used.time_ns.size, 3))
    track = track_of(counted, DONE_NS, (Window(START_NS, START_NS + S), Window(START_NS + 2 * S, START_NS + 3 * S)))
    assert track.requests.size == 40
    assert track.requests[:2].tolist() == [101, 106]  # a second of answers came before, and one with the reading
    assert track.requests[20] == 301
    assert track.rss_bytes.tolist() == [100 * 2**20] * 40
    assert track.descriptors[0] == 10
    assert set(track.threads.tolist()) == {3}


def test_without_processes_or_a_reading_in_the_window_there_is_no_track() -> None:
    assert track_of(None, DONE_NS, (WINDOW,)) is None
    assert track_of(usage(), DONE_NS, (Window(0, 1),)) is None


def test_the_growth_of_a_launch_is_its_slope_in_spite_of_peaks() -> None:
    requests = np.arange(0, 1000, 10, dtype=np.int64)
    peaks = 10**8 * (np.arange(100) % 10 == 0)
    track = ResourceTrack(requests, 2**26 + 300 * requests + peaks, descriptors=requests)
    assert growth_rate(track, "rss_bytes") == pytest.approx(300)
    assert growth_rate(track, "descriptors") == pytest.approx(1)
    assert growth_rate(track, "threads") is None


def test_a_growth_is_at_least_nothing_and_needs_requests() -> None:
    requests = np.arange(0, 1000, 10, dtype=np.int64)
    assert growth_rate(ResourceTrack(requests, 2**26 - requests), "rss_bytes") == 0
    assert growth_rate(ResourceTrack(requests[:10], requests[:10]), "rss_bytes") is None
    assert growth_rate(None, "rss_bytes") is None


def test_reports_get_some_readings_and_the_growth_of_the_second_half() -> None:
    requests = np.arange(400, dtype=np.int64) * 10
    record = growth_record(ResourceTrack(requests, 2**26 + 100 * requests))
    assert len(record.requests) == len(record.rss_bytes) == 120
    assert record.requests[0] == 0
    assert record.requests[-1] == 3990
    assert record.slope == pytest.approx((100, 100, 100))
    assert not record.levels_off


def test_reports_of_few_readings_have_no_growth() -> None:
    record = growth_record(ResourceTrack(np.arange(3), np.arange(3)))
    assert record.requests == (0, 1, 2)
    assert record.slope is None
    assert not record.levels_off
    assert growth_record(None) is None


MEMORY, DESCRIPTORS = METRICS["memory_growth"], METRICS["descriptor_growth"]
LEAK = Growth(12_400, Estimate(1945, 1740, 2150), Estimate(1945, 1500, 2400), gained=12e6, levels_off=False)


def slowing(low: float, high: float, recent: tuple[float, float] | None = None) -> Growth:
    both = [Estimate((start + end) / 2, start, end) for start, end in ((low, high), recent or (low, high))]
    return Growth(1000, both[0], both[1], gained=1e9, levels_off=True)


DESCRIPTORS_LEAK = Growth(2000, Estimate(0.5, 0.4, 0.6), Estimate(0.5, 0.4, 0.6), gained=500, levels_off=False)


@each_row(
    ("growth", "is_whole", "outcome", "start", "end"),
    (
        LEAK,
        True,
        Outcome.FAIL,
        "resident memory grows by 1.90 KiB (±205 B) per request over 12,400 requests, not levelling off in the second ",
        "half; the limit is 100 B",
    ),
    (LEAK, False, Outcome.INCONCLUSIVE, "", ""),  # before the load is whole nothing is called a leak
    (
        DESCRIPTORS_LEAK,
        True,
        Outcome.FAIL,
        "open descriptors grow by 500 (±100) per 1,000 requests over 2,000 requests, not",
        "; the limit is 1.00",
    ),
    (
        slowing(-20, 40),
        False,
        Outcome.PASS,
        "resident memory grows by 10.0 B (±30.0 B) per request over 1,000 requests; the limit",
        " is 100 B",
    ),
    (slowing(200, 400, (-10, 10)), True, Outcome.PASS, "", "in their last quarter; the limit is 100 B"),
    (
        slowing(200, 400),
        True,
        Outcome.INCONCLUSIVE,
        "",
        "; the limit is 100 B, and that is open; about 4,200 requests would decide",
    ),
    (slowing(0, 200), True, Outcome.INCONCLUSIVE, "", "and that is open"),  # on the limit no number is named
)
def test_a_growth_that_goes_on_fails_and_is_said_with_its_interval(
    growth: Growth, is_whole: bool, outcome: Outcome, start: str, end: str
) -> None:
    of = (DESCRIPTORS, 1.0) if growth is DESCRIPTORS_LEAK else (MEMORY, 100)
    verdict = judge_leak(of[0], growth, of[1], is_whole=is_whole)
    assert verdict.outcome is outcome
    assert verdict.reason.startswith(start)
    assert verdict.reason.endswith(end)


def test_an_open_verdict_names_the_requests_that_would_decide() -> None:
    verdict = judge_leak(MEMORY, slowing(-100, 240), 100, is_whole=True)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason.endswith("and that is open; about 6,800 requests would decide")
    assert verdict.why_open.by is OpenBy.REQUESTS


@pytest.mark.parametrize("value", [0.0, 0.01, -0.01])
def test_nothing_prints_as_nothing(value: float) -> None:
    growth = Growth(10, Estimate(value, value, value), Estimate(value, value, value), gained=0, levels_off=True)
    assert "grows by 0 B (±0 B) per request" in judge_leak(MEMORY, growth, 100, is_whole=True).reason
