"""Streams of known times have the metrics that follow from them by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import stream_launch, streamed
from support.synthetic import MS, PROPERTY, START_NS, S, even_launch, launch

from pytest_mlpatterns.analysis.metrics.definitions import METRICS, goodput_metric, is_known_metric, metric_named
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.metrics.stream_blocks import in_time
from pytest_mlpatterns.errors import InvalidResultError, SettingError, TooFewSamplesError
from pytest_mlpatterns.records.latency import STREAM_QUANTITIES
from pytest_mlpatterns.records.objective import parse_promise


def metrics(**changes: float) -> Metrics:
    return Metrics((stream_launch(**changes),))  # type: ignore[arg-type]


def test_even_streams_have_their_times_at_every_percentile() -> None:
    found = metrics()
    for percentile in (50, 90):
        for read, truth in ((found.ttft_ns, 50 * MS), (found.itl_ns, 10 * MS), (found.tpot_ns, 10 * MS)):
            measured = read(percentile)
            assert measured.value == pytest.approx(truth)
            assert measured.low <= truth <= measured.high


def test_tokens_are_counted_by_usage_where_the_server_tells_it_and_else_by_chunks() -> None:
    by_chunks, by_usage = metrics(), metrics(output_tokens=19, input_tokens=7)
    assert by_chunks.output_tokens.value == 10
    assert by_chunks.input_tokens is None
    assert (by_usage.output_tokens.value, by_usage.input_tokens.value) == (19, 7)
    assert by_usage.tpot_ns().value == pytest.approx(90 * MS / 18)  # type: ignore[union-attr]
    assert by_usage.output_tokens_rps_per_user.value == pytest.approx(200, rel=0.01)  # type: ignore[union-attr]


def test_a_request_without_a_token_counts_in_the_mean() -> None:
    due_ns = [START_NS + number * 50 * MS for number in range(40)]
    tokens = [20 * (number % 2) for number in range(40)]
    found = Metrics((launch(streamed(due_ns, [[10 * MS, 20 * MS]] * 40, input_tokens=tokens)),)).input_tokens
    assert found.value == 10


@pytest.mark.parametrize(("told", "tokens"), [({}, 10), ({"output_tokens": 30}, 30)])
def test_the_rate_of_tokens_is_that_of_the_window(told: dict[str, float], tokens: int) -> None:
    found = metrics(**told).output_tokens_rps
    assert found.value == pytest.approx(20 * tokens, rel=0.06)  # the first answers of the window begin 50 ms later


def test_a_failed_request_is_infinitely_late_and_has_no_gaps() -> None:
    found = metrics(failing=12)  # a fifth of 60
    late, unharmed = found.ttft_ns(90), found.itl_ns(90)
    assert math.isinf(late.value)
    assert unharmed.value == pytest.approx(10 * MS)
    assert found.ttft_ns().value == pytest.approx(50 * MS)  # type: ignore[union-attr]


def test_answers_that_came_whole_have_no_metrics_of_streams() -> None:
    found = Metrics((even_launch(),))
    assert not found.streams
    assert [found.ttft_ns(), found.itl_ns(95), found.tpot_ns(), found.output_tokens_rps, found.output_tokens] == [
        None
    ] * 5
    assert all(found.estimate(metric) is None for metric in METRICS.values() if metric.of_streams)
    with pytest.raises(InvalidResultError, match="the answers do not stream, so there is no ttft and tpot"):
        found.goodput_rps("ttft<60ms, tpot<11ms")


def test_a_percentile_needs_as_many_requests_as_bound_it() -> None:
    with pytest.raises(TooFewSamplesError, match="p99 TTFT of 60 samples, expected at least 459"):
        metrics().ttft_ns(99)
    assert metrics().itl_ns(99) is not None  # of 540 gaps


def test_goodput_counts_the_requests_that_keep_every_time() -> None:
    found = Metrics((stream_launch(failing=6), stream_launch(failing=6)))
    assert found.goodput_rps("ttft<60ms, tpot<11ms").value == pytest.approx(54 / 3)
    assert found.slo_attainment_ratio("ttft<60ms, itl<11ms").value == pytest.approx(0.9)
    assert found.slo_attainment_ratio("ttft<60ms, tpot<9ms").value == 0
    assert found.slo_attainment_ratio("latency<150ms").value == pytest.approx(0.9)
    assert Metrics((even_launch(),)).goodput_rps("latency<5ms").value == pytest.approx(200)


def test_what_an_objective_cannot_judge_is_left_out_and_said() -> None:
    found = metrics(chunks=1)
    assert (
        found.unjudged(goodput_metric(parse_promise("tpot<40ms")))
        == "60 answers of too few tokens for tpot<40.0ms left out"
    )
    assert not found.unjudged(goodput_metric(parse_promise("ttft<40ms")))
    with pytest.raises(InvalidResultError, match="no request has what the objective judges"):
        found.slo_attainment_ratio("tpot<40ms")


@pytest.mark.parametrize("slo", ["ttft<60ms", "ttft<60ms, latency<2s"])
def test_fluidity_needs_both_deadlines(slo: str) -> None:
    with pytest.raises(SettingError, match="expected the deadlines of the first and of each further token"):
        metrics().fluidity_ratio(slo)


def test_fluidity_is_the_share_of_tokens_in_time() -> None:
    requests = streamed([START_NS + n * 10 * MS for n in range(60)], [[40 * MS, 50 * MS, 90 * MS, 100 * MS]] * 60)
    found = Metrics((launch(requests, seconds=1.0),))
    assert found.fluidity_ratio("ttft<50ms, tpot<10ms").value == pytest.approx(0.75)  # the third comes 20 ms late
    whole = found.fluidity_ratio("ttft<70ms, tpot<10ms")  # the slack of the first covers it
    assert (whole.value, whole.high) == (1, 1)


@PROPERTY
@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 200), st.integers(1, 100))
def test_deadlines_are_those_of_a_loop_over_the_tokens(gaps: list[int], first_ns: int, next_ns: int) -> None:
    at, deadline, met = 0, first_ns, 0
    arrived = []
    for gap in gaps:
        at += gap
        arrived.append(at)
        met += at <= deadline
        deadline = (deadline if at <= deadline else at) + next_ns
    assert in_time(np.array(arrived), first_ns, next_ns) == met


def test_metrics_of_streams_are_found_by_their_names() -> None:
    for name in ("ttft", "ttft:p95", "itl:p99.9", "tpot:p50", "output_tokens", "goodput(ttft<300ms)"):
        assert is_known_metric(name)
        assert metric_named(name).of is not None
    for other in ("ttft:p", "ttft:p100", "ttft:p0", "rtm:p95", "ttft:95", "itl:pinf"):
        assert not is_known_metric(other)


def test_a_launch_without_a_request_in_the_window_has_no_figure() -> None:
    early = streamed([START_NS - S], [[10 * MS, 20 * MS]])
    streams = Metrics((launch(early),)).by_launch[0].streams
    assert [streams.percentile(quantity, 50) for quantity in STREAM_QUANTITIES] == [None] * 3
    assert streams.output_tokens() is None
