"""Bursts: arrivals against the declared rates, in simulations and by the law of Poisson processes, without a clock."""

from __future__ import annotations

import itertools
import pickle
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import FEW, MS, S

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.workload.bursts import Bursts

BURSTS = Bursts(rps=100, peak=1000, every="5s", length="500ms")


def test_bursts_are_a_value_that_prints_what_it_sends() -> None:
    assert str(BURSTS) == "bursts(100/s, 1000/s for 500ms every 5s)"
    assert str(Bursts(0, 5, "1s", "100ms", times=3, seed=7)) == "bursts(0/s, 5/s for 100ms every 1s, times=3, seed=7)"
    assert pickle.loads(pickle.dumps(BURSTS)) == BURSTS
    assert hash(BURSTS) == hash(Bursts(100.0, 1000.0, "5s", "500ms"))
    assert Bursts(1, 2, timedelta(seconds=2), timedelta(seconds=1)).length_ns == 2 * S  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "found", "expected"),
    [
        (lambda: Bursts(-1, 5), "Bursts(rps=...) is -1", "requests per second"),
        (lambda: Bursts(1, "5"), "Bursts(peak=...) is '5'", "requests per second"),
        (
            lambda: Bursts(100, 100),
            "Bursts(rps=100, peak=100)",
            "a peak above the rate between bursts; write peak=1000",
        ),
        (lambda: Bursts(0, 5, every="1s", length="1s"), "Bursts(every='1s', length='1s')", "shorter than its period"),
        (lambda: Bursts(0, 5, length="0s"), "Bursts(every='5s', length='0s')", "a burst above zero"),
        (lambda: Bursts(0, 5, every=5), "Bursts(every=...) is 5", "a time with its unit"),
        (lambda: Bursts(0, 5, length="x"), "Bursts(length=...) is 'x'", "a time with its unit"),
        (lambda: Bursts(0, 5, times=0), "Bursts(times=0)", "a whole number from 1 to 10,000"),
        (lambda: Bursts(0, 5, seed="x"), "Bursts(seed='x')", "a whole number"),
        (lambda: Bursts(0, 5, every="900000h", times=2), "Bursts(every='900000h', times=2) lasts", "fewer bursts"),
    ],
)
def test_impossible_bursts_are_named_with_what_is_possible(make: Any, found: str, expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value).startswith(found)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_burst_is_in_the_middle_of_its_period() -> None:
    twice = Bursts(rps=100, peak=1000, every="5s", length="500ms", times=2)
    assert (twice.closed, twice.length_ns, twice.mean_arrivals) == (False, 10 * S, 1900.0)
    assert [twice.rate_at(round(second * S)) for second in (0, 2.24, 2.25, 2.74, 2.75, 4.9, 7.3, 8, 10, 99)] == [
        100, 100, 1000, 1000, 100, 100, 1000, 100, 0, 0,
    ]  # fmt: skip
    assert twice.rate_at(-1) == 0


@pytest.mark.simulation
def test_the_arrivals_of_many_periods_have_the_declared_rates_and_scatter_as_independent_callers_do() -> None:
    many = Bursts(rps=100, peak=1000, every="5s", length="500ms", times=400, seed=3)
    due = np.array(list(many.arrivals()))
    assert np.all(np.diff(due) >= 0)
    assert due[0] >= 0
    assert due[-1] < many.length_ns
    in_burst = np.array([many.rate_at(int(moment)) == 1000 for moment in due])
    assert in_burst.sum() / (400 * 0.5) == pytest.approx(1000, rel=0.01)
    assert (~in_burst).sum() / (400 * 4.5) == pytest.approx(100, rel=0.01)
    of_burst, of_rest = (np.bincount(due[mask] // (5 * S), minlength=400) for mask in (in_burst, ~in_burst))
    for counts in (of_burst, of_rest):  # a Poisson count has its mean as its variance
        assert counts.var() / counts.mean() == pytest.approx(1, abs=0.3)
    gaps_ns = np.diff(due)[in_burst[1:] & in_burst[:-1]]
    gaps_ns = gaps_ns[gaps_ns < S]
    assert gaps_ns.mean() == pytest.approx(MS, rel=0.02)
    assert (gaps_ns > 2 * MS).mean() == pytest.approx(np.exp(-2), abs=0.01)


@FEW
@given(
    rps=st.one_of(st.just(0.0), st.floats(0.5, 500)),
    more=st.floats(1, 2000),
    period=st.integers(2, 3000),
    share=st.floats(0.01, 0.99),
    times=st.integers(1, 5),
    of=st.integers(1, 4),
)
def test_generators_share_bursts_within_their_periods(
    rps: float, more: float, period: int, share: float, times: int, of: int
) -> None:
    length = f"{max(period * share, 0.01):.3f}ms"
    bursts = Bursts(rps, rps + more, f"{period}ms", length, times=times, seed=5)
    parts = [list(bursts.share(number, of)) for number in range(of)]
    merged = sorted(itertools.chain(*parts))
    assert all(part == sorted(part) for part in parts)
    assert all(0 <= due < bursts.length_ns for due in merged)
    assert abs(len(merged) - bursts.mean_arrivals) <= 6 * bursts.mean_arrivals**0.5 + 6
    assert len(merged) <= bursts.most_arrivals
    assert of > 1 or merged == list(bursts.arrivals())
    if rps == 0:
        middle_ns, half_ns = bursts.period_ns / 2, bursts.burst_ns / 2
        assert all(abs(due % bursts.period_ns - middle_ns) <= half_ns + 1 for due in merged)


def test_the_same_seed_gives_the_same_arrivals_of_bursts_and_another_gives_others() -> None:
    assert list(BURSTS.arrivals()) == list(BURSTS.arrivals())
    assert list(BURSTS.arrivals()) != list(Bursts(100, 1000, seed=1).arrivals())
    assert list(BURSTS.share(0, 2)) != list(BURSTS.share(1, 2))
