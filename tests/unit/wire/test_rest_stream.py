"""Streams of REST JSON: what is written is read again, however it is divided, and what is no stream is refused."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.wire import REST_JSON, WireError, decode_answer
from pytest_mlpatterns.wire.kserve_v1 import (
    DONE,
    ChunkReader,
    StreamError,
    chunks_in,
    encode_chunk,
    encode_error_event,
    is_event_stream,
)

JSON = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=5)


@PROPERTY
@given(chunks=st.lists(JSON, max_size=6), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_chunks_survive_any_division(chunks: list[Any], cuts: list[int]) -> None:
    written = b"".join(map(encode_chunk, chunks)) + DONE
    reader = ChunkReader()
    edges = [0, *sorted(cut for cut in cuts if cut < len(written)), len(written)]
    read = [chunk for start, end in pairwise(edges) for chunk in reader.feed(written[start:end])]
    assert read == chunks
    assert reader.is_done


def test_a_whole_stream_is_one_output() -> None:
    body = encode_chunk("a") + encode_chunk({"b": 1}) + DONE
    assert decode_answer(REST_JSON, body, {"content-type": "text/event-stream"}) == [["a", {"b": 1}]]


def test_an_error_event_is_raised() -> None:
    with pytest.raises(StreamError, match=r"^the model raised ValueError: a\nb$"):
        chunks_in(encode_chunk(1) + encode_error_event("the model raised ValueError: a\nb"))


@each_row(
    ("body", "reason"),
    (b"", "cut off"),
    (encode_chunk(1), "cut off"),
    (b"data: {\n\n", "not JSON"),
    (b"data: 1\n\ndata: [DONE]", "cut off"),
    (b"data: " + b"1" * (17 * 2**20), "expected at most"),
)
def test_what_is_no_whole_stream_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        chunks_in(body)


@pytest.mark.parametrize("chunk", [float("nan"), object()])
def test_what_json_cannot_hold_is_refused(chunk: Any) -> None:
    with pytest.raises(WireError):
        encode_chunk(chunk)


@each_row(
    ("kind", "expected"),
    [("text/event-stream", True), ("Text/Event-Stream; charset=utf-8", True), ("application/json", False), ("", False)],
)
def test_the_content_type_says_what_is_a_stream(kind: str, expected: bool) -> None:
    assert is_event_stream({"content-type": kind}) is expected
