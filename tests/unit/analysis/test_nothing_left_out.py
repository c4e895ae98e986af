"""No request that was due is left out of a metric in silence: it is judged, it failed, or a sentence names it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.counted import counted_requests
from support.each_row import each_row
from support.streams import streamed
from support.synthetic import MS, PROPERTY, START_NS, launch

from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.records.outcomes import Failure, grpc_outcome

OUTCOMES = (200, 204, 299, 302, 404, 500, 503, grpc_outcome(14), *(failure.value for failure in Failure))
ANSWER = st.tuples(st.sampled_from(OUTCOMES), st.integers(0, 4), st.sampled_from([-1, 0, 1, 3, 2**31 - 1]))
"""Outcome, chunks and usage of an answer."""


def metrics_of(*launches: list[tuple[int, int, int]], received_bytes: int = 500) -> Metrics:
    """Launches of these answers, each due 10 ms after the one before."""
    made = []
    for answers in launches:
        due = [START_NS + 10 * MS * number for number in range(len(answers))]
        after = [[MS * (place + 1) for place in range(chunks)] for _, chunks, _ in answers]
        found = streamed(due, after, outcome=[one[0] for one in answers], output_tokens=[one[2] for one in answers])
        size = np.full(found.received_bytes.size, received_bytes, np.uint32)
        made.append(launch(replace(found, received_bytes=size), seconds=2))
    return Metrics(tuple(made))


@given(st.lists(st.lists(ANSWER, max_size=40), min_size=1, max_size=2))
@PROPERTY
def test_every_request_due_is_judged_failed_or_named(launches: list[list[tuple[int, int, int]]]) -> None:
    found = metrics_of(*([(200, 4, 3), *answers] for answers in launches))
    for metric, parts in counted_requests(found).items():
        assert sum(parts) == found.requests, f"{metric}: {parts} of {found.requests}"


@each_row("outcome", OUTCOMES)
def test_each_kind_of_outcome_counts_once(outcome: int) -> None:
    found = metrics_of([(200, 4, 3)] * 3 + [(outcome, chunks, usage) for chunks in (0, 1, 4) for usage in (-1, 0, 3)])
    assert found.requests == 12
    for metric, parts in counted_requests(found).items():
        assert sum(parts) == found.requests, metric
        assert parts.failed == (0 if 200 <= outcome < 300 else 9), metric


@each_row("failure", [failure for failure in Failure if failure.is_answer])
def test_an_answer_that_does_not_count_is_infinitely_late_and_brings_no_token(failure: Failure) -> None:
    good = [(200, 4, -1)] * 60
    found, whole = metrics_of(good + [(failure, 4, -1)] * 60), metrics_of(good)
    assert found.error_ratio.value == pytest.approx(0.5)
    for estimate in (found.latency_ns(90), found.ttft_ns(90), found.tpot_ns(90)):
        assert estimate.high == np.inf
    assert found.output_tokens_rps.value <= whole.output_tokens_rps.value
    assert found.goodput_rps("latency<1s").value == pytest.approx(whole.goodput_rps("latency<1s").value)


def test_a_launch_without_a_stream_is_counted_beside_one_with_streams() -> None:
    found = metrics_of([(200, 4, -1)] * 60, [(Failure.NO_STREAM, 0, -1)] * 60)
    ttft = found.ttft_ns(50)
    assert ttft.high == np.inf


@each_row(
    ("usage", "received_bytes", "tokens", "is_named"),
    (9, 500, 9, False),
    (500, 500, 500, False),
    (501, 500, 4, True),
    (2_000_000_000, 500, 4, True),
    (0, 500, 4, True),
    (2_000_000_000, 0, 2_000_000_000, False),
    (-1, 500, 4, False),
)
def test_an_impossible_usage_is_not_believed(usage: int, received_bytes: int, tokens: int, is_named: bool) -> None:
    found = metrics_of([(200, 4, usage)] * 20, received_bytes=received_bytes)
    assert found.output_tokens.value == tokens
    notes = [note for note in found.stream_notes() if "usage that cannot be" in note]
    assert bool(notes) == is_named
    assert not notes or notes[0].startswith("20 answers with a usage that cannot be")


def test_notes_name_what_some_answers_have_not() -> None:
    found = metrics_of([(200, 4, -1)] * 20 + [(200, 1, -1)] * 5 + [(200, 0, -1)] * 2)
    assert found.stream_notes() == [
        "answers of too few tokens are left out: of 27 answers 2 out of TTFT, 7 out of ITL and 7 out of TPOT"
    ]
    assert metrics_of([(200, 4, -1)] * 20).stream_notes() == []
    assert metrics_of([(200, 1, -1)] * 20).stream_notes() == []  # then there is no TPOT, which a report shows
