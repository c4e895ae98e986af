"""The text of a stream is kept whole, however it is split, and only if it is text of one choice."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.wire.stream_events import TextReader, text_of

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=8)


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def completion(text: str, **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "text": text, **more}]})


def chat(**delta: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta}]})


def kept(*pieces: bytes, is_openai: bool = True) -> str | None:
    reader = TextReader(is_openai=is_openai)
    for piece in pieces:
        reader.feed(piece)
    assert not reader.malformed
    return None if reader.text is None else text_of(reader.text)


@PROPERTY
@given(TEXTS, st.integers(1, 40), st.booleans())
def test_every_text_is_kept_however_it_is_split(texts: list[str], size: int, at_events: bool) -> None:
    for form, is_openai in ((completion, True), (lambda text: chat(content=text), True), (event, False)):
        events = [form(text) for text in texts]
        stream = b"".join(events)
        pieces = events if at_events else [stream[at : at + size] for at in range(0, len(stream), size)]
        assert kept(*pieces, is_openai=is_openai) == "".join(texts)


def test_a_role_and_the_usage_are_no_text_and_reasoning_is() -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    assert (
        kept(chat(role="assistant", content=""), chat(reasoning_content="hm "), chat(content="yes"), usage) == "hm yes"
    )


def test_half_a_pair_of_surrogates_in_each_of_two_chunks_is_one_character() -> None:
    assert kept(rb'data: "\ud83d"' + b"\n\n", rb'data: "\ude00"' + b"\n\n", is_openai=False) == "\U0001f600"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert kept(b'data: "a"\n\n', b'data: "\xff"\n\n', is_openai=False) == "a\ufffd"


@each_row(
    "chunk",
    chat(tool_calls=[{"index": 0}]),
    event({"choices": [{"index": 1, "text": "a"}]}),
    event({"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]}),
)
def test_what_is_no_text_of_one_choice_has_none(chunk: bytes) -> None:
    assert kept(completion("a"), chunk, completion("b")) is None


@each_row("chunk", [event(7), event([1]), event({"a": 1}), b"data: {\n\n", b"data: %s\n\n" % (b"[" * 9000)])
def test_a_chunk_of_another_kind_has_none(chunk: bytes) -> None:
    assert kept(event("a"), chunk, is_openai=False) is None


@each_row("value", [{"choices": [{"label": "a"}]}, {"choices": ["a"]}, {"choices": [{"text": "a", "delta": "b"}]}])
def test_choices_of_a_service_of_its_own_have_no_text(value: Any) -> None:
    assert kept(event(value), is_openai=False) is None
