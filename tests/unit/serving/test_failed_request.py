"""The error of a failed request, from whatever a service answers."""

import httpx
from support.each_row import each_row

from pytest_mlpatterns import Deployment
from pytest_mlpatterns.serving.failed_request import error_in, error_text, stream_failure
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.wire import Wire
from pytest_mlpatterns.workload.endpoint import Endpoint


@each_row(
    ("content", "charset", "expected"),
    (b'{"detail": "no such model"}', "utf-8", "no such model"),
    (b"the model raised KeyError: 'a'", "utf-8", "KeyError: 'a'"),
    (b"too  busy\nnow", "hex", "too busy now"),
    (b"[" * 100_000, "utf-8", "[" * 200),
    (b"", "undefined", "503"),
    (b'{"error": {"message": "too many tokens", "type": "invalid_request_error"}}', "utf-8", "too many tokens"),
)
def test_an_answer_gives_its_error_in_one_line(content: bytes, charset: str, expected: str) -> None:
    response = httpx.Response(503, headers={"content-type": f"application/json; charset={charset}"}, content=content)
    deployment = Deployment(Endpoint((("127.0.0.1", 1),), "/predict", "m"), ForeignProcesses())
    assert error_in(response, deployment, str, body=b"") == expected


def test_a_redirection_gives_its_target_without_its_query() -> None:
    response = httpx.Response(307, headers={"location": "/predict/?token=1"})
    assert error_text(response) == "it redirects to /predict/, which is not followed: send the requests there"


DONE = b"data: [DONE]\n\n"
ASKS = b'{"prompt": "a", "stream": true}'


@each_row(
    ("wire", "body", "expected"),
    ("rest+json", b"data: 1\n\n" + DONE, ""),
    ("rest+json", b"data: 1\n\n", ""),
    ("rest+json", b'event: error\ndata: {"error": "out of words"}\n\n', "the stream ended with an error: out of words"),
    ("rest+json", b"event: error\ndata: out of words\n\n", "the stream ended with an error: out of words"),
    ("openai", b'data: {"choices": [{"text": "a"}]}\n\n' + DONE, ""),
    ("openai", b'data: {"choices": [{"text": "a"}]}\n\n', "the stream ended without [DONE]"),
    ("openai", b"data: 1\n\n" + DONE, "the stream has an event that is not one of openai"),
    (
        "openai",
        b'data: {"error": {"message": "no memory", "code": 500}}\n\n' + DONE,
        "the stream ended with an error: no memory",
    ),
    ("openai", b'data: {"detail": "no memory"}\n\n' + DONE, "the stream ended with an error: no memory"),
    ("openai", DONE, "the stream is empty: no event has content, expected at least one; the first is [DONE]"),
    ("rest+json", b"", "the stream is empty: no event has content, expected at least one"),
    (
        "rest+json",
        b"a b c",
        "the stream is empty: no event has content, expected at least one; its bytes are no events: if the service "
        'sends plain text, give the target stream="chunks"',
    ),
)
def test_a_stream_of_status_200_may_have_failed(wire: str, body: bytes, expected: str) -> None:
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    assert stream_failure(response, Wire.parse(wire), ASKS) == expected
    endpoint = Endpoint((("127.0.0.1", 1),), "/predict", "m", wire=Wire.parse(wire))
    if expected:
        assert error_in(response, Deployment(endpoint, ForeignProcesses()), str, body=ASKS) == expected


def test_an_answer_that_is_no_stream_has_not_failed_as_one_if_none_was_requested() -> None:
    whole = httpx.Response(200, json={"predictions": [1]})
    assert stream_failure(whole, Wire(), ASKS) == ""
    assert stream_failure(whole, Wire.parse("openai"), b'{"prompt": "a", "stream": false}') == ""


@each_row(
    ("response", "found"),
    (
        httpx.Response(200, json={"error": {"message": "no memory"}}),
        "application/json, expected text/event-stream: no memory",
    ),
    (
        httpx.Response(200, html="\n<html>login</html>\n<p>"),
        "text/html; charset=utf-8, expected text/event-stream: <html>login</html>",
    ),
    (httpx.Response(204), "no content-type, expected text/event-stream: an empty body"),
)
def test_a_success_that_is_no_stream_has_failed_if_one_was_requested(response: httpx.Response, found: str) -> None:
    assert stream_failure(response, Wire.parse("openai"), ASKS).startswith(f"its answer is no stream: {found}")
