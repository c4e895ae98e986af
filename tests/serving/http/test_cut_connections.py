"""Connections that a layer wants closed: in the middle of an answer, after a part of a stream, or without an answer."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.asgi import Call
from support.scenarios import run
from support.services.deploy import deployed

from pytest_mlpatterns import Faulty, Limited
from pytest_mlpatterns.patterns.layer import CutError
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.serving.http.app import TRANSPORT, ModelApp
from pytest_mlpatterns.serving.http.model_caller import ModelCaller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

V1 = "/v1/models/m:predict"


class Transport:
    """Notes what is done to a connection, and that its client sees it close."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.call: Call | None = None

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        self.done.append(how)
        assert self.call is not None
        self.call.leave()


async def chunks() -> AsyncIterator[int]:
    yield 1
    raise CutError("on purpose", in_answer=True)


class Model:
    """Wants the connection of an input closed in the way that it names."""

    async def __call__(self, batch: list[Any]) -> Any:
        (asked,) = batch
        if asked == "stream":
            return Stream(chunks())
        if asked != "answer":
            raise CutError("on purpose", in_answer=asked == "cut")
        return batch


@pytest.mark.parametrize(
    ("asked", "status", "parts", "done"),
    [
        ("answer", 200, b'{"predictions":["answer"]}', []),
        ("cut", 200, b'{"predictions": [', ["closed"]),
        ("refuse", 0, b"", ["aborted"]),
        ("stream", 200, b"data: 1\n\n", ["closed"]),
    ],
)
@pytest.mark.parametrize("has_streamed", [False, True])
def test_a_connection_is_closed_and_its_request_ends(
    asked: str, status: int, parts: bytes, done: list[str], has_streamed: bool
) -> None:
    async def scenario() -> None:
        caller, transport = ModelCaller(Model()), Transport()
        caller.has_streamed = has_streamed  # the server then looks out for clients that go
        app = ModelApp(caller, "m", 10_000)
        async with Call(app, V1, {"instances": [asked]}, more={TRANSPORT: transport}) as call:
            transport.call = call
            assert await call.whole() == parts
        assert (call.status, transport.done) == (status, done)
        assert int(call.headers.get("content-length", len(parts))) >= len(parts)

    run(scenario())


def test_where_no_connection_can_be_closed_it_is_an_error() -> None:
    async def scenario() -> None:
        async with Call(ModelApp(ModelCaller(Model()), "m", 10_000), V1, {"instances": ["cut"]}) as call:
            assert json.loads(await call.whole()) == {"error": "on purpose"}
        assert call.status == 502

    run(scenario())


def lengths(batch: list[str]) -> list[int]:
    return [len(one) for one in batch]


async def letters(batch: list[str]) -> AsyncIterator[str]:
    for letter in batch[0]:
        await asyncio.sleep(0)
        yield letter


def received(address: tuple[str, int], path: str, text: str) -> bytes:
    """What a server sends for a request until it closes the connection; it is empty after a reset."""
    body = json.dumps({"instances": [text]}).encode()
    found = b""
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(
            b"POST %s HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(body)) + body
        )
        try:
            while piece := connection.recv(1 << 16):
                found += piece
        except ConnectionResetError:
            assert not found
    return found


@pytest.mark.processes
@pytest.mark.parametrize(
    ("pattern", "model", "end"),
    [
        (Faulty(cut=True), lengths, b'\r\n\r\n{"predictions": ['),
        (Limited() | Faulty(refuse=True), lengths, b""),
        (Faulty(cut=True), letters, b'data: "a"\n\n\r\n'),
    ],
    ids=["whole", "refused", "streamed"],
)
def test_a_real_server_closes_the_connection_says_nothing_of_it_and_goes_on(
    pattern: Any, model: Any, end: bytes, tmp_path: Path
) -> None:
    payload = ["first"]
    with deployed(model, tmp_path, pattern, by_value=[sys.modules[__name__]], payload=payload) as deployment:
        path = f"/v1/models/{model.__name__}:predict"
        for text in ("abc", "a" * 100_000, "abc"):  # a long body has a way of its own into the server
            found = received(deployment.addresses[0], path, text)
            assert found.endswith(end)
            assert not end or found.startswith(b"HTTP/1.1 200 OK\r\n")
        assert deployment.log_tail() == ""
        (layer,) = deployment.stats().layers_named("faulty")
        assert layer.counters == {"injected": 3}
