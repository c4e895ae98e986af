"""One connection of the load: every answer, however it is cut into pieces, ends its request in exactly one row.

The test is the server, in the same thread: it sends a piece, lets the connection read it, and sends the next.
"""

import resource
import selectors
import socket
import struct
from array import array
from collections.abc import Iterator
from time import perf_counter_ns

import pytest
from support.each_row import each_row
from support.services import peer2
from support.services.scripted import answer, refused_port

from pytest_mlpatterns.loadgen.connection import Connection
from pytest_mlpatterns.loadgen.http1 import Http1
from pytest_mlpatterns.loadgen.http2 import HeaderReader, Http2, RequestBlocks
from pytest_mlpatterns.loadgen.http2_frames import Frame
from pytest_mlpatterns.loadgen.recorder import ResponseSample, SampleRecorder
from pytest_mlpatterns.records.outcomes import Failure

REQUEST = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none"
SECOND = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\ntwo"
PATIENCE_S = 10

LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
FAREWELL = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
TRAILERS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nx-sum: 1\r\nx-end: 2\r\n\r\n"

COMPLETE = {  # answers that say themselves where they end: bytes, status, body
    "content-length": (LENGTH, 200, b"hello"),
    "Content-Length": (b"HTTP/1.1 200 OK\r\nContent-Length:5\r\n\r\nhello", 200, b"hello"),
    "empty": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b""),
    "chunked": (CHUNKED, 200, b"hello"),
    "trailers": (TRAILERS, 200, b"hello"),
    "no-content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "not-modified": (b"HTTP/1.1 304 Not Modified\r\netag: 1\r\n\r\n", 304, None),
    "error": (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy", 503, None),
    "close-with-length": (FAREWELL, 200, b"hello"),
    "close-chunked": (CHUNKED.replace(b"OK\r\n", b"OK\r\nConnection: Close\r\n"), 200, b"hello"),
    "http-1.0-with-length": (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
    "http-1.0-keep-alive": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello",
        200,
        b"hello",
    ),
    "after-100": (CONTINUE + LENGTH, 200, b"hello"),
    "after-103": (HINTS + CHUNKED, 200, b"hello"),
    "after-100-and-103": (CONTINUE + HINTS + FAREWELL, 200, b"hello"),
}
ENDLESS = {  # answers that end where the connection ends: bytes of the head, body
    "close-without-length": (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"hello"),
    "no-header-at-all": (b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\n", b"hello"),
    "http-1.0": (b"HTTP/1.0 200 OK\r\n\r\n", b"hello"),
    "empty-body": (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b""),
    "after-103": (HINTS + b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"hello"),
}


class Bench:
    """The owner of one connection, and the server that it talks to."""

    def __init__(
        self, messages: tuple[bytes, ...], *, keep: bool, address: tuple[str, int] | None = None, follow: bool = False
    ) -> None:
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self.recording = SampleRecorder()
        self.answers = ResponseSample(100) if keep else None
        self.connect_ns = array("q")
        self.waited_ns = array("q")
        self.sent_again_ns = array("q")
        self.messages = messages
        self.protocol = lambda address: Http1(messages, address[0], follow=follow, keep=keep)
        self.failures: list[bool] = []
        self.then: list[int] = []  # requests sent at once when the one before is answered, as a closed loop does
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE_S)
        self.connection = Connection(self, address or self.listener.getsockname(), 0)
        self._peers: list[socket.socket] = []

    @property
    def kept(self) -> list[tuple[int, bytes]] | None:
        """The requests and bodies of the answers that were kept; None if none is to be."""
        return self.answers and [(answer.request, answer.body) for answer in self.answers.kept]

    def completed(self, connection: Connection, now_ns: int, *, failed: bool) -> None:
        assert connection is self.connection
        assert not connection.busy
        self.failures.append(failed)
        if self.then:
            connection.send(self.then.pop(0))

    @property
    def rows(self) -> list[int]:
        """The outcome of each row."""
        return list(self.recording.outcome)

    def turn(self) -> None:
        """Wait until the connection has something to do, and let it."""
        ready = self.selector.select(PATIENCE_S)
        assert ready, "nothing happened"
        for key, mask in ready:
            key.data(mask)

    def accept(self, *, receive_buffer_bytes: int | None = None) -> socket.socket:
        """The server's end of a new connection."""
        if receive_buffer_bytes is not None:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        peer, _ = self.listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.settimeout(PATIENCE_S)
        self._peers.append(peer)
        return peer

    def request(self, number: int = 0) -> socket.socket:
        """Send a request over a new connection; the server's end of it, with the request read."""
        self.connection.send(number)
        peer = self.accept()
        self.turn()
        assert read(peer, len(self.messages[number])) == self.messages[number]
        return peer

    def deliver(self, peer: socket.socket, *pieces: bytes) -> None:
        """Send pieces, each of which is read before the next is sent."""
        for piece in pieces:
            peer.sendall(piece)
            self.turn()

    def end(self, peer: socket.socket) -> None:
        """Close the server's end, and let the connection see it."""
        peer.close()
        self.turn()

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.selector.close()
        self.listener.close()
        for peer in self._peers:
            peer.close()


