"""The error of a failed request, from whatever a service answers."""

from __future__ import annotations

import httpx
import pytest

from pytest_mlpatterns import Deployment
from pytest_mlpatterns.serving.failed_request import error_in
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.serving.stream_failure import stream_failure
from pytest_mlpatterns.wire import Wire
from pytest_mlpatterns.workload.endpoint import Endpoint


@pytest.mark.parametrize(
    ("content", "charset", "expected"),
    [
        (b'{"detail": "no such model"}', "utf-8", "no such model"),
        (b"the model raised KeyError: 'a'", "utf-8", "KeyError: 'a'"),
        (b"too  busy\nnow", "hex", "too busy now"),
        (b"[" * 100_000, "utf-8", "[" * 200),
        (b"", "undefined", "503"),
        (b'{"error": {"message": "too many tokens", "type": "invalid_request_error"}}', "utf-8", "too many tokens"),
    ],
)
def test_an_answer_gives_its_error_in_one_line(content: bytes, charset: str, expected: str) -> None:
    response = httpx.Response(503, headers={"content-type": f"application/json; charset={charset}"}, content=content)
    deployment = Deployment(Endpoint((("127.0.0.1", 1),), "/predict", "m"), ForeignProcesses())
    assert error_in(response, deployment, ()) == expected


DONE = b"data: [DONE]\n\n"


def stream_of(body: bytes) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)


@pytest.mark.parametrize(
    ("wire", "body", "expected"),
    [
        ("rest+json", b"data: 1\n\n" + DONE, ""),
        ("rest+json", b"data: 1\n\n", ""),
        (
            "rest+json",
            b'event: error\ndata: {"error": "out of words"}\n\n',
            "the stream ended with an error: out of words",
        ),
        ("rest+json", b"event: error\ndata: out of words\n\n", "the stream ended with an error: out of words"),
        ("openai", b'data: {"choices": [{"text": "a"}]}\n\n' + DONE, ""),
        ("openai", b'data: {"choices": [{"text": "a"}]}\n\n', "the stream ended without [DONE]"),
        ("openai", b"data: 1\n\n" + DONE, "the stream has an event that is not one of openai"),
        (
            "openai",
            b'data: {"error": {"message": "no memory", "code": 500}}\n\n' + DONE,
            "the stream ended with an error: no memory",
        ),
    ],
)
def test_a_stream_of_status_200_may_have_failed(wire: str, body: bytes, expected: str) -> None:
    response = stream_of(body)
    assert stream_failure(response, Wire.parse(wire)) == expected
    endpoint = Endpoint((("127.0.0.1", 1),), "/predict", "m", wire=Wire.parse(wire))
    if expected:
        assert error_in(response, Deployment(endpoint, ForeignProcesses()), ()) == expected


def test_an_answer_that_is_no_stream_has_not_failed_as_one() -> None:
    assert stream_failure(httpx.Response(200, json={"predictions": [1]}), Wire()) == ""
