"""Answers remembered: the pattern ``Cached``, and the layer that does it.

The memory is here, a server is behind the protocol :class:`Store`; this module must not know how one is reached.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import time
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from cachetools import LRUCache, TTLCache

from pytest_mlpatterns.patterns.layer import RequestError, matched, needs_loop, parallelism
from pytest_mlpatterns.units import parse_duration
from pytest_mlpatterns.wire import REST_JSON, Wire, WireError, codec_of, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from pytest_mlpatterns.patterns.cached import Cached
    from pytest_mlpatterns.patterns.layer import Answer, Handler
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["CacheLayer", "Store", "StoreUnavailable"]

_REST_NS = 500_000_000
"""So long a store that went away is left alone, so that not every request pays for finding out."""
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY


class StoreUnavailable(Exception):
    """A store cannot be reached, or does not answer; the text says which, and why."""


class Store(Protocol):
    """Keeps answers outside of this process; both methods may raise :class:`StoreUnavailable`."""

    async def get(self, keys: list[bytes]) -> list[bytes | None]:
        """What is kept under each of these keys, None where nothing is."""

    async def put(self, items: Mapping[bytes, bytes]) -> None:
        """Keep these values under their keys."""


class CacheLayer:
    """Remembers answers by their input; a layer around a model.

    The inputs of a request are looked up one by one; those that are not known go to the model in one call, each once.
    An input that another request has just taken to the model waits for that call, which goes on even where the request
    that began it is gone. A call that fails is told to all who wait for it, and nothing of it is remembered.

    The memory gives the very outputs of the model. Where a server keeps them, they are what the wire makes of them, the
    first time too, so that whoever asks always finds the same types. A server that goes away is only missed.

    Args:
        pattern: how much is remembered, and for how long.
        inner: the model, or a layer around it.
        tally: counts the inputs of answered requests by where their answers came from, and times those requests.
        store: keeps the answers; None: the memory of this process does.
        wire: how a store keeps them.
        clock_ns: a clock that never goes back.

    Raises:
        RequestError: when called: JSON cannot hold an input, or cannot hold an output that a store should keep; or the
            model did not return one output for each input.
    """

    def __init__(  # noqa: PLR0913 - the pieces of one layer
        self,
        pattern: Cached,
        inner: Handler,
        tally: Tally,
        store: Store | None = None,
        *,
        wire: Wire = REST_JSON,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.needs_loop = store is not None or needs_loop(inner)
        self.parallelism = parallelism(inner)
        self._inner = inner
        self._tally = tally
        self._store = store
        self._codec = codec_of(wire)
        self._clock_ns = clock_ns
        self._store_rests_until_ns = clock_ns()
        self._memory: _Memory | _TimedMemory = (
            _Memory(pattern.max_entries, tally)
            if pattern.ttl is None
            else _TimedMemory(pattern.max_entries, parse_duration(pattern.ttl), clock_ns, tally)
        )
        self._flights: _PendingByKey = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, instances: list[Any]) -> Answer:
        """The outputs of these inputs."""
        started_ns = perf_counter_ns()
        request = _Request(started_ns, [_key_of(instance) for instance in instances])
        if self._store is not None:
            return self._ask_store(self._store, request, instances)
        missing: dict[bytes, Any] = {}
        for key, instance in zip(request.keys, instances, strict=True):
            try:
                request.outputs[key] = self._memory[key]
            except KeyError:
                missing[key] = instance
        return self._ask_model(request, missing) if missing else self._answered(request)

    def _ask_model(self, request: _Request, missing: dict[bytes, Any]) -> Answer:
        """Without a store; a model that answers at once is answered at once, without the event loop."""
        awaited, mine = self._divided(request, missing)
        if mine:
            outputs = self._inner(list(mine.values()))
            if inspect.isawaitable(outputs):
                awaited |= self._take_off(mine, partial(self._land_awaited, mine, outputs))
            else:
                request.outputs |= self._remembered(mine, outputs)
        return self._landed(request, awaited) if awaited else self._answered(request)

    async def _ask_store(self, store: Store, request: _Request, instances: list[Any]) -> Sequence[Any]:
        """With a store; every look-up is a flight, so that two requests never both miss what one of them then asks."""
        awaited, mine = self._divided(request, dict(zip(request.keys, instances, strict=True)))
        if mine:
            awaited |= self._take_off(mine, partial(self._land_stored, store, mine))
        return await self._landed(request, awaited)

    def _divided(self, request: _Request, wanted: dict[bytes, Any]) -> tuple[_PendingByKey, dict[bytes, Any]]:
        """The flights of others to await, and the inputs that are left to this request."""
        awaited = {key: self._flights[key] for key in wanted if key in self._flights}
        mine = {key: instance for key, instance in wanted.items() if key not in awaited}
        request.asked.update(mine)
        request.shared.update(awaited)
        return awaited, mine

    def _take_off(self, wanted: Mapping[bytes, Any], work: Callable[[_PendingByKey], Awaitable[None]]) -> _PendingByKey:
        """Begin flights of these keys, in a task of their own: no request that goes away takes them with it."""
        loop = asyncio.get_running_loop()
        flights: _PendingByKey = {key: loop.create_future() for key in wanted}
        self._flights |= flights
        task = loop.create_task(self._fly(flights, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flights

    async def _fly(self, flights: _PendingByKey, work: Callable[[_PendingByKey], Awaitable[None]]) -> None:
        try:
            await work(flights)
        except (Exception, SystemExit) as error:  # a model that wants to exit must not end the loop
            for flight in self._ended(flights):
                flight.set_result(error)  # as an exception, it would lose its traceback to the first who asks
        finally:
            for flight in self._ended(flights):  # none, except where the loop ends
                flight.cancel()

    def _ended(self, flights: _PendingByKey) -> Iterator[_Pending]:
        for key, flight in flights.items():
            if not flight.done():
                del self._flights[key]
                yield flight

    async def _land_awaited(self, mine: dict[bytes, Any], outputs: Awaitable[Any], flights: _PendingByKey) -> None:
        for key, output in self._remembered(mine, await outputs).items():
            self._land(flights, key, output)

    async def _land_stored(self, store: Store, mine: dict[bytes, Any], flights: _PendingByKey) -> None:
        missing = dict(mine)
        bodies: list[bytes | None] | None = await self._tried(lambda: store.get(list(mine)))
        for key, body in zip(mine, bodies or [None] * len(mine), strict=True):
            if body is not None:
                self._land(flights, key, self._decoded(body), remembered=True)
                del missing[key]
        if not missing:
            return
        outputs: Any = self._inner(list(missing.values()))
        if inspect.isawaitable(outputs):
            outputs = await outputs
        answers = {key: self._encoded(output) for key, output in _paired(missing, outputs).items()}
        if bodies is not None:
            await self._tried(lambda: store.put(answers))
        for key, body in answers.items():
            self._land(flights, key, self._decoded(body))

    def _land(self, flights: _PendingByKey, key: bytes, output: Any, *, remembered: bool = False) -> None:
        del self._flights[key]
        flights[key].set_result(_Landed(output, remembered))

    def _encoded(self, output: Any) -> bytes:
        try:
            return pack(self._codec.encode_outputs([output]))
        except WireError as error:
            raise RequestError(
                500, f"the model returned an output that a store cannot keep: {error}; use Cached(store='memory://')"
            ) from error

    def _decoded(self, body: bytes) -> Any:
        return self._codec.decode_outputs(*unpack(body))[0]

    async def _tried(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """What the store says; None where it is away."""
        if self._clock_ns() >= self._store_rests_until_ns:
            try:
                return await ask()
            except StoreUnavailable:
                self._store_rests_until_ns = self._clock_ns() + _REST_NS
        self._tally.count("store_errors")
        return None

    def _remembered(self, missing: Mapping[bytes, Any], outputs: Any) -> dict[bytes, Any]:
        answers = _paired(missing, outputs)
        for key, output in answers.items():
            self._memory[key] = output
        return answers

    async def _landed(self, request: _Request, awaited: _PendingByKey) -> Sequence[Any]:
        if flying := [flight for flight in awaited.values() if not flight.done()]:
            await asyncio.wait(flying)  # which, itself cancelled, cancels none of them
        for key, flight in awaited.items():
            landed = flight.result()
            if isinstance(landed, BaseException):
                raise landed
            request.outputs[key] = landed.output
            if landed.remembered:
                request.asked.discard(key)
                request.shared.discard(key)
        return self._answered(request)

    def _answered(self, request: _Request) -> list[Any]:
        outputs, asked, shared = request.outputs, request.asked, request.shared
        duration_ns = perf_counter_ns() - request.started_ns
        if not asked and not shared:
            self._tally.count("hits", len(request.keys))
            self._tally.time("hit_ns", duration_ns)
        else:
            hits = sum(key not in asked and key not in shared for key in request.keys)
            self._tally.count("hits", hits)
            self._tally.count("misses", len(asked))
            self._tally.count("coalesced", len(request.keys) - hits - len(asked))
            self._tally.time("miss_ns", duration_ns)
        return [outputs[key] for key in request.keys]


@dataclass(slots=True)
class _Request:
    """A request on its way: what is known, and of the rest what it asks the model itself and what others ask."""

    started_ns: int
    keys: list[bytes]
    outputs: dict[bytes, Any] = field(default_factory=dict)
    asked: set[bytes] = field(default_factory=set)
    shared: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Landed:
    """An output, and whether a store remembered it."""

    output: Any
    remembered: bool


_Pending = asyncio.Future[_Landed | BaseException]
_PendingByKey = dict[bytes, _Pending]
"""Answers on their way, or what the model raised, by key."""


class _Memory(LRUCache[bytes, Any]):
    """Outputs by key; the least recently used goes where it is full."""

    def __init__(self, max_entries: int, tally: Tally) -> None:
        super().__init__(max_entries)
        self._tally = tally

    def popitem(self) -> tuple[bytes, Any]:
        self._tally.count("evictions")
        return super().popitem()


class _TimedMemory(TTLCache[bytes, Any]):
    """Outputs by key, each for a time; the least recently used goes where it is full of such that are still good."""

    def __init__(self, max_entries: int, ttl_ns: int, clock_ns: Callable[[], int], tally: Tally) -> None:
        super().__init__(max_entries, ttl_ns, clock_ns)
        self._tally = tally

    def popitem(self) -> tuple[bytes, Any]:
        self._tally.count("evictions")
        return super().popitem()


def _key_of(instance: Any) -> bytes:
    """The same for inputs that JSON writes alike, whatever the order of their keys; short however long they are.

    Arrays are the same where type, shape and elements are.
    """
    named = instance if isinstance(instance, dict) else {"": instance}
    if all(isinstance(value, bytes) or hasattr(value, "dtype") for value in named.values()) and named:
        return _key_of_arrays(named)
    try:
        text = orjson.dumps(instance, default=_plain, option=_CANONICAL)
        if b"null" in text:  # orjson writes NaN and the infinities so
            text = json.dumps(instance, default=_plain, sort_keys=True).encode()
    except TypeError as error:
        raise RequestError(
            500,
            f"Cached cannot tell inputs of type {type(instance).__name__} apart: {error}; "
            "it needs inputs that JSON can hold, so put it before what makes these",
        ) from error
    return hashlib.sha256(text).digest()


def _plain(value: Any) -> Any:
    """What JSON has no form for; a type that has no such method is told apart from nothing else."""
    return ["bytes", value.hex()] if isinstance(value, bytes) else value.tolist()


def _key_of_arrays(named: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256()
    for name, value in sorted(named.items()):
        if isinstance(value, bytes):
            digest.update(repr((name, len(value))).encode())
            digest.update(value)
        else:
            digest.update(repr((name, value.dtype.str, value.shape)).encode())
            digest.update(value.tobytes() if not value.flags.c_contiguous else value.reshape(-1).view("u1").data)
    return digest.digest()


def _paired(inputs: Mapping[bytes, Any], outputs: Any) -> dict[bytes, Any]:
    """Each output by the key of its input."""
    return dict(zip(inputs, matched(outputs, len(inputs), "the model"), strict=True))
