"""Whole loads over gRPC: against a real server of grpcio, and the generator's own ceiling."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support import SERVICES
from support.services import peer2
from support.services.peer2 import frames_in, message

from pytest_mlpatterns.loadgen.ceiling import measure_ceiling
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.http2 import OPENING
from pytest_mlpatterns.loadgen.http2_frames import PREFACE, Frame
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, Transport
from pytest_mlpatterns.loadgen.null_server import GrpcPeer, Http1Peer
from pytest_mlpatterns.wire import GRPC
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, SERVICES / "grpc_echo.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield int(process.stdout.readline())
        process.communicate("")


def load(port: int, *texts: bytes, schedule: Any = None, keep: int = 10) -> LoadResult:
    job = LoadJob(
        endpoint=Endpoint((("127.0.0.1", port),), wire=GRPC),
        messages=tuple(map(message, texts)),
        schedule=schedule or ClosedLoop(4),
        duration_ns=200_000_000,
        warmup_ns=0,
        timeout_ns=20 * 10**9,
        keep_answers=keep,
    )
    return LoadLoop(job, lambda _event: None).run()


def outcomes(result: LoadResult) -> Counter[int]:
    return Counter(memoryview(result.columns["outcome"]).cast("B").cast("h").tolist())


@pytest.mark.processes
@pytest.mark.parametrize("size", [0, 1, 5000, 65_530, 65_536, 1_000_000, 5_000_000])
def test_messages_of_any_size_are_echoed_whole(port: int, size: int) -> None:
    texts = tuple(bytes([number]) * size for number in range(3))
    result = load(port, *texts)
    assert set(outcomes(result)) == {200}
    assert result.answers
    for kept in result.answers:
        assert kept.body == texts[kept.request]
        assert kept.head == b""
    sizes = set(memoryview(result.columns["received_bytes"]).cast("B").cast("I"))
    assert all(size < received < size * 1.01 + 500 for received in sizes)


@pytest.mark.processes
def test_requests_of_an_open_loop_are_answered(port: int) -> None:
    assert set(outcomes(load(port, b"hello", schedule=ConstantRate(100)))) == {200}


@pytest.mark.processes
def test_a_status_is_an_outcome_of_its_own_and_the_connection_goes_on(port: int) -> None:
    result = load(port, b"refuse 8", b"fine", b"refuse 14")
    found = outcomes(result)
    assert set(found) == {1008, 200, 1014}
    assert all(kept.body == b"fine" for kept in result.answers)
    assert result.generator.connections == 4
    assert found[200] > 1


@pytest.mark.processes
def test_the_ceiling_is_known_for_this_wire_too(tmp_path: Path) -> None:
    with closing(Generator(tmp_path / "generator.log")) as generator:
        measure_ceiling(generator, tmp_path, Transport.GRPC)
    assert set(generator.ceilings_rps) == {Transport.GRPC}
    job = LoadJob(Endpoint((), wire=GRPC), (), ClosedLoop(1), 1, 0, 1)
    assert generator.ceiling_of(job) == generator.ceilings_rps[Transport.GRPC] > 0


class TestNullServer:
    def test_over_http_any_piece_is_a_request(self) -> None:
        peer = Http1Peer()
        assert peer.take(b"GET / HTTP/1.1\r\n\r\n") == b""
        assert peer.answer().startswith(b"HTTP/1.1 200 OK\r\n")

    @pytest.mark.processes
    @pytest.mark.parametrize("cut", [1, 7, 1000])
    def test_over_grpc_streams_that_end_are_answered_in_turn(self, cut: int) -> None:
        peer = GrpcPeer()
        data = OPENING + peer2.headers(1) + peer2.frame(Frame.DATA, 0, 1, b"")
        data += peer2.frame(Frame.DATA, 1, 1, b"abc") + peer2.frame(Frame.DATA, 1, 3, b"")
        replies = b"".join(peer.take(data[at : at + cut]) for at in range(0, len(data), cut))
        assert not OPENING.removeprefix(PREFACE).startswith(PREFACE)
        kinds = [kind for kind, *_ in frames_in(replies)]
        assert kinds == [Frame.SETTINGS, Frame.SETTINGS, Frame.WINDOW_UPDATE]
        assert [stream for _, _, stream, _ in frames_in(peer.answer())] == [1, 1, 1]
        assert [stream for _, _, stream, _ in frames_in(peer.answer())] == [3, 3, 3]
        assert peer.answer() == b""
