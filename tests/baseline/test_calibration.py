"""Calibration: the workload in its own process, the ratio of two machines, and an entry scaled by it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY, SETUP, make_setup

from pytest_mlpatterns.analysis.metric_definitions import LOCATIONS, METRICS, STREAM_QUANTITIES
from pytest_mlpatterns.baseline import calibration as calibrate
from pytest_mlpatterns.baseline.calibration import WORKLOAD, measure_calibration, ratio_between, scaled
from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.records.baseline_entry import Anchor, Calibration, Entry
from pytest_mlpatterns.records.launch import LaunchValue

if TYPE_CHECKING:
    from pathlib import Path

TIMES = (
    *("rtm", "p90", "p95", "p99", "cpu_per_request", "cold_start"),
    *(f"{quantity}{rank}" for quantity in STREAM_QUANTITIES for rank in ("", ":p95", ":p99")),
    *("cache_hit", "cache_miss", "batch_wait", "queue_wait", "hop", "decode", "encode"),
)
RATES = ("throughput", "nmrt", "nmrt(p95<50.0ms)", "pc", "output_tokens", "output_tokens_per_user")


def entry(*names: str) -> Entry:
    metrics = {name: (LaunchValue(100.0, 0.01), LaunchValue(110.0, 0.02)) for name in names}
    return Entry(SETUP, metrics, {"numpy": "2.0.0"}, "1a2b3c4", "2026-11-24")


@pytest.mark.processes
def test_the_workload_is_timed_in_a_process_that_is_gone_afterwards(tmp_path: Path) -> None:
    before = psutil.Process().children()
    found = measure_calibration(tmp_path, cores=3)
    assert (found.cores, found.workload) == (3, WORKLOAD)
    assert found.ns > 0
    assert psutil.Process().children() == before


@pytest.mark.processes
def test_a_workload_that_does_not_end_is_an_error_with_a_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_TIMEOUT_S", 0.0)
    before = psutil.Process().children()
    with pytest.raises(ChildError, match=r"did not end in 0 s; .*switch perf_calibrate off"):
        measure_calibration(tmp_path, cores=2)
    assert psutil.Process().children() == before


def test_the_workload_does_the_same_whenever_it_runs() -> None:
    first = calibrate._work()
    assert math.isfinite(first)
    assert calibrate._work() == first


@pytest.mark.parametrize(
    ("there", "ratio"),
    [
        (Calibration(30e6, 2, 1), 1.0),
        (Calibration(15e6, 2, 1), 2.0),
        (Calibration(60e6, 2, 1), 0.5),
        (Calibration(30e6, 4, 1), None),
        (Calibration(30e6, 2, 2), None),
    ],
    ids=["same", "faster there", "slower there", "other cores", "another workload"],
)
def test_two_machines_compare_by_the_time_of_the_same_work_on_as_many_cores(
    there: Calibration, ratio: float | None
) -> None:
    assert ratio_between(Calibration(30e6, 2, 1), there) == ratio


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
    found = scaled(replace(entry("rtm", "throughput"), setup=make_setup(load=load)), 1.25)
    assert found.metrics["throughput"][0].value == rate
    assert found.metrics["rtm"][0].value == 125.0


def test_scaling_changes_nothing_else_but_gives_no_anchor() -> None:
    old = replace(entry("rtm"), anchor=Anchor({}, None, "2026-01-01"), calibration=Calibration(30e6, 2, 1))
    old = replace(old, latency=((50.0, 100.0), (99.0, 300.0)), generator_costs_ns=(60.0, 70.0))
    old = replace(old, sorting_ns=(700.0,))
    found = scaled(old, 2.0)
    assert found.generator_costs_ns == (120.0, 140.0)
    assert found.sorting_ns == (1400.0,)
    found = replace(found, generator_costs_ns=old.generator_costs_ns, sorting_ns=old.sorting_ns)
    assert replace(found, metrics=old.metrics, anchor=old.anchor, latency=old.latency) == old
    assert found.latency == ((50.0, 200.0), (99.0, 600.0))
    assert found.anchor is None
    assert [launch.relative_error for launch in found.metrics["rtm"]] == [0.01, 0.02]


@PROPERTY
@given(st.floats(0.1, 10.0))
def test_scaling_there_and_back_is_no_change(ratio: float) -> None:
    old = entry("rtm", "throughput", "asl")
    back = scaled(scaled(old, ratio), 1 / ratio)
    for name, launches in old.metrics.items():
        values = [launch.value for launch in back.metrics[name]]
        assert values == pytest.approx([launch.value for launch in launches])
