"""The functional client of a gRPC service: the HTTP response or error that each kind of answer becomes."""

import contextlib
import socket
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.each_row import each_row
from support.services import peer2
from support.services.scripted import refused_port

from pytest_mlpatterns.loadgen.http2_frames import PREFACE, Frame, frame
from pytest_mlpatterns.serving.grpc.functional_client import GrpcTransport

READY, INFER = "/v2/health/ready", "/v2/models/m/infer"
PATIENCE_S = 30
"""Longest wait of a peer for a client, which may have given up before it came, in seconds."""


def serve_once(
    listener: socket.socket, data: bytes, greeting: bytes = peer2.SERVER_SETTINGS, end: str = "close"
) -> None:
    """Greet one client, send these bytes after its request, and then "close", "reset" or "wait"; or until it leaves."""
    with contextlib.suppress(OSError):  # it may leave at any moment
        connection, _ = listener.accept()
        connection.settimeout(PATIENCE_S)
        serve(connection, data, greeting, end)


def serve(connection: socket.socket, data: bytes, greeting: bytes, end: str) -> None:
    with connection:
        connection.sendall(greeting)
        received = b""
        last = frame(Frame.DATA, 1, 1)[3:] if greeting else PREFACE  # type, flags and stream of a request's last frame
        while last not in received:
            if not (part := connection.recv(65_536)):
                return
            received += part
        connection.sendall(data)
        if end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        while end == "wait" and connection.recv(65_536):
            pass


