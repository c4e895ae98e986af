"""The shape of a distribution: percentiles as far as there are samples, histograms that lose nobody, pooled counts."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.streams import stream_launch
from support.synthetic import MS, PROPERTY, even_launch

from pytest_mlpatterns.analysis.metrics.blocked_values import counted
from pytest_mlpatterns.analysis.metrics.distribution_summary import (
    STORED_PERCENTS,
    latency_of,
    percentiles_of_counts,
    stored_percentiles,
    stream_percentiles,
    stream_record,
    without_body,
)
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.patterns.tally import rounded
from pytest_mlpatterns.records.latency import RequestCounts, StreamRecord

NANOSECONDS = st.lists(st.integers(0, 10**11), min_size=1, max_size=300)


@PROPERTY
@given(NANOSECONDS)
def test_a_shape_ascends_and_counts_every_request(values: list[int]) -> None:
    shape = latency_of(np.array(values))
    percents, found = zip(*shape.percentiles, strict=True)
    assert list(percents) == sorted(set(percents))
    assert list(found) == sorted(found)
    assert (found[0], found[-1]) == (min(values) if percents[0] == 0 else found[0], max(values))
    edges, counts = shape.histogram.edges_ns, shape.histogram.counts
    assert len(edges) == len(counts) + 1
    assert all(low < high for low, high in pairwise(edges))
    assert sum(counts) == len(values)


@pytest.mark.parametrize(
    ("requests", "last"),
    [(1, [0, 100]), (50, [97.5, 98, 100]), (1000, [99.8, 99.9, 100]), (20_000, [99.98, 99.99, 100])],
)
def test_percentiles_reach_as_far_as_there_are_requests(requests: int, last: list[float]) -> None:
    shape = latency_of(np.arange(requests) + MS)
    assert [percent for percent, _ in shape.percentiles][-len(last) :] == last
    assert 0 in dict(shape.percentiles)


def test_a_shape_says_what_the_numbers_are() -> None:
    shape = latency_of(np.arange(1, 1001) * MS)
    told = dict(shape.percentiles)
    assert told[50] == pytest.approx(500.5 * MS)
    assert told[99] == pytest.approx(990 * MS, rel=0.001)
    assert (shape.mean_ns, shape.sd_ns) == (pytest.approx(500.5 * MS), pytest.approx(288.67 * MS, rel=1e-3))


def test_an_empty_window_has_no_distribution() -> None:
    assert latency_of(np.array([], dtype=np.int64)) is None
    assert stored_percentiles(None) == ()
    assert percentiles_of_counts({}) == ()


def test_a_baseline_keeps_some_of_the_percentiles() -> None:
    kept = stored_percentiles(latency_of(np.arange(2000) + MS))
    assert tuple(percent for percent, _ in kept) == STORED_PERCENTS
    few = stored_percentiles(latency_of(np.arange(20) + MS))
    assert [percent for percent, _ in few] == [1, 5, 10, 25, 50, 75, 90, 95, 100]


@PROPERTY
@given(NANOSECONDS)
def test_counts_round_as_the_servers_do(values: list[int]) -> None:
    counts = counted(np.array(values))
    assert sum(counts.values()) == len(values)
    assert set(counts) == {rounded(value) for value in values}


@PROPERTY
@given(st.lists(st.integers(1, 10**10), min_size=5, max_size=300))
def test_percentiles_of_counts_are_those_of_the_values_within_their_rounding(values: list[int]) -> None:
    told = dict(percentiles_of_counts(counted(np.array(values))))
    exact = np.sort(np.array(values))
    for percent, value in told.items():
        position = max(int(np.ceil(percent / 100 * len(values) - 1e-9)), 1) - 1
        assert value == pytest.approx(exact[position], rel=0.01)


def test_latencies_up_to_the_median_are_one_and_the_tail_is_whole() -> None:
    launch = RequestCounts(104, 4, {1: 10, 2: 30, 3: 20, 5: 30, 90: 10})
    assert without_body(launch) == RequestCounts(104, 4, {3: 60, 5: 30, 90: 10})
    assert without_body(without_body(launch)) == without_body(launch)
    assert without_body(RequestCounts(4, 4, {})) == RequestCounts(4, 4, {})


def test_times_of_streams_up_to_their_p90_are_one() -> None:
    launch = RequestCounts(100, 0, {7: 100}, {"ttft": {1: 50, 2: 35, 3: 10, 4: 5}, "tpot": {}})
    assert without_body(launch).streams == {"ttft": {3: 95, 4: 5}, "tpot": {}}
    assert launch.of_streams("ttft") == RequestCounts(100, 0, {1: 50, 2: 35, 3: 10, 4: 5})
    assert launch.of_streams("itl") is None


def record_of(*launches: object) -> StreamRecord:
    return stream_record(Metrics(launches))  # type: ignore[arg-type]


def test_answers_that_come_whole_have_no_record() -> None:
    assert stream_record(Metrics((even_launch(),))) is None
    assert stream_percentiles(Metrics((even_launch(),))) == {}


def test_distributions_are_pooled_over_the_launches() -> None:
    record = record_of(stream_launch(ttft_ns=50 * MS, gap_ns=10 * MS), stream_launch(ttft_ns=90 * MS, gap_ns=30 * MS))
    for quantity, low, high, count in (("ttft", 50, 90, 120), ("itl", 10, 30, 1080), ("tpot", 10, 30, 120)):
        found = record.of(quantity)
        assert sum(found.histogram.counts) == count
        assert (found.percentiles[0][1], found.percentiles[-1][1]) == (low * MS, high * MS)


def test_a_reference_keeps_a_few_percentiles_of_each_time_and_answers_of_one_chunk_have_no_gaps() -> None:
    found = stream_percentiles(Metrics((stream_launch(),)))
    assert list(found) == ["ttft", "itl", "tpot"]
    assert dict(found["ttft"])[50] == 50 * MS
    record = record_of(stream_launch(chunks=1))
    assert (record.itl, record.tpot) == (None, None)
    assert list(stream_percentiles(Metrics((stream_launch(chunks=1),)))) == ["ttft"]


def test_tokens_over_time_count_every_token_of_the_window_once() -> None:
    one = stream_launch(ttft_ns=5 * MS, gap_ns=MS, chunks=10, rate_rps=20, seconds=3, output_tokens=30)
    moments = record_of(stream_launch(seconds=2), one).tokens_over_time
    assert [moment for moment, _ in moments] == pytest.approx(list(np.linspace(0, 3, len(moments) + 1)[1:]))
    assert sum(rate for _, rate in moments) * 3 / len(moments) == pytest.approx(20 * 3 * 30)


def test_mean_tokens_are_those_of_the_usage() -> None:
    record = record_of(stream_launch(output_tokens=25, input_tokens=128))
    assert (record.input_tokens, record.output_tokens) == ((128, 128, 128), (25, 25, 25))
    assert record_of(stream_launch()).input_tokens is None


def test_a_launch_without_a_stream_is_left_out() -> None:
    streams = stream_launch()
    broken = replace(streams, samples=replace(streams.samples, stream=None))
    assert record_of(streams, broken) == record_of(streams)
