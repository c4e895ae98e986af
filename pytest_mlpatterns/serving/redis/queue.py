"""The service's side of a queue in Redis or Valkey: accepts requests, and answers for every one that it accepted.

Requests wait in the stream ``NAME:requests``, from which the workers take them as one consumer group; answers come
back in ``NAME:answers``. The front owns the truth: it remembers what it accepted until it is answered, makes both
streams, and after any trouble submits again what the broker no longer knows. So the broker may lose its memory, and a
worker may answer twice. Nobody else makes keys, and where the front ended badly they expire. This module must not know
how workers work.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import DeploymentError, missing_extra
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.queued import refusal_of_full
from pytest_mlpatterns.patterns.store_url import without_password
from pytest_mlpatterns.wire import REST_JSON, Wire, WireError, codec_of, pack, unpack
from pytest_mlpatterns.wire.kserve_v1 import decode_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.patterns.queued import Queued
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["GROUP", "LOST", "PAUSE_S", "RedisQueue", "answers_key", "connect", "requests_key"]

GROUP = "workers"
LOST = b"lost"
"""Stands where an answer's status would: the worker died under every attempt."""
PAUSE_S = 0.1
"""Between two attempts to reach a broker that is away."""

_LOOK_NS = 50_000_000
_EXPIRY_MS = 600_000
_CONNECTIONS = 32
_LEAVE_S = 1
_ANSWER_S = 5
"""The broker is taken for away where it does not answer within this."""

_ACCEPT = """
local group, capacity, id, body, accepted = unpack(ARGV)
local waiting = redis.call('XLEN', KEYS[1]) - redis.call('XPENDING', KEYS[1], group)[1]
if waiting >= tonumber(capacity) then return 0 end
redis.call('XADD', KEYS[1], '*', 'id', id, 'body', body, 'accepted', accepted)
return 1
"""
_RESTORE = """
local made  -- of the last key: the answers
for _, key in ipairs(KEYS) do
  made = redis.pcall('XGROUP', 'CREATE', key, ARGV[1], '0', 'MKSTREAM')
  redis.call('PEXPIRE', key, ARGV[2])
end
local found = {made.ok and 1 or 0}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
  found[#found + 1] = entry[2][2]
end
return found
"""


