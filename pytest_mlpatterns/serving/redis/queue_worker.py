"""A worker's side of a queue in Redis or Valkey: takes requests, has them done, and puts their answers back.

A consumer has the same name as the one whose place it takes, and so finds what that one had taken and not answered.
This module must not know the model; what the broker loses is the business of
:mod:`pytest_mlpatterns.serving.redis.queue`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.queued import MAX_ATTEMPTS
from pytest_mlpatterns.serving.redis.queue import GROUP, LOST, PAUSE_S, answers_key, connect, requests_key
from pytest_mlpatterns.wire import REST_JSON, Wire, codec_of, pack, unpack
from pytest_mlpatterns.wire.kserve_v1 import encode_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["Subscription", "consume"]

_BLOCK_MS = 1000


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a worker takes from.

    Args:
        url: address of the broker.
        name: the front's name of the queue.
        consumer: which worker this is; one that replaces another takes its name.
        in_flight: most requests at a time.
        wire: how inputs and outputs are written.
    """

    url: str
    name: str
    consumer: str
    in_flight: int
    wire: Wire = REST_JSON


async def consume(
    subscription: Subscription, run: Callable[[list[Any]], Awaitable[Sequence[Any]]], tally: Tally
) -> None:
    """Take requests until cancelled; a broker that is away is waited for.

    Args:
        subscription: from where, as whom, and how many.
        run: answers one request, or raises :class:`RequestError`.
        tally: counts waiting times, and what is done again for a worker that died.
    """
    consumer = _Consumer(subscription, run, tally)
    try:
        await consumer.take()
    finally:
        await consumer.close()


class _Consumer:
    def __init__(
        self, subscription: Subscription, run: Callable[[list[Any]], Awaitable[Sequence[Any]]], tally: Tally
    ) -> None:
        self._requests, self._answers = requests_key(subscription.name), answers_key(subscription.name)
        self._consumer = subscription.consumer
        self._in_flight = subscription.in_flight
        self._codec = codec_of(subscription.wire)
        self._run = run
        self._tally = tally
        self._client = connect(subscription.url, subscription.in_flight + 1)
        self._under_way: dict[bytes, asyncio.Task[None]] = {}

    async def take(self) -> None:
        from redis.exceptions import RedisError

        while True:
            try:
                await self._take_own()
                while await self._take_new():
                    pass
            except (RedisError, OSError):  # also where the front has not made the queue yet, or not made it again
                await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        await self._client.aclose()

    async def _take_own(self) -> None:
        """Do again what a worker of this name had taken and never answered, or what never reached us."""
        found = await self._client.xpending_range(
            self._requests, GROUP, "-", "+", self._in_flight, consumername=self._consumer
        )
        for pending in found:
            place, attempts = pending["message_id"], pending["times_delivered"]
            if place in self._under_way:
                continue
            await self._free_places()
            claimed = await self._client.xclaim(self._requests, GROUP, self._consumer, 0, [place])
            for _, entry in claimed:
                if attempts < MAX_ATTEMPTS:
                    self._tally.count("redelivered")
                    self._begin(place, entry)
                else:
                    text = f"the worker died under this request at each of {attempts} attempts"
                    await self._answer(place, entry[b"id"], LOST, encode_error(text))

    async def _take_new(self) -> bool:
        """Take as many as there are places for; False where nothing came for a while."""
        free = await self._free_places()
        found = await self._client.xreadgroup(GROUP, self._consumer, {self._requests: ">"}, count=free, block=_BLOCK_MS)
        for _, entries in found:
            for place, entry in entries:
                self._begin(place, entry)
        return bool(found)

    async def _free_places(self) -> int:
        while len(self._under_way) >= self._in_flight:
            await asyncio.wait(self._under_way.values(), return_when=asyncio.FIRST_COMPLETED)
        return self._in_flight - len(self._under_way)

    def _begin(self, place: bytes, entry: dict[bytes, bytes]) -> None:
        self._tally.time("wait_ns", max(perf_counter_ns() - int(entry[b"accepted"]), 0))
        task = asyncio.create_task(self._do(place, entry))
        self._under_way[place] = task
        task.add_done_callback(lambda _: self._under_way.pop(place))

    async def _do(self, place: bytes, entry: dict[bytes, bytes]) -> None:
        try:
            outputs = await self._run(self._codec.decode_inputs(*unpack(entry[b"body"])))
            status, body = b"200", pack(self._codec.encode_outputs(outputs))
        except RequestError as error:
            status, body = b"%d" % error.status, encode_error(str(error))
        except Exception as error:  # such as outputs that cannot be sent: a request is always answered
            status, body = b"500", encode_error(f"the worker failed with {type(error).__name__}: {error}")
        await self._answer(place, entry[b"id"], status, body)

    async def _answer(self, place: bytes, number: bytes, status: bytes, body: bytes) -> None:
        from redis.exceptions import RedisError

        while True:
            try:
                pipeline = self._client.pipeline(transaction=True)
                pipeline.xadd(self._answers, {"id": number, "status": status, "body": body}, nomkstream=True)
                pipeline.xack(self._requests, GROUP, place)
                pipeline.xdel(self._requests, place)
                await pipeline.execute()
            except (RedisError, OSError):
                await asyncio.sleep(PAUSE_S)
            else:
                return
