"""Figures in Prometheus' text format: known servers need no names, others name theirs, and windows are differences."""

from typing import Any

import pytest
from support.each_row import each_row

from pytest_mlpatterns import LayerStats, PatternStats, Prometheus, SettingError
from pytest_mlpatterns.records.package_layers import derived_metrics
from pytest_mlpatterns.serving.prometheus import merge_readings, read_prometheus

MOSEC = """\
# HELP mosec_service_batch_size batch size for each connection in each stage.
# TYPE mosec_service_batch_size histogram
mosec_service_batch_size_sum{stage="Sum_1",connection="1"} 7.0
mosec_service_batch_size_count{stage="Sum_1",connection="1"} 5
mosec_service_batch_size_bucket{le="1.0",stage="Sum_1",connection="1"} 3
mosec_service_batch_size_bucket{le="2.0",stage="Sum_1",connection="1"} 5
mosec_service_batch_size_bucket{le="+Inf",stage="Sum_1",connection="1"} 5
# TYPE mosec_service_remaining_task gauge
mosec_service_remaining_task 4
# EOF
"""
BENTOML = """\
# TYPE bentoml_service_request_in_progress gauge
bentoml_service_request_in_progress{endpoint="/a",runner_name="S"} 1.0
bentoml_service_request_in_progress{endpoint="/b",runner_name="S"} 2.0
# TYPE bentoml_service_adaptive_batch_size histogram
bentoml_service_adaptive_batch_size_sum{worker_index="1"} 11.0
bentoml_service_adaptive_batch_size_bucket{le="1.0",worker_index="1"} 0.0
bentoml_service_adaptive_batch_size_bucket{le="4.0",worker_index="1"} 1.0
bentoml_service_adaptive_batch_size_bucket{le="8.0",worker_index="1"} 2.0
bentoml_service_adaptive_batch_size_bucket{le="+Inf",worker_index="1"} 2.0
bentoml_service_adaptive_batch_size_count{worker_index="1"} 2.0
"""
MLSERVER = """\
# TYPE parallel_request_queue histogram
parallel_request_queue_sum 2.0
parallel_request_queue_bucket{le="1.0"} 2.0
parallel_request_queue_bucket{le="+Inf"} 2.0
parallel_request_queue_count 2.0
# TYPE batch_request_queue histogram
batch_request_queue_sum{model_name="sums",model_version=""} 3.0
batch_request_queue_bucket{le="0.005",model_name="sums",model_version=""} 1.0
batch_request_queue_bucket{le="2.5",model_name="sums",model_version=""} 2.0
batch_request_queue_bucket{le="5.0",model_name="sums",model_version=""} 2.0
batch_request_queue_bucket{le="+Inf",model_name="sums",model_version=""} 3.0
batch_request_queue_count{model_name="sums",model_version=""} 4.0
"""
TRITON = """\
# TYPE nv_inference_count counter
nv_inference_count{model="a",version="1"} 90
nv_inference_count{model="b",version="1"} 10
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{model="a",version="1"} 15
nv_inference_exec_count{model="b",version="1"} 10
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{model="a",version="1"} 50000
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="a",version="1"} 100
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="a",version="1"} 6
"""
RAY = """\
# TYPE ray_serve_actual_batch_size histogram
ray_serve_actual_batch_size_bucket{le="1.0"} 0.0
ray_serve_actual_batch_size_bucket{le="2.0"} 3.0
ray_serve_actual_batch_size_bucket{le="+Inf"} 3.0
ray_serve_actual_batch_size_count 3.0
ray_serve_actual_batch_size_sum 6.0
# TYPE ray_serve_batch_wait_time_ms histogram
ray_serve_batch_wait_time_ms_bucket{le="1.0"} 0.0
ray_serve_batch_wait_time_ms_bucket{le="5.0"} 2.0
ray_serve_batch_wait_time_ms_bucket{le="+Inf"} 3.0
ray_serve_batch_wait_time_ms_count 3.0
ray_serve_batch_wait_time_ms_sum 15.0
# TYPE ray_serve_batch_execution_time_ms histogram
ray_serve_batch_execution_time_ms_bucket{le="+Inf"} 0.0
ray_serve_batch_execution_time_ms_count 0.0
ray_serve_batch_execution_time_ms_sum 0.0
# TYPE ray_serve_deployment_queued_queries gauge
ray_serve_deployment_queued_queries{handle="1"} 12.0
ray_serve_deployment_queued_queries{handle="2"} 8.0
"""
LLAMA_CPP = """\
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 90
# TYPE llamacpp:n_decode_total counter
llamacpp:n_decode_total 30
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 2
"""
VLLM = """\
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 5.0
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{engine="0",le="0.3",model_name="m"} 4.0
vllm:request_queue_time_seconds_bucket{engine="0",le="+Inf",model_name="m"} 4.0
vllm:request_queue_time_seconds_count{engine="0",model_name="m"} 4.0
vllm:request_queue_time_seconds_sum{engine="0",model_name="m"} 0.5
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="8.0",model_name="m"} 10.0
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="m"} 10.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 10.0
vllm:iteration_tokens_total_sum{engine="0",model_name="m"} 60.0
"""
OWN = """\
# TYPE rows summary
rows{quantile="0.5"} 3
rows_count 4
rows_sum 10
# TYPE waited_seconds histogram
waited_seconds_bucket{le="0.01"} 3
waited_seconds_bucket{le="0.03"} 4
waited_seconds_bucket{le="+Inf"} 4
waited_seconds_count 4
waited_seconds_sum 0.04
waited_seconds_created 1.7e9
# TYPE refused counter
refused_total{why="full"} 5
refused_total{why="old"} 2
# TYPE hits counter
hits_total 30
# TYPE misses counter
misses_total 10
# TYPE depth gauge
depth NaN
"""
OURS = Prometheus(
    batch_size="rows",
    queue_wait="waited_seconds",
    queue_rejected="refused_total",
    cache_hits="hits",
    cache_misses="misses_total",
    queue_depth="depth",
)