class RedisQueue:
    """The queue before workers that :func:`~pytest_mlpatterns.serving.redis.queue_worker.consume` from it.

    Args:
        pattern: its capacity.
        url: address of the broker.
        name: begins every key; no two deployments at one broker may share it.
        tally: counts what :mod:`pytest_mlpatterns.records.telemetry` names for queues, except the waiting times.
        wire: how inputs and outputs are written.

    Raises:
        DeploymentError: the package ``redis`` is not installed, or the address is none.
        RequestError: when called: the queue is full, the broker is away, or the request's own error.
        LostError: when called: the worker died under every attempt.
    """

    def __init__(self, pattern: Queued, url: str, name: str, tally: Tally, wire: Wire = REST_JSON) -> None:
        self.parallelism = pattern.workers
        self._codec = codec_of(wire)
        self._pattern = pattern
        self._url = url
        self._requests, self._answers = requests_key(name), answers_key(name)
        self._tally = tally
        self._client = connect(url, _CONNECTIONS)
        self._accept = self._client.register_script(_ACCEPT)
        self._find = self._client.register_script(_RESTORE)
        self._numbers = itertools.count()
        self._unanswered: dict[bytes, _Request] = {}
        self._last: bytes = b"0"
        self._trouble: str | None = "not connected yet"
        self._troubles = 0
        self._tried = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        tally.level("depth", 0)

    async def start(self) -> None:
        """Connect. A broker that is away is no error here: requests are refused until it is there."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())
        await self._tried.wait()

    async def close(self) -> None:
        """Leave nothing behind at the broker; what is not answered yet fails."""
        from redis.exceptions import RedisError

        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self._trouble = "the service ends"
        self._troubles += 1  # what is about to be accepted is refused
        for request in self._unanswered.values():
            request.fail(RequestError(503, "the service ended before this request was answered"))
        self._unanswered.clear()
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(_LEAVE_S):
                await self._client.delete(self._requests, self._answers)
        await self._client.aclose()

    async def __call__(self, instances: list[Any]) -> Sequence[Any]:
        """The outputs, once a worker had its turn at these inputs."""
        return await (await self.enqueue(instances))

    async def enqueue(self, instances: list[Any]) -> asyncio.Future[Sequence[Any]]:
        """Accept a request; the future holds its outputs or its error.

        Raises:
            RequestError: 503, as many requests wait as the queue holds, or the broker is away.
        """
        from redis.exceptions import RedisError

        if not self._tried.is_set():
            await self.start()
        if self._trouble is not None:
            raise self._refusal(self._trouble)
        try:
            request = _Request(pack(self._codec.encode_inputs(instances)))
        except WireError as error:
            raise RequestError(500, f"inputs cannot be sent through the queue: {error}") from error
        number = b"%d" % next(self._numbers)
        self._unanswered[number] = request  # before it is accepted: the answer may be faster than the acceptance
        troubles = self._troubles
        try:
            async with asyncio.timeout(_ANSWER_S):
                fits = await self._accept([self._requests], self._entry(number, request))
        except (RedisError, OSError) as error:
            raise self._refusal(_text(error)) from error
        else:
            if troubles != self._troubles:  # the broker may have lost it since
                raise self._refusal("it was away for a moment")
            request.is_accepted = bool(fits)
        finally:
            if not request.is_accepted:
                self._unanswered.pop(number, None)
        if not fits:
            self._tally.count("rejected")
            raise refusal_of_full(self._pattern)
        self._tally.count("accepted")
        return request.outputs

    def _entry(self, number: bytes, request: _Request) -> list[Any]:
        return [GROUP, self._pattern.capacity, number, request.body, request.accepted_ns]

    def _refusal(self, trouble: str) -> RequestError:
        self._tally.count("broker_errors")
        return RequestError(
            503,
            f"the queue's broker at {without_password(self._url)} is away: {trouble}; requests that were accepted wait "
            "for it; try again when it runs",
            retry_after_s=1,
        )

    async def _keep(self) -> None:
        """Read the answers and watch the broker, for as long as the service runs."""
        while True:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await self._restore()
                self._trouble = None
                self._tried.set()
                while True:
                    async with asyncio.timeout(_ANSWER_S):
                        await self._look()
                        until = perf_counter_ns() + _LOOK_NS
                        while (left_ns := until - perf_counter_ns()) > 0:
                            await self._read(left_ns // 1_000_000 + 1)
            except Exception as error:  # whatever it is: while this task rests nobody gets an answer
                self._trouble = _text(error)
                self._troubles += 1
                self._tried.set()
                await asyncio.sleep(PAUSE_S)

    async def _restore(self) -> None:
        """Make what is missing, and submit again every accepted request that is neither there nor answered."""
        accepted = [number for number, request in self._unanswered.items() if request.is_accepted]
        made, *known = await self._find([self._requests, self._answers], [GROUP, _EXPIRY_MS])
        if made:
            self._last = b"0"
        await self._read(None)  # after looking for the requests: what is answered by now is gone from there
        there = set(known)
        pipeline = self._client.pipeline(transaction=True)
        again = [number for number in accepted if number not in there and number in self._unanswered]
        for number in again:
            request = self._unanswered[number]
            pipeline.xadd(self._requests, {"id": number, "body": request.body, "accepted": request.accepted_ns})
        await pipeline.execute()
        self._tally.count("redelivered", len(again))

    async def _look(self) -> None:
        """See how many wait, and whether everything is still there; drop the answers that were read."""
        from redis.exceptions import ConnectionError as BrokerLost

        pipeline = self._client.pipeline(transaction=True)
        pipeline.xlen(self._requests)
        pipeline.xpending(self._requests, GROUP)
        pipeline.xtrim(self._answers, minid=self._last, approximate=False)
        pipeline.pexpire(self._requests, _EXPIRY_MS)
        pipeline.pexpire(self._answers, _EXPIRY_MS)
        length, pending, _, *are_there = await pipeline.execute()
        if not all(are_there):
            raise BrokerLost("it has lost its memory")
        self._tally.level("depth", max(length - pending["pending"], 0))

    async def _read(self, wait_ms: int | None) -> None:
        for _, answers in await self._client.xread({self._answers: self._last}, block=wait_ms):
            for place, answer in answers:
                self._last = place
                self._take(answer[b"id"], answer[b"status"], answer[b"body"])

    def _take(self, number: bytes, status: bytes, body: bytes) -> None:
        request = self._unanswered.pop(number, None)
        if request is None:
            self._tally.count("duplicated")
        elif status == LOST:
            self._tally.count("lost")
            request.fail(LostError(decode_error(body)))
        else:
            self._tally.count("answered")
            if status == b"200":
                request.succeed(self._codec.decode_outputs(*unpack(body)))
            else:
                request.fail(RequestError(int(status), decode_error(body)))


class _Request:
    """A request that was accepted, or is about to be."""

    __slots__ = ("accepted_ns", "body", "is_accepted", "outputs")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.accepted_ns = perf_counter_ns()
        self.outputs: asyncio.Future[Sequence[Any]] = asyncio.get_running_loop().create_future()
        self.is_accepted = False

    def succeed(self, outputs: Sequence[Any]) -> None:
        if not self.outputs.done():
            self.outputs.set_result(outputs)

    def fail(self, error: RequestError) -> None:
        if not self.outputs.done():
            self.outputs.set_exception(error)


def connect(url: str, connections: int) -> Any:
    """A client of the broker (``redis.asyncio.Redis``) that tries nothing twice by itself.

    Not typed: what redis says of its answers holds for every protocol and setting at once.

    Args:
        url: address of the broker.
        connections: most at a time; who finds none free waits for one.

    Raises:
        DeploymentError: the package ``redis`` is not installed, or the address is none.
    """
    broker = without_password(url)
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise DeploymentError(missing_extra(f"Queued(broker={broker!r})", "redis", "redis")) from error
    try:
        pool = BlockingConnectionPool.from_url(
            url.replace("valkey", "redis", 1) if url.startswith("valkey") else url,
            max_connections=connections,
            timeout=None,
            socket_connect_timeout=2,
            socket_timeout=None,  # with one, redis sends through wait_for, which before Python 3.12 loses cancellations
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    except ValueError as error:
        raise DeploymentError(
            f"Queued(broker={broker!r}) is no address of a server: {error}; write redis://127.0.0.1:6379/0"
        ) from error
    return Redis.from_pool(pool)


def requests_key(name: str) -> str:
    """The stream in which requests wait."""
    return f"{name}:requests"


def answers_key(name: str) -> str:
    """The stream in which answers come back."""
    return f"{name}:answers"


def _text(error: Exception) -> str:
    return f"no answer within {_ANSWER_S} s" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
