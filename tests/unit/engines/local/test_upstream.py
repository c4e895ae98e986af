"""The way from one service process to another: what is sent, who gets which answer, what is said of a lost one."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pytest
from support.each_row import each_row
from support.scenarios import PATIENCE_S
from support.services.scripted import refused_port

from pytest_mlpatterns.engines.local.messages import UpstreamNode
from pytest_mlpatterns.engines.local.upstream import Upstream
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.request_clock import RequestClock, set_clock
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.addressing import Balance

HERE = sys.modules[__name__]
PATH = "/v1/models/m:predict"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the service behind saw it; ``connection`` numbers its connections from 0."""

    head: bytes
    instances: list[Any]
    connection: int


def answer(predictions: object, *headers: bytes, status: int = 200) -> bytes:
    return message(orjson.dumps({"predictions": predictions}), *headers, status=status)


def message(body: bytes, *headers: bytes, status: int = 200) -> bytes:
    lines = [b"HTTP/1.1 %d Said" % status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def doubles(asked: Asked) -> bytes:
    return answer([2 * value for value in asked.instances])


class Service:
    """A server of our own; ``script`` gives the bytes of an answer, None closes the connection."""

    def __init__(self, script: Callable[[Asked], Awaitable[bytes | None]] = doubles) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.reached = asyncio.Event()
        self._script = script

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                body = orjson.loads(await reader.readexactly(length))
                self.asked.append(Asked(head, body["instances"], number))
                self.reached.set()
                if (said := await self._script(self.asked[-1])) is None:
                    break
                writer.write(said)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def behind(
    *services: Service, balance: Balance = Balance.ROUND_ROBIN, of: str = ""
) -> AsyncIterator[tuple[Upstream, Tally]]:
    """A hop to these services, which run meanwhile."""
    servers = [await asyncio.start_server(service.serve, "127.0.0.1", 0) for service in services]
    tally = Tally(2, "hop")
    addresses = tuple(server.sockets[0].getsockname() for server in servers)
    hop = Upstream(UpstreamNode(addresses, PATH, 2, balance), tally, of)
    try:
        yield hop, tally
    finally:
        for connection in [one for pool in hop._pools for one in pool._idle]:
            connection.close()
        for server in servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=PATIENCE_S) if others else await asyncio.sleep(0)


async def test_a_request_is_one_of_the_public_face() -> None:
    service = Service()
    async with behind(service) as (hop, _):
        assert await hop([1, 2.5]) == [2, 5.0]
    (asked,) = service.asked
    assert asked.instances == [1, 2.5]
    first, *headers = asked.head.decode().strip().split("\r\n")
    assert first == f"POST {PATH} HTTP/1.1"
    names = [line.partition(": ")[0] for line in headers]
    assert names == ["host", "content-type", "content-length"]
    assert "content-type: application/json" in headers


@pytest.mark.parametrize("instances", [[[1.5] * 200_000], list(range(100_000)), ["ü" * 300_000], np.arange(5)])
async def test_inputs_and_answers_of_any_size_make_the_way(instances: Any) -> None:
    async def echo(asked: Asked) -> bytes:
        return answer(asked.instances)

    async with behind(Service(echo)) as (hop, _):
        assert await hop(instances) == list(instances)


@each_row(
    "said",
    b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{"predictions": \r\n4\r\n[7]}\r\n0\r\n\r\n',
    message(b'{"predictions": [7]}'),
    message(b'{"predictions": [7], "more": 1}', b"X-Other: of no interest"),
)
async def test_an_answer_may_come_in_any_pieces(said: bytes) -> None:
    class InPieces(Service):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(2):
                await reader.readuntil(b"}")
                for at in range(len(said)):
                    writer.write(said[at : at + 1])
                    await writer.drain()
                    await asyncio.sleep(0)
            writer.close()
            await writer.wait_closed()

    async with behind(InPieces()) as (hop, _):
        assert [await hop([1]), await hop([2])] == [[7], [7]]


