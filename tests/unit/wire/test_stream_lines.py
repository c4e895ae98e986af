"""JSON lines and chunks of HTTP: however the bytes are split, the same chunks, tokens and faults are found."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wire import WireError
from pytest_mlpatterns.wire.stream_events import LONGEST_EVENT_BYTES, text_of
from pytest_mlpatterns.wire.stream_lines import JsonLines, LineReader, PieceReader, lines_in
from pytest_mlpatterns.wire.stream_request import Asked, StreamFault, described_fault, fault_of

ASKED = Asked(stream=True, tokens=True)


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def generated(text: str = "w", **more: Any) -> dict[str, Any]:
    """A line of Ollama's ``/api/generate``."""
    return {"model": "m", "created_at": "2026-11-28T00:00:00Z", "response": text, "done": False, **more}


def said(text: str = "w", **more: Any) -> dict[str, Any]:
    """A line of Ollama's ``/api/chat``."""
    return {"model": "m", "message": {"role": "assistant", "content": text, **more}, "done": False}


END = {"done": True, "done_reason": "stop", "eval_count": 7, "prompt_eval_count": 5, "eval_duration": 9}
GENERATED = lines(generated("a"), generated("tök"), generated("€"), generated("", **END))
CHATTED = lines(said("a"), said("", thinking="hm"), said("", tool_calls=[{"function": {}}]), {**said(""), **END})


def read(*pieces: bytes, keys: JsonLines | None = None, keep_text: bool = False) -> tuple[LineReader, int]:
    """A reader of these pieces and of the end of the answer, and the number of chunks."""
    reader = LineReader(keys, keep_text=keep_text)
    return reader, sum(map(reader.feed, pieces)) + reader.end()


def fault(reader: LineReader, count: int) -> StreamFault | None:
    return fault_of(reader, has_chunks=count > 0, asked=ASKED)


@pytest.mark.parametrize("stream", [GENERATED, CHATTED], ids=["generate", "chat"])
def test_lines_of_ollama_have_chunks_tokens_and_an_end(stream: bytes) -> None:
    reader, count = read(stream)
    assert (count, reader.output_tokens, reader.input_tokens) == (3, 7, 5)
    assert reader.ended
    assert fault(reader, count) is None


def test_nothing_counts_after_the_end() -> None:
    assert read(GENERATED, lines(generated("x")))[1] == 3


@each_row(
    ("stream", "count"),
    (lines({"output": 1}, {"output": 2}), 2),  # of LitServe
    (lines(1, "a", [], {}, False), 5),
    (b'{"a": 1}\r\n\r\n{"a": 2}\r\n', 2),
    (lines("a") + b'"b"', 2),  # the last line needs no line feed
    (lines("", None) + b"\n\n", 0),
    (lines({"error": 0.5, "output": 3}, {"error": "small", "output": 3}, {"error": None}), 3),
)
def test_each_line_with_a_value_is_a_chunk(stream: bytes, count: int) -> None:
    reader, found = read(stream)
    assert found == count
    assert (reader.output_tokens, reader.error, reader.malformed, reader.cut) == (-1, None, False, False)


def test_keys_name_the_text_and_the_tokens() -> None:
    keys = JsonLines(text="delta.text", tokens="usage.out", input_tokens="usage.in")
    stream = lines(
        {"delta": {"role": "assistant"}},
        {"delta": {"text": "a"}, "usage": {"out": 1}},
        {"delta": {"text": "b"}, "usage": {"out": 2}},
        {"usage": {"out": 3, "in": 9}},
        {"usage": {"out": True, "in": -4}, "delta": "no object"},
    )
    reader, count = read(stream, keys=keys, keep_text=True)
    assert (count, reader.output_tokens, reader.input_tokens) == (2, 3, 9)
    assert text_of(reader.text) == "ab"


def test_a_key_that_no_line_has_is_named_beside_those_that_they_have() -> None:
    stream = lines({"token": "a", "index": 0}, {"token": "b", "n" * 90: 1})
    reader, count = read(stream, keys=JsonLines(text="delta.text"))
    assert (count, fault(reader, count)) == (0, StreamFault.EMPTY_STREAM)
    assert described_fault(StreamFault.EMPTY_STREAM, reader) == (
        f"no line has the key \"delta.text\" of JsonLines(text=...); they have 'token', 'index' and '{'n' * 40}'"
    )


@pytest.mark.parametrize("line", [1, "Internal error", [1], True])
def test_a_line_that_is_no_object_has_no_keys(line: Any) -> None:
    reader, count = read(lines({"text": "a"}, line), keys=JsonLines(text="text"))
    assert (count, fault(reader, count)) == (1, StreamFault.MALFORMED)
    assert "is no JSON object, as its keys need one" in described_fault(StreamFault.MALFORMED, reader)


def test_a_key_that_no_line_of_ollama_has_is_named_too() -> None:
    reader, count = read(GENERATED, keys=JsonLines(text="text"))
    assert (count, fault(reader, count)) == (0, StreamFault.EMPTY_STREAM)
    assert described_fault(StreamFault.EMPTY_STREAM, reader).startswith('no line has the key "text" of JsonLines')


