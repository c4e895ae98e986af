"""The worker's end of a queue in Redis or Valkey: takes requests, runs them, and sends the answers.

A replacement reuses the consumer name, so it inherits the unacknowledged entries.
:mod:`pytest_mlpatterns.serving.redis.queue` submits again what the broker has lost. An entry that another program has
added to the stream is no request. It is deleted and counted; otherwise it would kill every worker.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from time import perf_counter_ns
from typing import Any

from msgspec import Struct

from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.queued import MAX_ATTEMPTS
from pytest_mlpatterns.patterns.request_clock import QUEUE_WAIT, WIRE, RequestClock, set_clock
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.clocks import written_parts
from pytest_mlpatterns.serving.redis.queue import GROUP, LOST, PAUSE_S, answers_key, queue_client, requests_key
from pytest_mlpatterns.wire import REST_JSON, Wire, codec_of, pack, unpack
from pytest_mlpatterns.wire.kserve_v1 import encode_error

Run = Callable[[list[Any], Callable[[], list[Any]]], Awaitable[Sequence[Any]]]
"""Runs one request: takes its inputs, and what decodes them again; returns its outputs."""

_BLOCK_MS = 1000  # Time of one wait for requests, in milliseconds; it bounds the end of a worker
_ACCEPTED = re.compile(rb"[0-9]{1,20}")


class Subscription(Struct, frozen=True):
    """A worker's access to a queue."""

    url: str
    name: str
    consumer: str  # name of the worker in the consumer group; a replacement reuses it
    in_flight: int
    wire: Wire = REST_JSON


async def consume(subscription: Subscription, run: Run, tally: Tally) -> None:
    """Take requests until cancelled; while the broker is unavailable, try again every 100 ms."""
    consumer = _Consumer(subscription, run, tally)
    try:
        await consumer.take()
    finally:
        await consumer.close()


class _Consumer:
    def __init__(self, subscription: Subscription, run: Run, tally: Tally) -> None:
        self._requests, self._answers = requests_key(subscription.name), answers_key(subscription.name)
        self._consumer = subscription.consumer
        self._in_flight = subscription.in_flight
        self._codec = codec_of(subscription.wire)
        self._run = run
        self._tally = tally
        self._client = queue_client(subscription.url, subscription.in_flight + 1)
        self._running: dict[bytes, asyncio.Task[None]] = {}

    async def take(self) -> None:
        from redis.exceptions import RedisError

        while True:
            try:
                await self._take_unacknowledged()
                while await self._take_new():
                    pass
            except (RedisError, OSError):  # or the gateway has not created the streams yet
                await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._client.aclose()

    async def _take_unacknowledged(self) -> None:
        """Run the entries that this consumer name has taken and not acknowledged."""
        found = await self._client.xpending_range(
            self._requests, GROUP, "-", "+", self._in_flight, consumername=self._consumer
        )
        for pending in found:
            entry_id, attempts = pending["message_id"], pending["times_delivered"]
            if entry_id in self._running:
                continue
            await self._free_slots()
            claimed = await self._client.xclaim(self._requests, GROUP, self._consumer, 0, [entry_id])
            for _, entry in claimed:
                if not _is_request(entry):
                    self._discard(entry_id)
                elif attempts < MAX_ATTEMPTS:
                    self._tally.count("redelivered")
                    self._start(entry_id, entry)
                else:
                    text = f"the worker died under this request at each of {attempts} attempts"
                    await self._settle(entry_id, _answer(entry, LOST, encode_error(text)))

    async def _take_new(self) -> bool:
        """Take as many new entries as there are free slots; returns False if none came within a second."""
        free = await self._free_slots()
        found = await self._client.xreadgroup(GROUP, self._consumer, {self._requests: ">"}, count=free, block=_BLOCK_MS)
        for _, entries in found:
            for entry_id, entry in entries:
                self._start(entry_id, entry) if _is_request(entry) else self._discard(entry_id)
        return bool(found)

    async def _free_slots(self) -> int:
        while len(self._running) >= self._in_flight:
            await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)
        return self._in_flight - len(self._running)

    def _start(self, entry_id: bytes, entry: dict[bytes, bytes]) -> None:
        waited_ns = max(perf_counter_ns() - int(entry[b"accepted"]), 0)
        self._tally.time("wait_ns", waited_ns)
        self._run_task(entry_id, self._process(entry_id, entry, waited_ns))

    def _discard(self, entry_id: bytes) -> None:
        """Delete an entry that is no request."""
        self._tally.count("foreign")
        self._run_task(entry_id, self._settle(entry_id, None))

    def _run_task(self, entry_id: bytes, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running[entry_id] = task
        task.add_done_callback(lambda _: self._running.pop(entry_id))

    async def _process(self, entry_id: bytes, entry: dict[bytes, bytes], waited_ns: int) -> None:
        clock, started_ns = RequestClock(), perf_counter_ns()
        clock.add(QUEUE_WAIT, waited_ns)
        set_clock(clock)
        more: dict[str, bytes] = {}
        try:
            decode = partial(self._codec.decode_inputs, *unpack(entry[b"body"]))
            inputs = decode()
            clock.add(WIRE, perf_counter_ns() - started_ns)
            outputs = await self._run(inputs, decode)
            answered_ns = perf_counter_ns()
            status, body = b"200", pack(self._codec.encode_outputs(outputs))
            clock.add(WIRE, perf_counter_ns() - answered_ns)
        except RequestError as error:
            status, body = b"%d" % error.status, encode_error(str(error))
            if error.retry_after_s is not None:
                more = {"retry_after": b"%d" % error.retry_after_s}
        except Exception as error:  # for example, outputs that cannot be encoded; each request gets an answer
            status, body = b"500", encode_error(f"the worker failed with {type(error).__name__}: {error}")
        times = {"clock": written_parts(clock.parts), "spent": b"%d" % (waited_ns + perf_counter_ns() - started_ns)}
        await self._settle(entry_id, {**_answer(entry, status, body), **times, **more})

    async def _settle(self, entry_id: bytes, answer: dict[str, bytes] | None) -> None:
        """Send the answer, if there is one, and delete the entry."""
        from redis.exceptions import RedisError

        while True:
            try:
                pipeline = self._client.pipeline(transaction=True)
                if answer is not None:
                    pipeline.xadd(self._answers, answer, nomkstream=True)
                pipeline.xack(self._requests, GROUP, entry_id)
                pipeline.xdel(self._requests, entry_id)
                await pipeline.execute()
            except (RedisError, OSError):
                await asyncio.sleep(PAUSE_S)
            else:
                return


def _is_request(entry: dict[bytes, bytes]) -> bool:
    """Whether an entry has the fields that the gateway writes."""
    return entry.keys() >= {b"id", b"body", b"accepted"} and _ACCEPTED.fullmatch(entry[b"accepted"]) is not None


def _answer(entry: dict[bytes, bytes], status: bytes, body: bytes) -> dict[str, bytes]:
    return {"id": entry[b"id"], "status": status, "body": body}
