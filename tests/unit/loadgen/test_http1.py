"""Responses that repeat the head of the one before: they end where that one did, and are told from any other."""

import pytest
from support.each_row import each_row

from pytest_mlpatterns.loadgen import http1 as http1_module
from pytest_mlpatterns.loadgen.http1 import Http1


def response(body: bytes = b"[1]", *, status: int = 200, headers: bytes = b"", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d X\r\n%scontent-length: %d\r\n\r\n%s" % (status, headers, size, body)


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n"


class Parsed:
    """A protocol that counts how often its parser is fed."""

    def __init__(self, *, keep: bool = False) -> None:
        self.protocol = Http1([b"request"], "host", follow=True, keep=keep)
        self.feeds = 0
        feed = self.protocol._feed

        def counted(data: bytes) -> None:
            self.feeds += 1
            feed(data)

        self.protocol._feed = counted

    def ask(self, *pieces: bytes) -> list[int]:
        self.protocol.ask(0)
        return [self.protocol.take(piece) for piece in pieces]


def test_a_response_with_the_head_of_the_last_one_is_not_parsed_again() -> None:
    parsed = Parsed()
    assert [parsed.ask(response(body)) for body in (b"[1]", b"[2]", b"[3]")] == [[200], [200], [200]]
    assert parsed.feeds == 1


@each_row(
    "other",
    response(b"[2]", headers=b"date: later\r\n"),
    response(b"[20]"),
    response(b"[2]", status=500),
    response(b"no"),
    CHUNKED,
)
def test_a_response_with_another_head_is_parsed(other: bytes) -> None:
    parsed = Parsed()
    parsed.ask(response())
    assert parsed.ask(other) == [500 if b" 500 " in other else 200]
    assert parsed.feeds == 2
    assert parsed.ask(response()) == [200]


def test_a_head_whose_body_is_not_there_yet_is_not_the_end() -> None:
    parsed = Parsed()
    parsed.ask(response())
    whole = response(b"[2]")
    assert parsed.ask(whole[:-1], whole[-1:]) == [0, 200]
    assert parsed.ask(response(b"[3]")) == [200]


def test_a_response_whose_end_only_the_parser_knows_is_always_parsed() -> None:
    parsed = Parsed()
    assert [parsed.ask(CHUNKED) for _ in range(3)] == [[200]] * 3
    assert parsed.feeds == 3


def test_the_last_response_of_a_connection_is_never_the_usual_one() -> None:
    parsed = Parsed()
    last = response(headers=b"connection: close\r\n")
    assert parsed.ask(last) == [200]
    assert parsed.protocol.used_up
    assert parsed.protocol._usual_size == 0


def test_an_accepted_request_is_followed_however_often_it_is_the_same() -> None:
    parsed = Parsed()
    accepted = response(b"", status=202, headers=b"location: /jobs/1\r\n")
    assert [parsed.ask(accepted) for _ in range(2)] == [[0], [0]]
    assert len(parsed.protocol.outbox) == 2


def test_kept_bodies_are_those_of_each_response() -> None:
    parsed = Parsed(keep=True)
    bodies = []
    for body in (b"[1]", b"[2]"):
        parsed.ask(response(body))
        bodies.append(parsed.protocol.body())
    assert bodies == [b"[1]", b"[2]"]
    assert parsed.feeds == 2


def test_a_body_that_is_too_long_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_module, "KEPT_BYTES", 100)
    parsed = Parsed(keep=True)
    long = response(b"x" * 200)
    assert parsed.ask(long[:50], long[50:90], long[90:150], long[150:])[-1] == 200
    assert parsed.protocol.body() == b""
    parsed.ask(response(b"[1]"))
    assert parsed.protocol.body() == b"[1]"


def test_two_responses_in_one_piece_are_noticed() -> None:
    parsed = Parsed()
    parsed.ask(response())
    assert parsed.ask(response() + response()) == [200]
    assert parsed.protocol.used_up
    assert parsed.protocol.unasked
