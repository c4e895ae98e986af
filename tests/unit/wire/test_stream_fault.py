"""What is wrong with an answer that was to be a stream, and what it says of itself."""

import pytest
from support.each_row import each_row

from pytest_mlpatterns.wire.stream_events import StreamReader
from pytest_mlpatterns.wire.stream_request import Asked, StreamFault, described_fault, error_text, fault_of

ASKED = Asked(stream=True, tokens=True)
DONE = b"data: [DONE]\n\n"


def read(data: bytes) -> StreamReader:
    reader = StreamReader(is_openai=True)
    reader.feed(data)
    return reader


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_a_stream_as_it_is_has_no_fault(coding: str) -> None:
    assert fault_of(read(DONE), has_chunks=True, asked=ASKED, coding=coding) is None


def test_what_came_first_decides() -> None:
    broken, rest = read(b"event: error\ndata: boom\n\n"), StreamReader(is_openai=False)
    assert fault_of(broken, has_chunks=False, asked=ASKED, coding="br") is StreamFault.COMPRESSED
    assert fault_of(broken, has_chunks=False, asked=ASKED) is StreamFault.ERROR_EVENT
    assert fault_of(read(b""), has_chunks=False, asked=ASKED) is StreamFault.CUT_OFF
    assert fault_of(rest, has_chunks=False, asked=ASKED) is StreamFault.EMPTY_STREAM
    assert fault_of(rest, has_chunks=True, asked=ASKED, delimited=False) is StreamFault.CUT_OFF


def test_a_request_for_no_tokens_gets_none() -> None:
    assert fault_of(read(DONE), has_chunks=False, asked=ASKED._replace(tokens=False)) is None


@each_row(
    ("data", "text"),
    (b'{"error": {"message": "no memory", "code": 500}}', "no memory"),
    (b'{"error": "no memory"}', "no memory"),
    (b'{"object": "error", "message": "no memory"}', "no memory"),
    (b'{"detail": "no memory"}', "no memory"),
    (b'{"detail": [{"loc": 1}]}', '{"detail": [{"loc": 1}]}'),
    (b'{"error": {"code": 5}}', '{"error": {"code": 5}}'),
    (b'{"choices": [{"text": "OUTPUT", "finish_reason": "abort"}]}', "a choice ended with finish_reason abort"),
    (
        b'{"choices": [1, {"text": "OUTPUT", "finish_reason": {"type": "abort"}}]}',
        "a choice ended with finish_reason abort",
    ),
    (
        b'{"text": "OUTPUT", "meta_info": {"finish_reason": {"type": "abort", "message": "OUTPUT"}}}',
        "the answer ended with finish_reason abort",
    ),
    (b'{"error": "no memory", "error_type": "generation"}', "no memory"),
    (b'"no\\nmemory"', "no"),
    (b"boom\nat line 1", "boom"),
    (b"\xff\xfe", "\ufffd\ufffd"),
    (b"", ""),
)
def test_an_error_object_gives_one_line(data: bytes, text: str) -> None:
    assert error_text(data) == text


@each_row(
    ("fault", "body", "media_type"),
    (StreamFault.NO_STREAM, b'data: {"choices": [{"text": "OUTPUT"}]}\n\n', "application/json"),
    (StreamFault.NO_STREAM, b'{"choices": [{"text": "OUTPUT"}]}', "application/json"),
    (StreamFault.NO_STREAM, b'{"predictions": ["OUTPUT"]}', ""),
    (StreamFault.NO_STREAM, b"OUTPUT", "text/plain"),
    (StreamFault.EMPTY_STREAM, b'data: {"token": {"text": "OUTPUT"}}\n\n', "text/event-stream"),
    (StreamFault.ERROR_EVENT, b'data: {"choices": [{"text": "OUTPUT", "finish_reason": "error"}]}\n\n', ""),
)
def test_what_may_be_an_output_is_not_shown(fault: StreamFault, body: bytes, media_type: str) -> None:
    words = described_fault(fault, read(body), media_type=media_type, opening=body)
    assert words
    assert "OUTPUT" not in words


def test_a_line_is_cut() -> None:
    page = b"\n \n<html>" + b"x" * 100_000
    words = described_fault(StreamFault.NO_STREAM, read(b""), media_type="text/html", opening=page)
    assert words.startswith("text/html, expected text/event-stream: <html>xxx")
    assert len(words) < 250
    assert len(error_text(b"y" * 100_000)) == 200
    for fault in (StreamFault.NO_STREAM, StreamFault.COMPRESSED):
        words = described_fault(fault, read(b""), media_type="a" * 100_000, coding="b\nc" * 100_000)
        assert len(words) < 500
        assert "\n" not in words
