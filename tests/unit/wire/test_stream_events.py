"""What events mean: every chunk with content is counted, once, and nothing else is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.wire import stream_events
from pytest_mlpatterns.wire.stream_events import StreamReader

CHUNK = {"id": "c", "object": "x", "created": 1, "model": "m", "usage": None}


def event(value: Any, *, name: str = "", end: bytes = b"\n") -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    lines = [b"event: " + name.encode()] if name else []
    return end.join([*lines, b"data: " + data, b"", b""])


def text(content: object, **more: Any) -> dict[str, Any]:
    return {**CHUNK, "choices": [{"index": 0, "text": content, "logprobs": None}], **more}


def delta(**fields: Any) -> dict[str, Any]:
    return {**CHUNK, "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def usage(prompt: object, completion: object) -> dict[str, Any]:
    return {**CHUNK, "choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


DONE = event(b"[DONE]")
ROLE = event(delta(role="assistant", content=""))
OPENAI = [
    ("a completion", text(" the"), 1),
    ("an empty completion", text(""), 0),
    ("the reason of the end", text("", finish_reason="stop"), 0),
    ("a chat", delta(content="tök"), 1),
    ("a role", delta(role="assistant", content=""), 0),
    ("a role with content", delta(role="assistant", content="a"), 1),
    ("an empty delta", delta(), 0),
    ("no content", delta(content=None), 0),
    ("reasoning", delta(reasoning_content="hm"), 1),
    ("reasoning of vLLM", delta(reasoning="hm", content=None), 1),
    ("a tool call", delta(tool_calls=[{"index": 0, "function": {"name": "f"}}]), 1),
    ("no tool calls", delta(tool_calls=[]), 0),
    ("usage alone", usage(3, 4), 0),
    ("several choices", {"choices": [{"text": ""}, {"text": "a"}]}, 1),
    ("an empty event", b"", 0),
    ("no choices", {"object": "x"}, 0),
    ("broken choices", {"choices": [1, None, {"delta": "x"}]}, 0),
]
REST = [
    ("text", "a", 1),
    ("empty text", "", 0),
    ("nothing", None, 0),
    ("a number", 0, 1),
    ("a list", [1, 2], 1),
    ("an object", {"token": "a"}, 1),
    ("a chunk of OpenAI", delta(content="a"), 1),
    ("a role of OpenAI", delta(role="assistant"), 0),
    ("the usage of OpenAI", usage(1, 2), 0),
    ("the usage of OpenAI itself", {**usage(1, 2), "system_fingerprint": "f", "service_tier": "default"}, 0),
    ("the filters of Azure", {"choices": [], "prompt_filter_results": [{}]}, 0),
    ("usage without choices", {"id": "r", "usage": {"prompt_tokens": 1}}, 0),
    ("usage beside an output", {"token": "a", "usage": {"completion_tokens": 1}}, 1),
    ("usage that is no object", {"usage": 3}, 1),
    ("choices of words", {"choices": ["a", "b"]}, 1),
    ("choices of words beside the usage", {"choices": ["a"], "usage": {"completion_tokens": 1}}, 1),
    ("choices of a service of its own", {"choices": [{"label": "a"}]}, 1),
    ("an output beside empty choices", {"choices": [], "token": "a"}, 1),
    ("an empty completion", text(""), 0),
    ("an object that speaks of errors", {"error": "none"}, 1),
    ("an object that is called error", {"object": "error"}, 1),
    ("an object with details", {"detail": "a"}, 1),
    ("what is no JSON", b"plain words", 1),
    ("a broken object", b'{"choices"', 1),
]


@each_row(("is_openai", "value", "count"), [(rows is OPENAI, *row[1:]) for rows in (OPENAI, REST) for row in rows])
def test_a_chunk_of_openai_has_content_and_one_of_rest_anything(is_openai: bool, value: Any, count: int) -> None:
    reader = StreamReader(is_openai=is_openai)
    assert reader.feed(event(value)) == count
    assert not reader.malformed
    assert reader.error is None


def test_the_last_usage_counts() -> None:
    reader = StreamReader(is_openai=True)
    reader.feed(event({**text("a"), "usage": {"prompt_tokens": 3, "completion_tokens": 1}}))
    reader.feed(event(usage(3, 9)))
    assert (reader.input_tokens, reader.output_tokens) == (3, 9)
    reader.feed(event(usage(None, True)))
    reader.feed(event(usage(-1, 2**31)))
    reader.feed(event({"usage": [1]}))
    assert (reader.input_tokens, reader.output_tokens) == (3, 9)


@pytest.mark.parametrize("is_openai", [True, False])
def test_nothing_counts_after_the_end(is_openai: bool) -> None:
    reader = StreamReader(is_openai=is_openai)
    assert [reader.feed(event(text("a"))) for _ in range(3)] == [1, 1, 1]
    assert reader.feed(DONE) == 0
    assert reader.ended
    assert reader.feed(event(text("a"))) == 0
    assert StreamReader(is_openai=is_openai).feed(DONE + event(text("a"))) == 0


@each_row(
    ("stream", "is_openai"),
    (event({"error": {"message": "no memory", "code": 500}}), True),
    (event({"error": "no memory"}), True),
    (event({"error": {"message": "no memory"}}), False),
    (event({"object": "error", "message": "no memory", "code": 50001}), True),
    (event({"object": "error", "message": "no memory"}), False),
    (event({"detail": "no memory"}), True),
    (event({"choices": [{"text": "no memory", "finish_reason": "error"}]}), True),
    (event({"choices": [{"delta": {"content": "no memory"}, "finish_reason": "abort"}]}), False),
    (event({"choices": [{"text": "no memory", "finish_reason": {"type": "abort"}}]}), True),
    (event({"choices": [{"text": ""}, {"text": "no memory", "finish_reason": "cancelled"}]}), True),
    (event({"error": "no memory", "error_type": "generation"}), False),
    (event({"text": "no memory", "meta_info": {"finish_reason": {"type": "abort", "message": "m"}}}), False),
    (event({"error": "no memory"}, name="error"), False),
    (event("no memory", name="error"), True),
)
def test_an_error_in_the_middle_ends_the_stream(stream: bytes, is_openai: bool) -> None:
    reader = StreamReader(is_openai=is_openai)
    assert reader.feed(event(text("a")) + stream + event(text("b"))) == 1
    assert b"no memory" in (reader.error or b"")
    assert reader.feed(event(text("b"))) == 0


@each_row("reason", ["stop", "length", "tool_calls", "content_filter", "eos_token", {"type": "stop"}])
def test_a_choice_that_ends_for_a_reason_finishes_the_answer(reason: object) -> None:
    reader = StreamReader(is_openai=True)
    reader.feed(event(text("")))
    assert not reader.finished
    assert reader.feed(event(text("")) + event({"choices": [{"text": "", "finish_reason": reason}]}) + DONE) == 0
    assert reader.finished
    assert reader.error is None
    assert reader.opening.startswith(b'{"id": "c"')


@each_row("reason", ["error", "abort", "timeout", "cancelled", "insufficient_system_resource", {"type": "abort"}])
@each_row("is_openai", [True, False])
@each_row("content", ["", "a"])
def test_a_choice_that_did_not_end_is_an_error(reason: object, is_openai: bool, content: str) -> None:
    reader = StreamReader(is_openai=is_openai)
    assert reader.feed(event({"choices": [{"text": content, "finish_reason": reason}]}) + DONE) == 0
    assert reader.error is not None
    assert not reader.finished


@pytest.mark.parametrize("reason", [None, {"type": "stop", "matched": 2}, {"type": "length", "length": 4}])
def test_an_answer_of_sglang_that_goes_on_or_ended_well_is_a_chunk(reason: object) -> None:
    reader = StreamReader(is_openai=False)
    assert reader.feed(event({"text": "a", "meta_info": {"id": "r", "finish_reason": reason}})) == 1
    assert reader.error is None


def test_what_is_no_json_is_malformed_in_openai() -> None:
    for broken in (b"{", b"words", b"[1]"):
        reader = StreamReader(is_openai=True)
        assert reader.feed(event(text("a")) + event(broken) + event(text("b"))) == 1
        assert reader.malformed
        assert reader.feed(event(text("b"))) == 0


def test_a_broken_character_does_not_break_the_chunk() -> None:
    reader = StreamReader(is_openai=True)
    assert reader.feed(event(text("\0")).replace(b"\\u0000", b"\xe2\x82")) == 1


def test_an_endless_event_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_events, "LONGEST_EVENT_BYTES", 100)
    reader = StreamReader(is_openai=False)
    assert reader.feed(b"data: " + b"x" * 200) == 0
    assert reader.malformed


PARTS = [
    ROLE,
    event(delta(content="a")),
    event(delta(content="b")),
    event(delta(content="tök €")),
    event(delta(content='a "quote"')),
    event(delta(content="")),
    event(delta(content="a\nb")),
    event(delta(content="X")).replace(b"X", b"\\ud83d"),
    event(delta(content="X")).replace(b"X", b"\\u00e9\\\\"),
    event(delta(content="X")).replace(b"X", b"\\x"),
    event(delta(content="X")).replace(b"X", b"\\u00"),
    event(delta(content="a"), end=b"\r\n"),
    event(text("a")),
    event(text("b")),
    event(text("")),
    event(usage(3, 4)),
    event("a"),
    event("b"),
    event(""),
    event(7),
    event({"token": "a"}),
    event({"token": "a", "usage": {"completion_tokens": 2}}),
    event({"choices": ["a"]}),
    event({"choices": [{"label": "a"}]}),
    event({"error": "a", "error_type": "generation"}),
    event({"text": "a", "meta_info": {"finish_reason": None}}),
    event({"text": "a", "meta_info": {"finish_reason": {"type": "abort"}}}),
    event({"choices": [{"text": "a", "finish_reason": {"type": "abort"}}]}),
    b": ping\n\n",
    event({"text": "a", "usage": {"prompt_tokens": 1}}),
    event(b'{"choices":[{"text":"a","index":1}]}'),
    event(b'{"choices":[{"text":"b","index":1}]}'),
    event(b'{"choices":[{"text":"","index":1}]}'),
]


@PROPERTY
@given(st.lists(st.sampled_from(PARTS), max_size=12), st.booleans(), st.data())
def test_the_short_way_counts_as_the_long_way(parts: list[bytes], is_openai: bool, data: st.DataObject) -> None:
    """Events that come one by one may be recognised by what surrounds their text; bytes one by one never are."""
    whole = b"".join(parts)
    slowly = StreamReader(is_openai=is_openai)
    expected = sum(slowly.feed(whole[at : at + 1]) for at in range(len(whole)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    for pieces in (parts, [whole], [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]):
        reader = StreamReader(is_openai=is_openai)
        assert sum(reader.feed(piece) for piece in pieces) == expected
        assert (reader.input_tokens, reader.output_tokens) == (slowly.input_tokens, slowly.output_tokens)
        assert (reader.malformed, reader.ended, reader.error) == (slowly.malformed, slowly.ended, slowly.error)


@each_row(
    ("is_openai", "first", "others"),
    (True, event(text("a")), [event(text("b")), event(text("tök"))]),
    (True, event(delta(content="a")), [event(delta(content="b"))]),
    (False, event("a"), [event("b"), event("tök")]),
)
def test_an_event_like_the_one_before_is_not_parsed(is_openai: bool, first: bytes, others: list[bytes]) -> None:
    reader = StreamReader(is_openai=is_openai)
    assert reader.feed(first) == 1
    parser = reader._parser
    del reader._parser
    assert [reader.feed(other) for other in others] == [1] * len(others)
    reader._parser = parser
    assert reader.feed(DONE) == 0
    assert reader.ended


def test_an_event_with_usage_is_always_parsed() -> None:
    reader = StreamReader(is_openai=True)
    for number in range(1, 4):
        assert reader.feed(event({**text("a"), "usage": {"prompt_tokens": 3, "completion_tokens": number}})) == 1
        assert reader.output_tokens == number
