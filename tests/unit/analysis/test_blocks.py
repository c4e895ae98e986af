"""One launch's blocks: each metric for declared arrivals, latencies and usage, how sure it is, and where it is cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import MS, PROPERTY, START_NS, S, even_launch, launch, noisy_launch, samples, usage

from pytest_mlpatterns.analysis.metrics.blocked_values import AnswerCounts
from pytest_mlpatterns.analysis.metrics.blocks import BLOCK_NS, MOST_BLOCKS, LaunchBlocks
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.records.launch import Launch, LaunchValue
from pytest_mlpatterns.records.outcomes import Failure

EMPTY = launch(samples([], []))


def value(found: LaunchValue | None) -> float:
    return found.value


@each_row(("seconds", "blocks"), [(3.0, 12), (2.6, 10), (10.0, 40), (0.1, 8), (1.0, 8)])
def test_blocks_are_a_quarter_of_a_second_and_at_least_eight(seconds: float, blocks: int) -> None:
    assert BLOCK_NS == S // 4
    assert LaunchBlocks(launch(samples([START_NS], MS), seconds=seconds)).count == blocks


@pytest.mark.parametrize(("seconds", "blocks"), [(599.0, 2396), (3_600.0, MOST_BLOCKS), (86_400.0, MOST_BLOCKS)])
def test_a_long_window_has_longer_blocks_instead_of_more(seconds: float, blocks: int) -> None:
    assert MOST_BLOCKS * BLOCK_NS == 600 * S
    found = LaunchBlocks(launch(samples([START_NS, START_NS + int(seconds * S) - 1], MS), seconds=seconds))
    assert found.count == blocks
    assert value(found.percentile(50)) == MS


@PROPERTY
@given(
    latencies=st.lists(st.integers(1, 10**12), min_size=1, max_size=300),
    percentile=st.floats(min_value=0.01, max_value=99.99),
)
def test_a_percentile_is_that_of_numpy(latencies: list[int], percentile: float) -> None:
    due = START_NS + np.arange(len(latencies)) * MS
    found = LaunchBlocks(launch(samples(due, latencies))).percentile(percentile)
    assert value(found) == float(np.percentile(np.array(latencies), percentile))


@pytest.mark.parametrize("percentile", [50, 90, 99])
def test_a_percentile_of_more_values_than_its_grid_is_that_of_numpy(percentile: float) -> None:
    rng = np.random.default_rng(3)
    latencies = (4 * MS * np.exp(rng.normal(0, 0.5, 20_000))).astype(np.int64)
    due = START_NS + np.arange(latencies.size) * (3 * S // latencies.size)
    found = LaunchBlocks(launch(samples(due, latencies))).percentile(percentile)
    assert found.value == float(np.percentile(latencies, percentile))
    assert 0 < found.relative_error < 0.05


def test_requests_due_in_the_window_count_even_where_their_answers_came_after_it() -> None:
    """The last second stalls: nothing answers before the window ends, and every latency of it is seen."""
    due = START_NS + np.arange(300) * 10 * MS
    release = START_NS + 4 * S
    latency = np.where(due < START_NS + 2 * S, 5 * MS, release - due)
    blocks = LaunchBlocks(launch(samples(due, latency)))
    assert blocks.requests == 300
    assert value(blocks.percentile(99)) == float(np.percentile(latency, 99))
    assert value(blocks.percentile(99)) > S


def test_requests_due_before_or_after_the_window_do_not_count() -> None:
    due = [START_NS - 1, START_NS, START_NS + 3 * S - 1, START_NS + 3 * S]
    blocks = LaunchBlocks(launch(samples(due, [7 * MS, 1 * MS, 1 * MS, 7 * MS], outcome=[500, 200, 200, 500])))
    assert blocks.requests == 2
    assert blocks.failures == {}
    assert blocks.latencies_ns.tolist() == [MS, MS]


def test_failed_requests_are_counted_by_kind_and_have_no_latency() -> None:
    due = START_NS + np.arange(6) * 10 * MS
    outcome = [200, 204, 500, 500, Failure.TIMEOUT, 302]
    blocks = LaunchBlocks(launch(samples(due, [MS, MS, 9 * MS, 9 * MS, 9 * MS, 9 * MS], outcome=outcome)))
    assert blocks.failures == {-1: 1, 302: 1, 500: 2}
    assert blocks.latencies_ns.tolist() == [MS, MS]
    assert value(blocks.error_rate()) == pytest.approx(4 / 6)


@PROPERTY
@given(interval=st.integers(1 * MS, 100 * MS), phase=st.floats(min_value=0, max_value=1), seconds=st.floats(0.9, 5))
def test_even_completions_give_the_rate_whatever_the_window_cuts(interval: int, phase: float, seconds: float) -> None:
    first = START_NS - 5 * interval + int(phase * interval)
    count = int(seconds * S) // interval + 10
    due = first + np.arange(count) * interval
    found = LaunchBlocks(launch(samples(due, 0), seconds=seconds)).throughput()
    assert value(found) == pytest.approx(S / interval, rel=1e-6)
    assert found.relative_error == pytest.approx(0, abs=1e-6)


def test_a_stall_at_the_start_in_the_middle_or_at_the_end_lowers_throughput() -> None:
    due = START_NS - S // 2 + np.arange(350) * 10 * MS
    for begin, end in ((-0.5, 1.0), (1.0, 2.0), (2.0, 9.0)):
        left = due[(due < START_NS + int(begin * S)) | (due >= START_NS + int(end * S))]
        assert value(LaunchBlocks(launch(samples(left, 0))).throughput()) == pytest.approx(100 * 2 / 3, rel=0.02)


def test_only_successful_answers_are_throughput() -> None:
    due = START_NS - S // 2 + np.arange(350) * 10 * MS
    half = np.where(np.arange(350) % 2, 200, 500)
    assert value(LaunchBlocks(launch(samples(due, 0, outcome=half))).throughput()) == pytest.approx(50, rel=0.01)


def test_responses_to_warm_up_requests_within_the_window_are_throughput() -> None:
    due = START_NS - S + np.arange(500) * 10 * MS
    assert value(LaunchBlocks(launch(samples(due, 700 * MS))).throughput()) == pytest.approx(100, rel=1e-6)


def test_average_system_load_is_the_share_of_all_cores() -> None:
    blocks = LaunchBlocks(even_launch(used=usage(busy_cores=0.5, machine_cores=1.5, cores=4)))
    assert value(blocks.asl()) == pytest.approx(0.125, rel=1e-6)
    course = blocks.load_over_time()
    assert [moment for moment, _, _ in course] == pytest.approx([0.25 * number for number in range(1, 13)])
    assert [own for _, own, _ in course] == pytest.approx([0.125] * 12, rel=1e-6)
    assert [machine for _, _, machine in course] == pytest.approx([0.375] * 12, rel=1e-6)


def test_blocks_without_a_reading_are_left_out_of_the_course_of_memory() -> None:
    used = usage(seconds=1.0)
    course = LaunchBlocks(even_launch(used=used)).memory_over_time()
    assert [moment for moment, _ in course] == pytest.approx([0.25 * number for number in range(1, 8)])


def test_memory_is_the_highest_reading_of_the_window_and_of_each_block() -> None:
    """Around the window the synthetic readings are ten times as high."""
    blocks = LaunchBlocks(even_launch(used=usage(rss_bytes=(100,) * 20 + (300,) + (100,) * 40)))
    course = blocks.memory_over_time()
    assert [moment for moment, _ in course] == pytest.approx([0.25 * number for number in range(1, 13)])
    assert [highest for _, highest in course] == [100.0] * 4 + [300.0] + [100.0] * 7
    assert value(blocks.peak_memory()) == 300


def test_peak_memory_falls_back_on_all_readings_where_none_is_in_the_window() -> None:
    far = usage(start_ns=START_NS - 100 * S, rss_bytes=(100,))
    assert value(LaunchBlocks(even_launch(used=far)).peak_memory()) == 1000


def test_sizes_are_means_over_the_successful_requests() -> None:
    due = START_NS + np.arange(4) * MS
    of = samples(due, MS, outcome=[200, 200, 200, 500], request=[0, 1, 1, 0], received_bytes=[10, 20, 30, 10_000])
    blocks = LaunchBlocks(launch(of, request_bytes=(100, 400)))
    assert value(blocks.request_bytes()) == 300
    assert value(blocks.response_bytes()) == 20


def test_latency_counts_from_when_a_request_was_due_and_a_start_is_the_launch_s_own() -> None:
    due = START_NS + np.arange(300) * 10 * MS
    blocks = LaunchBlocks(launch(samples(due, 5 * MS, lag_ns=2 * MS), cold_start_ns=5 * S))
    assert value(blocks.percentile(50)) == 5 * MS
    assert np.all(blocks.send_lag_ns == 2 * MS)
    assert value(blocks.cold_start()) == 5 * S
    assert LaunchBlocks(launch(samples([START_NS], MS), cold_start_ns=None)).cold_start() is None


@each_row("metric", ["throughput", "error_rate", "asl", "cpu_per_request", "request_bytes"])
def test_without_a_request_there_is_no_value(metric: str) -> None:
    read = METRICS[metric].of
    assert read(LaunchBlocks(EMPTY)) is None


@pytest.mark.parametrize("metric", ["asl", "cpu_per_request", "peak_memory"])
def test_without_the_processes_there_is_no_load(metric: str) -> None:
    blocks, read = LaunchBlocks(even_launch()), METRICS[metric].of
    assert read(blocks) is None
    assert blocks.load_over_time() == []
    assert blocks.memory_over_time() == []


def test_a_window_without_length_has_no_course_of_the_load() -> None:
    assert LaunchBlocks(launch(samples([START_NS - MS], MS), seconds=0, used=usage())).load_over_time() == []


def test_a_launch_without_success_has_only_error_rate_and_load() -> None:
    due = START_NS + np.arange(100) * 10 * MS
    blocks = LaunchBlocks(launch(samples(due, MS, outcome=503), used=usage()))
    assert value(blocks.error_rate()) == 1.0
    assert value(blocks.asl()) == pytest.approx(0.25)
    for found in (
        blocks.throughput(),
        blocks.used_per_answer("cpu_ns"),
        blocks.request_bytes(),
        blocks.response_bytes(),
    ):
        assert found is None
    assert blocks.percentile(50) is None


def test_drifting_blocks_are_less_sure_than_even_ones() -> None:
    due = START_NS - S // 2 + np.arange(700) * 5 * MS
    drift = np.where((due - START_NS) // S % 2, 8 * MS, 4 * MS)
    even, drifting = (LaunchBlocks(launch(samples(due, latency))).percentile(50) for latency in (4 * MS, drift))
    assert even.relative_error == pytest.approx(0, abs=1e-9)
    assert drifting.relative_error > 0.1


def test_the_last_blocks_are_as_unsure_as_any_others() -> None:
    def error(first: int) -> float:
        due = START_NS + first * BLOCK_NS + np.arange(150) * 5 * MS
        found = LaunchBlocks(launch(samples(due, np.repeat([2 * MS, 4 * MS, 8 * MS], 50)))).location()
        return found.relative_error

    assert error(9) == pytest.approx(error(4), rel=0.25)
    assert error(9) > 0.1


@PROPERTY
@given(seed=st.integers(0, 1000), factor=st.floats(min_value=0.5, max_value=4))
def test_scaling_all_latencies_scales_every_percentile_and_no_error(seed: int, factor: float) -> None:
    plain = noisy_launch(seed, seconds=1.0)
    due, latency = plain.samples.due_ns, plain.samples.done_ns - plain.samples.due_ns
    slower = launch(samples(due, (latency * factor).astype(np.int64), outcome=plain.samples.outcome), seconds=1.0)
    one, other = LaunchBlocks(plain).percentile(50), LaunchBlocks(slower).percentile(50)
    assert other.value == pytest.approx(one.value * factor, rel=1e-6)
    assert other.relative_error == pytest.approx(one.relative_error, rel=1e-3, abs=1e-9)


@each_row("offset", range(1, 8))
def test_a_window_on_a_machine_that_runs_for_months_has_its_first_request(offset: int) -> None:
    """After 104 days nanoseconds no longer fit a float, and an edge may come to lie after the window's first moment."""
    start = 2**53 + offset
    due = start + np.arange(300) * 10 * MS
    blocks = LaunchBlocks(launch(samples(due, 5 * MS), start_ns=start))
    assert blocks.requests == 300
    assert value(blocks.percentile(50)) == 5 * MS


