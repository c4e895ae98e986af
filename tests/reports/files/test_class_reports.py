"""Classes of callers in results: the file, the page, the gauges, and an update of the baseline."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support.mixed import mixed_launch
from support.synthetic import ENVIRONMENT, MS, make_setup, result

from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.baseline.updates import RunFacts, reasons_not_to_record, update_of
from pytest_mlpatterns.judging.result_builder import estimated
from pytest_mlpatterns.records.caller_classes import ClassRecord
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.reports.files.ci_reports import properties_of
from pytest_mlpatterns.reports.files.gauges import openmetrics_text
from pytest_mlpatterns.reports.files.result_file import Results, results_json
from pytest_mlpatterns.reports.html.test_page import metric_table
from pytest_mlpatterns.workload.mix import Mix
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate

LOAD = str(Mix({"gold": ConstantRate(100), "bulk": ClosedLoop(1)}))


def mixed_result(**change: float) -> TestResult:
    """A result of four launches of two classes."""
    launches = tuple(mixed_launch(seed=seed, **change) for seed in range(4))
    metrics = Metrics(launches)
    figures, by_launch = estimated(metrics)
    classes = tuple(ClassRecord(one.name, one.load, metrics.of(one.name).request_counts) for one in launches[0].classes)
    return result(
        metrics=figures, launches=by_launch, classes=classes, counts=metrics.request_counts, setup=make_setup(load=LOAD)
    )


def test_a_result_with_classes_travels_as_json_that_the_schema_allows() -> None:
    found = mixed_result()
    data = json.loads(results_json([found], ENVIRONMENT, "2026-11-24", baseline={}))
    (plain,) = data["results"]
    assert [(one["name"], one["requests"], one["failed"]) for one in plain["classes"]] == [
        ("gold", 1200, 0),
        ("bulk", 240, 0),
    ]
    assert TestResult.from_json(plain) == found
    assert {"rtm[gold]", "rtm[bulk]", "rtm"} <= plain["metrics"].keys()


def test_the_page_has_a_part_for_each_class() -> None:
    page = str(metric_table(mixed_result()))
    assert "Class gold, constant(100/s)" in page
    assert "Class bulk, closed(1)" in page
    assert page.index("RTM of gold") < page.index("RTM of bulk") < page.index("Capacity")
    assert "Class" not in str(metric_table(result()))


def test_a_class_is_a_label_of_the_gauges() -> None:
    text = openmetrics_text(Results((mixed_result(),), ENVIRONMENT, "2026-11-24T12:00:00+00:00", {}))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    found = {one.labels.get("class", ""): one.value for one in families["mlpatterns_rtm_seconds"].samples}
    assert found.keys() == {"", "gold", "bulk"}
    assert found["gold"] == pytest.approx(0.005, rel=0.05)
    assert families["mlpatterns_rtm_seconds"].documentation == "RTM."
    assert any(name == "perf_rtm[gold]_ns" for name, _ in properties_of(mixed_result()))


def test_an_update_names_a_class_that_became_slower_and_keeps_the_counts_of_each() -> None:
    facts = RunFacts({}, None, "2026-11-24")
    before = update_of(mixed_result(), None, facts).after
    assert {name: len(counts) for name, counts in before.classes.items()} == {"gold": 4, "bulk": 4}
    again = update_of(mixed_result(), before, facts)
    assert again.worse == ()
    slower = update_of(mixed_result(gold_ms=9), before, facts)
    assert [one.metric for one in slower.worse] == ["rtm[gold]"]
    assert slower.after.anchor is None


def test_an_entry_is_as_wide_as_the_times_of_its_classes() -> None:
    assert not any("RTM" in why for why in reasons_not_to_record(mixed_result()))
    scattered = mixed_result()
    wide = {**scattered.measured.launches, "rtm[gold]": ((2.0 * MS, 0.01), (9.0 * MS, 0.01), (4.0 * MS, 0.01))}
    wide |= {"latency_mean[gold]": wide["rtm[gold]"]}
    figures = {**scattered.metrics, "rtm[gold]": (4.0 * MS, 1.0 * MS, 9.0 * MS)}
    figures |= {"latency_mean[gold]": figures["rtm[gold]"]}
    found = replace(scattered, metrics=figures, measured=replace(scattered.measured, launches=wide))
    assert any("of gold" in why for why in reasons_not_to_record(found))
