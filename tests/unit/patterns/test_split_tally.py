"""The layer ``split``: sums over requests, whole and by their time in the server, and of streams before and after."""

from pytest_mlpatterns.patterns.tally import SplitTally
from pytest_mlpatterns.records.telemetry import PatternStats, merged_layers

MS = 1_000_000


def test_counters_are_sums_and_histograms_are_the_sums_by_time() -> None:
    tally = SplitTally(-1)
    tally.add({"model_cpu": 40, "calls": 1}, 100)
    tally.add({"model_cpu": 50, "calls": 1}, 100)
    tally.add({"features/hop": 7}, 60)
    layer = tally.snapshot()
    assert (layer.position, layer.layer) == (-1, "split")
    assert layer.counters == {"requests": 3, "total_ns": 260, "model_cpu": 90, "calls": 2, "features/hop": 7}
    assert layer.histograms == {
        "requests": {100: 2, 60: 1},
        "total_ns": {100: 200, 60: 60},
        "model_cpu": {100: 90},
        "calls": {100: 2},
        "features/hop": {60: 7},
    }


def test_times_in_the_server_are_rounded_in_histograms_only() -> None:
    tally = SplitTally(0)
    tally.add({}, 1_000_001)
    tally.add({}, 1_000_002)
    layer = tally.snapshot()
    (bucket,) = layer.histograms["requests"]
    assert abs(bucket - MS) <= 0.008 * MS
    assert layer.histograms["total_ns"] == {bucket: 2_000_003}


def test_a_stream_counts_as_a_whole_until_its_first_chunk_and_after_it() -> None:
    tally = SplitTally(0)
    tally.add_stream({"model_cpu": 3}, 10, {"model_cpu": 9, "wire": 1}, total_ns=50, chunks=5)
    tally.add_stream({"model_cpu": 3}, 20, {"model_cpu": 3}, total_ns=21, chunks=1)  # of one chunk: there is no rest
    assert tally.snapshot().counters == {
        "requests": 2,
        "total_ns": 71,
        "model_cpu": 12,
        "wire": 1,
        "ttft:requests": 2,
        "ttft:total_ns": 30,
        "ttft:model_cpu": 6,
        "tpot:requests": 1,
        "tpot:total_ns": 40,
        "tpot:model_cpu": 6,
        "tpot:wire": 1,
        "tpot:chunks": 4,
    }


def test_a_stream_without_chunks_counts_as_a_whole_only() -> None:
    tally = SplitTally(0)
    tally.add_stream({"model_cpu": 3}, 10, {"model_cpu": 4}, total_ns=11, chunks=0)
    assert tally.snapshot().counters == {"requests": 1, "total_ns": 11, "model_cpu": 4}


def test_a_split_adds_up_over_processes_and_windows() -> None:
    one, other = SplitTally(0), SplitTally(0)
    one.add({"wire": 1}, 10)
    before = PatternStats(layers=merged_layers([one.snapshot(), other.snapshot()]))
    one.add({"wire": 2}, 20)
    other.add({"wire": 3}, 20)
    (gained,) = PatternStats(layers=merged_layers([one.snapshot(), other.snapshot()])).since(before).layers
    assert gained.counters == {"requests": 2, "total_ns": 40, "wire": 5}
    assert gained.histograms == {"requests": {20: 2}, "total_ns": {20: 40}, "wire": {20: 5}}
