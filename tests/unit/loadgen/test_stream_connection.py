"""A connection that reads streams, without a network: what arrived before something else happens counts first."""

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.each_row import each_row
from support.services import peer2

from pytest_mlpatterns.loadgen.connection import ClientProtocol, StreamConnection, StreamReading
from pytest_mlpatterns.loadgen.http1 import Http1Stream
from pytest_mlpatterns.loadgen.http2 import HeaderReader, Http2, RequestBlocks
from pytest_mlpatterns.loadgen.http2_frames import Frame
from pytest_mlpatterns.loadgen.recorder import SampleRecorder, StreamColumns
from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer
from pytest_mlpatterns.records.outcomes import Failure

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = b'b\r\ndata: "a"\n\n\r\n'
END = b"0\r\n\r\n"


class FakeSocket:
    """Gives what is to arrive, one piece for each read; None means nothing yet, an exception is raised."""

    def __init__(self) -> None:
        self.arriving: list[bytes | OSError] = []
        self.is_broken = False

    def recv(self, _size: int) -> bytes:
        if not self.arriving:
            raise BlockingIOError
        if isinstance(piece := self.arriving.pop(0), OSError):
            raise piece
        return piece

    def send(self, data: bytes) -> int:
        return len(data)

    def sendmsg(self, pieces: Sequence[bytes]) -> int:
        if self.is_broken:
            raise BrokenPipeError
        return sum(map(len, pieces))

    def close(self) -> None:
        """Nothing is open."""


class Owner:
    """A loop whose next request follows at once on the same connection."""

    selector: Any

    def __init__(self) -> None:
        self.recording = SampleRecorder(StreamColumns())
        self.answers = None
        self.connect_ns = array("q")
        self.waited_ns = array("q")
        self.sent_again_ns = array("q")
        self.selector = self
        self.again = False

    def unregister(self, _socket: object) -> None:
        """There is no selector."""

    def modify(self, _socket: object, _events: int, _data: object) -> None:
        """There is no selector."""

    def completed(self, connection: StreamConnection, _now_ns: int, *, failed: bool) -> None:
        if self.again:
            self.again = False
            connection.send(1, 10)


class Connected(StreamConnection):
    """A connection whose sockets are fake."""

    __slots__ = ()

    def _open(self) -> bool:
        self._socket: Any = FakeSocket()
        self._recv, self._send = self._socket.recv, self._socket.send
        self._protocol = self._new_protocol()
        self._opened = True
        return True

    def arrive(self, *pieces: bytes | OSError) -> None:
        """Let the pieces arrive, each in a read of its own."""
        self._socket.arriving += pieces
        for _ in pieces:
            self.on_ready(1)

    def break_pipe(self) -> None:
        """Let everything that is sent from now on fail."""
        self._socket.is_broken = True


def http1_stream(address: tuple[str, int], answer: StreamedAnswer) -> ClientProtocol:
    return Http1Stream([b"first", b"second"], address[0], follow=False, keep=False, answer=answer)


def http2(_address: tuple[str, int], _answer: StreamedAnswer) -> ClientProtocol:
    messages = [peer2.message(b"first"), peer2.message(b"second")]
    return Http2(messages, RequestBlocks.of(("host", 1), "/service/Method"), HeaderReader(), keep=False)


class Scene:
    def __init__(self, protocol: Callable[[tuple[str, int], StreamedAnswer], ClientProtocol] = http1_stream) -> None:
        self.owner = Owner()
        self.reading = StreamReading(arrived=deque(), answer=StreamedAnswer, protocol=protocol)
        owner: Any = self.owner
        self.connection = Connected(owner, ("host", 1), 0, reading=self.reading)
        self.connection.send(0, 5)

    def parse(self) -> None:
        while self.reading.arrived:
            self.reading.arrived.popleft().parse()

    @property
    def rows(self) -> list[tuple[int, int, int]]:
        """Request, outcome and chunks of each row."""
        recording = self.owner.recording
        return list(zip(recording.request, recording.outcome, recording.streams.chunk_count, strict=True))


