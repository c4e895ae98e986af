"""Our own server over the wire ``openai``: completions and chats, whole and streamed, usage, limits, and its errors."""

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from support.asgi import Call
from support.each_row import each_row
from support.scenarios import run

from pytest_mlpatterns.serving.http.app import ModelApp
from pytest_mlpatterns.serving.http.async_jobs import AsyncJobs
from pytest_mlpatterns.serving.http.model_caller import ModelCaller
from pytest_mlpatterns.wire.stream_events import EventStreamParser

COMPLETIONS, CHAT, MODELS = "/v1/completions", "/v1/chat/completions", "/v1/models"
MESSAGES = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "say it"}]},
]


def words(batch: list[Any]) -> Iterator[str]:
    (request,) = batch
    yield from ("one ", "two ", "three")[: request.get("most", 3)]


def app_of(model: Callable[[list[Any]], Any] = words) -> ModelApp:
    return ModelApp(ModelCaller(model), "m", 10_000)


def asked(path: str, body: Any, model: Any = words, method: str = "POST") -> tuple[int, bytes]:
    async def scenario() -> tuple[int, bytes]:
        async with Call(app_of(model), path, body, method=method) as call:
            answer = await call.whole()
        return call.status, answer

    return run(scenario())


def answer_to(path: str, body: Any, model: Any = words) -> Any:
    status, answer = asked(path, body, model)
    assert status == 200, answer
    return orjson.loads(answer)


def events_of(path: str, body: Any, model: Any = words) -> list[Any]:
    status, answer = asked(path, {"stream": True, **body}, model)
    assert status == 200, answer
    *events, end = EventStreamParser().feed(answer)
    assert end.data == b"[DONE]"
    return [orjson.loads(event.data) for event in events]


def error_of(path: str, body: Any, model: Any = words, method: str = "POST") -> tuple[int, Any]:
    status, answer = asked(path, body, model, method)
    return status, orjson.loads(answer)["error"]


class TestWholeAnswers:
    def test_a_completion_has_the_text_the_reason_and_the_usage(self) -> None:
        answer = answer_to(COMPLETIONS, {"model": "m", "prompt": "count to three"})
        assert answer["id"].startswith("cmpl-")
        assert (answer["object"], answer["model"]) == ("text_completion", "m")
        assert answer["choices"] == [{"index": 0, "text": "one two three", "logprobs": None, "finish_reason": "stop"}]
        assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}

    def test_a_chat_has_a_message(self) -> None:
        answer = answer_to(CHAT, {"messages": MESSAGES})
        assert answer["id"].startswith("chatcmpl-")
        assert answer["object"] == "chat.completion"
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": "one two three"}
        assert answer["usage"]["prompt_tokens"] == 4

    @each_row("field", ["max_tokens", "max_completion_tokens"])
    @each_row("most", [1, 2, 3])
    def test_an_answer_of_the_wanted_length_ends_for_its_length(self, field: str, most: int) -> None:
        answer = answer_to(COMPLETIONS, {"prompt": "x", field: most, "ignore_eos": True})
        assert answer["usage"]["completion_tokens"] == most
        assert answer["choices"][0]["finish_reason"] == "length"

    def test_an_answer_that_is_shorter_than_it_may_be_has_stopped(self) -> None:
        assert answer_to(COMPLETIONS, {"prompt": "x", "max_tokens": 4})["choices"][0]["finish_reason"] == "stop"

    def test_the_model_gets_the_request(self) -> None:
        seen: list[Any] = []

        def keeps(batch: list[Any]) -> list[str]:
            seen.extend(batch)
            return ["said"]

        body = {"prompt": ["hello"], "max_completion_tokens": 5, "temperature": 0.5, "ignore_eos": True}
        answer = answer_to(COMPLETIONS, body, keeps)
        assert answer["choices"][0]["text"] == "said"  # of a model that does not stream
        assert seen == [{**body, "prompt": "hello", "max_tokens": 5}]

    @each_row(("prompt", "tokens"), [("a b", 2), ([7, 8, 9], 3), ([[7, 8]], 2), (["a b c"], 3), ("", 0)])
    def test_a_prompt_is_text_or_tokens(self, prompt: Any, tokens: int) -> None:
        assert answer_to(COMPLETIONS, {"prompt": prompt})["usage"]["prompt_tokens"] == tokens

    def test_the_list_of_models_has_one(self) -> None:
        status, answer = asked(MODELS, b"", method="GET")
        (model,) = orjson.loads(answer)["data"]
        assert (status, model["id"], model["object"]) == (200, "m", "model")


