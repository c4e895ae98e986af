"""Random and mutated answers crash and hang no load generator, and every request ends in exactly one row.

The number of answers is small here; ``make fuzz`` sends 100,000.
"""

import random
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fuzz import SEED, cases_of
from support.fuzz.hostile import octets
from support.fuzz.streams import SPLICES as EVENT_SPLICES
from support.fuzz.streams import STREAMS
from support.services import peer2

from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.http2_frames import ACK, END_HEADERS, END_STREAM, Frame, Setting, frame
from pytest_mlpatterns.loadgen.messages import LoadJob, Transport
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.wire import GRPC, REST_JSON
from pytest_mlpatterns.wire.grpc_call import message_prefix
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.schedule import ClosedLoop

ANSWERS = max(500, cases_of(50_000))
"""Mutated answers over each of HTTP/1.1 and HTTP/2."""
LARGEST = 10_000
"""Answers of one load; several processes share the loads of a long run."""
LOADS = range(-(-ANSWERS // LARGEST))
SILENCE_S = 20.0
"""A load hangs that asks for no answer in this time: a caller waits 0.2 s."""
CALLERS = 16
SPLICES = (b"\r\n", b"\0", b"\xff", b": ", b"99999999999999999999", b"-1", b"\r\n\r\n")
ITEM_BYTES = {
    "due_ns": 8,
    "sent_ns": 8,
    "done_ns": 8,
    "outcome": 2,
    "request": 4,
    "target": 1,
    "received_bytes": 4,
    "first_byte_ns": 8,
    "chunk_count": 4,
    "output_tokens": 4,
    "input_tokens": 4,
}
SEEDS = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nx-trailer: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
    b"HTTP/1.1 500 Oh\r\ncontent-type: text/plain\r\n\r\nuntil the end",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nold",
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
STREAM_SEEDS = (
    *(STREAM_HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(one), one) for one in STREAMS),
    *(STREAM_HEAD + b"content-length: %d\r\n\r\n%s" % (len(one), one) for one in STREAMS),
    *(STREAM_HEAD + b"\r\n" + one for one in STREAMS),
)
CALL = message_prefix(100_000) + bytes(100_000)  # more than a peer takes that says nothing of its windows
GRPC_SEEDS = (
    peer2.SERVER_SETTINGS + peer2.answer(),
    peer2.SERVER_SETTINGS + peer2.answer(b"x" * 20_000),
    peer2.SERVER_SETTINGS + peer2.refusal(14, "gone"),
    peer2.SERVER_SETTINGS + peer2.headers() + frame(Frame.RST_STREAM, 0, 1, b"\0\0\0\2"),
    peer2.SERVER_SETTINGS + frame(Frame.PING, 0, 0, b"12345678") + peer2.answer(),
    peer2.SERVER_SETTINGS + frame(Frame.GOAWAY, 0, 0, b"\0\0\0\1" + b"\0" * 4) + peer2.answer(),
    peer2.settings((Setting.INITIAL_WINDOW, 1 << 20), (Setting.MAX_FRAME, 1 << 20), (Setting.TABLE_SIZE, 0))
    + frame(Frame.SETTINGS, ACK, 0)
    + frame(Frame.WINDOW_UPDATE, 0, 0, b"\0\x10\0\0")
    + peer2.answer(),
    peer2.SERVER_SETTINGS
    + frame(Frame.HEADERS, 0, 1, peer2.HEAD[:4])
    + frame(Frame.CONTINUATION, END_HEADERS, 1, peer2.HEAD[4:])
    + frame(Frame.DATA, 0, 1, message_prefix(0))
    + peer2.trailers(),
    peer2.SERVER_SETTINGS + peer2.headers(1, peer2.HEAD, END_HEADERS | END_STREAM),
)


@pytest.fixture(autouse=True)
def _short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller whose connection failed rests until the next tick; here nearly all do."""
    monkeypatch.setattr("pytest_mlpatterns.loadgen.event_loop.TICK_NS", 1_000_000)


def mutated(draw: random.Random, seeds: Sequence[bytes] = SEEDS) -> bytes:
    """A good answer with some bytes changed, removed, doubled or inserted, or nothing but noise."""
    return octets(draw, seeds, SPLICES)


class Server:
    """Sends one answer to each request and closes, or lets the client wait where ``hold`` says so."""

    def __init__(self, answer: Callable[[], bytes], hold: Callable[[], bool], answers: int) -> None:
        self._answer, self._hold, self._left = answer, hold, answers
        self._lock = threading.Lock()
        self.served = 0
        self.last: deque[bytes] = deque(maxlen=CALLERS)
        self.enough = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._threads = [threading.Thread(target=self._serve) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._answer_one(connection)

    def _answer_one(self, connection: socket.socket) -> None:
        try:
            if not connection.recv(65536):
                return
            with self._lock:
                answer, hold = self._answer(), self._hold()
                self.last.append(answer)
                self.served += 1
                if self.served >= self._left:
                    self.enough.set()
            connection.sendall(answer)
            if hold:
                connection.recv(1)  # until the client gives up, or sends again
        except OSError:
            return


def bombard(
    answer: Callable[[], bytes],
    hold: Callable[[], bool],
    answers: int,
    *,
    transport: Transport = Transport.HTTP1,
    stream: bool = False,
) -> Counter[int]:
    """Drive a load at such a server until it has served so many answers; the outcomes."""
    server = Server(answer, hold, answers)
    job = LoadJob(
        endpoint=Endpoint((server.address,), wire=REST_JSON if transport is Transport.HTTP1 else GRPC),
        messages=(b"GET / HTTP/1.1\r\nhost: fuzz\r\n\r\n" if transport is Transport.HTTP1 else CALL,),
        schedule=ClosedLoop(CALLERS),
        duration_ns=3600 * 10**9,
        warmup_ns=0,
        timeout_ns=200_000_000,
        keep_answers=10,
        stream=stream,
    )
    loop = LoadLoop(job, lambda _event: None)
    hung = threading.Event()

    def stop() -> None:
        served = -1
        while not server.enough.wait(SILENCE_S) and not hung.is_set():
            if server.served == served:
                hung.set()
            served = server.served
        loop.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        result = loop.run()
    except Exception as error:
        raise AssertionError(
            f"seed {SEED}, answer {server.served}: {error!r}; the last: {list(server.last)}"
        ) from error
    finally:
        server.enough.set()
        stopper.join()
        server.close()
    assert not hung.is_set(), f"seed {SEED}, answer {server.served}: no end; the last: {list(server.last)}"
    columns = {name: column.raw() for name, column in result.columns.items()}
    chunks = len(columns.pop("chunk_ns", b"")) // 8
    assert chunks == sum(columns.get("chunk_count", memoryview(b"")).cast("I"))
    sizes = {name: len(column) // ITEM_BYTES[name] for name, column in columns.items()}
    (rows,) = set(sizes.values())
    # An answer is one row; where it was good, the next request on that connection finds it closed, which is another.
    assert server.served - CALLERS <= rows <= 2 * server.served + CALLERS
    return Counter(memoryview(result.columns["outcome"]).cast("B").cast("h"))


@pytest.mark.parametrize("load", LOADS)
def test_mutated_answers_crash_and_hang_nothing(load: int) -> None:
    draw = random.Random(f"{SEED}:http1:{load}")
    outcomes = bombard(lambda: mutated(draw), lambda: draw.random() < 0.01, min(ANSWERS, LARGEST))
    assert outcomes[200] > 0
    assert outcomes[Failure.MALFORMED] > 0
    assert outcomes[Failure.CLOSED] > 0


@pytest.mark.parametrize("load", LOADS)
def test_mutated_streams_crash_and_hang_nothing(load: int) -> None:
    draw = random.Random(f"{SEED}:streams:{load}")
    outcomes = bombard(
        lambda: octets(draw, STREAM_SEEDS, (*SPLICES, *EVENT_SPLICES)),
        lambda: draw.random() < 0.01,
        min(ANSWERS, LARGEST),
        stream=True,
    )
    assert {200, Failure.MALFORMED, Failure.CLOSED, Failure.ERROR_EVENT, Failure.CUT_OFF} <= set(outcomes)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=80) | st.sampled_from(SEEDS), min_size=1, max_size=20))
def test_any_bytes_at_all_are_counted(answers: list[bytes]) -> None:
    turn = iter(range(10**9))
    outcomes = bombard(lambda: answers[next(turn) % len(answers)], lambda: False, 40)
    assert sum(outcomes.values()) > 0


@pytest.mark.parametrize("load", LOADS)
def test_mutated_frames_crash_and_hang_nothing(load: int) -> None:
    draw = random.Random(f"{SEED}:http2:{load}")
    outcomes = bombard(
        lambda: mutated(draw, GRPC_SEEDS), lambda: draw.random() < 0.01, min(ANSWERS, LARGEST), transport=Transport.GRPC
    )
    assert outcomes[200] > 0
    assert outcomes[1014] > 0
    assert {Failure.MALFORMED, Failure.CLOSED, Failure.RESET} <= set(outcomes)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=80) | st.sampled_from(GRPC_SEEDS), min_size=1, max_size=20))
def test_any_frames_at_all_are_counted(answers: list[bytes]) -> None:
    turn = iter(range(10**9))
    outcomes = bombard(lambda: answers[next(turn) % len(answers)], lambda: False, 40, transport=Transport.GRPC)
    assert sum(outcomes.values()) > 0