class TestConnections:
    async def test_concurrent_callers_get_their_own_answers_in_any_order(self) -> None:
        gates = [asyncio.Event() for _ in range(8)]

        async def in_turn(asked: Asked) -> bytes:
            await gates[asked.instances[0]].wait()
            return await doubles(asked)

        service = Service(in_turn)
        async with behind(service) as (hop, _):
            tasks = [asyncio.create_task(hop([value])) for value in range(8)]
            for number in reversed(range(8)):
                gates[number].set()
                assert await tasks[number] == [2 * number]
                assert [task.done() for task in tasks] == [False] * number + [True] * (8 - number)
            await asyncio.gather(*(hop([value]) for value in range(8)))
        assert service.connections == 8

    @pytest.mark.parametrize("told", [b"connection: close", b"x-told: nothing"])
    async def test_a_connection_that_the_service_closed_is_not_used_again(self, told: bytes) -> None:
        ended = asyncio.Event()

        class Once(Service):
            async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                self.connections += 1
                await reader.readuntil(b"}")
                writer.write(answer([7], told))
                writer.close()
                await writer.wait_closed()
                ended.set()

        service = Once()
        async with behind(service) as (hop, tally):
            for _ in range(3):
                ended.clear()
                assert await hop([1]) == [7]
                await ended.wait()
                while not all(connection.is_closed for connection in hop._pools[0]._idle):
                    await asyncio.sleep(0)
        assert service.connections == 3
        assert tally.snapshot().counters == {"calls": 3}

    async def test_connection_with_an_unsolicited_answer_is_not_used_again(self) -> None:
        async def twice(asked: Asked) -> bytes:
            return answer(asked.instances) + answer(["of nobody"])

        service = Service(twice)
        async with behind(service) as (hop, _):
            for value in range(3):
                assert await hop([value]) == [value]
        assert service.connections == 3

    async def test_nor_after_one_that_comes_before_anybody_asks(self) -> None:
        class Eager(Service):
            async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                self.connections += 1
                await reader.readuntil(b"}")
                writer.write(answer([7]))
                await self.reached.wait()
                writer.write(answer(["of nobody"]))
                await reader.read()
                writer.close()
                await writer.wait_closed()

        service = Eager()
        async with behind(service) as (hop, _):
            assert await hop([1]) == [7]
            service.reached.set()
            while not hop._pools[0]._idle[0].is_closed:
                await asyncio.sleep(0)
            assert await hop([1]) == [7]
        assert service.connections == 2

    async def test_the_connection_of_a_caller_that_went_away_is_closed(self) -> None:
        """Its answer may still come, and must not reach the next."""
        gate = asyncio.Event()

        async def late(asked: Asked) -> bytes:
            if asked.instances == ["first"]:
                await gate.wait()
            return answer(asked.instances)

        service = Service(late)
        async with behind(service) as (hop, tally):
            first = asyncio.create_task(hop(["first"]))
            await service.reached.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            gate.set()
            assert await hop(["second"]) == ["second"]
            assert hop._balancer.in_flight == [0]
        assert service.connections == 2
        assert tally.snapshot().counters == {"calls": 1}


class TestReplicas:
    @pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.LEAST_OUTSTANDING])
    async def test_replicas_take_turns_under_one_caller(self, balance: Balance) -> None:
        services = [Service(), Service(), Service()]
        async with behind(*services, balance=balance) as (hop, _):
            for value in range(7):
                await hop([value])
        assert [[asked.instances[0] for asked in service.asked] for service in services] == [[0, 3, 6], [1, 4], [2, 5]]

    async def test_least_outstanding_calls_the_replica_with_the_fewest_in_flight(self) -> None:
        gate = asyncio.Event()

        async def held(asked: Asked) -> bytes:
            await gate.wait()
            return await doubles(asked)

        slow, quick = Service(held), Service()
        async with behind(slow, quick, balance=Balance.LEAST_OUTSTANDING) as (hop, _):
            first = asyncio.create_task(hop([0]))
            await slow.reached.wait()
            for value in range(1, 6):
                await hop([value])
            assert len(slow.asked) == 1
            assert len(quick.asked) == 5
            gate.set()
            await first
            await hop([6])
        assert len(slow.asked) == 2

    async def test_a_replica_that_is_gone_is_lost_in_its_turn_only(self) -> None:
        async with behind(Service()) as (alive, _):
            addresses = (alive._pools[0]._address, ("127.0.0.1", refused_port()))
            hop = Upstream(UpstreamNode(addresses, PATH, 0), Tally(0, "hop"))
            for _ in range(2):
                assert await hop([1]) == [2]
                with pytest.raises(LostError):
                    await hop([1])
            for connection in hop._pools[0]._idle:
                connection.close()


