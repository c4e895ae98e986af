"""The wire ``openai`` as its client writes and reads it: requests, their paths, the model's name, and answers."""

from typing import Any

import httpx
import orjson
import pytest
from support.each_row import each_row

from pytest_mlpatterns import SettingError, Wire
from pytest_mlpatterns.serving.bounded_client import BoundedTransport
from pytest_mlpatterns.serving.deployment import first_model
from pytest_mlpatterns.wire import WireError, codec_of, decode_answer, encode_request, path_of
from pytest_mlpatterns.wire.kserve_v1 import StreamError
from pytest_mlpatterns.wire.openai import model_path, with_model
from pytest_mlpatterns.workload.payload import read_payload

OPENAI = Wire.parse("openai")
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hello"}]
USAGE = {"include_usage": True}
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


def request_of(value: Any, path: str = "") -> Any:
    return orjson.loads(encode_request(OPENAI, [value], path_of(OPENAI, value, path)).joined())


def test_openai_is_a_wire_of_its_own() -> None:
    assert Wire("openai", "json") == OPENAI
    assert str(OPENAI) == "openai"
    assert OPENAI.between_processes == Wire()
    assert codec_of(OPENAI).path("m") == COMPLETIONS
    for parts in (("openai", "binary"), ("openai", "json", "gzip")):
        with pytest.raises(SettingError):
            Wire(*parts)


@each_row(
    ("value", "path", "expected"),
    ("hello", "", {"prompt": "hello"}),
    ("hello", CHAT, {"messages": MESSAGES}),
    ({"prompt": [1, 2], "max_tokens": 8}, "", {"prompt": [1, 2], "max_tokens": 8}),
    ({"messages": MESSAGES, "seed": 1}, CHAT, {"messages": MESSAGES, "seed": 1}),
)
def test_an_input_is_a_streamed_request_that_asks_for_the_usage(value: Any, path: str, expected: Any) -> None:
    assert request_of(value, path) == {"model": "", "stream": True, "stream_options": USAGE, **expected}


def test_what_a_request_says_itself_is_kept() -> None:
    assert request_of({"prompt": "x", "model": "m", "stream": False}) == {"model": "m", "prompt": "x", "stream": False}
    assert request_of({"prompt": "x", "stream_options": {}})["stream_options"] == {}


@each_row(
    ("value", "path", "expected"),
    ("hello", "", COMPLETIONS),
    ("hello", "/", COMPLETIONS),
    ({"messages": MESSAGES}, "", CHAT),
    ({"messages": MESSAGES}, COMPLETIONS, CHAT),
    ({"prompt": "x"}, CHAT, COMPLETIONS),
    ("hello", "/api/v3/chat/completions?key=1", "/api/v3/chat/completions?key=1"),
    ({"prompt": "x"}, "/api/v3/chat/completions?key=1", "/api/v3/completions?key=1"),
    ({"messages": MESSAGES}, "/generate", "/generate"),
)
def test_its_fields_decide_the_path(value: Any, path: str, expected: str) -> None:
    assert path_of(OPENAI, value, path) == expected


def test_other_wires_keep_the_path() -> None:
    assert path_of(Wire(), {"messages": []}, "/predict") == "/predict"


@pytest.mark.parametrize("value", [7, None, {"text": "x"}, ["a"]])
def test_another_input_is_refused(value: Any) -> None:
    with pytest.raises(SettingError, match=r"item 0 .*expected text, or a dictionary with a prompt or messages; write"):
        read_payload([value], OPENAI)


def test_the_length_of_the_answer_is_asked_for_in_the_words_of_the_protocol() -> None:
    asked = {"model": "", "stream": True, "stream_options": USAGE, "prompt": "x", "max_tokens": 64}
    assert request_of({"prompt": "x", "output_tokens": 64}) == {**asked, "ignore_eos": True}
    assert request_of({"prompt": "x", "output_tokens": 64, "ignore_eos": False}) == {**asked, "ignore_eos": False}


