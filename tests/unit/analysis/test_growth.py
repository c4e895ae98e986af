"""Growth per request, and whether it goes on, from courses whose truth is known."""

import importlib
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import ROOT
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.analysis.causes.growth import growth_of, requests_to_decide
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.samples import Growth

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


def test_memory_that_is_given_back_is_no_leak() -> None:
    assert grown(-1024 * REQUESTS).stays_below(0)


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


def test_more_requests_are_needed_the_nearer_the_limit() -> None:
    far, near = (requests_to_decide(growth(0, 200), limit, 0) for limit in (150, 110))
    assert far == 2400  # half the interval is 100, the limit 50 away, and a fifth more
    assert near == pytest.approx(12_000, abs=1)


def test_a_leak_needs_as_many_requests_as_gain_enough() -> None:
    assert requests_to_decide(growth(100, 300), 50, 1_000_000) == 12_000


def test_on_the_limit_no_number_of_requests_decides() -> None:
    assert requests_to_decide(growth(0, 200), 100, 0) is None


@pytest.mark.simulation
def test_leaks_are_found_and_nothing_else_is_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small part of ``benchmarks/leak_simulation.py``."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    simulation: ModuleType = importlib.import_module("leak_simulation")
    assert all(simulation.shares(course, 40)[0] >= 0.95 for course in simulation.LEAKS)
    assert all(simulation.shares(course, 40)[0] <= 0.05 for course in simulation.OTHERS)
