"""When a request is late: after a fixed time, or after a percentile of the latest latencies and within a budget."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from pytest_mlpatterns import SettingError, UnitError
from pytest_mlpatterns.patterns.hedging import FixedHedge, PercentileHedge, hedge_of

MS = 1_000_000


def hedged_share(hedge: PercentileHedge, latencies_ns: list[int]) -> float:
    """The share of requests asked twice, if the second answer comes with the first at the latest."""
    hedged = 0
    for latency_ns in latencies_ns:
        delay_ns, waited_ns = hedge.delay_ns(), latency_ns
        if delay_ns is not None and latency_ns > delay_ns and hedge.spend():
            hedged += 1
            waited_ns = min(latency_ns, 2 * delay_ns)
        hedge.waited(waited_ns)
    return hedged / len(latencies_ns)


def test_a_fixed_time_is_always_the_same() -> None:
    hedge = hedge_of(timedelta(milliseconds=20), "hedge")
    assert isinstance(hedge, FixedHedge)
    for _ in range(50):
        assert hedge.delay_ns() == 20 * MS
        assert hedge.spend()
        hedge.waited(MS)


def test_a_percentile_is_that_of_the_latest_answers() -> None:
    hedge = PercentileHedge(95)
    for number in range(99):
        assert hedge.delay_ns() is None
        hedge.waited(number * MS)
    hedge.waited(99 * MS)
    assert hedge.delay_ns() == 95 * MS
    for _ in range(1000):
        hedge.waited(7 * MS)
    assert hedge.delay_ns() == 7 * MS  # the older ones no longer count


@pytest.mark.parametrize(("percentile", "share"), [(95, 0.05), (99, 0.01), (50, 0.5)])
def test_as_many_are_asked_twice_as_lie_above_the_percentile(percentile: float, share: float) -> None:
    drawn = random.Random(5)
    latencies = [int(drawn.lognormvariate(2, 0.5) * MS) for _ in range(20_000)]
    assert hedged_share(PercentileHedge(percentile), latencies) == pytest.approx(share, rel=0.1)


def test_a_service_that_gets_slow_as_a_whole_gets_no_more_than_the_budget() -> None:
    fast = [10 * MS + number for number in range(2000)]
    slow = [int(10 * MS * 1.01**number) for number in range(1000)]  # each one later than all before
    hedge = PercentileHedge(95)
    hedged_share(hedge, fast)
    assert hedged_share(hedge, slow) <= 0.055 + 10 / 1000


@pytest.mark.parametrize("value", ["p49", "p100", "p999", "0ms", 20, None, 0.95, True, ["p95"]])
def test_what_is_neither_a_percentile_nor_a_time_is_refused(value: Any) -> None:
    with pytest.raises(SettingError) as caught:
        hedge_of(value, "Replicated(hedge=...)")
    assert str(caught.value).startswith("Replicated(hedge=...) is ")
    assert str(caught.value).endswith('write hedge="p95" or hedge="20ms"')


@pytest.mark.parametrize("value", ["20", "pfirst", "p", "late", ""])
def test_unreadable_texts_are_refused(value: str) -> None:
    with pytest.raises(UnitError, match="hedge"):
        hedge_of(value, "Replicated(hedge=...)")


def test_fractions_of_a_percentile_are_read() -> None:
    assert isinstance(hedge_of("p99.9", "hedge"), PercentileHedge)
