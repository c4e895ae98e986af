"""Answers by moment: whole ones at completions, shares of those in flight, and edges that do not round."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import MS, PROPERTY, START_NS, S, launch, samples, usage

from pytest_mlpatterns.analysis.metrics.blocked_values import AnswerCounts
from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks


def counts(due: list[int], done: list[int], *, closed: bool = True, weights: list[int] | None = None) -> AnswerCounts:
    of_each = None if weights is None else np.array(weights)
    return AnswerCounts(np.array(due, dtype=np.int64), np.array(done, dtype=np.int64), closed=closed, weights=of_each)


def cut(done: list[int], edges: list[float]) -> tuple[list[float], list[float]]:
    """Answers of an open loop between the cuts, and the time between them."""
    found = counts(done, done, closed=False)
    cuts = found.cuts(np.array(edges))
    return np.diff(found.by(cuts)).tolist(), np.diff(cuts).tolist()


def test_blocks_are_cut_at_the_last_completion_before_their_edge() -> None:
    assert cut([90, 140, 190, 240], [100, 200, 300]) == ([2, 1], [100, 50])


def test_an_edge_a_block_away_from_the_last_completion_stays_where_it_is() -> None:
    assert cut([90, 140], [100, 200, 300, 400]) == ([1, 0, 0], [50, 160, 100])


def test_without_completions_blocks_are_as_long_as_the_clock_says() -> None:
    assert cut([], [0, 100, 200]) == ([0, 0], [100, 100])


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