def read(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := peer.recv(size - len(data))):
        data += piece
    return data


def is_closed(peer: socket.socket) -> bool:
    """Whether the other end closed, after whatever it still sent."""
    try:
        while peer.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.fixture(params=[False, True], ids=["times-only", "keeping-answers"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Bench((REQUEST, SECOND), keep=request.param) as bench:
        yield bench


def expect(bench: Bench, outcome: int, received: int, body: bytes | None) -> None:
    """Exactly one row of this outcome and size; its body where bodies are kept."""
    assert bench.rows == [outcome]
    assert bench.failures == [outcome < 0]
    assert list(bench.recording.received_bytes) == [received]
    assert bench.kept in (None, [] if body is None else [(0, body)])


@each_row("name", COMPLETE)
@each_row("keep", [False, True])
def test_an_answer_is_one_row_at_whichever_byte_it_is_split(name: str, keep: bool) -> None:
    data, status, body = COMPLETE[name]
    for cut in range(1, len(data)):
        with Bench((REQUEST,), keep=keep) as bench:
            peer = bench.request()
            bench.deliver(peer, data[:cut])
            assert bench.rows == [], f"complete after {data[:cut]!r}"
            bench.deliver(peer, data[cut:])
            expect(bench, status, len(data), body)


@pytest.mark.parametrize("name", COMPLETE)
def test_an_answer_may_come_whole_or_byte_by_byte(bench: Bench, name: str) -> None:
    data, status, body = COMPLETE[name]
    peer = bench.request()
    bench.deliver(peer, *(data[i : i + 1] for i in range(len(data))))
    expect(bench, status, len(data), body)
    if bench.connection.busy:
        pytest.fail("busy after its answer")
    bench.connection.send(1)
    if peer_is_kept(data):
        bench.deliver(peer, LENGTH)
    else:
        assert is_closed(peer)
        peer = bench.accept()
        bench.turn()
        bench.deliver(peer, LENGTH)
    assert bench.rows == [status, 200]
    assert list(bench.recording.request) == [0, 1]


def peer_is_kept(data: bytes) -> bool:
    lowered = data.lower()
    return b"connection: close" not in lowered and (b"http/1.0" not in lowered or b"keep-alive" in lowered)


@each_row("name", COMPLETE)
def test_an_answer_that_breaks_off_at_any_byte_is_one_closed_row(name: str) -> None:
    data, _, _ = COMPLETE[name]
    for cut in range(len(data)):
        with Bench((REQUEST,), keep=True) as bench:
            peer = bench.request()
            if cut:
                bench.deliver(peer, data[:cut])
            bench.end(peer)
            assert bench.rows == [Failure.CLOSED], f"after {data[:cut]!r}"
            expect(bench, Failure.CLOSED, cut, None)


@each_row("name", ENDLESS)
@each_row("keep", [False, True])
def test_an_answer_without_a_length_ends_with_its_connection(name: str, keep: bool) -> None:
    head, body = ENDLESS[name]
    data = head + body
    for cut in range(1, len(data)):
        with Bench((REQUEST,), keep=keep) as bench:
            peer = bench.request()
            bench.deliver(peer, data[:cut], data[cut:])
            assert bench.rows == []
            bench.end(peer)
            assert bench.rows == [200], f"split after {data[:cut]!r}"
            expect(bench, 200, len(data), body)


@each_row("name", ENDLESS)
def test_an_answer_without_a_length_that_breaks_off_in_its_head_is_closed(name: str) -> None:
    head, _ = ENDLESS[name]
    for cut in range(1, len(head)):
        with Bench((REQUEST,), keep=False) as bench:
            peer = bench.request()
            bench.deliver(peer, head[:cut])
            bench.end(peer)
            assert bench.rows == [Failure.CLOSED], f"after {head[:cut]!r}"


def test_a_reset_is_not_the_end_of_an_answer_without_a_length(bench: Bench) -> None:
    peer = bench.request()
    bench.deliver(peer, b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhel")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    bench.end(peer)
    assert bench.rows == [Failure.CLOSED]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_garbage_is_one_malformed_row_and_the_next_request_gets_a_new_connection(bench: Bench, data: bytes) -> None:
    peer = bench.request()
    bench.deliver(peer, data)
    assert bench.rows == [Failure.MALFORMED]
    assert is_closed(peer)
    bench.deliver(bench.request(1), LENGTH)
    assert bench.rows == [Failure.MALFORMED, 200]


@pytest.mark.parametrize(
    ("unasked", "rows"),
    [(LENGTH, [Failure.UNASKED]), (b"\x00garbage", []), (answer(b"too slow", 408), []), (HINTS, [])],
)
def test_what_comes_unasked_ends_the_connection_and_an_answer_is_a_failure_of_the_request_before(
    bench: Bench, unasked: bytes, rows: list[int]
) -> None:
    peer = bench.request()
    bench.deliver(peer, LENGTH)
    bench.deliver(peer, unasked)
    assert is_closed(peer)
    bench.deliver(bench.request(1), answer(b"mine"))
    assert bench.rows == [200, *rows, 200]
    assert list(bench.recording.request) == [0, *(0 for _ in rows), 1]
    assert len({*bench.recording.due_ns}) == 2
    assert bench.kept in (None, [(0, b"hello"), (1, b"mine")])


def test_two_answers_in_one_piece_do_not_answer_the_next_request(bench: Bench) -> None:
    peer = bench.request()
    bench.then = [1]
    bench.deliver(peer, LENGTH + answer(b"stale"))
    assert bench.rows == [Failure.UNASKED, 200], "answered before the server has seen it"
    assert [*bench.recording.received_bytes] == [0, len(LENGTH + answer(b"stale"))]
    assert bench.kept in (None, [(0, b"hello")])


@pytest.mark.parametrize("surplus", [b"junk", LENGTH], ids=["junk", "answer"])
def test_bytes_after_the_last_response_do_not_reach_the_next_request(bench: Bench, surplus: bytes) -> None:
    peer = bench.request()
    bench.then = [1]
    bench.deliver(peer, FAREWELL + surplus)
    assert bench.rows == [200]
    fresh = bench.accept()
    bench.turn()
    bench.deliver(fresh, answer(b"mine"))
    assert bench.rows == [200, 200]
    assert bench.kept in (None, [(0, b"hello"), (1, b"mine")])


def test_the_beginning_of_an_unasked_answer_is_not_that_of_the_next(bench: Bench) -> None:
    peer = bench.request()
    bench.deliver(peer, LENGTH)
    stale = answer(b"stale")
    bench.deliver(peer, stale[:10])
    bench.connection.send(1)
    if not is_closed_now(peer):
        bench.deliver(peer, stale[10:])
    assert (1, b"stale") not in (bench.kept or ())
    assert 200 not in bench.rows[1:]


def is_closed_now(peer: socket.socket) -> bool:
    """Whether the other end has closed already; what it sent before is dropped."""
    peer.setblocking(False)
    try:
        while peer.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    else:
        return True
    finally:
        peer.settimeout(PATIENCE_S)


def test_a_connection_that_closes_between_requests_is_opened_again_and_no_error(bench: Bench) -> None:
    peer = bench.request()
    bench.deliver(peer, LENGTH)
    bench.end(peer)
    bench.deliver(bench.request(1), LENGTH)
    assert bench.rows == [200, 200]
    assert bench.failures == [False, False]


def test_opening_ahead_needs_no_request_and_the_request_then_uses_that_connection(bench: Bench) -> None:
    bench.connection.open()
    bench.connection.open()
    peer = bench.accept()
    bench.turn()
    assert bench.rows == []
    bench.connection.send(0)
    assert read(peer, len(REQUEST)) == REQUEST
    bench.deliver(peer, LENGTH)
    assert bench.rows == [200]


@pytest.mark.parametrize("requests", [0, 1])
def test_a_refused_connection_is_a_connect_row_for_the_request_that_wanted_it(requests: int) -> None:
    with Bench((REQUEST,), keep=False, address=("127.0.0.1", refused_port())) as bench:
        bench.connection.open()
        for _ in range(requests):
            bench.connection.send(0)
        bench.turn()
        assert bench.rows == [Failure.CONNECT] * requests


def test_an_address_that_fails_at_once_is_a_connect_row() -> None:
    with Bench(
        (REQUEST,), keep=False, address=("255.255.255.255", 9)
    ) as bench:  # TCP to broadcast: refused before any packet
        bench.connection.send(0)
        if bench.connection.busy:
            bench.turn()
        assert bench.rows == [Failure.CONNECT]


def test_a_connection_for_which_there_is_no_descriptor_is_a_connect_row() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Bench((REQUEST,), keep=False) as bench:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))  # no new one is given
        try:
            bench.connection.send(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if bench.connection.busy:
            bench.turn()
        assert bench.rows == [Failure.CONNECT]
        bench.deliver(bench.request(0), LENGTH)
        assert bench.rows == [Failure.CONNECT, 200]


def test_giving_up_is_one_row_and_a_late_answer_goes_to_nobody(bench: Bench) -> None:
    peer = bench.request()
    bench.connection.fail(Failure.TIMEOUT)
    bench.connection.fail(Failure.TIMEOUT)
    assert bench.rows == [Failure.TIMEOUT]
    assert is_closed(peer)
    later = bench.request(1)
    bench.deliver(later, LENGTH)
    assert bench.rows == [Failure.TIMEOUT, 200]


def test_a_request_is_due_when_its_caller_says_and_sent_now_otherwise(bench: Bench) -> None:
    peer = bench.request()
    bench.deliver(peer, LENGTH)
    bench.connection.send(1, 12_345)
    bench.deliver(peer, LENGTH)
    recording = bench.recording
    assert recording.due_ns[0] == recording.sent_ns[0]
    assert recording.due_ns[1] == 12_345
    assert recording.sent_ns[0] <= recording.done_ns[0] <= recording.sent_ns[1] <= recording.done_ns[1]


def test_a_large_request_is_sent_as_the_server_reads_it() -> None:
    body = bytes(range(256)) * (64 * 1024)  # 16 MiB, more than buffers hold
    message = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with Bench((REQUEST, message), keep=False) as bench:
        bench.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer = bench.request()
        bench.deliver(peer, LENGTH)
        bench.connection.send(1)
        received = bytearray()
        bench.selector.register(peer, selectors.EVENT_READ, lambda _mask: received.extend(peer.recv(1 << 20)))
        while len(received) < len(message):
            bench.turn()
        assert received == message
        bench.selector.unregister(peer)
        bench.deliver(peer, LENGTH)
        assert bench.rows == [200, 200]


def test_an_answer_to_half_a_request_does_not_let_the_rest_run_into_the_next() -> None:
    message = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (1 << 24, b"x" * (1 << 24))
    with Bench((message, SECOND), keep=False) as bench:
        bench.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        bench.connection.send(0)
        peer = bench.accept()
        bench.turn()
        assert peer.recv(100).startswith(b"POST / HTTP/1.1")
        peer.sendall(answer(b"too long", 413))
        while not bench.rows:
            bench.turn()
        assert bench.rows == [413]
        bench.connection.send(1)
        bench.listener.settimeout(0.5)
        fresh = bench.accept()
        assert is_closed(peer)
        bench.turn()
        assert read(fresh, len(SECOND)) == SECOND
        bench.deliver(fresh, LENGTH)
        assert bench.rows == [413, 200]


CLOSING = b"HTTP/1.1 413 Too Large\r\nconnection: close\r\n"


@pytest.mark.parametrize(
    ("left", "outcome"),
    [
        (CLOSING + b"content-length: 3\r\n\r\nbig", 413),
        (CLOSING + b"\r\nbig", Failure.CLOSED),  # a reset does not tell whether that is all
        (b"", Failure.CLOSED),
    ],
    ids=["whole", "without-length", "nothing"],
)
def test_what_a_server_answered_to_half_a_request_before_it_went_counts_if_it_is_whole(
    bench: Bench, left: bytes, outcome: int
) -> None:
    bench.messages = (b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (1 << 24, bytes(1 << 24)), SECOND)
    bench.protocol = lambda address: Http1(bench.messages, address[0], follow=False, keep=bench.answers is not None)
    bench.connection.send(0)
    peer = bench.accept()
    bench.turn()
    peer.sendall(left)
    peer.close()  # resets, since it leaves bytes unread
    while not bench.rows:
        bench.turn()
    expect(bench, outcome, len(left), None)
    assert not bench.connection.busy
    bench.deliver(bench.request(1), LENGTH)
    assert bench.rows == [outcome, 200]


def test_a_call_whose_server_is_gone_before_its_ping_is_answered_is_one_row() -> None:
    call = peer2.message(b"text")
    address = ("127.0.0.1", 1)
    blocks = RequestBlocks.of(address, "/service/Method")
    with Bench((call,), keep=True) as bench:
        bench.protocol = lambda _address: Http2((call,), blocks, HeaderReader(), keep=True)
        bench.connection.send(0)
        peer = bench.accept()
        bench.turn()
        assert peer.recv(1 << 16)
        peer.sendall(peer2.settings() + peer2.answer(b"hello") + peer2.frame(Frame.PING, 0, 0, bytes(8)))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        bench.end(peer)
        assert bench.rows == [200]
        assert bench.failures == [False]
        assert bench.kept == [(0, b"hello")]
        assert not bench.connection.busy


def meet_the_end(bench: Bench, *, reset: bool) -> socket.socket:
    """Send a request over a connection that the server has just closed; the server's end of the one after it."""
    peer = bench.request()
    bench.deliver(peer, LENGTH)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))
    peer.close()
    bench.connection.send(1, 12_345)  # before the connection could see it
    while not bench.sent_again_ns:
        bench.turn()
    fresh = bench.accept()
    bench.turn()
    assert read(fresh, len(SECOND)) == SECOND
    return fresh


