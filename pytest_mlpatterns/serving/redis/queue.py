"""The gateway's end of a queue in Redis or Valkey: accepts requests, and answers each accepted request.

Requests wait in the stream ``NAME:requests``, which the workers read as one consumer group; answers come back in
``NAME:answers``. The gateway remembers each accepted request until its answer arrives. After an outage it creates
missing streams and submits again the requests that the broker has lost. So the broker may lose its memory, and a worker
may answer twice. Only the gateway creates keys; they expire if it crashes. Entries of other programs are skipped, and
so are answers to a gateway that was replaced: the ids of requests begin with a mark of their process.

Of arq, rq, taskiq and faststream, none submits accepted requests again after the broker has lost them ("no accepted
request is lost"), and none refuses at once, with 503, what exceeds a capacity or meets a broker that is down. Both are
part of what the pattern promises and what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import secrets
from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Any

from pytest_mlpatterns.patterns.arguments import without_password
from pytest_mlpatterns.patterns.layer import LostError, RequestError
from pytest_mlpatterns.patterns.queued import Queued, refusal_of_full
from pytest_mlpatterns.patterns.request_clock import HOP, WIRE, charge, current_clock
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.serving.clocks import parts_in
from pytest_mlpatterns.serving.redis.cache import connect
from pytest_mlpatterns.wire import REST_JSON, Wire, WireError, codec_of, pack, unpack
from pytest_mlpatterns.wire.kserve_v1 import decode_error

GROUP = "workers"  # Name of the consumer group of the workers
LOST = b"lost"  # Status of a request whose worker died at each attempt
PAUSE_S = 0.1  # Pause between two attempts to reach the broker

_CHECK_INTERVAL_NS = 50_000_000  # Interval at which the gateway checks what the broker has, in nanoseconds
_EXPIRY_MS = 600_000  # Time after which the keys of a gateway that crashed expire, in milliseconds
_CONNECTIONS = 32  # Connections of a gateway to its broker
_CLOSE_S = 1  # Time limit for the removal of the keys, in seconds
_STATUS = re.compile(rb"[1-5][0-9]{2}|lost")
_WHOLE = re.compile(rb"[0-9]{1,18}")
_TIMEOUT_S = 5  # Time limit of the broker; after it the broker is considered unavailable

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
    """The queue in front of workers that run :func:`~pytest_mlpatterns.serving.redis.queue_worker.consume`.

    Raises LostError: when called: the worker died at each attempt.
    """

    def __init__(self, pattern: Queued, url: str, name: str, *, tally: Tally, wire: Wire = REST_JSON) -> None:
        self.parallelism: int = pattern.workers
        self._codec = codec_of(wire)
        self._pattern = pattern
        self._url = url
        self._requests, self._answers = requests_key(name), answers_key(name)
        self._tally = tally
        self._client = queue_client(url, _CONNECTIONS)
        self._accept = self._client.register_script(_ACCEPT)
        self._find = self._client.register_script(_RESTORE)
        self._mark = b"%s-" % secrets.token_hex(4).encode()  # its replacement reads the same stream
        self._numbers = itertools.count()
        self._unanswered: dict[bytes, _Request] = {}
        self._last: bytes = b"0"
        self._outage: str | None = "not connected yet"
        self._outages = 0
        self._first_attempt = asyncio.Event()
        self._maintenance: asyncio.Task[None] | None = None
        tally.level("depth", 0)

    async def start(self) -> None:
        """Connect. An unavailable broker is no error here: requests are refused until it is available."""
        if self._maintenance is None:
            self._maintenance = asyncio.create_task(self._maintain())
        await self._first_attempt.wait()

    async def close(self) -> None:
        """Delete the keys at the broker; requests without an answer fail."""
        from redis.exceptions import RedisError

        if self._maintenance is not None:
            self._maintenance.cancel()
            await asyncio.wait([self._maintenance])
        self._outage = "the service ends"
        self._outages += 1  # refuses requests that are being accepted
        for request in self._unanswered.values():
            request.fail(RequestError(503, "the service ended before this request was answered"))
        self._unanswered.clear()
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(_CLOSE_S):
                await self._client.delete(self._requests, self._answers)
        await self._client.aclose()

    async def __call__(self, instances: list[Any]) -> Sequence[Any]:
        """The outputs, once a worker had its turn at these inputs."""
        return await (await self.enqueue(instances))

    async def enqueue(self, instances: list[Any]) -> asyncio.Future[Sequence[Any]]:
        """Accept a request; the future gets its outputs or its error."""
        from redis.exceptions import RedisError

        if not self._first_attempt.is_set():
            await self.start()
        if self._outage is not None:
            raise self._refusal(self._outage)
        began_ns = perf_counter_ns()
        try:
            request = _Request(pack(self._codec.encode_inputs(instances)))
        except WireError as error:
            raise RequestError(500, f"inputs cannot be sent through the queue: {error}") from error
        charge(WIRE, request.accepted_ns - began_ns)
        number = b"%s%d" % (self._mark, next(self._numbers))
        self._unanswered[number] = request  # first, because the answer may arrive before the acceptance
        outages = self._outages
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                fits = await self._accept([self._requests], self._entry(number, request))
        except (RedisError, OSError) as error:
            raise self._refusal(_reason_of(error)) from error
        else:
            if outages != self._outages:  # the broker may have lost the request
                raise self._refusal("the connection was interrupted")
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

    def _refusal(self, outage: str) -> RequestError:
        self._tally.count("broker_errors")
        return RequestError(
            503,
            f"the queue's broker at {without_password(self._url)} is away: {outage}; accepted requests wait for it; "
            "try again when it runs",
            retry_after_s=1,
        )

    async def _maintain(self) -> None:
        """Read the answers and check the broker while the service runs."""
        while True:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._restore()
                self._outage = None
                self._first_attempt.set()
                while True:
                    async with asyncio.timeout(_TIMEOUT_S):
                        await self._check_broker()
                        until = perf_counter_ns() + _CHECK_INTERVAL_NS
                        while (left_ns := until - perf_counter_ns()) > 0:
                            await self._read(left_ns // 1_000_000 + 1)
            except Exception as error:  # any error: if this task ended, no request would get an answer
                self._outage = _reason_of(error)
                self._outages += 1
                self._first_attempt.set()
                await asyncio.sleep(PAUSE_S)

    async def _restore(self) -> None:
        """Create missing streams, and submit again each accepted request that the broker has lost."""
        accepted = [number for number, request in self._unanswered.items() if request.is_accepted]
        created, *known = await self._find([self._requests, self._answers], [GROUP, _EXPIRY_MS])
        if created:
            self._last = b"0"
        await self._read(None)  # after the search: answered requests are no longer in the stream
        present = set(known)
        pipeline = self._client.pipeline(transaction=True)
        missing = [number for number in accepted if number not in present and number in self._unanswered]
        for number in missing:
            request = self._unanswered[number]
            pipeline.xadd(self._requests, {"id": number, "body": request.body, "accepted": request.accepted_ns})
        await pipeline.execute()
        self._tally.count("redelivered", len(missing))

    async def _check_broker(self) -> None:
        """Record the queue depth, check that both streams exist, and delete the answers that were read."""
        from redis.exceptions import ConnectionError as BrokerLost

        pipeline = self._client.pipeline(transaction=True)
        pipeline.xlen(self._requests)
        pipeline.xpending(self._requests, GROUP)
        pipeline.xtrim(self._answers, minid=self._last, approximate=False)
        pipeline.pexpire(self._requests, _EXPIRY_MS)
        pipeline.pexpire(self._answers, _EXPIRY_MS)
        length, pending, _, *exist = await pipeline.execute()
        if not all(exist):
            raise BrokerLost("it has lost its memory")
        self._tally.level("depth", max(length - pending["pending"], 0))

    async def _read(self, wait_ms: int | None) -> None:
        for _, answers in await self._client.xread({self._answers: self._last}, block=wait_ms):
            for entry_id, answer in answers:
                self._last = entry_id
                if answer.keys() >= {b"id", b"status", b"body"} and _STATUS.fullmatch(answer[b"status"]):
                    self._take(answer)
                else:
                    self._tally.count("foreign")

    def _take(self, answer: dict[bytes, bytes]) -> None:
        status, body = answer[b"status"], answer[b"body"]
        request = self._unanswered.pop(answer[b"id"], None)
        if not answer[b"id"].startswith(self._mark):
            self._tally.count("foreign")
        elif request is None:
            self._tally.count("duplicated")
        elif status == LOST:
            self._tally.count("lost")
            request.fail(LostError(decode_error(body)))
        else:
            self._tally.count("answered")
            if status == b"200":
                request.charge(answer)
                self._succeed(request, body)
            else:
                request.fail(
                    RequestError(int(status), decode_error(body), retry_after_s=_whole_in(answer, b"retry_after"))
                )

    def _succeed(self, request: _Request, body: bytes) -> None:
        started_ns = perf_counter_ns()
        try:
            outputs = self._codec.decode_outputs(*unpack(body))
            if request.clock is not None:
                request.clock.add(WIRE, perf_counter_ns() - started_ns)
            request.succeed(outputs)
        except ValueError as error:  # also WireError: another program answered, or the entry was changed
            request.fail(RequestError(500, f"an answer in the broker's stream cannot be read: {error}"))


class _Request:
    """A request that is accepted or being accepted."""

    __slots__ = ("accepted_ns", "body", "clock", "is_accepted", "outputs")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.clock = current_clock()
        self.accepted_ns = perf_counter_ns()
        self.outputs: asyncio.Future[Sequence[Any]] = asyncio.get_running_loop().create_future()
        self.is_accepted = False

    def charge(self, answer: Mapping[bytes, bytes]) -> None:
        """Charge the times that the worker sent, and what the broker took; another program may have sent anything."""
        spent_ns = _whole_in(answer, b"spent")
        if self.clock is not None and spent_ns is not None:
            self.clock.take(parts_in(answer.get(b"clock", b"")))
            self.clock.add(HOP, max(perf_counter_ns() - self.accepted_ns - spent_ns, 0))

    def succeed(self, outputs: Sequence[Any]) -> None:
        if not self.outputs.done():
            self.outputs.set_result(outputs)

    def fail(self, error: RequestError) -> None:
        if not self.outputs.done():
            self.outputs.set_exception(error)


def _whole_in(answer: Mapping[bytes, bytes], field: bytes) -> int | None:
    """The whole number in a field of an answer; None without one."""
    found = answer.get(field, b"")
    return int(found) if _WHOLE.fullmatch(found) else None


def queue_client(url: str, connections: int) -> Any:
    """A client of the broker; a command waits for a connection if all are in use."""
    settings = {"max_connections": connections, "timeout": None, "socket_connect_timeout": 2, "socket_keepalive": True}
    return connect(url, "Queued(broker={!r})", pool="BlockingConnectionPool", **settings)


def requests_key(name: str) -> str:
    """The stream in which requests wait."""
    return f"{name}:requests"


def answers_key(name: str) -> str:
    """The stream in which answers come back."""
    return f"{name}:answers"


def _reason_of(error: Exception) -> str:
    return f"no answer within {_TIMEOUT_S} s" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