@each_row(
    ("value", "said"),
    ({"prompt": "x", "messages": MESSAGES}, "it has a prompt and messages, expected one of them"),
    ({"prompt": 7}, "its prompt is 7, expected text"),
    ({"prompt": []}, "its prompt is [], expected text"),
    ({"messages": "hello"}, "its messages are 'hello', expected a list such as"),
    ({"messages": []}, "its messages are [], expected a list such as"),
    ({"messages": ["hello"]}, "its message 0 is 'hello', expected {"),
    ({"prompt": "x", "output_tokens": 0}, "its output_tokens are 0, expected a whole number of tokens from 1"),
    ({"prompt": "x", "output_tokens": True}, "its output_tokens are True, expected a whole number"),
    ({"prompt": "x", "output_tokens": "64"}, "its output_tokens are '64', expected a whole number"),
    ({"prompt": "x", "output_tokens": 64, "max_tokens": 64}, "it has output_tokens and a limit of its own"),
)
def test_a_field_of_another_form_is_named_with_what_was_expected(value: Any, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_payload(["x", value], OPENAI)
    assert f"perf_payload item 1 is dict, which cannot be sent over openai: {said}" in str(caught.value)


def test_several_inputs_are_no_request() -> None:
    with pytest.raises(WireError, match="2 inputs, expected one"):
        encode_request(OPENAI, ["a", "b"])


class TestTheModelsName:
    def test_the_name_is_filled_in_if_it_is_absent(self) -> None:
        absent, given = (encode_request(OPENAI, [value]).joined() for value in ("x", {"prompt": "x", "model": "own"}))
        assert orjson.loads(with_model(absent, 'a "b"'))["model"] == 'a "b"'
        assert "model" not in orjson.loads(with_model(absent, ""))
        assert with_model(given, "m") == given

    @each_row(
        ("path", "expected"),
        [(CHAT, "/v1/models"), ("/api/completions?key=1", "/api/models"), ("/", "/v1/models"), ("/x", "/v1/models")],
    )
    def test_the_list_of_models_is_beside_the_path_of_requests(self, path: str, expected: str) -> None:
        assert model_path(path) == expected

    @each_row(
        ("status", "body", "name"),
        (200, b'{"data": [{"id": "smol"}, {"id": "other"}]}', "smol"),
        (200, b'{"data": []}', ""),
        (200, b"<html>", ""),
        (200, b'{"data": [{"id": 7}]}', ""),
        (404, b"{}", ""),
    )
    def test_a_server_lists_it(self, status: int, body: bytes, name: str) -> None:
        served = httpx.MockTransport(lambda request: httpx.Response(status, content=body))
        with httpx.Client(base_url="http://test", transport=served) as client:
            assert first_model(client, CHAT) == name

    def test_a_server_that_is_gone_lists_none(self) -> None:
        with httpx.Client(base_url="http://127.0.0.1:1", transport=BoundedTransport()) as client:
            assert first_model(client, CHAT) == ""


class TestPayload:
    def test_each_input_goes_to_its_path_with_the_name_of_the_model(self) -> None:
        payload = read_payload(["x", {"messages": MESSAGES, "model": "own"}], OPENAI)
        assert payload.needs_model
        first, second = payload.messages("127.0.0.1", 80, COMPLETIONS, model="m")
        assert first.startswith(b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:80\r\n")
        head, _, body = first.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head
        assert orjson.loads(body)["model"] == "m"
        assert second.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert orjson.loads(second.partition(b"\r\n\r\n")[2])["model"] == "own"

    def test_the_first_request_is_the_same(self) -> None:
        payload = read_payload([{"messages": MESSAGES}], OPENAI, CHAT)
        request = payload.request(CHAT, 0, model="m")
        assert (request["url"], orjson.loads(request["content"])["model"]) == (CHAT, "m")

    def test_a_payload_that_names_its_model_needs_none(self) -> None:
        assert not read_payload([{"prompt": "x", "model": "m"}], OPENAI).needs_model
        assert not read_payload([[1]]).needs_model


def event(message: Any) -> bytes:
    return b"data: " + orjson.dumps(message) + b"\n\n"


class TestAnswers:
    def test_a_streams_output_is_the_list_of_its_texts(self) -> None:
        body = b"".join(
            [
                b": comment\n\n",
                event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
                event({"choices": [{"delta": {"content": "a"}}]}),
                event({"choices": [{"text": "b"}]}),
                event({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
                event({"choices": [], "usage": {"completion_tokens": 2}}),
                b"data: [DONE]\n\n",
            ]
        )
        assert decode_answer(OPENAI, body, EVENTS) == [["a", "b"]]

    @pytest.mark.parametrize("choice", [{"text": "ab"}, {"message": {"role": "assistant", "content": "ab"}}])
    def test_a_whole_answers_output_is_its_text(self, choice: Any) -> None:
        assert decode_answer(OPENAI, orjson.dumps({"choices": [choice]}), {}) == ["ab"]

    @each_row("body", [b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": null}]}'])
    def test_another_form_is_refused(self, body: bytes) -> None:
        with pytest.raises(WireError):
            decode_answer(OPENAI, body, {})

    def test_a_stream_that_is_cut_off_is_refused(self) -> None:
        with pytest.raises(WireError, match="cut off"):
            decode_answer(OPENAI, event({"choices": [{"text": "b"}]}), EVENTS)

    @pytest.mark.parametrize("error", ["no memory", {"message": "no memory", "code": 500}])
    def test_an_error_event_is_raised(self, error: Any) -> None:
        with pytest.raises(StreamError, match=r"^no memory$"):
            decode_answer(OPENAI, event({"error": error}) + b"data: [DONE]\n\n", EVENTS)

    def test_the_codec_of_a_client_writes_no_answers(self) -> None:
        codec = codec_of(OPENAI)
        with pytest.raises(WireError):
            codec.encode_outputs(["a"])
        assert codec.decode_inputs(b'{"prompt": "x"}', {}) == [{"prompt": "x"}]
        with pytest.raises(WireError):
            codec.decode_inputs(b"{", {})
