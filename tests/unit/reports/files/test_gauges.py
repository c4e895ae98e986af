"""Results as OpenMetrics and as OTLP, read by the parsers of Prometheus and OpenTelemetry."""

import json

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support.each_row import each_row
from support.pages import ROOT
from support.result_strategies import FINITE, NAMES
from support.synthetic import ENVIRONMENT, FEW, result, verdict

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.result import FailedTest, TestResult
from pytest_mlpatterns.records.verdict import Kind, Outcome
from pytest_mlpatterns.reports.files.gauges import openmetrics_text, otlp_json
from pytest_mlpatterns.reports.files.result_file import MOST, Results

TEST = 'test_perf.py::test_digits["a\\b"]'


def written(*found: TestResult, unmeasured: tuple[FailedTest, ...] = ()) -> Results:
    return Results(found, ENVIRONMENT, "2026-11-24T12:00:00+00:00", {}, commit="1a2b3c4", unmeasured=unmeasured)


@pytest.mark.parametrize("date", ["soon\x1b[2J", "0001-01-01", ""])
def test_a_date_that_is_none_is_refused(date: str) -> None:
    for write in (openmetrics_text, otlp_json):
        with pytest.raises(ResultFileError, match=r"^has the date .*, expected one of ISO 8601$") as refused:
            write(Results((result(),), ENVIRONMENT, date, {}))
        assert "\x1b" not in str(refused.value)


def samples(results: Results) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The samples of each name, as Prometheus reads them."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(openmetrics_text(results)):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def points(results: Results) -> dict[str, tuple[str, list[tuple[dict[str, str], float, int]]]]:
    """Unit and points of each name, as OpenTelemetry reads them."""
    request = json_format.Parse(otlp_json(results), ExportMetricsServiceRequest())
    found = {}
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        found[metric.name] = (
            metric.unit,
            [
                ({one.key: one.value.string_value for one in point.attributes}, point.as_double, point.time_unix_nano)
                for point in metric.gauge.data_points
            ],
        )
    return found


def test_times_are_seconds_and_rates_name_what_they_count() -> None:
    one = result(TEST, metrics={"rtm": (2e6, 1e6, 3e6), "throughput": (1234.4, 1200.0, 1300.0)})
    found = samples(written(one))
    ((labels, value),) = found["mlpatterns_rtm_seconds"]
    assert (labels["test"], labels["pattern"], value) == (TEST, str(one.setup.pattern), 0.002)
    assert [found[f"mlpatterns_rtm_{end}_seconds"][0][1] for end in ("low", "high")] == [0.001, 0.003]
    assert found["mlpatterns_throughput_requests_per_second"][0][1] == 1234.4
    unit, ((attributes, second, time_ns),) = points(written(one))["mlpatterns.rtm"]
    assert (unit, attributes["test"], second, time_ns) == ("s", TEST, 0.002, 1_795_521_600_000_000_000)
    assert points(written(one))["mlpatterns.throughput"][0] == "{request}/s"


def test_an_objective_is_a_label_and_an_unknown_end_is_left_out() -> None:
    one = result(metrics={"nmrt(p95<50.0ms)": (80.0, 70.0, MOST)})
    found = samples(written(one))
    ((labels, value),) = found["mlpatterns_nmrt_requests_per_second"]
    assert (labels["objective"], value) == ("p95<50.0ms", 80.0)
    assert "mlpatterns_nmrt_low_requests_per_second" in found
    assert "mlpatterns_nmrt_high_requests_per_second" not in found


@each_row(
    ("metric", "label"),
    ("p99.9", "p99.9 latency"),
    ("nmrt(p95<50.0ms)", "capacity (NMRT)"),
    ("goodput(latency<50.0ms)", "goodput"),
)
def test_a_gauge_is_explained_by_the_label_of_its_metric(metric: str, label: str) -> None:
    text = openmetrics_text(written(result(metrics={metric: (80.0, 70.0, 90.0)})))
    assert f" {label}.\n" in text


def test_a_judged_change_names_its_metric_and_reference() -> None:
    change = verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4))
    found = samples(written(result(verdicts=(change,))))
    ((labels, value),) = found["mlpatterns_change_ratio"]
    assert (labels["metric"], labels["against"], value) == ("rtm", "baseline", 0.3)
    assert [found[f"mlpatterns_change_{end}_ratio"][0][1] for end in ("low", "high")] == [0.2, 0.4]


def test_each_test_has_one_kind_also_one_that_never_measured() -> None:
    crashed = FailedTest("test_perf.py::test_crash", "KeyError: 'x'", None, kind=Kind.TEST_ERROR, pattern="single")
    states = samples(written(result("test_perf.py::test_good"), unmeasured=(crashed,)))["mlpatterns_kind"]
    assert {(labels["test"], labels["mlpatterns_kind"]) for labels, value in states if value} == {
        ("test_perf.py::test_good", "passed"),
        ("test_perf.py::test_crash", "test_error"),
    }
    assert len(states) == 2 * len(Kind)


def test_the_run_names_its_commit_machine_and_time() -> None:
    found = samples(written(result()))
    ((labels, value),) = found["mlpatterns_run_info"]
    assert (labels["commit"], labels["processor"], value) == ("1a2b3c4", ENVIRONMENT.processor, 1)
    assert found["mlpatterns_run_end_seconds"] == [({}, 1_795_521_600.0)]


@FEW
@given(NAMES, st.dictionaries(st.sampled_from(sorted(METRICS)), st.tuples(FINITE, FINITE, FINITE)))
def test_any_figures_are_read_by_both_parsers(name: str, metrics: dict[str, tuple[float, float, float]]) -> None:
    everything = written(result(name, metrics=metrics))
    values = [value for found in samples(everything).values() for _, value in found]
    assert all(abs(value) < MOST for value in values)
    assert otlp_json(everything).count("\n") == 1
    assert {name.split(".")[1] for name in points(everything)} <= {
        f"{name}{end}" for name in (*metrics, "change") for end in ("", "_low", "_high")
    }


def test_the_dashboard_asks_for_what_is_exported() -> None:
    board = json.loads((ROOT / "examples/ci/grafana.json").read_text())
    asked = {target["expr"] for panel in board["panels"] for target in panel["targets"]}
    change = verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4))
    names = samples(written(result(verdicts=(change,))))
    for expression in asked:
        assert any(name in expression for name in names), expression
    assert len(asked) >= 5


@each_row("text", ["a\nb", 'a"b', "a\\b", "ä€"])
def test_any_text_is_a_label(text: str) -> None:
    assert samples(written(result(text)))["mlpatterns_throughput_requests_per_second"][0][0]["test"] == text