class TestErrors:
    @each_row(
        ("said", "status", "text", "retry_after_s"),
        (message(b'{"error": "bad input"}', status=400), 400, "bad input", None),
        (message(b'{"error": "full"}', b"Retry-After: 3", status=503), 503, "full", 3),
        (message(b'{"error": "full"}', b"retry-after: tomorrow", status=503), 503, "full", None),
        (message(b"no JSON", status=500), 500, "no JSON", None),
        (message(b"", status=404), 404, "", None),
        (message(b'{"predictions": [1]}', status=202), 202, '{"predictions": [1]}', None),
    )
    async def test_an_error_of_the_service_is_the_callers(
        self, said: bytes, status: int, text: str, retry_after_s: int | None
    ) -> None:
        async def once(asked: Asked) -> bytes:
            return said if asked.instances == ["bad"] else answer(asked.instances)

        service = Service(once)
        async with behind(service) as (hop, tally):
            with pytest.raises(RequestError) as caught:
                await hop(["bad"])
            assert not isinstance(caught.value, LostError)
            assert (caught.value.status, str(caught.value), caught.value.retry_after_s) == (status, text, retry_after_s)
            assert await hop(["good"]) == ["good"]
        assert service.connections == 1  # an error is an answer, and the connection stays good
        counted = tally.snapshot()
        assert counted.counters == {"errors": 1, "calls": 1}
        assert sum(counted.histograms["hop_ns"].values()) == 1

    async def test_retry_after_belongs_to_its_own_answer_only(self) -> None:
        async def first_full(asked: Asked) -> bytes:
            headers = [b"retry-after: 3"] if asked.instances == [1] else []
            return message(b'{"error": "full"}', *headers, status=503)

        async with behind(Service(first_full)) as (hop, _):
            said = []
            for value in (1, 2):
                with pytest.raises(RequestError) as caught:
                    await hop([value])
                said.append(caught.value.retry_after_s)
        assert said == [3, None]

    @pytest.mark.parametrize("body", [b"hello", b'{"outputs": [1]}', b'{"predictions": 1}', b""])
    async def test_an_answer_that_is_no_prediction_is_a_bad_gateway(self, body: bytes) -> None:
        async def other(_: Asked) -> bytes:
            return message(body)

        async with behind(Service(other)) as (hop, _):
            with pytest.raises(RequestError, match="answered something else than predictions: the body") as caught:
                await hop([1])
            assert caught.value.status == 502
            assert not isinstance(caught.value, LostError)

    @pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", message(b'{"predictions": [1]}')[:-5]])
    async def test_a_connection_that_ends_under_a_request_loses_it(self, sent: bytes) -> None:
        class Leaves(Service):
            async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"}")
                writer.write(sent)
                writer.close()
                await writer.wait_closed()

        async with behind(Leaves()) as (hop, tally):
            for _ in range(2):
                with pytest.raises(LostError, match="closed the connection under a request") as caught:
                    await hop([1])
                assert caught.value.status == 502
            assert hop._pools[0]._idle == []
        assert tally.snapshot().counters == {"errors": 2}

    async def test_response_that_is_not_http_loses_the_request(self) -> None:
        async def garbage(_: Asked) -> bytes:
            return b"hello\r\n\r\n"

        service = Service(garbage)
        async with behind(service) as (hop, tally):
            for _ in range(2):
                with pytest.raises(LostError, match="the service behind sent a response that is not HTTP: "):
                    await hop([1])
        assert service.connections == 2
        assert tally.snapshot().counters == {"errors": 2}

    async def test_a_service_that_is_not_there_loses_the_request_and_is_named(self) -> None:
        port, tally = refused_port(), Tally(0, "hop")
        with pytest.raises(LostError, match=rf"the service behind, at 127\.0\.0\.1:{port}, cannot be reached: "):
            await Upstream(UpstreamNode((("127.0.0.1", port),), PATH, 0), tally)([1])
        assert tally.snapshot().counters == {"errors": 1}

    async def test_inputs_that_cannot_be_sent_are_an_error_without_a_request(self) -> None:
        """As where a stage of a pipeline hands an object to the next, in another process."""
        service = Service()
        async with behind(service) as (hop, _):
            with pytest.raises(RequestError, match=r"inputs of the service behind cannot be sent to it: .*object"):
                await hop([object()])
            assert await hop([1]) == [2]
        assert len(service.asked) == 1