@pytest.mark.parametrize("again", [True, False])
def test_an_answer_that_is_complete_when_its_time_is_up_counts_and_the_next_request_goes_on(again: bool) -> None:
    scene = Scene()
    scene.owner.again = again
    scene.connection.arrive(HEAD + CHUNK, CHUNK + END)
    scene.connection.fail(Failure.TIMEOUT)
    assert scene.rows == [(0, 200, 2)]
    assert scene.connection.busy == again
    scene.parse()
    assert scene.rows == [(0, 200, 2)]


def test_an_answer_that_is_not_complete_when_its_time_is_up_keeps_its_chunks() -> None:
    scene = Scene()
    scene.connection.arrive(HEAD + CHUNK, CHUNK)
    scene.connection.fail(Failure.TIMEOUT)
    assert scene.rows == [(0, Failure.TIMEOUT, 2)]
    scene.parse()
    assert len(scene.rows) == 1


@pytest.mark.parametrize("end", [b"", ConnectionResetError()])
@pytest.mark.parametrize("again", [True, False])
def test_the_end_of_the_connection_after_an_answer_does_not_reach_the_next(end: bytes | OSError, again: bool) -> None:
    scene = Scene()
    scene.owner.again = again
    scene.connection.arrive(HEAD + CHUNK + END, end)
    assert scene.rows == [(0, 200, 1)]
    assert scene.connection.busy == again


@pytest.mark.parametrize("end", [b"", ConnectionResetError()])
def test_the_end_of_the_connection_in_the_middle_is_a_lost_answer(end: bytes | OSError) -> None:
    scene = Scene()
    scene.connection.arrive(HEAD + CHUNK, end)
    assert scene.rows == [(0, Failure.CLOSED, 1)]


def test_pieces_are_stamped_when_they_arrive_and_parsed_later() -> None:
    scene = Scene()
    scene.connection.arrive(HEAD + CHUNK, BlockingIOError(), CHUNK, END)
    assert scene.rows == []
    assert list(scene.reading.arrived) == [scene.connection]
    stamps = list(scene.connection._stamps)
    scene.parse()
    assert scene.rows == [(0, 200, 2)]
    assert scene.owner.recording.done_ns[0] == stamps[2]
    streams = scene.owner.recording.streams
    assert streams.chunk_ns.tolist() == stamps[:2]
    assert streams.first_byte_ns[0] == stamps[0]


@pytest.mark.parametrize(("more", "rows"), [(HEAD, [(0, Failure.UNASKED, 0)]), (b"junk", [])])
def test_bytes_that_arrive_after_the_answer_close_the_connection(more: bytes, rows: list[tuple[int, int, int]]) -> None:
    scene = Scene()
    scene.connection.arrive(HEAD + CHUNK + END, more)
    scene.parse()
    assert scene.rows == [*rows, (0, 200, 1)]
    assert scene.connection._socket is None


PING = peer2.frame(Frame.PING, 0, 0, bytes(8))


@each_row("again", [True, False])
@each_row(
    "pieces",
    [(peer2.settings() + peer2.answer() + PING,), (peer2.settings(), peer2.answer()), (peer2.settings(), PING)],
)
def test_a_call_whose_server_is_gone_is_one_row_with_what_it_answered(pieces: tuple[bytes, ...], again: bool) -> None:
    scene = Scene(protocol=http2)
    scene.owner.again = again
    scene.connection.break_pipe()
    scene.connection.arrive(*pieces)
    scene.parse()
    answered = any(peer2.answer() in piece for piece in pieces)
    assert scene.rows == [(0, 200 if answered else Failure.CLOSED, 0)]
    assert scene.connection.busy == again
    scene.parse()
    assert len(scene.rows) == 1


def test_an_answer_that_came_before_sending_failed_counts_and_keeps_its_chunks() -> None:
    scene = Scene()
    scene.connection._unsent = [b"the rest"]
    scene.connection.arrive(HEAD + CHUNK)
    scene.connection.break_pipe()
    scene.connection._socket.arriving += [CHUNK, END, b""]
    scene.connection.on_ready(3)
    assert scene.rows == [(0, 200, 2)]
    scene.parse()
    assert len(scene.rows) == 1