def layers_of(text: str, source: Prometheus | None = None) -> dict[str, LayerStats]:
    return {layer.layer: layer for layer in read_prometheus(text, source or Prometheus()).layers}


def figures(text: str, source: Prometheus | None = None) -> dict[str, float]:
    stats = PatternStats(layers=read_prometheus(text, source or Prometheus()).layers)
    return {name: figure.value for name, figure in derived_metrics(stats).items()}


@each_row(
    ("text", "source", "expected", "depth"),
    (MOSEC, Prometheus(), {"batch_size": 7 / 5}, 4),
    (BENTOML, Prometheus(), {"batch_size": 5.5}, 3),
    (MLSERVER, Prometheus(), {"queue_depth": 3 / 4}, None),
    (TRITON, Prometheus(), {"batch_size": 4.0, "queue_wait": 500_000.0}, 6),
    (RAY, Prometheus(), {"batch_size": 2.0, "batch_wait": 3_000_000.0}, 20),
    (LLAMA_CPP, Prometheus(), {"batch_size": 3.0}, 2),
    (VLLM, Prometheus(), {"batch_size": 6.0, "queue_wait": 150_000_000.0}, 5),
    (OWN, OURS, {"batch_size": 2.5, "queue_wait": 5_000_000.0, "cache_hit_ratio": 0.75}, 0),
    (OWN, Prometheus(), {}, None),
    ("", Prometheus(), {}, None),
)
def test_figures_follow_from_what_a_server_tells(
    text: str, source: Prometheus, expected: dict[str, float], depth: int | None
) -> None:
    assert figures(text, source) == pytest.approx(expected)
    assert read_prometheus(text, source).depth == depth


