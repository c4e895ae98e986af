"""Conversations become one request for each turn, with the scripted history before it."""

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from support.each_row import each_row

from pytest_mlpatterns import Zipf
from pytest_mlpatterns.errors import SettingError, UnitError
from pytest_mlpatterns.wire import Wire
from pytest_mlpatterns.workload.payload import Payload, read_payload

OPENAI = Wire("openai", "json")
MS = 1_000_000
THREE = {"turns": ["a", {"content": "b", "think_time": "5ms"}, "c"], "think_time": "20ms", "output_tokens": 3}


def payload_of(*inputs: Any) -> Payload:
    return read_payload(list(inputs), OPENAI)


def requests_of(payload: Payload) -> list[Any]:
    return [json.loads(body.joined()) for body in payload.bodies]


def think_ns_of(payload: Payload) -> list[int]:
    return array("q", payload.conversations.think_ns).tolist()


def order_of(payload: Payload, *, all_requests: bool) -> list[int]:
    return array("I", payload.order(all_requests=all_requests)).tolist()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_all_requests_has_the_history_with_placeholders_of_the_length_that_was_asked_for() -> None:
    requests = requests_of(payload_of(THREE))
    filler = assistant("time year people")
    assert [request["messages"] for request in requests] == [
        [user("a")],
        [user("a"), filler, user("b")],
        [user("a"), filler, user("b"), filler, user("c")],
    ]
    for request in requests:
        assert (request["max_tokens"], request["ignore_eos"]) == (3, True)
        assert not {"turns", "think_time", "output_tokens"} & set(request)


def test_scripted_answers_and_a_system_message_are_the_history() -> None:
    system = {"role": "system", "content": "be brief"}
    payload = payload_of({"turns": [system, user("a"), assistant("one"), user("b")], "seed": 1})
    requests = requests_of(payload)
    assert [one["messages"] for one in requests] == [
        [system, user("a")],
        [system, user("a"), assistant("one"), user("b")],
    ]
    assert [one["seed"] for one in requests] == [1, 1]


def test_a_placeholder_has_the_length_of_its_own_turn_else_a_usual_one() -> None:
    *_, last = requests_of(payload_of({"turns": [{"content": "a", "output_tokens": 2}, "b", "c"]}))
    lengths = [len(message["content"].split()) for message in last["messages"] if message["role"] == "assistant"]
    assert lengths == [2, 64]
    assert "max_tokens" not in last


def test_the_think_time_is_that_of_the_turn_after_it_else_that_of_the_conversation() -> None:
    payload = payload_of(THREE, "alone", {"turns": ["a", "b"]})
    assert think_ns_of(payload) == [5 * MS, 20 * MS, -1, -1, 0, -1]
    assert payload.origins == (0, 0, 0, 1, 2, 2)
    assert [payload.name_of(number) for number in (2, 3)] == [
        "perf_payload item 0 turn 2",
        "perf_payload item 1 turn 0",
    ]


def test_callers_begin_with_first_turns_and_a_load_without_conversations_sends_all_requests() -> None:
    payload = payload_of(THREE, "alone", {"turns": ["a", "b"]})
    assert order_of(payload, all_requests=False) == [0, 3, 4]
    assert order_of(payload, all_requests=True) == []  # in turn
    assert not payload.is_shuffled
    drawn = read_payload(Zipf([THREE, "alone", {"turns": ["a", "b"]}]), OPENAI)
    begun = order_of(drawn, all_requests=False)
    assert set(begun) == {0, 3, 4}
    turns = {0: [0, 1, 2], 3: [3], 4: [4, 5]}
    assert order_of(drawn, all_requests=True) == [turn for first in begun for turn in turns[first]]


def test_inputs_without_turns_are_no_conversations() -> None:
    assert payload_of("a", {"prompt": "b"}).conversations is None
    assert read_payload([THREE]).conversations is None  # another wire sends it to the model as it is


def test_the_think_time_is_part_of_the_digest() -> None:
    assert payload_of(THREE).digest == payload_of(THREE).digest != payload_of({**THREE, "think_time": "30ms"}).digest


@each_row(
    ("item", "said"),
    ({"turns": []}, "has turns [], expected a list of"),
    ({"turns": "a"}, "has turns 'a', expected a list of"),
    ({"turns": ["a", 7]}, "has turn 1 7, expected"),
    ({"turns": [{"role": "user"}]}, "has turn 0 {'role': 'user'}, expected"),
    ({"turns": [{"role": "me", "content": "a"}]}, "has turn 0"),
    ({"turns": [assistant("a")]}, "has turns without a text of a user"),
    ({"turns": ["a"], "prompt": "b"}, "has turns and prompt, expected one of them"),
    ({"turns": [{"content": "a", "think_time": "1s"}]}, "has think_time at turn 0, the first one"),
    ({"turns": ["a", {**assistant("b"), "think_time": "1s"}]}, "at turn 1, a message of the assistant"),
    ({"turns": ["a", "b"], "output_tokens": 0}, "its output_tokens are 0"),
)
def test_another_form_is_named_with_the_item_and_what_was_expected(item: Any, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        payload_of("first", item)
    assert str(caught.value).startswith("perf_payload item 1")
    assert said in str(caught.value)


def test_a_think_time_without_a_unit_is_refused() -> None:
    with pytest.raises(UnitError, match=r"perf_payload item 0: think_time"):
        payload_of({"turns": ["a", "b"], "think_time": 5})


@each_row(
    ("line", "said"),
    ('{"text": "x"}', "is dict, which cannot be sent over openai: it is {'text': 'x'}, expected text, or"),
    ('{"prompt": "x", "output_tokens": -1}', "its output_tokens are -1, expected a whole number"),
    ('{"turns": [1]}', "has turn 0 1, expected"),
)
def test_a_line_of_another_form_is_named_by_its_number(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'"a text"\n\n{{"turns": ["a", "b"]}}\n{line}\n')
    with pytest.raises(SettingError) as caught:
        read_payload(path, OPENAI)
    assert str(caught.value).startswith(f"perf_payload {path} line 4 ")
    assert said in str(caught.value)
