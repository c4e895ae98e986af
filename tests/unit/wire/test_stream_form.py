"""Which answers are streams: by their media type, or because the user says so, and never with a content-length."""

import pytest
from support.each_row import each_row

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wire import REST_JSON, Wire
from pytest_mlpatterns.wire.stream_lines import JsonLines
from pytest_mlpatterns.wire.stream_request import (
    AUTO,
    StreamForm,
    StreamSetting,
    described_answer,
    form_in,
    form_of,
    read_stream,
)

LINES, CHUNKS, EVENTS = StreamForm.LINES, StreamForm.CHUNKS, StreamForm.EVENTS
STATED = JsonLines(tokens="n")


@each_row(
    ("media_type", "stream", "form"),
    ("text/event-stream; charset=utf-8", AUTO, EVENTS),
    ("text/event-stream", "chunks", CHUNKS),  # BentoML sends plain text so
    ("text/event-stream", STATED, LINES),
    ("text/event-stream", "whole", None),
    ("application/x-ndjson", AUTO, LINES),
    ("Application/JSONL; charset=utf-8", AUTO, LINES),
    ("application/x-ndjson", "whole", None),
    ("application/x-ndjson", "chunks", CHUNKS),
    ("text/plain", AUTO, None),
    ("application/json", AUTO, None),
    ("", AUTO, None),
    ("text/plain", "chunks", CHUNKS),
    ("", STATED, LINES),
)
def test_a_stream_is_recognized_by_its_head(media_type: str, stream: StreamSetting, form: StreamForm | None) -> None:
    assert form_of(media_type, is_sized=False, wire=REST_JSON, stream=stream) is form
    whole = form_of(media_type, is_sized=True, wire=REST_JSON, stream=stream)
    assert whole is (EVENTS if form is EVENTS else None)  # a content-length, so it was sent whole


@pytest.mark.parametrize(("wire", "form"), [("openai", None), ("invocations", None), ("rest+msgpack", LINES)])
def test_some_wires_have_no_lines(wire: str, form: StreamForm | None) -> None:
    assert form_in({"content-type": "application/x-ndjson"}, Wire.parse(wire)) is form


def test_a_target_says_how_its_answers_are_read() -> None:
    assert (read_stream(None, "App"), read_stream("lines", "App"), read_stream("chunks", "App")) == (
        AUTO,
        JsonLines(),
        "chunks",
    )
    assert read_stream(STATED, "App") is STATED


@each_row("value", ["ndjson", "auto", 1, True, ["lines"]])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(SettingError, match=r'Url\(stream=.*expected "lines" for JSON lines, "chunks"'):
        read_stream(value, "Url")


@each_row(
    ("headers", "pieces", "words"),
    (
        {"content-type": "application/json; charset=utf-8", "content-length": "15"},
        1,
        "the first one was application/json with a content-length (15.0 B), so it was sent whole",
    ),
    (
        {"content-type": "text/plain"},
        50,
        "the first one was text/plain in 50 chunks over 2.30 s, and may be a stream: give the target "
        'stream="chunks", or stream="lines" if each line is JSON',
    ),
    ({}, 1, "the first one was an answer without content-type in 1 chunk"),
)
def test_a_whole_answer_is_described(headers: dict[str, str], pieces: int, words: str) -> None:
    assert described_answer(headers, 15, pieces=pieces, spread_ns=2_300_000_000) == words


def test_a_stream_that_is_read_whole_is_described_by_its_setting() -> None:
    words = described_answer({}, 15, pieces=3, spread_ns=1, stream="whole")
    assert words == 'the target has stream="whole"; leave it out'