@pytest.mark.parametrize("reset", [True, False])
def test_a_request_that_meets_a_closed_connection_is_sent_again_from_its_due_time(bench: Bench, reset: bool) -> None:
    fresh = meet_the_end(bench, reset=reset)
    bench.deliver(fresh, answer(b"mine"))
    assert bench.rows == [200, 200]
    assert bench.recording.due_ns[1] == bench.sent_again_ns[0] == 12_345
    assert bench.failures == [False, False]
    assert bench.kept in (None, [(0, b"hello"), (1, b"mine")])


def test_a_request_is_sent_again_once(bench: Bench) -> None:
    bench.end(meet_the_end(bench, reset=False))
    assert bench.rows == [200, Failure.CLOSED]
    assert len(bench.sent_again_ns) == 1
    bench.deliver(bench.request(0), LENGTH)
    assert bench.rows == [200, Failure.CLOSED, 200]


def test_a_request_whose_second_connection_is_refused_is_a_connect_row(bench: Bench) -> None:
    peer = bench.request()
    bench.deliver(peer, LENGTH)
    bench.listener.close()
    peer.close()
    bench.connection.send(1)
    while bench.connection.busy:
        bench.turn()
    assert bench.rows == [200, Failure.CONNECT]


def test_a_byte_of_the_answer_or_an_accepted_request_forbids_a_second_try(bench: Bench) -> None:
    peer = bench.request()
    bench.deliver(peer, LENGTH)
    bench.connection.send(1)
    bench.deliver(peer, LENGTH[:1])
    bench.end(peer)
    assert bench.rows == [200, Failure.CLOSED]
    bench.protocol = lambda address: Http1(bench.messages, address[0], follow=True, keep=False)
    peer = bench.request()
    bench.deliver(peer, TestAcceptedRequests.ACCEPTED)
    bench.end(peer)
    assert bench.rows == [200, Failure.CLOSED, Failure.CLOSED]