@contextlib.contextmanager
def caller(data: bytes, **behaviour: Any) -> Iterator[httpx.Client]:
    """A client of a peer that behaves as :func:`serve_once`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        thread = threading.Thread(target=serve_once, args=(listener, data), kwargs=behaviour)
        thread.start()
        base = "http://{}:{}".format(*listener.getsockname())
        try:
            with httpx.Client(base_url=base, transport=GrpcTransport(), timeout=PATIENCE_S) as client:
                yield client
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # a client that gave up may never have come
            thread.join()


IS_SO, IS_NOT = peer2.answer(b"\x08\x01"), peer2.answer(b"")


@each_row(
    ("path", "data", "status", "text"),
    (INFER, peer2.answer(b"outputs"), 200, "outputs"),
    (READY, IS_SO, 200, "\x08\x01"),
    (READY, IS_NOT, 503, "the service reports that it is not ready"),
    ("/v2/health/live", IS_SO, 200, "\x08\x01"),
    (INFER, peer2.refusal(5, "no model 'm'"), 404, "no model 'm'"),
    (INFER, peer2.refusal(8), 429, ""),
    (INFER, peer2.refusal(4, "the model took too long"), 504, "the model took too long"),
    (INFER, peer2.refusal(99, "odd"), 500, "odd"),
    (INFER, peer2.trailers(1, peer2.block((":status", "403"))), 403, "Received http2 header with status: 403"),
    (INFER, frame(Frame.PING, 0, 0, payload=b"12345678") + peer2.answer(b"x"), 200, "x"),
)
def test_an_answer_is_what_a_gateway_would_make_of_it(path: str, data: bytes, status: int, text: str) -> None:
    with caller(data) as client:
        response = client.post(path, content=b"inputs") if path == INFER else client.get(path)
        assert response.status_code == status
        assert response.text == text


@each_row(
    ("data", "behaviour", "error", "words"),
    (frame(Frame.RST_STREAM, 0, 1, payload=b"\0\0\0\7"), {}, httpx.RemoteProtocolError, "an answer: .*RST_STREAM"),
    (peer2.headers(), {}, httpx.RemoteProtocolError, "the call ended without an answer: .*Socket closed"),
    (b"\xff" * 100, {}, httpx.RemoteProtocolError, "the call ended without an answer: .*Stream removed"),
    (b"", {"end": "reset"}, httpx.RemoteProtocolError, "Connection reset"),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", {"greeting": b""}, httpx.ConnectError, r"http1\.x server"),
    (b"", {"end": "wait"}, httpx.ReadTimeout, r"no answer after 0\.2 s"),
    (b"", {"end": "wait", "greeting": b""}, httpx.ReadTimeout, r"no answer after 0\.2 s"),
)
def test_a_call_without_an_answer_is_the_error_that_a_connection_would_give(
    data: bytes, behaviour: dict[str, Any], error: type[Exception], words: str
) -> None:
    with caller(data, **behaviour) as client, pytest.raises(error, match=words):
        client.get(READY, timeout=0.2 if behaviour.get("end") == "wait" else PATIENCE_S)


@each_row(
    ("host", "why"),
    *((host, "failed to connect to all addresses") for host in ("127.0.0.1", "localhost", "[::1]")),
    ("a..b", "resol"),
)
def test_a_refused_connection_or_a_name_without_an_address_is_a_connect_error(host: str, why: str) -> None:
    with httpx.Client(transport=GrpcTransport()) as client, pytest.raises(httpx.ConnectError, match=why):
        client.get(f"http://{host}:{refused_port()}{READY}")


def test_a_service_that_starts_after_a_refusal_is_reached_at_once() -> None:
    with socket.socket() as listener, httpx.Client(transport=GrpcTransport(), timeout=30) as client:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(PATIENCE_S)
        url = "http://{}:{}".format(*listener.getsockname()) + READY
        with pytest.raises(httpx.ConnectError):
            client.get(url)
        listener.listen()
        thread = threading.Thread(target=serve_once, args=(listener, IS_SO))
        thread.start()
        assert client.get(url).is_success  # grpcio waits a second before it tries a refused address again
        thread.join()


@pytest.mark.processes
def test_a_process_that_has_sent_calls_forks_and_exits_silently() -> None:
    script = f"""
        import multiprocessing, os, subprocess, sys, threading
        import httpx
        from pytest_mlpatterns.serving.grpc.functional_client import GrpcTransport

        with httpx.Client(transport=GrpcTransport()) as client:
            for child in range(3):
                try:
                    client.get("http://127.0.0.1:{refused_port()}{READY}")
                except httpx.ConnectError:
                    pass
                subprocess.run([sys.executable, "-c", ""], check=True)
                process = multiprocessing.get_context("fork").Process(target=int)
                process.start()
                process.join()
                assert process.exitcode == 0
        assert threading.enumerate() == [threading.main_thread()]
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_path_that_stands_for_no_call_is_not_found() -> None:
    with httpx.Client(transport=GrpcTransport()) as client:
        response = client.get("http://127.0.0.1:1/predict")
    assert response.status_code == 404
    assert "/predict corresponds to no gRPC call" in response.text


def test_a_large_message_goes_as_the_service_takes_it() -> None:
    """More than the first window: what is left goes when the service opens it, which this one does at once."""
    wide = frame(Frame.WINDOW_UPDATE, 0, 0, payload=(1 << 20).to_bytes(4, "big"))
    wide += frame(Frame.WINDOW_UPDATE, 0, 1, payload=(1 << 20).to_bytes(4, "big"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        received = bytearray()

        def receive(connection: socket.socket) -> None:
            part = connection.recv(65_536)
            assert part, "the client left"
            received.extend(part)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE_S)
                connection.sendall(peer2.SERVER_SETTINGS)
                while len(received) < 65_536:
                    receive(connection)
                connection.sendall(wide)
                while frame(Frame.DATA, 1, 1)[3:] not in received or received.count(b"7") < 200_000:
                    receive(connection)
                connection.sendall(peer2.answer(b"all"))

        thread = threading.Thread(target=serve)
        thread.start()
        with httpx.Client(transport=GrpcTransport(), timeout=PATIENCE_S) as client:
            response = client.post("http://{}:{}".format(*listener.getsockname()) + INFER, content=b"7" * 200_000)
        thread.join()
    assert response.text == "all"
    assert received.count(b"7") >= 200_000