class TestTime:
    @each_row(
        ("header", "hop_ns"),
        (b"server-timing: model;dur=4.000", 6_000_000),
        (b"Server-Timing: model;dur=0", 10_000_000),
        (b"server-timing: model;dur=2;free=1005000000", 3_000_000),  # half of the time it waited for the model
        (b"server-timing: model;dur=4.000;free=999000000", 6_000_000),
        (b"server-timing: model;dur=11.5", 0),  # clocks of two processes may disagree by a little
        (b"x-other: 1", 10_000_000),
    )
    async def test_the_hop_is_the_time_there_and_back_without_the_work(
        self, header: bytes, hop_ns: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        times = iter([1_000_000_000, 1_000_000_000, 1_010_000_000])  # before the inputs are encoded, too
        monkeypatch.setattr("pytest_mlpatterns.engines.local.upstream.perf_counter_ns", lambda: next(times))

        async def working(_: Asked) -> bytes:
            return answer([1], header)

        async with behind(Service(working)) as (hop, tally):
            await hop([1])
            found = tally.snapshot()
        assert found.median("hop_ns") == pytest.approx(hop_ns, rel=0.008)
        assert (found.position, found.layer) == (2, "hop")

    async def test_a_request_is_charged_the_service_and_the_way_to_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        times = iter([1_000_000_000, 1_000_001_000, 1_010_001_000, 1_010_003_000])
        monkeypatch.setattr("pytest_mlpatterns.engines.local.upstream.perf_counter_ns", lambda: next(times))
        clock = RequestClock()

        async def working(_: Asked) -> bytes:
            parts = b'{"model_cpu":5,"b/model_cpu":1,"woken":1000000}'
            return answer([1], b"server-timing: model;dur=4.000;free=1002001000;parts=" + parts)

        async with behind(Service(working), of="a") as (hop, _):
            set_clock(clock)
            await hop([1])
        assert clock.parts == {
            "a/model_cpu": 5,
            "b/model_cpu": 1,
            "a/hop": 3_000_000,
            "a/run_queue": 1_000_000,
            "a/queue_wait": 2_000_000,
            "a/wire": 3_000,
        }

    async def test_the_reported_time_counts_for_one_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        times = iter([0, 0, 10_000_000, 20_000_000, 20_000_000, 30_000_000])
        monkeypatch.setattr("pytest_mlpatterns.engines.local.upstream.perf_counter_ns", lambda: next(times))

        async def told_once(asked: Asked) -> bytes:
            return answer([1], *([b"server-timing: model;dur=10"] if asked.instances == [0] else []))

        async with behind(Service(told_once)) as (hop, tally):
            await hop([0])
            await hop([1])
            assert sorted(tally.snapshot().histograms["hop_ns"]) == [0, pytest.approx(10_000_000, rel=0.008)]
