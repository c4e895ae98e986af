"""What a request asks of its answer, by its body."""

from support.each_row import each_row

from pytest_mlpatterns.wire import Wire
from pytest_mlpatterns.wire.stream_request import Asked, asked_by, asked_in_load, asks_for_streams

OPENAI = Wire.parse("openai")


@each_row(
    ("body", "of_openai", "of_rest"),
    (b'{"prompt": "a", "stream": true}', Asked(stream=True, tokens=True), Asked(stream=True, tokens=True)),
    (b'{"prompt": "a", "stream": false}', Asked(stream=False, tokens=True), Asked(stream=False, tokens=True)),
    (b'{"prompt": "a", "stream": null}', Asked(stream=False, tokens=True), Asked(stream=True, tokens=True)),
    (b'{"prompt": "a"}', Asked(stream=False, tokens=True), Asked(stream=True, tokens=True)),
    (b'{"stream": true, "max_tokens": 0}', Asked(stream=True, tokens=False), Asked(stream=True, tokens=False)),
    (b'{"stream": true, "max_tokens": false}', Asked(stream=True, tokens=True), Asked(stream=True, tokens=True)),
    (b"[1, 2]", Asked(stream=False, tokens=True), Asked(stream=True, tokens=True)),
    (b"\x1f\x8b", Asked(stream=False, tokens=True), Asked(stream=True, tokens=True)),
    (b"", Asked(stream=False, tokens=True), Asked(stream=True, tokens=True)),
)
def test_a_body_says_whether_a_stream_with_tokens_is_to_come(body: bytes, of_openai: Asked, of_rest: Asked) -> None:
    assert asked_by(body, by_default=False) == of_openai
    assert asked_by(body, by_default=True) == of_rest


def message(body: bytes, path: bytes = b"/") -> bytes:
    return b"POST %s HTTP/1.1\r\nhost: x\r\n\r\n%s" % (path, body)


IN_LOADS = [
    ("all leave it open", [(b"/", b"{}"), (b"/", b"[1]")], [True, True]),
    ("one asks for a whole answer", [(b"/", b"{}"), (b"/", b'{"stream":false}')], [True, False]),
    ("one asks for a stream", [(b"/", b'{"stream":true}'), (b"/", b"{}"), (b"/", b"[1]")], [True, False, False]),
    ("the last asks for a stream", [(b"/", b'{"stream":null}'), (b"/", b'{"stream":true}')], [False, True]),
    ("only the text asks", [(b"/", b"{}"), (b"/", b'{"prompt":"\\"stream\\":true"}')], [True, True]),
    ("the path decides", [(b"/generate_stream", b"{}"), (b"/generate", b"{}")], [True, False]),
    ("another path asks too", [(b"/a", b'{"stream":true}'), (b"/b", b'{"stream":true}')], [True, True]),
    ("no request", [], []),
]


@each_row(("sent", "streams"), [row[1:] for row in IN_LOADS])
def test_what_a_body_leaves_open_the_others_of_its_load_decide(
    sent: list[tuple[bytes, bytes]], streams: list[bool]
) -> None:
    messages = [message(body, path) for path, body in sent]
    asked = asked_in_load(messages, is_openai=False, has_streams=True)
    assert [asked(request).stream for request in range(len(sent))] == streams
    unexpected = asked_in_load(messages, is_openai=False, has_streams=False)
    assert not any(unexpected(request).stream for request in range(len(sent)))


@each_row(
    ("bodies", "found"),
    ([b'{"stream":false}', b'{"stream":true}'], True),
    ([b'{"stream":false}', b'{"prompt":"\\"stream\\":true"}'], False),
    ([], False),
)
def test_one_request_for_a_stream_makes_it_a_load_of_streams(bodies: list[bytes], found: bool) -> None:
    assert asks_for_streams(OPENAI, [message(body) for body in bodies]) == found
    assert not asks_for_streams(Wire(), [message(body) for body in bodies])