def test_a_call_that_a_server_goes_away_from_is_sent_again_over_a_new_connection() -> None:
    call, blocks = peer2.message(b"text"), RequestBlocks.of(("127.0.0.1", 1), "/service/Method")
    with Bench((call, call), keep=False) as bench:
        bench.protocol = lambda _address: Http2((call, call), blocks, HeaderReader(), keep=False)
        bench.connection.send(0)
        peer = bench.accept()
        bench.turn()
        bench.deliver(peer, peer2.settings() + peer2.answer())
        bench.connection.send(1)
        bench.deliver(peer, peer2.frame(Frame.GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4)))
        fresh = bench.accept()
        bench.turn()
        bench.deliver(fresh, peer2.settings() + peer2.answer())
        assert bench.rows == [200, 200]
        assert len(bench.sent_again_ns) == 1


def test_ipv6_addresses_are_connected_to() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:  # a machine without IPv6: then the attempt is a row, as any other that fails
        with Bench((REQUEST,), keep=False, address=("::1", 9)) as bench:
            bench.connection.send(0)
            if bench.connection.busy:
                bench.turn()
            assert bench.rows == [Failure.CONNECT]
        return
    with listener, Bench((REQUEST,), keep=False, address=listener.getsockname()[:2]) as bench:
        bench.connection.send(0)
        peer, _ = listener.accept()
        with peer:
            bench.turn()
            bench.deliver(peer, LENGTH)
        assert bench.rows == [200]


