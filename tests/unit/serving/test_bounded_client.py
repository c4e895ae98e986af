"""The client of functional requests: whatever a server sends, its answer ends within its time and size."""

import itertools
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from support.each_row import each_row
from support.services.endless import script
from support.services.scripted import Close, ScriptedServer, Send, Silence, Step, answer, refused_port

from pytest_mlpatterns.serving.bounded_client import BoundedTransport, EndlessAnswerError, describe_error, get_page

LIMIT_S = 1.0
"""Time limit of requests that exceed it, in seconds; a busy machine may hold up their beginning."""
SIZE, TIME = r"[\d.,]+ (?:[KM]i)?B", r"[\d.]+ m?s"


@contextmanager
def client_of(server: ScriptedServer) -> Iterator[httpx.Client]:
    """A client of a server that runs meanwhile."""
    with (
        server,
        httpx.Client(
            base_url="http://{}:{}".format(*server.address), trust_env=False, timeout=30, transport=BoundedTransport()
        ) as client,
    ):
        yield client


def answering(name: str) -> ScriptedServer:
    return ScriptedServer(script({"/health": name}))


@pytest.mark.parametrize("name", ["drips-fast", "interim-fast"])
def test_bytes_that_keep_coming_do_not_lengthen_the_time_limit(name: str) -> None:
    with client_of(answering(name)) as client, pytest.raises(EndlessAnswerError) as caught:
        client.get("/health", timeout=LIMIT_S)
    expected = rf"GET /health answers without end: {SIZE} after {TIME}; name a path that answers once"
    assert re.fullmatch(expected, str(caught.value))
    assert not caught.value.is_over_bound
    assert caught.value.request.url.path == "/health"
    assert describe_error(caught.value) == str(caught.value)


def test_who_waits_for_an_answer_may_look_meanwhile_and_end_the_wait() -> None:
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise LookupError("the server has ended")

    with client_of(answering("hangs")) as client, pytest.raises(LookupError):
        get_page(client, "/health", 60, on_wait=look)
    assert len(looks) == 2


EVENT = b"data: 1\n\n"


@each_row(
    ("steps", "words"),
    (
        lambda: itertools.repeat(Send(EVENT)),
        rf"answers without end: {SIZE} after {TIME}; ask for a shorter answer, such as one of fewer tokens",
    ),
    (
        lambda: [Send(EVENT), Silence()],
        rf"stalls: [\d.]+ B came, and nothing in the {TIME} after; raise its time limit, or mend the service",
    ),
    (
        lambda: [Send(EVENT + b"data: [DONE]\n\n"), Silence()],
        rf"sent \[DONE\] and did not end its HTTP response in {TIME}; end it after its last event",
    ),
)
@each_row("kind", [b"text/event-stream", b"application/x-ndjson; charset=utf-8"])
def test_a_stream_that_does_not_end_in_time_is_told_by_how_it_went_on(
    steps: Callable[[], Iterable[Step]], words: str, kind: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: 1000000000\r\n\r\n" % kind
    server = ScriptedServer(lambda _: itertools.chain([Send(head)], steps()))
    with client_of(server) as client, pytest.raises(EndlessAnswerError, match=rf"^POST /v1/completions {words}$"):
        client.post("/v1/completions", timeout=LIMIT_S)


@pytest.mark.parametrize("name", ["floods", "two-gigabytes", "bomb", "bomb-of-20-mib"])
def test_a_page_is_read_up_to_its_bound(name: str) -> None:
    with (
        client_of(answering(name)) as client,
        pytest.raises(EndlessAnswerError, match=r"^GET /health answers without end: \d\d\.\d MiB after ") as caught,
    ):
        get_page(client, "/health", 60)
    assert caught.value.is_over_bound


@pytest.mark.parametrize("name", ["head-floods", "wide-header", "many-headers"])
def test_a_head_without_end_is_named(name: str) -> None:
    expected = r"^GET /health answers with over 100 KiB of headers$"
    with client_of(answering(name)) as client, pytest.raises(EndlessAnswerError, match=expected) as caught:
        client.get("/health", timeout=60)
    assert caught.value.is_over_bound


def test_silence_is_no_answer() -> None:
    with client_of(answering("hangs")) as client, pytest.raises(httpx.ReadTimeout) as caught:
        client.get("/health", timeout=LIMIT_S)
    assert not isinstance(caught.value, EndlessAnswerError)
    assert describe_error(caught.value) == "ReadTimeout: no answer after 1.00 s"


def test_a_page_asks_for_no_compression() -> None:
    server = ScriptedServer()
    with client_of(server) as client:
        assert get_page(client, "/health", 30).text == "ok"
    assert b"accept-encoding: identity" in server.requests[0].head.lower()


def test_answers_that_end_are_whole_and_keep_their_connection() -> None:
    body = bytes(range(256)) * 1000
    server = ScriptedServer(lambda _: [Send(answer(body, 200, b"x-kind: test"), 1000)])
    with client_of(server) as client:
        responses = [client.post("/predict", content=body) for _ in range(3)]
        assert [response.content for response in responses] == [body] * 3
        assert responses[0].headers["x-kind"] == "test"
        assert [request.body for request in server.requests] == [body] * 3
    assert server.connections == 1


def test_without_a_time_limit_a_stream_is_read_as_long_as_its_reader_likes() -> None:
    with client_of(answering("events")) as client, client.stream("GET", "/health", timeout=None) as response:
        assert next(response.iter_text()) == ":\n\n"


@each_row(
    ("steps", "error"),
    ([Close()], httpx.RemoteProtocolError),
    ([Send(b"garbage\r\n\r\n")], httpx.RemoteProtocolError),
    ([Send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab"), Close()], httpx.RemoteProtocolError),
)
def test_errors_are_those_of_httpx(steps: list[Step], error: type[Exception]) -> None:
    with client_of(ScriptedServer(lambda _: steps)) as client, pytest.raises(error):
        client.get("/health")


def test_a_refused_connection_is_an_error_of_httpx() -> None:
    with httpx.Client(transport=BoundedTransport()) as client, pytest.raises(httpx.ConnectError):
        client.get(f"http://127.0.0.1:{refused_port()}/")


def test_a_reader_that_does_not_read_is_not_written_to_for_longer_than_the_limit() -> None:
    with socket.socket() as listener, httpx.Client(transport=BoundedTransport()) as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(httpx.WriteTimeout):
            client.post(f"http://127.0.0.1:{listener.getsockname()[1]}/", content=bytes(2**25), timeout=LIMIT_S)


def test_no_time_left_is_a_time_out_at_once() -> None:
    server = ScriptedServer()
    with client_of(server) as client, pytest.raises(httpx.ConnectTimeout):
        client.get("/health", timeout=0.0)
    assert server.requests == []
