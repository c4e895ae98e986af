"""What the generator writes down: columns as numpy reads them, and a sample of answers that is even and bounded."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY

from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.messages import LoadResult
from pytest_mlpatterns.loadgen.recorder import ResponseSample, SampleRecorder, StreamColumns
from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer
from pytest_mlpatterns.records.launch import GeneratorReport, Warmup
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.samples import Window

ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**62),
        st.integers(0, 2**62),
        st.integers(0, 2**62),
        st.integers(-4, 599),
        st.integers(0, 2**32 - 1),
        st.integers(0, 255),
        st.integers(0, 2**32 - 1),
    ),
    max_size=20,
)
COLUMNS = ("due_ns", "sent_ns", "done_ns", "outcome", "request", "target", "received_bytes")


def result(recording: SampleRecorder) -> LoadResult:
    """What the generator answers, after its trip over the pipe."""
    made = LoadResult(
        columns=recording.columns(),
        window=Window(0, 1),
        warmup=Warmup(0, 0, None),
        generator=GeneratorReport(0, 1, 0, 0),
        answers=[],
        stopped_early=False,
    )
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(made, protocol=5, buffer_callback=buffers.append)
    found = pickle.loads(text, buffers=[bytes(buffer) for buffer in buffers])
    assert isinstance(found, LoadResult)
    return found


@PROPERTY
@given(ROWS)
def test_every_row_arrives_as_it_was_written(rows: list[tuple[int, ...]]) -> None:
    recording = SampleRecorder()
    for row in rows:
        recording.add(*row)
    assert len(recording) == len(rows)
    samples = samples_of(result(recording))
    found = [getattr(samples, name).tolist() for name in COLUMNS]
    assert [list(column) for column in zip(*rows, strict=True)] == (found if rows else [])
    assert all(getattr(samples, name).size == len(rows) for name in COLUMNS)


def test_columns_have_the_types_that_samples_promise() -> None:
    recording = SampleRecorder()
    recording.add(1, 2, 3, 200, 4, 5, 6)
    samples = samples_of(result(recording))
    types = [getattr(samples, name).dtype for name in COLUMNS]
    assert types == [np.int64, np.int64, np.int64, np.int16, np.uint32, np.uint8, np.uint32]


def test_the_median_is_of_the_successful_requests_from_a_row_on() -> None:
    recording = SampleRecorder()
    for latency, outcome in ((900, 200), (10, 200), (5000, 500), (30, 204), (20, 200), (1, Failure.TIMEOUT)):
        recording.add(1000, 1000, 1000 + latency, outcome, 0, 0, 0)
    assert recording.median_latency_ns(1) == 20
    assert recording.median_latency_ns(3) == 30  # of two the upper one
    assert recording.median_latency_ns(5) is None
    assert recording.median_latency_ns(6) is None


def test_the_median_time_to_first_chunk_is_that_of_the_successful_streams_from_a_row_on() -> None:
    streams = StreamColumns()
    recording = SampleRecorder(streams)
    rows = ((0, [900, 901], 200), (100, [140], 200), (0, [1], 500), (50, [], 200), (0, [60, 99], 200))
    for due_ns, chunks_ns, outcome in rows:
        answer = StreamedAnswer()
        answer.chunk_ns.extend(chunks_ns)
        recording.adder_of(answer)(due_ns, due_ns, 1000, outcome, 0, 0, 0)
    assert recording.median_ttft_ns(0) == 60
    assert recording.median_ttft_ns(1) == 60  # of 40 and 60 the upper one
    assert recording.median_ttft_ns(5) is None
    assert SampleRecorder().median_ttft_ns(0) is None


def offered(limit: int, count: int) -> ResponseSample:
    answers = ResponseSample(limit)
    for number in range(count):
        answers.offer(number, b"%d" % number)
    return answers


@PROPERTY
@given(limit=st.integers(1, 50), count=st.integers(0, 1000))
def test_kept_answers_are_bounded_evenly_spread_and_in_order(limit: int, count: int) -> None:
    kept = offered(limit, count).kept
    numbers = [answer.request for answer in kept]
    assert len(kept) <= limit
    assert len(kept) >= min(count, (limit + 1) // 2)
    assert all(answer.body == b"%d" % answer.request for answer in kept)
    strides = set(np.diff(numbers).tolist())
    assert len(strides) <= 1
    if kept:
        stride = strides.pop() if strides else max(count, 1)
        assert numbers[0] == 0
        assert numbers[-1] + stride >= count


@pytest.mark.parametrize("count", [0, 1, 7, 8])
def test_while_there_is_room_every_answer_is_kept(count: int) -> None:
    assert [answer.request for answer in offered(8, count).kept] == list(range(count))


def test_one_more_than_there_is_room_for_drops_every_second() -> None:
    assert [answer.request for answer in offered(4, 5).kept] == [0, 2, 4]


def test_cleared_answers_begin_anew() -> None:
    answers = offered(4, 100)
    answers.clear()
    assert answers.kept == []
    for number in range(4):
        answers.offer(number, b"")
    assert [answer.request for answer in answers.kept] == [0, 1, 2, 3]


@PROPERTY
@given(sizes=st.lists(st.integers(0, 40), max_size=200), limit=st.integers(1, 20))
def test_kept_answers_are_bounded_in_bytes_too(sizes: list[int], limit: int) -> None:
    answers = ResponseSample(limit, limit_bytes=30)
    for number, size in enumerate(sizes):
        answers.offer(number, bytes(size))
    assert len(answers.kept) <= limit
    assert sum(len(answer.body) for answer in answers.kept) <= 30
    assert answers.is_cut or len(answers.kept) >= min(len(sizes), (limit + 1) // 2)
    assert answers.is_cut == (sum(sizes) > 30 or any(size > 30 for size in sizes)) or len(sizes) > limit
    assert bool(answers.kept) == any(size <= 30 for size in sizes)


def test_long_answers_are_spread_evenly_as_well() -> None:
    answers = ResponseSample(200, limit_bytes=45)
    for number in range(16):
        answers.offer(number, bytes(10))
    assert [answer.request for answer in answers.kept] == [0, 4, 8, 12]
    assert answers.is_cut


def test_the_answer_after_one_that_is_too_long_is_kept() -> None:
    answers = ResponseSample(4, limit_bytes=30)
    answers.skip()
    answers.offer(1, bytes(20), bytes(20))
    answers.offer(2, bytes(20), bytes(10))
    assert [answer.request for answer in answers.kept] == [2]
    assert answers.is_cut
    answers.clear()
    assert not answers.is_cut


def test_what_a_failed_answer_said_is_kept_only_if_its_request_was_due_in_the_window() -> None:
    streams = StreamColumns()
    recording = SampleRecorder(streams)

    def fail(due_ns: int, request: int) -> None:
        answer = StreamedAnswer()
        answer.read_type("text/html")
        recording.adder_of(answer)(due_ns, due_ns, due_ns + 9, Failure.NO_STREAM, request, 0, 0)

    fail(1, 0)
    assert streams.failed[Failure.NO_STREAM].request == 0
    streams.drop_texts(5)
    fail(4, 1)  # on its way when the window opened
    assert streams.failed == {}
    fail(5, 2)
    fail(6, 3)
    assert streams.failed[Failure.NO_STREAM].request == 2
