"""A baseline entry as it would be on a slower machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.synthetic import PROPERTY, SETUP, make_setup

from pytest_mlpatterns.analysis.metrics.definitions import LOCATIONS, METRICS
from pytest_mlpatterns.baseline.lookup import scaled
from pytest_mlpatterns.records.baseline_entry import Anchor, Entry
from pytest_mlpatterns.records.latency import STREAM_QUANTITIES, RequestCounts
from pytest_mlpatterns.records.launch import LaunchValue

TIMES = (
    *("rtm", "p90", "p95", "p99", "total_time", "cpu_per_request", "cold_start"),
    *(f"{quantity}{rank}" for quantity in STREAM_QUANTITIES for rank in ("", ":p95", ":p99")),
    *("cache_hit", "cache_miss", "batch_wait", "queue_wait", "limit_wait", "hop"),
    *("cascade_first", "cascade_second", "replica_time", "decode", "encode"),
)
RATES = ("throughput", "nmrt", "nmrt(p95<50.0ms)", "pc", "output_tokens", "output_tokens_per_user")


def entry(*names: str) -> Entry:
    metrics = {name: (LaunchValue(100.0, 0.01), LaunchValue(110.0, 0.02)) for name in names}
    return Entry(SETUP, metrics, {"numpy": "2.0.0"}, "1a2b3c4", "2026-11-24")


def test_every_metric_is_a_time_a_rate_or_stays_as_it_is() -> None:
    others = [*set(METRICS) - {*TIMES, *RATES}, "a metric of a later version"]
    means = [location.name for location in LOCATIONS.values()]
    found = scaled(entry(*TIMES, *means, *RATES, *others), 1.25)
    values = {name: tuple(launch.value for launch in launches) for name, launches in found.metrics.items()}
    assert values == {
        **dict.fromkeys([*TIMES, *means], (125.0, 137.5)),
        **dict.fromkeys(RATES, (80.0, 88.0)),
        **dict.fromkeys(others, (100.0, 110.0)),
    }
    assert "asl" in others
    assert "peak_memory" in others


@pytest.mark.parametrize(
    ("load", "rate"),
    [("closed(8)", 80.0), ("closed(8, think_time=50ms)", 100.0), ("constant(200)", 100.0), ("poisson(200)", 100.0)],
)
def test_a_rate_that_a_clock_sets_is_not_that_of_the_machine(load: str, rate: float) -> None:
    found = scaled(replace(entry("rtm", "throughput", "total_time"), setup=make_setup(load=load)), 1.25)
    assert found.metrics["throughput"][0].value == rate
    assert found.metrics["total_time"][0].value == (100.0 if rate == 100.0 else 125.0)
    assert found.metrics["rtm"][0].value == 125.0


def test_scaling_changes_nothing_else_but_gives_no_anchor() -> None:
    old = replace(entry("rtm"), anchor=Anchor({}, None, "2026-01-01"), latency=((50.0, 100.0), (99.0, 300.0)))
    old = replace(
        old, sorting_ns=(700.0,), counts=(RequestCounts(100, 1, {2_000: 80, 64_000: 19}, {"ttft": {700: 99}}),)
    )
    found = scaled(old, 2.0)
    assert found.sorting_ns == (1400.0,)
    assert found.latency == ((50.0, 200.0), (99.0, 600.0))
    assert found.counts == (RequestCounts(100, 1, {4_000: 80, 128_000: 19}, {"ttft": {1_400: 99}}),)
    assert found.anchor is None
    assert [launch.relative_error for launch in found.metrics["rtm"]] == [0.01, 0.02]
    of_old = ("metrics", "anchor", "latency", "counts", "sorting_ns")
    assert replace(found, **{name: getattr(old, name) for name in of_old}) == old


@PROPERTY
@given(st.floats(0.1, 10.0))
def test_scaling_there_and_back_is_no_change(ratio: float) -> None:
    old = entry("rtm", "throughput", "asl")
    back = scaled(scaled(old, ratio), 1 / ratio)
    for name, launches in old.metrics.items():
        values = [launch.value for launch in back.metrics[name]]
        assert values == pytest.approx([launch.value for launch in launches])
