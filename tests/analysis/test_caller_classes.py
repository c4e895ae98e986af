"""Classes of callers: the metrics of each class, and what a comparison of a mix judges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.mixed import GOLD, mixed_launch
from support.synthetic import MS, START_NS, launch, samples

from pytest_mlpatterns.analysis.metrics.caller_classes import class_figures, compared_in_classes
from pytest_mlpatterns.analysis.metrics.definitions import LOCATIONS, METRICS, location_of, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances, accepted_ceiling
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.measurement.paired_blocks import class_block_figures
from pytest_mlpatterns.records.acceptance import Acceptance


def test_a_class_has_the_metrics_of_its_own_requests() -> None:
    metrics = Metrics((mixed_launch(failed=3), mixed_launch()))
    gold, bulk = metrics.of("gold"), metrics.of("bulk")
    assert metrics.classes == ("gold", "bulk")
    assert (gold.requests, bulk.requests, metrics.requests) == (600, 120, 720)
    assert (gold.rtm_ns.value, bulk.rtm_ns.value) == (pytest.approx(5 * MS), pytest.approx(50 * MS))
    assert (gold.failures, bulk.failures) == ({500: 3}, {})
    assert bulk.throughput_rps.value == pytest.approx(20, rel=0.01)
    assert (gold.request_bytes.value, bulk.request_bytes.value) == (100, 900)
    assert gold.asl_ratio is None
    assert gold.cold_start_ns is None
    assert metrics.asl_ratio is not None
    assert gold.classes == ()


def test_a_metric_of_a_class_is_read_of_its_requests() -> None:
    metrics = Metrics((mixed_launch(),))
    for name, value in (("rtm[gold]", 5 * MS), ("rtm[bulk]", 50 * MS), ("latency_mean[bulk]", 50 * MS)):
        metric = metric_named(name)
        found = metrics.interval_of(metric)
        assert found is not None
        assert found.value == pytest.approx(value)
        assert [one.value for one in metrics.launch_values(metric)] == [pytest.approx(value)]
    failures = metrics.interval_of(metric_named("error_rate[gold]"))
    assert failures is not None
    assert failures.value == 0
    assert metrics.modes_of(metric_named("rtm[gold]")) is None


def test_a_class_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(SettingError, match="there is no class of callers 'god'; did you mean gold"):
        Metrics((mixed_launch(),)).of("god")
    with pytest.raises(SettingError, match="the load has no classes of callers"):
        Metrics((launch(samples([START_NS], [MS])),)).of("gold")


def test_a_class_that_the_service_does_not_sustain_is_named() -> None:
    late = mixed_launch()
    gold_due = START_NS + np.arange(300) * 10 * MS
    done = START_NS + np.arange(300) * 20 * MS + 20 * MS
    behind = replace(late, samples=samples(gold_due, done - gold_due, request=np.arange(300) % 2))
    found = Metrics((behind,)).not_sustained
    assert found is not None
    assert found.startswith("class gold: ")
    assert Metrics((mixed_launch(),)).not_sustained is None


@pytest.mark.parametrize("name", ["rtm[gold]", "p95[gold]", "error_rate[b-2]", "latency_mean[gold]", "ttft:p95[a]"])
def test_the_name_of_a_metric_of_a_class_reads_back(name: str) -> None:
    metric = metric_named(name)
    base, _, rest = name.partition("[")
    assert (metric.name, metric.base_name, metric.caller_class) == (name, base, rest[:-1])
    assert metric.label.endswith(f" of {rest[:-1]}")
    assert metric_named(base).of_callers(rest[:-1]) == metric


def test_the_median_of_a_class_is_judged_by_the_location_of_its_times() -> None:
    location = location_of(metric_named("rtm[gold]"))
    assert location is not None
    assert (location.name, location.stands_for) == ("latency_mean[gold]", "rtm[gold]")
    assert location_of(METRICS["rtm"]) == LOCATIONS["rtm"]
    assert location_of(metric_named("p95[gold]")) is None
    assert metric_named("throughput[gold]").times == ("rtm[gold]",)


def test_a_comparison_of_a_mix_judges_the_requests_of_each_class_and_the_rest_of_the_whole() -> None:
    metrics = [*with_role(Role.PRIMARY, streams=False).values(), *with_role(Role.GUARD).values()]
    names = [metric.name for metric in compared_in_classes(metrics, {"gold": False, "bulk": True})]
    assert {"rtm[gold]", "rtm[bulk]", "p95[gold]", "error_rate[bulk]", "response_bytes[gold]"} <= set(names)
    assert {"throughput[bulk]", "peak_memory", "cold_start"} <= set(names)
    assert set(names).isdisjoint({"rtm", "throughput", "error_rate", "throughput[gold]", "cpu_per_request"})
    of_schedules = [metric.name for metric in compared_in_classes(metrics, {"gold": False, "bulk": False})]
    assert "cpu_per_request" in of_schedules
    assert {metric.base_name for metric in class_figures()} >= {"rtm", "p99", "latency_mean", "throughput"}


def test_a_tolerance_of_a_metric_is_that_of_each_class_unless_the_class_is_named() -> None:
    gold, bulk = metric_named("rtm[gold]"), metric_named("rtm[bulk]")
    assert Tolerances().of(gold) == Tolerances().of("rtm")
    assert Tolerances(0.3).of(gold) == 0.3
    named = Tolerances({"rtm": 0.2, "rtm[bulk]": 0.5, "p95": 0.7})
    assert (named.of(gold), named.of(bulk), named.of(metric_named("p95[gold]"))) == (0.2, 0.5, 0.7)
    assert named.names(gold)
    assert not Tolerances({"p95": 1.0}).names(gold)


def test_an_accepted_worsening_is_that_of_each_class() -> None:
    accepted = Acceptance("rtm", 0.5, "larger model")
    assert accepted_ceiling(accepted, metric_named("rtm[gold]")) == 0.5
    assert accepted_ceiling(accepted, metric_named("throughput[gold]")) == pytest.approx(1 / 3)
    assert accepted_ceiling(accepted, metric_named("p95[gold]")) is None


def test_a_block_shows_each_class_and_nothing_of_one_without_requests() -> None:
    found = mixed_launch()
    gold = class_block_figures(found.samples, found.window, GOLD)
    assert gold["rtm[gold]"] == pytest.approx(5 * MS)
    assert gold["latency_mean[gold]"] == pytest.approx(5 * MS)
    assert gold["throughput[gold]"] == pytest.approx(100, rel=0.02)
    none = class_block_figures(found.samples, found.window, replace(GOLD, name="none", first=5, end=6))
    assert set(none.values()) == {0.0}
