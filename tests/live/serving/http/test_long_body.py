"""Long bodies: received whole whatever their pieces, beside short ones, and nothing is left of those that end early."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from support.services.deploy import deployed
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from pytest_mlpatterns import Deployment
from pytest_mlpatterns.serving.http.uvicorn_server import CHECKED_UVICORN, MIN_BYTES
from pytest_mlpatterns.wire import Wire, codec_of

pytestmark = pytest.mark.processes

PREDICT = "/v1/models/lengths:predict"


def lengths(batch: list[Any]) -> list[Any]:
    return [len(value) if isinstance(value, str) else float(np.sum(value)) for value in batch]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    import sys

    with deployed(lengths, tmp_path_factory.mktemp("service"), by_value=[sys.modules[__name__]]) as deployment:
        yield deployment


def message(length: int) -> bytes:
    body = json.dumps({"instances": ["a" * length]}).encode()
    return b"POST %s HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n%s" % (PREDICT.encode(), len(body), body)


def connected(service: Deployment) -> socket.socket:
    connection = socket.create_connection(service.addresses[0], timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answers(connection: socket.socket, count: int) -> list[int]:
    """The predictions of so many answers on one connection."""
    received = b""
    while received.count(b'{"predictions":[') < count or not received.endswith(b"]}"):
        piece = connection.recv(1 << 16)
        assert piece, received
        received += piece
    return [int(part.partition(b"]")[0]) for part in received.split(b'{"predictions":[')[1:]]


@pytest.mark.parametrize("length", [MIN_BYTES - 100, MIN_BYTES, 300_000, 5_000_000])
def test_bodies_of_every_length_come_whole(service: Deployment, length: int) -> None:
    with connected(service) as connection:
        for _ in range(3):
            connection.sendall(message(length))
            assert answers(connection, 1) == [length]


@pytest.mark.parametrize("first", [10, 90, 1000, 70_000])
def test_a_long_body_may_come_in_any_pieces(service: Deployment, first: int) -> None:
    whole = message(200_000)
    with connected(service) as connection:
        for start, end in ((0, first), (first, first + 1), (first + 1, 150_000), (150_000, len(whole))):
            connection.sendall(whole[start:end])
            time.sleep(0.01)  # makes separate pieces likely; nothing depends on it
        assert answers(connection, 1) == [200_000]
        connection.sendall(message(5))
        assert answers(connection, 1) == [5]


def test_long_and_short_requests_may_follow_without_waiting(service: Deployment) -> None:
    given = [5, 100_000, 7, 70_000, 200_000, 1]
    with connected(service) as connection:
        connection.sendall(b"".join(map(message, given)))
        assert answers(connection, len(given)) == given


def test_a_client_that_goes_away_in_the_middle_of_a_body_takes_nobody_with_it(service: Deployment) -> None:
    with connected(service) as connection:
        connection.sendall(message(200_000)[:100_000])
    assert service.client.post(PREDICT, json={"instances": ["abc"]}).json() == {"predictions": [3]}


def test_a_long_body_that_nobody_reads_is_passed_over(service: Deployment) -> None:
    body = b"a" * 300_000
    with httpx.Client(base_url=service.url) as client:
        assert client.post("/nowhere", content=body).status_code == 404
        assert client.put(PREDICT, content=body).status_code == 405
        assert client.post(PREDICT, json={"instances": ["abc"]}).json() == {"predictions": [3]}


def test_a_long_body_in_chunks_goes_the_servers_own_way(service: Deployment) -> None:
    pieces = (b'{"instances": ["', *[b"a" * 100_000] * 3, b'"]}')
    assert service.client.post(PREDICT, content=iter(pieces)).json() == {"predictions": [300_000]}


def test_a_body_over_the_limit_is_refused_before_it_is_sent(service: Deployment) -> None:
    with connected(service) as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999\r\n\r\n" % PREDICT.encode())
        assert b" 413 " in connection.recv(1 << 16)


def test_a_client_that_asks_whether_it_may_send_is_told_so(service: Deployment) -> None:
    whole = message(100_000).replace(b"host: test", b"host: test\r\nexpect: 100-continue")
    head, _, body = whole.partition(b"\r\n\r\n")
    with connected(service) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        assert answers(connection, 1) == [100_000]


def test_a_tensor_arrives_where_the_model_reads_it(service: Deployment) -> None:
    array = np.arange(100_000, dtype=np.float32)
    body = codec_of(Wire.parse("rest+binary")).encode_inputs([array])
    response = service.client.post("/v2/models/lengths/infer", content=body.joined(), headers=dict(body.headers))
    length = int(response.headers["inference-header-content-length"])
    assert np.frombuffer(response.content[length:], np.float64).tolist() == [float(np.sum(array))]


def test_uvicorn_has_the_undocumented_attributes_of_the_protocol() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        """Never called."""

    async def missing_attributes() -> list[str]:
        config = uvicorn.Config(app, interface="asgi3")
        config.load()
        protocol = HttpToolsProtocol(config, ServerState(), {})
        methods = ("data_received", "on_headers_complete", "on_body", "on_message_complete")
        attributes = ("cycle", "headers", "parser", "scope", "transport")
        return [name for name in (*methods, *attributes) if not hasattr(protocol, name)]

    missing = asyncio.run(missing_attributes())
    assert not missing, (
        f"uvicorn {uvicorn.__version__} has no {', '.join(missing)}; long_body was checked with {CHECKED_UVICORN}"
    )