class TestAcceptedRequests:
    """Answers of 202, whose result is asked for at their location, where the owner says so."""

    ACCEPTED = b"HTTP/1.1 202 Accepted\r\nLocation: /v1/jobs/7\r\ncontent-length: 2\r\n\r\n{}"
    RESULT = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"

    @pytest.mark.parametrize("keep", [False, True], ids=["times-only", "keeping-answers"])
    @pytest.mark.parametrize("times", [1, 3])
    def test_the_result_is_asked_for_until_it_is_there(self, keep: bool, times: int) -> None:
        asked = b"GET /v1/jobs/7 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
        with Bench((REQUEST,), keep=keep, follow=True) as bench:
            peer = bench.request()
            for _ in range(times):
                bench.deliver(peer, self.ACCEPTED)
                assert read(peer, len(asked)) == asked
                assert bench.rows == []
            bench.deliver(peer, self.RESULT)
            expect(bench, 200, len(self.RESULT), b"hello")
            assert not is_closed_now(peer)

    def test_status_202_ends_the_request_unless_the_job_follows(self) -> None:
        with Bench((REQUEST,), keep=False) as bench:
            bench.deliver(bench.request(), self.ACCEPTED)
            assert bench.rows == [202]

    @pytest.mark.parametrize(
        ("answer", "failure"),
        [
            (b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", Failure.MALFORMED),
            (
                b"HTTP/1.1 202 Accepted\r\nlocation: /j\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                Failure.CLOSED,
            ),
        ],
        ids=["without-location", "closing"],
    )
    def test_an_acceptance_that_leads_nowhere_is_a_failure(self, answer: bytes, failure: Failure) -> None:
        with Bench((REQUEST,), keep=False, follow=True) as bench:
            bench.deliver(bench.request(), answer)
            assert bench.rows == [failure]


def test_the_wait_for_a_connection_that_opens_is_noted(bench: Bench) -> None:
    bench.request()
    (waited_ns,) = bench.waited_ns
    assert waited_ns > 0
    assert len(bench.connect_ns) == 1


def test_the_wait_for_a_connection_that_was_in_use_is_noted_once(bench: Bench) -> None:
    peer = bench.request()
    bench.deliver(peer, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    del bench.waited_ns[:]
    bench.connection.send(1, ready_ns=perf_counter_ns() - 10**9)
    bench.deliver(peer, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    bench.connection.send(0)
    (waited_ns,) = bench.waited_ns
    assert waited_ns >= 10**9


def test_a_connection_that_opens_ahead_makes_no_request_wait(bench: Bench) -> None:
    bench.connection.open()
    bench.accept()
    bench.turn()
    assert len(bench.connect_ns) == 1
    assert len(bench.waited_ns) == 0
