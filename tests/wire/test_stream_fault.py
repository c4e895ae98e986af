"""What is wrong with an answer that was to be a stream, and what it says of itself."""

from __future__ import annotations

import pytest

from pytest_mlpatterns.wire.stream_events import StreamReader
from pytest_mlpatterns.wire.stream_fault import LINE_BYTES, StreamFault, described_fault, error_text, fault_of
from pytest_mlpatterns.wire.stream_request import Asked

ASKED = Asked(stream=True, tokens=True)
DONE = b"data: [DONE]\n\n"


def read(data: bytes) -> StreamReader:
    reader = StreamReader(is_openai=True)
    reader.feed(data)
    return reader


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_a_stream_as_it_is_has_no_fault(coding: str) -> None:
    assert fault_of(read(DONE), has_chunks=True, asked=ASKED, needs_end=True, coding=coding) is None


def test_what_came_first_decides() -> None:
    broken = read(b"event: error\ndata: boom\n\n")
    assert fault_of(broken, has_chunks=False, asked=ASKED, needs_end=True, coding="br") is StreamFault.COMPRESSED
    assert fault_of(broken, has_chunks=False, asked=ASKED, needs_end=True) is StreamFault.ERROR_EVENT
    assert fault_of(read(b""), has_chunks=False, asked=ASKED, needs_end=True) is StreamFault.CUT_OFF
    assert fault_of(read(b""), has_chunks=False, asked=ASKED, needs_end=False) is StreamFault.EMPTY_STREAM


def test_a_request_for_no_tokens_gets_none() -> None:
    assert fault_of(read(DONE), has_chunks=False, asked=ASKED._replace(tokens=False), needs_end=True) is None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"error": {"message": "no memory", "code": 500}}', "no memory"),
        (b'{"error": "no memory"}', "no memory"),
        (b'{"object": "error", "message": "no memory"}', "no memory"),
        (b'{"detail": "no memory"}', "no memory"),
        (b'{"detail": [{"loc": 1}]}', '{"detail": [{"loc": 1}]}'),
        (b'{"error": {"code": 5}}', '{"error": {"code": 5}}'),
        (b'{"choices": [{"finish_reason": "abort"}]}', '{"choices": [{"finish_reason": "abort"}]}'),
        (b'"no\\nmemory"', "no"),
        (b"boom\nat line 1", "boom"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", ""),
    ],
)
def test_an_error_object_gives_one_line(data: bytes, text: str) -> None:
    assert error_text(data) == text


def test_a_line_is_cut() -> None:
    page = b"\n \n<html>" + b"x" * 100_000
    words = described_fault(StreamFault.NO_STREAM, read(b""), media_type="text/html", opening=page)
    assert words.startswith("text/html, expected text/event-stream: <html>xxx")
    assert len(words) < LINE_BYTES + 50
    assert len(error_text(b"y" * 100_000)) == LINE_BYTES
