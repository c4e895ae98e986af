"""What reports get of streams: distributions, and tokens over time."""

import numpy as np
import pytest
from msgspec.structs import replace
from support.streams import stream_launch
from support.synthetic import MS, even_launch

from pytest_mlpatterns.analysis.metrics.distribution_summary import stream_percentiles, stream_record
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.records.latency import StreamRecord


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


def test_a_reference_keeps_a_few_percentiles_of_each_time() -> None:
    found = stream_percentiles(Metrics((stream_launch(),)))
    assert list(found) == ["ttft", "itl", "tpot"]
    assert dict(found["ttft"])[50] == 50 * MS


def test_answers_of_one_chunk_have_no_gaps() -> None:
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
