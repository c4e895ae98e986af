"""Rows of samples: each keeps its own chunks, whatever is taken, joined or shifted."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.synthetic import PROPERTY, samples

from pytest_mlpatterns.analysis.metrics.samples import join_samples, shift_samples, take_rows
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.samples import Samples, StreamSamples, Window

_CHUNKS = st.lists(st.lists(st.integers(1, 100), max_size=4), min_size=1, max_size=6)


def streamed(chunks: list[list[int]], first_due_ns: int = 1000) -> Samples:
    """Requests with these chunks, each 10 ns after the previous one."""
    plain = samples(first_due_ns + 10 * np.arange(len(chunks)), 5)
    stream = StreamSamples(
        first_byte_ns=np.array([min(row, default=0) for row in chunks], dtype=np.int64),
        chunk_count=np.array([len(row) for row in chunks], dtype=np.uint32),
        output_tokens=np.array([len(row) or -1 for row in chunks], dtype=np.int32),
        input_tokens=np.full(len(chunks), -1, dtype=np.int32),
        chunk_ns=np.array([moment for row in chunks for moment in row], dtype=np.int64),
    )
    return replace(plain, stream=stream)


def chunks_of(found: Samples) -> list[list[int]]:
    ends = np.cumsum(found.stream.chunk_count.astype(np.int64))
    return [part.tolist() for part in np.split(found.stream.chunk_ns, ends[:-1])]


@PROPERTY
@given(_CHUNKS, st.data())
def test_a_row_takes_its_chunks_along(chunks: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(chunks) - 1), min_size=1, max_size=8))
    found = take_rows(streamed(chunks), np.array(rows))
    assert chunks_of(found) == [chunks[row] for row in rows]
    assert found.due_ns.tolist() == [1000 + 10 * row for row in rows]


@PROPERTY
@given(_CHUNKS, _CHUNKS)
def test_joined_recordings_are_in_the_order_of_completion(first: list[list[int]], second: list[list[int]]) -> None:
    found = join_samples([streamed(first), streamed(second, first_due_ns=1003)])
    assert found.done_ns.tolist() == sorted(found.done_ns.tolist())
    expected = {1000 + 10 * row: chunks for row, chunks in enumerate(first)}
    expected |= {1003 + 10 * row: chunks for row, chunks in enumerate(second)}
    assert dict(zip(found.due_ns.tolist(), chunks_of(found), strict=True)) == expected


def test_shifted_requests_keep_an_answer_that_never_began() -> None:
    found = shift_samples(streamed([[3, 4], []]), 100)
    assert found.stream.first_byte_ns.tolist() == [103, 0]
    assert found.stream.chunk_ns.tolist() == [103, 104]
    assert (found.due_ns[0], found.sent_ns[0], found.done_ns[0]) == (1100, 1100, 1105)


def test_requests_without_streams_are_joined_and_shifted_too() -> None:
    plain = samples([1, 2], 5)
    assert join_samples([shift_samples(plain, 10), plain]).due_ns.tolist() == [1, 2, 11, 12]
    assert take_rows(plain, np.array([1])).stream is None


def test_a_request_without_a_2xx_answer_failed() -> None:
    found = samples([1, 2, 13], 5, outcome=[200, 500, Failure.CLOSED])
    assert found.succeeded.tolist() == [True, False, False]
    assert found.failed.tolist() == [False, True, True]
    assert found.due_in(Window(0, 10)).tolist() == [True, True, False]
