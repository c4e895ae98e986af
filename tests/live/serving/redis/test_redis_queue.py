"""The queue at a broker, on a real Valkey server that dies and comes back: nothing that was accepted is lost."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis.asyncio import Redis
from support.services.valkey import Valkey, valkey_server

from pytest_mlpatterns import DeploymentError
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.queued import Queued
from pytest_mlpatterns.patterns.request_clock import RequestClock, set_clock
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.redis import queue as broker
from pytest_mlpatterns.serving.redis import queue_worker as consumer
from pytest_mlpatterns.serving.redis.queue import GROUP, PAUSE_S, RedisQueue
from pytest_mlpatterns.serving.redis.queue_worker import Subscription, consume
from pytest_mlpatterns.wire import REST_JSON, codec_of, pack

pytestmark = pytest.mark.processes

NAME = "queue-of-a-test"
REQUESTS, ANSWERS = f"{NAME}:requests", f"{NAME}:answers"

HOLDING_WORKER = """
import asyncio, sys
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.redis.queue_worker import Subscription, consume

async def hold(instances, decode):
    print("taken", flush=True)
    await asyncio.Event().wait()

asyncio.run(consume(Subscription(sys.argv[1], sys.argv[2], "worker 0", 2), hold, Tally(0, "queued")))
"""


@pytest.fixture(scope="module")
def lasting() -> Iterator[Valkey]:
    """A broker that no test kills."""
    with valkey_server() as server:
        yield server


@pytest.fixture
def mortal() -> Iterator[Valkey]:
    with valkey_server() as server:
        yield server


class Service:
    """A front, and what its broker says."""

    def __init__(self, url: str, capacity: int) -> None:
        self.url = url
        self.tally = Tally(0, "queued")
        self.ask = RedisQueue(Queued(capacity=capacity), url, NAME, tally=self.tally)
        self.broker = Redis.from_url(url.replace("valkey", "redis"), protocol=2)

    def counted(self) -> dict[str, int]:
        counters = self.tally.snapshot().counters
        return {name: count for name, count in counters.items() if count and not name.endswith("_ns")}

    async def accepted(self, count: int) -> list[asyncio.Future[Any]]:
        return [await self.ask.enqueue([number]) for number in range(count)]

    async def ids(self) -> list[bytes]:
        """The ids of the requests that the broker has."""
        return [entry[b"id"] for _, entry in await self.broker.xrange(REQUESTS)]

    def die(self) -> None:
        """End as if killed: its keys stay, and nothing reads its answers."""
        self.ask._maintenance.cancel()

    async def taken(self) -> int:
        return int((await self.broker.xpending(REQUESTS, GROUP))["pending"])

    async def until_taken(self, count: int) -> None:
        while await self.taken() != count:
            await asyncio.sleep(0.01)

    async def until_accepting(self) -> asyncio.Future[Any]:
        while True:
            with suppress(RequestError):
                return await self.ask.enqueue(["again"])
            await asyncio.sleep(0.01)


@asynccontextmanager
async def service(url: str, capacity: int = 1000) -> AsyncIterator[Service]:
    found = Service(url, capacity)
    try:
        yield found
    finally:
        await found.ask.close()
        await found.broker.aclose()


@asynccontextmanager
async def worker(url: str, run: Any, *, name: str = "worker 0", in_flight: int = 1) -> AsyncIterator[Tally]:
    """A worker that ends as if killed: in the midst of what it does."""
    tally = Tally(0, "queued")
    subscription = Subscription(url, NAME, name, in_flight)
    task = asyncio.create_task(consume(subscription, lambda inputs, _decode: run(inputs), tally))
    try:
        yield tally
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()  # nothing else ever ended it


async def double(instances: list[Any]) -> list[Any]:
    return [2 * one for one in instances]


def gated(gate: asyncio.Event) -> Callable[[list[Any]], Coroutine[Any, Any, list[Any]]]:
    async def run(instances: list[Any]) -> list[Any]:
        await gate.wait()
        return await double(instances)

    return run


def outputs(count: int) -> list[list[int]]:
    return [[2 * number] for number in range(count)]


async def test_every_caller_gets_its_own_answer_from_whichever_worker(lasting: Valkey) -> None:
    async with (
        service(lasting.url) as front,
        worker(lasting.url, double, name="worker 0") as first,
        worker(lasting.url, double, name="worker 1", in_flight=4) as second,
    ):

        async def call(caller: int) -> None:
            for turn in range(10):
                assert await front.ask([caller, turn]) == [2 * caller, 2 * turn]

        await asyncio.gather(*(call(caller) for caller in range(16)))
        assert front.counted() == {"accepted": 160, "answered": 160}
        waits = [tally.snapshot().histograms["wait_ns"] for tally in (first, second)]
        assert sum(sum(spread.values()) for spread in waits) == 160
        assert await front.broker.xlen(REQUESTS) == 0
        assert await front.taken() == 0


async def test_who_finds_the_queue_full_is_told_so_at_once(lasting: Valkey) -> None:
    async with service(lasting.url, capacity=3) as front:
        waiting = await front.accepted(3)
        with pytest.raises(RequestError, match="3 requests wait") as refused:
            await front.ask([3])
        assert (refused.value.status, refused.value.retry_after_s) == (503, 1)
        assert front.counted() == {"accepted": 3, "rejected": 1}
        gate = asyncio.Event()
        async with worker(lasting.url, gated(gate)):
            await front.until_taken(1)
            waiting.append(await front.ask.enqueue([3]))  # one is taken, and no longer waits
            with pytest.raises(RequestError, match="full"):
                await front.ask([4])
            gate.set()
            assert await asyncio.gather(*waiting) == outputs(4)


async def test_a_worker_takes_no_more_than_it_may(lasting: Valkey) -> None:
    gate = asyncio.Event()
    async with service(lasting.url) as front, worker(lasting.url, gated(gate), in_flight=3):
        waiting = await front.accepted(8)
        await front.until_taken(3)
        assert await front.broker.xlen(REQUESTS) == 8
        gate.set()
        assert await asyncio.gather(*waiting) == outputs(8)


async def test_how_many_wait_is_seen_while_they_wait(lasting: Valkey) -> None:
    gate = asyncio.Event()
    async with service(lasting.url) as front, worker(lasting.url, gated(gate)):
        waiting = await front.accepted(6)
        await front.until_taken(1)
        for depth in (5, 0):
            while front.tally.snapshot().series["depth"][-1][1] != depth:
                await asyncio.sleep(0.01)
            gate.set()
            await asyncio.gather(*waiting)
        assert front.tally.snapshot().counters["depth_ns"] > 0


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (RequestError(418, "the model is a teapot"), 418, "the model is a teapot"),
        (RequestError(503, "too many requests", retry_after_s=2), 503, "too many requests"),
        (ValueError("broken"), 500, "ValueError: broken"),
        ([object()], 500, "WireError: .*object"),
    ],
)
async def test_what_went_wrong_at_the_worker_is_told_to_the_caller(
    lasting: Valkey, answer: Any, status: int, text: str
) -> None:
    async def caller(_instances: list[Any]) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with service(lasting.url) as front, worker(lasting.url, caller):
        with pytest.raises(RequestError, match=text) as raised:
            await front.ask([1])
        assert raised.value.status == status
        assert raised.value.retry_after_s == getattr(answer, "retry_after_s", None)
        assert front.counted() == {"accepted": 1, "answered": 1}


async def test_a_front_that_ends_leaves_no_keys_and_no_caller_waiting(lasting: Valkey) -> None:
    async with service(lasting.url) as front:
        (waiting,) = await front.accepted(1)
        for key in (REQUESTS, ANSWERS):
            assert 0 < await front.broker.pttl(key) <= 600_000  # also where it ends badly
        await front.ask.close()
        with pytest.raises(RequestError, match="ended before"):
            await waiting
        with pytest.raises(RequestError, match="the service ends"):
            await front.ask([2])
        assert await front.broker.keys() == []


async def test_answers_that_were_read_are_dropped(lasting: Valkey) -> None:
    async with service(lasting.url) as front, worker(lasting.url, double):
        await asyncio.gather(*(front.ask([number]) for number in range(20)))
        while await front.broker.xlen(ANSWERS) > 1:
            await asyncio.sleep(0.01)


async def test_an_answer_that_nobody_waits_for_is_counted_and_dropped(lasting: Valkey) -> None:
    gate = asyncio.Event()
    async with service(lasting.url) as front, worker(lasting.url, gated(gate)):
        waiting = await front.ask.enqueue([1])
        ((_, entry),) = await front.broker.xrange(REQUESTS)
        await front.broker.xadd(REQUESTS, entry)  # as if a worker had died after its answer, unacknowledged
        gate.set()
        assert await waiting == [2]
        while "duplicated" not in front.counted():
            await asyncio.sleep(0.01)
        assert front.counted() == {"accepted": 1, "answered": 1, "duplicated": 1}


FOREIGN_REQUESTS: list[dict[Any, Any]] = [
    {"id": "7", "body": b"no request"},
    {"id": "7", "body": b"no request", "accepted": "yesterday"},
    {"id": "7", "body": b"no request", "accepted": "9" * 5000},
    {"cmd": "FLUSHALL"},
]
FOREIGN_ANSWERS: list[dict[Any, Any]] = [
    {"body": b"forged"},
    {"status": "fine", "body": b"forged"},
    {"id": "0", "status": "200", "body": b"forged"},
    {b"\xff": b"\xff"},
]
"""Where there is no id, it is that of a request."""


class TestForeignEntries:
    @pytest.mark.parametrize("entry", FOREIGN_REQUESTS, ids=range(len(FOREIGN_REQUESTS)))
    async def test_among_the_requests_are_skipped_and_counted_and_kill_no_worker(
        self, lasting: Valkey, entry: dict[Any, Any]
    ) -> None:
        async with service(lasting.url) as front:
            waiting = await front.accepted(1)
            await front.broker.xadd(REQUESTS, entry)
            waiting.append(await front.ask.enqueue([1]))
            async with worker(lasting.url, double) as tally:
                assert await asyncio.gather(*waiting) == outputs(2)
                assert tally.snapshot().counters["foreign"] == 1
                assert await front.broker.xlen(REQUESTS) == await front.taken() == 0

    async def test_that_a_dead_worker_had_taken_are_skipped_too(self, lasting: Valkey) -> None:
        async with service(lasting.url) as front:
            await front.ask.start()
            await front.broker.xadd(REQUESTS, FOREIGN_REQUESTS[0])
            for _ in range(3):
                await front.broker.xreadgroup(GROUP, "worker 0", {REQUESTS: ">"})
            async with worker(lasting.url, double) as tally:
                assert await front.ask([1]) == [2]
                assert tally.snapshot().counters["foreign"] == 1

    @pytest.mark.parametrize("entry", FOREIGN_ANSWERS, ids=range(len(FOREIGN_ANSWERS)))
    async def test_among_the_answers_are_skipped_and_counted(self, lasting: Valkey, entry: dict[Any, Any]) -> None:
        async with service(lasting.url) as front:
            waiting = await front.accepted(1)
            (known,) = await front.ids()
            await front.broker.xadd(ANSWERS, {"id": known, **entry})
            async with worker(lasting.url, double):
                assert await asyncio.gather(*waiting) == outputs(1)
            assert front.counted() == {"accepted": 1, "answered": 1, "foreign": 1}

    async def test_an_answer_that_cannot_be_read_fails_its_request_and_no_other(self, lasting: Valkey) -> None:
        async with service(lasting.url) as front:
            (waiting,) = await front.accepted(1)
            (known,) = await front.ids()
            await front.broker.xadd(ANSWERS, {"id": known, "status": "200", "body": b"\xff" * 20})
            with pytest.raises(RequestError, match="an answer in the broker's stream cannot be read") as failed:
                await waiting
            assert failed.value.status == 500
            async with worker(lasting.url, double):
                assert await front.ask([2]) == [4]

    @pytest.mark.parametrize("number", ["soon", "-1", "9" * 5000])
    async def test_a_number_in_an_answer_that_cannot_be_read_is_left_out(self, lasting: Valkey, number: str) -> None:
        body = pack(codec_of(REST_JSON).encode_outputs([2]))
        set_clock(RequestClock())
        async with service(lasting.url) as front:
            for status, failure in ((b"503", RequestError), (b"200", None)):
                (waiting,) = await front.accepted(1)
                known = (await front.ids())[-1]
                answer = {"id": known, "status": status, "body": body, "retry_after": number, "spent": number}
                await front.broker.xadd(ANSWERS, answer)
                (found,) = await asyncio.gather(waiting, return_exceptions=True)
                assert getattr(found, "retry_after_s", None) is None
                assert found == [2] if failure is None else isinstance(found, failure)


async def test_answers_to_a_gateway_that_died_reach_no_request_of_the_one_in_its_place(lasting: Valkey) -> None:
    async with service(lasting.url) as dead, service(lasting.url) as front:
        old = await dead.accepted(3)
        dead.die()
        new = [await front.ask.enqueue([number]) for number in (10, 20, 30)]
        async with worker(lasting.url, double):
            assert await asyncio.gather(*new) == [[20], [40], [60]]
        assert front.counted() == {"accepted": 3, "answered": 3, "foreign": 3}
        assert [one.cancel() for one in old] == [True] * 3


class TestCallersThatGoAway:
    @pytest.mark.parametrize("answer", [double, RequestError(500, "broken")])
    async def test_their_answers_disturb_nobody(self, lasting: Valkey, answer: Any) -> None:
        async def caller(instances: list[Any]) -> list[Any]:
            if isinstance(answer, Exception) and instances == [0]:
                raise answer
            return await double(instances)

        async with service(lasting.url) as front:
            leaving, staying = await front.accepted(2)
            leaving.cancel()
            async with worker(lasting.url, caller):
                assert await staying == [2]
            assert front.counted() == {"accepted": 2, "answered": 2}

    async def test_before_they_are_accepted_they_are_forgotten(self, lasting: Valkey) -> None:
        async with service(lasting.url) as front:
            await front.ask.start()
            leaving = asyncio.create_task(front.ask(["leaving"]))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert leaving.cancelled()
            async with worker(lasting.url, double):
                assert await front.ask([1]) == [2]
            assert front.counted().items() >= {"accepted": 1, "answered": 1}.items()


class TestDeadWorkers:
    async def test_what_a_killed_process_had_taken_is_done_by_the_one_in_its_place(self, lasting: Valkey) -> None:
        async with service(lasting.url) as front:
            await front.ask.start()
            with subprocess.Popen(
                [sys.executable, "-c", HOLDING_WORKER, lasting.url, NAME], stdout=subprocess.PIPE
            ) as process:
                waiting = await front.accepted(5)
                await front.until_taken(2)
                process.send_signal(signal.SIGKILL)
            async with worker(lasting.url, double, in_flight=2) as tally:
                assert await asyncio.gather(*waiting) == outputs(5)
            assert tally.snapshot().counters["redelivered"] == 2
            assert front.counted() == {"accepted": 5, "answered": 5}

    async def test_a_worker_that_lives_does_not_begin_again_what_it_is_at(
        self, lasting: Valkey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(consumer, "_BLOCK_MS", 10)
        gate = asyncio.Event()
        begun: list[int] = []

        async def note(instances: list[int]) -> list[int]:
            begun.extend(instances)
            await gate.wait()
            return await double(instances)

        async with service(lasting.url) as front, worker(lasting.url, note, in_flight=2) as tally:

            async def looks() -> int:
                return int((await front.broker.info("commandstats"))["cmdstat_xreadgroup"]["calls"])

            waiting = await front.ask.enqueue([1])
            await front.until_taken(1)
            before = await looks()
            while await looks() < before + 3:  # whenever nothing comes it looks for what it left undone
                await asyncio.sleep(0.01)
            gate.set()
            assert await waiting == [2]
            assert begun == [1]
            assert "redelivered" not in tally.snapshot().counters

    async def test_other_workers_do_not_take_it(self, lasting: Valkey) -> None:
        async with service(lasting.url) as front:
            first = await front.ask.enqueue([0])
            async with worker(lasting.url, gated(asyncio.Event()), name="dying"):
                await front.until_taken(1)
            async with worker(lasting.url, double, name="other"):
                assert await front.ask([1]) == [2]
            assert not first.done()
            async with worker(lasting.url, double, name="dying"):
                assert await first == [0]

    async def test_a_request_under_which_every_worker_dies_fails_at_the_third(self, lasting: Valkey) -> None:
        async with service(lasting.url) as front:
            poison = await front.ask.enqueue(["poison"])
            redelivered = 0
            for _ in range(3):
                reached, gate = asyncio.Event(), asyncio.Event()

                async def die(
                    _instances: list[Any], reached: asyncio.Event = reached, gate: asyncio.Event = gate
                ) -> list[Any]:
                    reached.set()
                    await gate.wait()
                    return []

                async with worker(lasting.url, die) as tally:
                    await reached.wait()
                redelivered += tally.snapshot().counters.get("redelivered", 0)
            async with worker(lasting.url, double):
                with pytest.raises(LostError, match="each of 3 attempts"):
                    await poison
                assert await front.ask([1]) == [2]
            assert redelivered == 2
            assert front.counted() == {"accepted": 2, "answered": 1, "lost": 1}


class TestTheBrokerDies:
    @pytest.mark.parametrize("persistent", [False, True], ids=["and loses its memory", "and keeps its memory"])
    async def test_a_returning_broker_gets_every_accepted_request_answered(self, persistent: bool) -> None:
        with valkey_server(persistent=persistent) as mortal:
            gate = asyncio.Event()
            async with (
                service(mortal.url) as front,
                worker(mortal.url, gated(gate), name="worker 0", in_flight=2),
                worker(mortal.url, gated(gate), name="worker 1", in_flight=2),
            ):
                waiting = await front.accepted(16)
                await front.until_taken(4)
                mortal.kill()
                for _ in range(2):  # one that finds it out, and one that is told at once
                    with pytest.raises(RequestError, match=r"broker at redis://127.0.0.1:\d+/0 is away") as refused:
                        await front.ask([99])
                    assert (refused.value.status, refused.value.retry_after_s) == (503, 1)
                assert front.counted() == {"accepted": 16, "broker_errors": 2}
                await asyncio.to_thread(mortal.start)
                gate.set()
                assert await asyncio.gather(*waiting) == outputs(16)
                again = await front.until_accepting()
                assert await again == ["againagain"]
                counted = front.counted()
                assert (counted["accepted"], counted["answered"]) == (17, 17)
                if persistent:
                    assert counted.keys() == {"accepted", "answered", "broker_errors"}
                else:  # what the workers had may have been answered before it was found missing
                    assert 12 <= counted["redelivered"] <= 16

    async def test_a_hanging_broker_refuses_requests_without_a_long_wait(
        self, mortal: Valkey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = asyncio.Event()
        async with service(mortal.url) as front, worker(mortal.url, gated(gate)):
            waiting = await front.accepted(3)
            mortal.suspend()
            with monkeypatch.context() as impatient:
                impatient.setattr(broker, "_TIMEOUT_S", 0.5)
                for _ in range(2):
                    with pytest.raises(RequestError, match=r"is away: no answer within 0\.5 s"):
                        await front.ask([99])
            mortal.resume()
            gate.set()
            assert await asyncio.gather(*waiting) == outputs(3)

    @pytest.mark.parametrize("end", [Valkey.kill, Valkey.suspend], ids=["is gone", "hangs"])
    async def test_a_gateway_does_not_await_a_dead_broker(self, mortal: Valkey, end: Callable[[Valkey], None]) -> None:
        async with service(mortal.url) as front:
            (waiting,) = await front.accepted(1)
            end(mortal)
            await front.ask.close()
            with pytest.raises(RequestError, match="ended before"):
                await waiting

    async def test_a_dead_broker_is_not_polled_without_a_pause(self) -> None:
        calls = 0

        async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal calls
            calls += 1
            writer.close()

        loop = asyncio.get_running_loop()
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            url = f"valkey://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with service(url) as front, worker(url, double):
                started = loop.time()
                await front.ask.start()
                while calls < 6:
                    await asyncio.sleep(0.01)
                assert loop.time() - started >= PAUSE_S * 6 / 2 - PAUSE_S


class TestTheBrokerLosesItsMemory:
    async def test_while_it_runs_and_everything_is_submitted_again(self, lasting: Valkey) -> None:
        gate = asyncio.Event()
        async with service(lasting.url) as front, worker(lasting.url, gated(gate), in_flight=2):
            waiting = await front.accepted(5)
            await front.until_taken(2)
            await front.broker.flushall()
            while front.counted().get("redelivered") != 5:
                await asyncio.sleep(0.01)
            gate.set()
            assert await asyncio.gather(*waiting) == outputs(5)

    async def test_of_the_answers_alone_and_what_went_missing_is_done_again(self, lasting: Valkey) -> None:
        async with service(lasting.url) as front, worker(lasting.url, double):
            await front.ask.start()
            for number in range(6):
                _, answer = await asyncio.gather(front.broker.delete(ANSWERS), front.ask.enqueue([number]))
                assert await answer == [2 * number]
                await front.until_accepting()

    async def test_between_its_acceptance_of_a_request_and_our_hearing_of_it(self, lasting: Valkey) -> None:
        async with service(lasting.url) as front:
            await front.ask.start()
            accept, lost = front.ask._accept, asyncio.Event()

            async def slow(*arguments: Any) -> Any:
                answer = await accept(*arguments)
                await lost.wait()
                return answer

            front.ask._accept = slow
            caller = asyncio.create_task(front.ask([1]))
            while not await front.broker.xlen(REQUESTS):
                await asyncio.sleep(0.01)
            await front.broker.flushall()
            while not await front.broker.exists(ANSWERS):
                await asyncio.sleep(0.01)
            lost.set()
            with pytest.raises(RequestError, match="connection was interrupted"):
                await caller
            assert front.counted() == {"broker_errors": 1}


class TestTheDriver:
    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "redis.asyncio", None)
        with pytest.raises(DeploymentError, match=r"needs the package redis.*pytest-mlpatterns\[redis\]"):
            RedisQueue(Queued(), "redis://127.0.0.1", NAME, tally=Tally(0, "queued"))

    def test_an_address_that_it_does_not_take_is_named_without_the_password(self) -> None:
        with pytest.raises(DeploymentError, match="is not the address of a server") as error:
            RedisQueue(Queued(), "redis://:secret@127.0.0.1:1/0?socket_timeout=soon", NAME, tally=Tally(0, "queued"))
        assert "secret" not in str(error.value)
