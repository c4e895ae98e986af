"""Functional requests as calls of gRPC: what comes back of each way in which a service can answer, or not."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
from services import peer2
from services.scripted import refused_port

from pytest_mlpatterns.load.frames import Frame, frame
from pytest_mlpatterns.serve.unary import GrpcTransport

if TYPE_CHECKING:
    from collections.abc import Iterator

READY, INFER = "/v2/health/ready", "/v2/models/m/infer"


@contextmanager
def answering(data: bytes, *, close: bool = True, reset: bool = False) -> Iterator[httpx.Client]:
    """A client of a peer that sends these bytes to whoever asks it, and then closes, resets or waits."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                received = b""
                while frame(Frame.DATA, 1, 1)[3:] not in received:  # type, flags and stream of a request's end
                    received += connection.recv(65_536)
                connection.sendall(data)
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif not close:
                    connection.recv(65_536)
                    while connection.recv(65_536):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        base = "http://{}:{}".format(*listener.getsockname())
        with httpx.Client(base_url=base, transport=GrpcTransport(), timeout=10) as client:
            yield client
        thread.join()


GREETING = peer2.SERVER_SETTINGS
IS_SO, IS_NOT = peer2.answer(b"\x08\x01"), peer2.answer(b"")


@pytest.mark.parametrize(
    ("path", "data", "status", "text"),
    [
        (INFER, peer2.answer(b"outputs"), 200, "outputs"),
        (READY, IS_SO, 200, "\x08\x01"),
        (READY, IS_NOT, 503, "the service says that it is not ready"),
        ("/v2/health/live", IS_SO, 200, "\x08\x01"),
        (INFER, peer2.refusal(5, "no model 'm'"), 404, "no model 'm'"),
        (INFER, peer2.refusal(8), 429, ""),
        (INFER, peer2.refusal(99, "odd"), 500, "odd"),
        (INFER, peer2.trailers(1, peer2.block((":status", "403"))), 403, ""),
        (INFER, frame(Frame.PING, 0, 0, b"12345678") + peer2.answer(b"x"), 200, "x"),
    ],
)
def test_an_answer_is_what_a_gateway_would_make_of_it(path: str, data: bytes, status: int, text: str) -> None:
    with answering(GREETING + data) as client:
        response = client.post(path, content=b"inputs") if path == INFER else client.get(path)
        assert response.status_code == status
        assert response.text == text


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no call of gRPC was answered: malformed answer"),
        (GREETING + frame(Frame.RST_STREAM, 0, 1, b"\0\0\0\7"), "no call of gRPC was answered: stream reset"),
        (GREETING + peer2.headers(), "the service closed the connection without an answer"),
    ],
)
def test_what_is_no_answer_is_an_error_of_the_protocol(data: bytes, error: str) -> None:
    with answering(data) as client, pytest.raises(httpx.RemoteProtocolError, match=error):
        client.get(READY)


def test_a_reset_is_an_error_of_reading() -> None:
    with answering(GREETING, reset=True) as client, pytest.raises(httpx.ReadError):
        client.get(READY)


def test_no_answer_is_a_time_out() -> None:
    with answering(GREETING, close=False) as client, pytest.raises(httpx.ReadTimeout, match="no answer after"):
        client.get(READY, timeout=0.05)


def test_nobody_there_is_an_error_of_connecting() -> None:
    with httpx.Client(transport=GrpcTransport()) as client, pytest.raises(httpx.ConnectError):
        client.get(f"http://127.0.0.1:{refused_port()}{READY}")


def test_a_path_that_stands_for_no_call_is_not_found() -> None:
    with httpx.Client(transport=GrpcTransport()) as client:
        response = client.get("http://127.0.0.1:1/predict")
    assert response.status_code == 404
    assert "/predict stands for no call of gRPC" in response.text


def test_a_large_message_goes_as_the_service_takes_it() -> None:
    """More than the first window: what is left goes when the service opens it, which this one does at once."""
    wide = frame(Frame.WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4, "big"))
    wide += frame(Frame.WINDOW_UPDATE, 0, 1, (1 << 20).to_bytes(4, "big"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        received = bytearray()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while len(received) < 65_536:
                    received.extend(connection.recv(65_536))
                connection.sendall(GREETING + wide)
                while frame(Frame.DATA, 1, 1)[3:] not in received or received.count(b"7") < 200_000:
                    received.extend(connection.recv(65_536))
                connection.sendall(peer2.answer(b"all"))

        thread = threading.Thread(target=serve)
        thread.start()
        with httpx.Client(transport=GrpcTransport(), timeout=10) as client:
            response = client.post("http://{}:{}".format(*listener.getsockname()) + INFER, content=b"7" * 200_000)
        thread.join()
    assert response.text == "all"
    assert received.count(b"7") >= 200_000
