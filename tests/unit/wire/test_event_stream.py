"""Server-sent events: the rules of the WHATWG, wherever the bytes are split."""

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.wire import stream_events
from pytest_mlpatterns.wire.stream_events import Event, EventStreamError, EventStreamParser

STREAMS = {
    "one event": (b"data: a\n\n", [Event(b"a")]),
    "no space after the colon": (b"data:a\n\n", [Event(b"a")]),
    "only the first space goes": (b"data:  a\n\n", [Event(b" a")]),
    "two fields are two lines": (b"data: a\ndata: b\n\n", [Event(b"a\nb")]),
    "several events": (b"data: a\n\ndata: b\n\n", [Event(b"a"), Event(b"b")]),
    "a named event": (b"event: error\ndata: a\n\ndata: b\n\n", [Event(b"a", b"error"), Event(b"b")]),
    "the last name counts": (b"event: x\nevent: y\ndata: a\n\n", [Event(b"a", b"y")]),
    "a name without data is no event": (b"event: x\n\ndata: a\n\n", [Event(b"a")]),
    "comments": (b": ping\n\n:\ndata: a\n: pong\n\n", [Event(b"a")]),
    "other fields": (b"id: 7\nretry: 10\nunknown: x\ndata: a\nfoo\n\n", [Event(b"a")]),
    "a field without a colon is empty": (b"data\n\ndata\ndata\n\n", [Event(b""), Event(b"\n")]),
    "CRLF": (b"data: a\r\n\r\nevent: x\r\ndata: b\r\n\r\n", [Event(b"a"), Event(b"b", b"x")]),
    "CR": (b"data: a\r\rdata: b\rdata: c\r\r", [Event(b"a"), Event(b"b\nc")]),
    "mixed line ends": (b"data: a\r\n\ndata: b\n\r\n", [Event(b"a"), Event(b"b")]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [Event(b"a")]),
    "a byte order mark later is data": (b"data: \xef\xbb\xbf\n\n", [Event(b"\xef\xbb\xbf")]),
    "characters of several bytes": ("data: tök €🙂\n\n".encode(), [Event("tök €🙂".encode())]),
    "colons in the data": (b"data: a:b: c\n\n", [Event(b"a:b: c")]),
    "what is not ended is no event": (b"data: a\n\ndata: b\n", [Event(b"a")]),
    "nothing": (b"", []),
    "a form feed ends no line": (b"data: a\x0bb\x0cc\x1cd\x85\n\n", [Event(b"a\x0bb\x0cc\x1cd\x85")]),
}


def parsed(pieces: list[bytes]) -> list[Event]:
    parser = EventStreamParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@each_row(("stream", "events"), STREAMS.values())
def test_a_stream_is_read_alike_wherever_it_is_split(stream: bytes, events: list[Event]) -> None:
    assert parsed([stream]) == events
    assert parsed([stream[at : at + 1] for at in range(len(stream))]) == events
    for at in range(len(stream) + 1):
        assert parsed([stream[:at], b"", stream[at:]]) == events


@PROPERTY
@given(st.lists(st.sampled_from([stream for stream, _ in STREAMS.values()]), max_size=4), st.data())
def test_any_split_of_any_streams_gives_the_same_events(streams: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(streams)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert parsed(pieces) == parsed([whole])


def test_an_event_is_there_with_its_blank_line() -> None:
    parser = EventStreamParser()
    assert parser.feed(b"data: a\n") == []
    assert not parser.between_events
    assert parser.feed(b"\n") == [Event(b"a")]
    assert parser.between_events
    assert parser.feed(b"data: b\r\n\r") == [Event(b"b")]
    assert not parser.between_events  # a line feed may follow
    assert parser.feed(b"\ndata: c\n\n") == [Event(b"c")]


def test_an_event_without_an_end_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_events, "LONGEST_EVENT_BYTES", 1000)
    parser = EventStreamParser()
    for _ in range(100):
        assert parser.feed(b"data: %s\n\n" % (b"x" * 900)) == [Event(b"x" * 900)]
    with pytest.raises(EventStreamError, match=r"an event has 1,\d\d\d bytes or more, expected at most 1,000"):
        collections.deque(map(parser.feed, [b"x" * 100] * 20))
    lines = EventStreamParser()
    with pytest.raises(EventStreamError):
        collections.deque(map(lines.feed, [b"data: x\n"] * 200))