def test_a_key_whose_output_is_empty_is_known() -> None:
    reader, count = read(lines({"text": ""}, {"other": 1}), keys=JsonLines(text="text"))
    assert fault(reader, count) is StreamFault.EMPTY_STREAM
    assert described_fault(StreamFault.EMPTY_STREAM, reader).startswith("no line has content")


def test_keys_replace_the_counts_of_ollama() -> None:
    end = generated("", **END, mine=2)
    assert read(lines(generated(), end), keys=JsonLines(tokens="mine"))[0].output_tokens == 2


@each_row(
    ("stream", "expected", "words"),
    (lines(generated(), {"error": "model runner has stopped"}), StreamFault.ERROR_EVENT, "model runner has stopped"),
    (lines({"error": {"message": "no memory"}}), StreamFault.ERROR_EVENT, "no memory"),
    (lines(generated(), generated()), StreamFault.CUT_OFF, 'no line has "done": true'),
    (lines(generated()) + b'{"model": "m", "resp', StreamFault.CUT_OFF, "it ends in the middle of line 2"),
    (lines("a") + b'{"te\n' + lines("b"), StreamFault.MALFORMED, "line 2 of the stream, of 4 bytes, is no JSON"),
    (b"data: 1\n\n", StreamFault.MALFORMED, "line 1 of the stream, of 7 bytes, is no JSON"),
    (b"\n\n", StreamFault.EMPTY_STREAM, "no line has content, expected at least one"),
    (lines({"done": True}), None, ""),
    (b'"\xe4"\n', StreamFault.MALFORMED, "line 1 of the stream, of 3 bytes, is no JSON in UTF-8"),
    (lines(generated(), 1), StreamFault.MALFORMED, "line 2 of the stream, of 1 byte, is no JSON object"),
    *(
        (lines(generated("", done=True, done_reason=why)), StreamFault.EMPTY_STREAM, f"whose done_reason is '{why}'")
        for why in ("stop", "load", "unload")
    ),
    (
        lines(generated(), generated("", done=True, done_reason="error")),
        StreamFault.ERROR_EVENT,
        "the answer ended with done_reason error",
    ),
    (lines(generated("", done=True)), StreamFault.EMPTY_STREAM, "the first has model, created_at, response, done"),
)
def test_bad_streams_say_what_is_wrong(stream: bytes, expected: StreamFault | None, words: str) -> None:
    reader, count = read(stream)
    assert fault(reader, count) is expected
    if expected is not None:
        assert words in described_fault(expected, reader)


def test_a_line_without_end_is_refused() -> None:
    reader, count = read(b'"' + b"x" * LONGEST_EVENT_BYTES, b"x", b'"\n')
    assert (count, reader.malformed) == (0, True)
    assert reader.why.startswith("line 1 has 16,777,217 bytes or more, expected at most 16,777,216")


VALUES = st.one_of(
    st.text(max_size=5),
    st.integers(),
    st.none(),
    st.builds(generated, st.text(max_size=3)),
    st.builds(said, st.text(max_size=3)),
    st.just(generated("", **END)),
    st.just({"error": "boom"}),
)


@PROPERTY
@given(
    st.lists(st.one_of(VALUES.map(lines), st.binary(max_size=6)), max_size=8).map(b"".join),
    st.lists(st.integers(0, 400), max_size=8),
    st.booleans(),
)
def test_the_split_of_the_bytes_changes_nothing(stream: bytes, cuts: Sequence[int], keep_text: bool) -> None:
    borders = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in pairwise(borders)]
    found = []
    for parts in (pieces, [stream], [stream[at : at + 1] for at in range(len(stream))]):
        reader, count = read(*parts, keep_text=keep_text)
        state = (reader.ended, reader.error, reader.malformed, reader.cut, reader.why, reader.finished, reader.opening)
        found.append((count, reader.output_tokens, reader.input_tokens, reader.text, state))
    assert found[0] == found[1] == found[2]


def test_a_chunk_of_text_is_counted_at_its_end() -> None:
    reader = PieceReader(keep_text=True)
    euro = "€".encode()
    counts = [reader.feed(euro[:1]), reader.feed(euro[1:]), reader.end(), reader.end(), reader.feed(b"x"), reader.end()]
    assert counts == [0, 0, 1, 0, 0, 1]
    assert text_of(reader.text) == "€x"
    assert PieceReader().text is None


def test_whole_lines_are_decoded() -> None:
    assert lines_in(lines("a", {"b": 1}) + b"3") == ["a", {"b": 1}, 3]


@each_row(
    ("body", "words"),
    (lines("a") + b"{", "it ends in the middle of line 2"),
    (b"{\n", "line 1 of the stream, of 1 byte, is no JSON"),
    (lines({"error": "boom"}), "the stream ended with an error"),
)
def test_broken_lines_are_not_decoded(body: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        lines_in(body)


@each_row("key", ["", "a b", ".", "a.", 5])
def test_a_key_is_text(key: Any) -> None:
    with pytest.raises(SettingError, match=r"JsonLines\(tokens=.*expected the key of a line"):
        JsonLines(tokens=key)


def test_keys_are_shown_if_given() -> None:
    assert repr(JsonLines(tokens="usage.out")) == "JsonLines(tokens='usage.out')"