class TestStreams:
    def test_a_completion_is_streamed_text_by_text(self) -> None:
        events = events_of(COMPLETIONS, {"prompt": "x"})
        assert [event["choices"][0]["text"] for event in events] == ["one ", "two ", "three", ""]
        assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, None, "stop"]
        assert len({event["id"] for event in events}) == 1
        assert not any("usage" in event for event in events)

    def test_a_model_that_returns_whole_texts_is_streamed_too(self) -> None:
        events = events_of(COMPLETIONS, {"prompt": "x"}, lambda batch: ["one two" for _ in batch])
        assert [event["choices"][0]["text"] for event in events] == ["one two", ""]

    def test_a_chat_begins_with_the_role(self) -> None:
        deltas = [event["choices"][0]["delta"] for event in events_of(CHAT, {"messages": MESSAGES, "max_tokens": 2})]
        assert deltas == [{"role": "assistant", "content": ""}, {"content": "one "}, {"content": "two "}, {}]

    @pytest.mark.parametrize(("path", "body"), [(COMPLETIONS, {"prompt": "x y"}), (CHAT, {"messages": MESSAGES})])
    def test_the_usage_comes_last_and_without_choices(self, path: str, body: Any) -> None:
        *events, usage = events_of(path, {**body, "stream_options": {"include_usage": True}})
        assert all(event["usage"] is None for event in events)
        assert usage["choices"] == []
        assert usage["usage"]["completion_tokens"] == 3

    def test_a_length_that_is_reached_closes_the_model(self) -> None:
        closed = []

        def endless(batch: list[Any]) -> Iterator[str]:
            try:
                while True:
                    yield "on"
            finally:
                closed.append(True)

        events = events_of(COMPLETIONS, {"prompt": "x", "max_tokens": 2}, endless)
        assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, "length"]
        assert closed

    def test_an_error_in_the_middle_is_an_event(self) -> None:
        def breaks(batch: list[Any]) -> Iterator[str]:
            yield "one"
            raise ValueError("lost the thread")

        first, error = events_of(COMPLETIONS, {"prompt": "x"}, breaks)
        assert first["choices"][0]["text"] == "one"
        assert error["error"] == {
            "message": "the model raised ValueError: lost the thread",
            "type": "server_error",
            "param": None,
            "code": None,
        }

    @pytest.mark.parametrize("stream", [True, False])
    def test_a_chunk_that_is_no_text_is_an_error(self, stream: bool) -> None:
        status, error = error_of(COMPLETIONS, {"prompt": "x", "stream": stream}, lambda _: [iter([7])])
        assert (status, error["type"]) == (500, "server_error")
        assert error["message"] == "the model yielded a chunk that cannot be sent: it is int, expected text"


class TestErrors:
    @each_row(
        ("path", "body", "param"),
        (COMPLETIONS, b"{", None),
        (COMPLETIONS, b"[1]", None),
        (COMPLETIONS, {}, "prompt"),
        (COMPLETIONS, {"prompt": 7}, "prompt"),
        (COMPLETIONS, {"prompt": ["a", "b"]}, "prompt"),
        (COMPLETIONS, {"prompt": []}, "prompt"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": 0}, "max_tokens"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": True}, "max_tokens"),
        (COMPLETIONS, {"prompt": "x", "max_completion_tokens": "7"}, "max_completion_tokens"),
        (COMPLETIONS, {"prompt": "x", "n": 2}, "n"),
        (COMPLETIONS, {"prompt": "x", "stream": "yes"}, "stream"),
        (COMPLETIONS, {"prompt": "x", "stream_options": {"include_usage": True}}, "stream_options"),
        (CHAT, {"prompt": "x"}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": ["hello"]}, "messages"),
    )
    def test_a_malformed_request_is_refused_with_the_field(self, path: str, body: Any, param: str | None) -> None:
        status, error = error_of(path, body)
        assert (status, error["type"], error["param"], error["code"]) == (400, "invalid_request_error", param, None)
        assert error["message"]

    def test_an_unknown_model_is_not_found(self) -> None:
        status, error = error_of(CHAT, {"model": "gpt-9", "messages": MESSAGES})
        assert (status, error["param"], error["code"]) == (404, "model", "model_not_found")
        assert error["message"] == "the model 'gpt-9' does not exist, expected 'm'"

    def test_an_error_of_the_model_has_the_form_too(self) -> None:
        status, error = error_of(COMPLETIONS, {"prompt": "x"}, lambda _: 1 / 0)
        assert (status, error["type"]) == (500, "server_error")
        assert error["message"] == "the model raised ZeroDivisionError: division by zero"

    @pytest.mark.parametrize(("path", "method"), [(COMPLETIONS, "GET"), (MODELS, "POST")])
    def test_other_methods_are_refused(self, path: str, method: str) -> None:
        assert error_of(path, b"", method=method)[0] == 405

    async def test_clients_that_poll_are_refused(self) -> None:
        app = ModelApp(ModelCaller(words), "m", 10_000, jobs=AsyncJobs(None))  # type: ignore[arg-type]
        async with Call(app, COMPLETIONS, {"prompt": "x"}) as call:
            body = await call.whole()
        assert call.status == 501
        assert "write Queued()" in orjson.loads(body)["error"]["message"]