def test_buckets_are_kept_by_the_middle_of_what_may_be_in_them() -> None:
    assert layers_of(MOSEC)["batched"].histograms == {"size": {1: 3, 2: 2}}
    assert layers_of(BENTOML)["batched"].histograms == {"size": {3: 1, 6: 1}}
    assert layers_of(MLSERVER)["queued"].histograms == {"depth": {0: 1, 1: 1, 5: 1}}
    assert layers_of(RAY)["batched"].histograms["wait_ns"] == {3_000_000: 2, 5_000_000: 1}


def test_counts_are_added_up_over_labels() -> None:
    assert layers_of(TRITON)["batched"].counters == {"size_sum": 100, "size_count": 25, "items": 100, "calls": 25}
    assert layers_of(OWN, OURS)["queued"].counters["rejected"] == 7


def test_a_window_is_the_difference_of_two_readings() -> None:
    later = MOSEC.replace("_sum{", "_sum{x='',".replace("'", '"')).replace("7.0", "27.0").replace(" 5\n", " 10\n")
    before, after = (PatternStats(layers=read_prometheus(text, Prometheus()).layers) for text in (MOSEC, later))
    assert derived_metrics(after.since(before))["batch_size"].value == (27 - 7) / (10 - 5)
    assert "batch_size" not in derived_metrics(after.since(after))


def test_processes_of_one_server_add_up() -> None:
    merged = merge_readings([read_prometheus(MOSEC, Prometheus()), read_prometheus(MOSEC, Prometheus())])
    assert merged.layers[0].counters["items"] == 14
    assert merged.depth == 8
    assert merge_readings([read_prometheus(MLSERVER, Prometheus())]).depth is None


@each_row(
    ("text", "expected"),
    ('# TYPE b histogram\nb_bucket{x="1"} 3\n', r"^a bucket of the histogram b has no label le$"),
    ('# TYPE b histogram\nb_bucket{le="abc"} 3\n', "abc"),
    ('# TYPE b histogram\nb_bucket{le="nan"} 3\n', "NaN"),
    ('# TYPE b histogram\nb_bucket{le="1e308"} 3\n', r"^b is 1e\+308, expected a number below 9\.22337e\+18$"),
    ('# TYPE b histogram\nb_bucket{le="-inf"} 3\n', r"^b is -inf, expected a number below"),
    ('# TYPE b histogram\nb_bucket{le="1"} +Inf\n', r"^b is inf, expected a number below"),
    ("# TYPE b histogram\nb_sum +Inf\n", r"^size_sum of the metrics is inf, expected a number below"),
    ("# TYPE b histogram\nb_sum 1e308\n", r"^size_sum of the metrics is 1e\+308, expected a number below"),
    ('# TYPE q gauge\nq{a="1"} 1e308\nq{a="2"} 1e308\n', r"^q is inf, expected a number below"),
    ('# TYPE q gauge\nq{a="1"} +Inf\nq{a="2"} -Inf\n', r"^q is nan, expected a number below"),
    ("# TYPE q gauge\nq -Inf\n", r"^q is -inf, expected a number below"),
)
def test_numbers_that_no_count_has_are_refused_with_their_metric(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        read_prometheus(text, Prometheus(batch_size="b", queue_depth="q"))


def test_such_numbers_of_other_metrics_do_no_harm() -> None:
    assert read_prometheus("# TYPE other gauge\nother +Inf\n", Prometheus()).layers == ()


def test_what_is_not_that_format_is_refused() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's own words
        read_prometheus("<html>", Prometheus())


@each_row(
    ("arguments", "expected"),
    ({"path": "metrics"}, "Prometheus('metrics'), expected a path or address"),
    ({"path": 8080}, "Prometheus(8080), expected a path or address"),
    ({"path": "/met\nrics"}, "expected a path or address"),
    ({"batch_size": "my size"}, "Prometheus(batch_size='my size'), expected the name of a metric"),
    ({"queue_depth": 3}, "Prometheus(queue_depth=3), expected the name of a metric"),
)
def test_what_is_no_source_is_refused(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        Prometheus(**arguments)
    assert expected in str(caught.value)
