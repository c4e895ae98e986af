"""A stream from the service behind: chunks as they come, its hop, connections, errors, and callers that go away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.each_row import each_row
from support.scenarios import PATIENCE_S, settle

from pytest_mlpatterns.engines.local.messages import UpstreamNode
from pytest_mlpatterns.engines.local.upstream import Upstream
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.request_clock import RequestClock, set_clock
from pytest_mlpatterns.patterns.stream import Stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.wire import REST_JSON

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n%s\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Service:
    """A service whose connections the test writes to."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.tally = Tally(0, "hop")

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.tally.snapshot().counters)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Service, Upstream]]:
    service = Service()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        service.connections.put_nowait((reader, writer))

    async with await asyncio.start_server(keep, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()[:2]
        node = UpstreamNode((address,), "/v1/models/m:predict", 0, Balance.LEAST_OUTSTANDING, 1, REST_JSON)
        yield service, Upstream(node, service.tally)


async def asked(reader: asyncio.StreamReader) -> None:
    """Read one request."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))


async def begun(service: Service, upstream: Upstream, timing: bytes = b"") -> tuple[Any, Any, asyncio.StreamWriter]:
    """A stream whose head has arrived, and both ends of its connection."""
    call = asyncio.ensure_future(upstream([1]))
    reader, writer = await asyncio.wait_for(service.connections.get(), PATIENCE_S)
    await asked(reader)
    writer.write(HEAD % timing)
    stream = await call
    assert isinstance(stream, Stream)
    return stream, reader, writer


async def test_chunks_come_as_they_are_sent_and_the_connection_is_used_again() -> None:
    async with serving() as (service, upstream):
        stream, reader, writer = await begun(service, upstream, b"server-timing: model;dur=0.0\r\n")
        for part, chunks in ((b'data: "a"\n\n', ["a"]), (b'data: 1\n\ndata: {"b":2}\n\n', [1, {"b": 2}])):
            writer.write(chunked(part))
            assert [await anext(stream) for _ in chunks] == chunks
        writer.write(chunked(DONE) + END)
        assert [chunk async for chunk in stream] == []
        await stream.aclose()
        second = asyncio.ensure_future(upstream([2]))
        await asked(reader)
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{"predictions":[7]}')
        assert await second == [7]
        assert service.connections.empty()
        assert service.counts == {"calls": 2}
        assert sum(service.tally.snapshot().histograms["hop_ns"].values()) == 2
        writer.close()


async def test_everything_may_arrive_at_once() -> None:
    async with serving() as (service, upstream):
        call = asyncio.ensure_future(upstream([1]))
        reader, writer = await service.connections.get()
        await asked(reader)
        writer.write(HEAD.replace(b"%s", b"connection: close\r\n") + chunked(b"data: 1\n\n" + DONE) + END)
        writer.close()
        assert [chunk async for chunk in await call] == [1]
        assert upstream._balancer.in_flight == [0]


@pytest.mark.parametrize("when", ["before the head", "after the head"])
async def test_the_service_sees_a_caller_go_away(when: str) -> None:
    async with serving() as (service, upstream):
        if when == "after the head":
            stream, reader, writer = await begun(service, upstream)
            assert upstream._balancer.in_flight == [1]
            await stream.aclose()
            await stream.aclose()
        else:
            call = asyncio.ensure_future(upstream([1]))
            reader, writer = await service.connections.get()
            await asked(reader)
            call.cancel()
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        assert upstream._balancer.in_flight == [0]
        writer.close()


async def test_an_error_event_is_an_error_of_the_request() -> None:
    async with serving() as (service, upstream):
        stream, _, writer = await begun(service, upstream)
        writer.write(chunked(b'data: 1\n\nevent: error\ndata: {"error":"it broke"}\n\n') + END)
        assert await anext(stream) == 1
        with pytest.raises(RequestError, match=r"^it broke$") as caught:
            await anext(stream)
        assert caught.value.status == 500
        await stream.aclose()
        assert service.counts["errors"] == 1
        writer.close()


@each_row(
    ("sent", "error", "words"),
    (b"", LostError, "closed the connection under a request"),
    (chunked(b"data: 1\n\n") + END, LostError, "ended a stream without its last event"),
    (chunked(b"data: {\n\n") + END, RequestError, "something else than chunks"),
)
async def test_a_stream_that_is_no_whole_one_is_an_error(sent: bytes, error: type[RequestError], words: str) -> None:
    async with serving() as (service, upstream):
        stream, _, writer = await begun(service, upstream)
        writer.write(sent)
        writer.close()
        with pytest.raises(error, match=words) as caught:
            [chunk async for chunk in stream]
        assert caught.value.status == 502
        assert service.counts["errors"] == 1
        assert upstream._balancer.in_flight == [0]


async def test_a_slow_reader_holds_the_service_back() -> None:
    async with serving() as (service, upstream):
        stream, _, writer = await begun(service, upstream)
        connection = stream._chunks._connection
        for _ in range(200):
            writer.write(chunked(b'data: "%s"\n\n' % (b"x" * 100)))
            await settle()
        while connection._transport.is_reading():
            writer.write(chunked(b'data: "%s"\n\n' % (b"x" * 100)))
            await settle()
        writer.write(chunked(b'data: "last"\n\n' + DONE) + END)
        assert [chunk async for chunk in stream][-1] == "last"
        writer.close()


async def test_the_times_at_the_end_of_a_stream_are_charged_too() -> None:
    clock = RequestClock()
    async with serving() as (service, upstream):
        set_clock(clock)
        timing = b'server-timing: model;dur=0;free=0;parts={"model_cpu":1}\r\n'
        stream, _, writer = await begun(service, upstream, timing)
        assert clock.parts["model_cpu"] == 1
        writer.write(chunked(b'data: 7\n\nevent: times\ndata: {"model_cpu":2}\n\n' + DONE) + END)
        assert [chunk async for chunk in stream] == [7]
        assert clock.parts["model_cpu"] == 3
        writer.close()