def rising(factor: float, *, scatter: float = 0.02, seconds: float = 3.0) -> LaunchBlocks:
    """Latency that grows evenly by this factor through the window."""
    rng = np.random.default_rng(11)
    due = START_NS + np.arange(int(seconds * 200)) * 5 * MS
    course = factor ** ((due - START_NS) / (seconds * S))
    latency = 4 * MS * course * np.exp(rng.normal(0, scatter, due.size))
    return LaunchBlocks(launch(samples(due, latency.astype(np.int64)), seconds=seconds))


@each_row(("factor", "sign"), [(1.5, "+"), (0.6, "-"), (3.0, "+"), (1.0, ""), (1.05, ""), (0.95, "")])
def test_a_latency_that_rises_or_falls_by_more_than_a_tenth_through_the_window_is_said(
    factor: float, sign: str
) -> None:
    said = rising(factor).trend()
    assert (said is None) is (sign == "")
    assert not sign or said.startswith(f"not stationary: the median latency changed by {sign}")
    assert not sign or said.endswith("% through the 3.0 s window")


def test_a_trend_that_could_be_chance_is_not_said() -> None:
    rng = np.random.default_rng(13)
    due = START_NS + np.arange(600) * 5 * MS
    wild = np.exp(rng.normal(0, 0.5, 12))[np.minimum((due - START_NS) // (S // 4), 11)]
    assert LaunchBlocks(launch(samples(due, (4 * MS * wild).astype(np.int64)))).trend() is None


def test_too_few_blocks_with_answers_have_no_trend() -> None:
    due = START_NS + np.arange(7) * S // 4
    assert LaunchBlocks(launch(samples(due, np.arange(1, 8) * MS))).trend() is None


def test_the_performance_coefficient_is_one_over_rtm_in_seconds_and_asl() -> None:
    latency_ns = np.where(np.arange(700) % 3 == 0, 40 * MS, 4 * MS)
    blocks = LaunchBlocks(even_launch(latency_ns=latency_ns, used=usage(0.25)))
    assert value(blocks.performance_coefficient()) == pytest.approx(1 / (0.004 * 0.125))


@pytest.mark.parametrize(
    "without",
    [
        launch(samples([], []), used=usage(0.25)),
        even_launch(),
        even_launch(used=usage(0.0)),
        launch(samples([START_NS + MS], MS, outcome=500), used=usage(0.25)),
    ],
    ids=["no request", "no usage", "no load", "all failed"],
)
def test_there_is_no_performance_coefficient_without_a_response_time_and_a_load(without: Launch) -> None:
    assert LaunchBlocks(without).performance_coefficient() is None


def counts(due: list[int], done: list[int], *, closed: bool = True, weights: list[int] | None = None) -> AnswerCounts:
    of_each = None if weights is None else np.array(weights)
    return AnswerCounts(np.array(due, dtype=np.int64), np.array(done, dtype=np.int64), closed=closed, weights=of_each)


@each_row(
    ("done", "edges", "answers", "lengths"),
    ([90, 140, 190, 240], [100, 200, 300], [2, 1], [100, 50]),  # at the last completion before the edge
    ([90, 140], [100, 200, 300, 400], [1, 0, 0], [50, 160, 100]),  # which is a block away from the last edge
    ([], [0, 100, 200], [0, 0], [100, 100]),
)
def test_blocks_are_cut_at_the_last_completion_before_their_edge(
    done: list[int], edges: list[float], answers: list[float], lengths: list[float]
) -> None:
    found = counts(done, done, closed=False)  # of an open loop
    cuts = found.cuts(np.array(edges))
    assert (np.diff(found.by(cuts)).tolist(), np.diff(cuts).tolist()) == (answers, lengths)


@each_row(
    ("moment", "closed", "count"),
    (0, True, 0),
    (50, True, 0.5 + 0),
    (100, True, 1 + 0.25),  # one is answered, the other has been in flight for 50 of 200
    (150, True, 1 + 0.5),
    (250, True, 2),
    (900, True, 2),
    (150, False, 1),  # in an open loop a request may wait without being worked on
)
def test_a_request_in_flight_counts_by_the_share_of_its_time(moment: int, closed: bool, count: float) -> None:
    assert counts([0, 50], [100, 250], closed=closed).by(np.array([float(moment)])).tolist() == [count]


def test_an_answer_counts_for_its_weight() -> None:
    found = counts([0, 50], [100, 250], weights=[8, 16]).by(np.array([50.0, 150.0, 300.0]))
    assert found.tolist() == [4, 8 + 8, 24]


@PROPERTY
@given(
    spans=st.lists(st.tuples(st.integers(0, 10**10), st.integers(0, 10**9)), max_size=60),
    edges=st.lists(st.integers(-(10**9), 2 * 10**10), min_size=1, max_size=20).map(sorted),
)
def test_the_count_is_the_sum_of_the_clipped_shares(spans: list[tuple[int, int]], edges: list[int]) -> None:
    spans = sorted(spans, key=sum)
    found = counts([due for due, _ in spans], [due + took for due, took in spans]).by(np.array(edges, dtype=float))
    wanted = [
        sum(float(at >= due) if not took else min(max((at - due) / took, 0), 1) for due, took in spans) for at in edges
    ]
    assert found == pytest.approx(wanted, abs=1e-9)


class TestCountersOfFewRequests:
    """Two callers whose answers take 250 ms each; the window opens at any moment of both."""

    @staticmethod
    def blocks(first: float, second: float, *, seconds: float) -> LaunchBlocks:
        took, count = 250 * MS, int(seconds * 4) + 10
        begins = [START_NS - S - int(phase * took) for phase in (first, second)]
        due = np.concatenate([begin + np.arange(count) * took for begin in begins])
        due = due[due < START_NS + int(seconds * S)]
        return LaunchBlocks(launch(samples(due, took), seconds=seconds, used=usage(2.0, seconds=seconds)))

    @PROPERTY
    @given(first=st.floats(0, 1), second=st.floats(0, 1), seconds=st.floats(1, 4))
    def test_rate_and_cpu_time_are_exact(self, first: float, second: float, seconds: float) -> None:
        blocks = self.blocks(first, second, seconds=seconds)
        rate, cpu = blocks.throughput(), blocks.used_per_answer("cpu_ns")
        assert rate.value == pytest.approx(8, rel=1e-6)
        assert cpu.value == pytest.approx(S / 4, rel=1e-6)
        assert max(rate.relative_error, cpu.relative_error) < 1e-6
