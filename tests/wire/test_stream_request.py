"""What a request asks of its answer, by its body."""

from __future__ import annotations

import pytest

from pytest_mlpatterns.wire import Wire
from pytest_mlpatterns.wire.stream_request import Asked, asked_by, asks_for_streams

OPENAI = Wire.parse("openai")


@pytest.mark.parametrize(
    ("body", "of_openai", "of_rest"),
    [
        (b'{"prompt": "a", "stream": true}', Asked(stream=True, tokens=True), Asked(stream=True, tokens=True)),
        (b'{"prompt": "a", "stream": false}', Asked(stream=False, tokens=True), Asked(stream=False, tokens=True)),
        (b'{"prompt": "a", "stream": null}', Asked(stream=False, tokens=True), Asked(stream=True, tokens=True)),
        (b'{"prompt": "a"}', Asked(stream=False, tokens=True), Asked(stream=True, tokens=True)),
        (b'{"stream": true, "max_tokens": 0}', Asked(stream=True, tokens=False), Asked(stream=True, tokens=False)),
        (b'{"stream": true, "max_tokens": false}', Asked(stream=True, tokens=True), Asked(stream=True, tokens=True)),
        (b"[1, 2]", Asked(stream=False, tokens=True), Asked(stream=True, tokens=True)),
        (b"\x1f\x8b", Asked(stream=False, tokens=True), Asked(stream=True, tokens=True)),
        (b"", Asked(stream=False, tokens=True), Asked(stream=True, tokens=True)),
    ],
)
def test_a_body_says_whether_a_stream_is_to_come_and_tokens_in_it(
    body: bytes, of_openai: Asked, of_rest: Asked
) -> None:
    assert asked_by(body, is_openai=True) == of_openai
    assert asked_by(body, is_openai=False) == of_rest


def message(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nhost: x\r\n\r\n" + body


@pytest.mark.parametrize(
    ("bodies", "found"),
    [
        ([b'{"stream":false}', b'{"stream":true}'], True),
        ([b'{"stream":false}', b'{"prompt":"\\"stream\\":true"}'], False),
        ([], False),
    ],
)
def test_one_request_for_a_stream_makes_it_a_load_of_streams(bodies: list[bytes], found: bool) -> None:
    assert asks_for_streams(OPENAI, [message(body) for body in bodies]) == found
    assert not asks_for_streams(Wire(), [message(body) for body in bodies])
