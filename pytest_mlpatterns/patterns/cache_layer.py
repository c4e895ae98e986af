"""The layer of ``Cached``: outputs remembered by their input, in this process or in a store.

A store is reached through the protocol :class:`Store`; this module does not know which server it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns
from typing import Any, Protocol

import orjson
from cachetools import LRUCache, TTLCache

from pytest_mlpatterns.patterns.cached import Cached
from pytest_mlpatterns.patterns.layer import (
    Answer,
    DecodedInputs,
    Handler,
    RequestError,
    copy_of,
    matched,
    needs_loop,
    parallelism,
    retries,
)
from pytest_mlpatterns.patterns.model_thread import OffLoop
from pytest_mlpatterns.patterns.request_clock import HOP, SHARED_WAIT, charge
from pytest_mlpatterns.patterns.stream import Recording, Stream, StreamSource, check_one_input, replayed, streams
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.units import parse_duration
from pytest_mlpatterns.wire import REST_JSON, Wire, WireError, codec_of, pack, unpack

_STREAM = "stream"  # Second value of a stored stream, whose first value is the list of its chunks
_BACK_OFF_NS = 500_000_000  # Back-off after a store failure, so that not every request waits for a time-out


class StoreUnavailable(Exception):
    """A store cannot be reached or does not respond; the text names it and the reason."""


class Store(Protocol):
    """Stores values outside of this process; both methods may raise :class:`StoreUnavailable`."""

    async def get(self, keys: list[bytes]) -> list[bytes | None]:
        """The value under each of these keys, None if there is none."""

    async def put(self, items: Mapping[bytes, bytes]) -> None:
        """Store these values under their keys."""


class CacheLayer:
    """Remembers outputs by their input; a layer around a handler.

    The inputs of a request are looked up one by one. Unknown inputs go to the handler in one call, each once.
    Concurrent misses of one input share a single call (single flight). The call completes even if the first caller
    disconnects. If it fails, all requests that wait for it get its error, and nothing is remembered. A stream is
    remembered when it has ended well. Until then requests for its input share it, and it is closed when all have gone.

    The memory keeps copies of the handler's outputs, and each request gets copies of these, so that neither the model
    nor a stage that changes outputs in place changes an entry. A store returns outputs as the wire decodes them, also
    at the first call, so that clients always get the same types. Without its store, the layer calls the handler.

    A layer before this one may call it in a thread. If the handler returns an awaitable or a stream there, this layer
    works on the event loop from then on, and calls the handler in a thread of its own.

    ``store``: has the entries; None: the memory of this process.
    """

    def __init__(
        self,
        pattern: Cached,
        inside: Handler,
        tally: Tally,
        *,
        store: Store | None = None,
        wire: Wire = REST_JSON,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.needs_loop: bool = store is not None or needs_loop(inside)
        self.parallelism: int = parallelism(inside)
        self.retries: bool = retries(inside)
        self.returns_copies = True
        self._inside = inside
        self._tally = tally
        self._store = store
        self._codec = codec_of(wire)
        self._clock_ns = clock_ns
        self._back_off_until_ns = clock_ns()
        self._memory = memory_of(pattern, tally, clock_ns)
        self._streams = _Streams(_own_copy)
        self._pending: PendingByKey = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_moved = False

    def __call__(self, instances: list[Any]) -> Answer:
        """The outputs of these inputs, or an awaitable of them."""
        if self._is_moved and not _is_on_loop():
            return self._call_on_loop(instances)
        started_ns = perf_counter_ns()
        request = CacheRequest(
            started_ns,
            [key_of(instance) for instance in instances],
            instances.decode if isinstance(instances, DecodedInputs) else None,
        )
        if running := self._streams.running(request.keys):
            request.shared.update(running)
            request.outputs |= running
            return self._finish(request)  # type: ignore[no-any-return]
        if self._store is not None:
            return self._call_with_store(self._store, request, instances)
        missing: dict[bytes, Any] = {}
        for key, instance in zip(request.keys, instances, strict=True):
            try:
                request.outputs[key] = self._memory[key]
            except KeyError:
                missing[key] = instance
        return self._call(request, missing) if missing else self._finish(request)

    def _call(self, request: CacheRequest, missing: dict[bytes, Any]) -> Answer:
        """Without a store. If the handler returns its outputs directly, so does this, without the event loop."""
        shared, own = self._divide(request, missing)
        if own:
            outputs: Any = self._inside(request.inputs_of(own))
            is_awaited = inspect.isawaitable(outputs)
            if (is_awaited or streams(outputs)) and not _is_on_loop():
                return self._move(request, own, outputs)
            if is_awaited:
                shared |= self._start(own, partial(self._resolve_awaited, own, outputs))
            else:
                request.outputs |= self._remember(own, outputs)
        return self._await(request, shared) if shared else self._finish(request)

    def _move(self, request: CacheRequest, own: dict[bytes, Any], outputs: Any) -> Awaitable[Sequence[Any]]:
        """Finish this request on the event loop, and work there from now on: the thread and the loop share no state."""
        self._inside, self._is_moved = OffLoop(self._inside, "cached model"), True
        return self._await_moved(request, own, outputs)

    async def _await_moved(self, request: CacheRequest, own: dict[bytes, Any], outputs: Any) -> Sequence[Any]:
        if inspect.isawaitable(outputs):
            return await self._await(request, self._start(own, partial(self._resolve_awaited, own, outputs)))
        request.outputs |= self._remember(own, outputs)
        return self._finish(request)  # type: ignore[no-any-return]

    async def _call_on_loop(self, instances: list[Any]) -> Sequence[Any]:
        answer: Any = self(instances)
        return await answer if inspect.isawaitable(answer) else answer  # type: ignore[no-any-return]

    async def _call_with_store(self, store: Store, request: CacheRequest, instances: list[Any]) -> Sequence[Any]:
        """With a store. Look-ups are pending too, so that two requests never both miss an input."""
        shared, own = self._divide(request, dict(zip(request.keys, instances, strict=True)))
        if own:
            shared |= self._start(own, partial(self._resolve_stored, store=store, request=request, own=own))
        return await self._await(request, shared)

    def _divide(self, request: CacheRequest, wanted: dict[bytes, Any]) -> tuple[PendingByKey, dict[bytes, Any]]:
        """Divide inputs into those whose call another request has started, and those left to this request."""
        shared = {key: self._pending[key] for key in wanted if key in self._pending}
        own = {key: instance for key, instance in wanted.items() if key not in shared}
        request.missed.update(own)
        request.shared.update(shared)
        return shared, own

    def _start(self, wanted: Mapping[bytes, Any], work: Callable[[PendingByKey], Awaitable[None]]) -> PendingByKey:
        """Start the work for these keys in a task of its own, which completes even if the request is cancelled."""
        loop = asyncio.get_running_loop()
        pending: PendingByKey = {key: loop.create_future() for key in wanted}
        self._pending |= pending
        task = loop.create_task(self._run(pending, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return pending

    async def _run(self, pending: PendingByKey, work: Callable[[PendingByKey], Awaitable[None]]) -> None:
        try:
            await work(pending)
        except (Exception, SystemExit) as error:  # a model that exits must not end the loop
            for future in self._unresolved(pending):
                future.set_result(error)  # set as an exception, it would lose its traceback to the first awaiter
        finally:
            for future in self._unresolved(pending):  # only if the loop ends
                future.cancel()

    def _unresolved(self, pending: PendingByKey) -> Iterator[Pending]:
        """The futures that are not done; they are no longer shared with new requests."""
        for key, future in pending.items():
            if not future.done():
                del self._pending[key]
                yield future

    async def _resolve_awaited(self, own: dict[bytes, Any], outputs: Awaitable[Any], pending: PendingByKey) -> None:
        for key, output in self._remember(own, await outputs).items():
            self._resolve(pending, key, output)

    async def _resolve_stored(
        self, pending: PendingByKey, *, store: Store, request: CacheRequest, own: dict[bytes, Any]
    ) -> None:
        missing = dict(own)
        bodies: list[bytes | None] | None = await self._try(lambda: store.get(list(own)))
        for key, body in zip(own, bodies or [None] * len(own), strict=True):
            if body is None:
                continue
            try:
                output = self._decode(body)
            except (ValueError, TypeError, IndexError):  # another program wrote it; the model's output replaces it
                self._tally.count("store_errors")
            else:
                self._resolve(pending, key, output, from_store=True)
                del missing[key]
        if not missing:
            return
        outputs: Any = self._inside(request.inputs_of(missing))
        if inspect.isawaitable(outputs):
            outputs = await outputs
        if recordings := self._streams.record(missing, outputs, partial(self._keep_in, store)):
            self._resolve(pending, *recordings.popitem())
            return
        await self._store_all(pending, store, _by_key(missing, outputs), is_up=bodies is not None)

    async def _store_all(self, pending: PendingByKey, store: Store, outputs: dict[bytes, Any], *, is_up: bool) -> None:
        encoded = {key: self._encode(output) for key, output in outputs.items()}
        if is_up:
            await self._try(lambda: store.put(encoded))
        for key, body in encoded.items():
            self._resolve(pending, key, self._decode(body))

    def _resolve(self, pending: PendingByKey, key: bytes, output: Any, *, from_store: bool = False) -> None:
        del self._pending[key]
        pending[key].set_result(Resolved(output, from_store))
        self._streams.resolved(pending[key], output)

    def _encode(self, output: Any) -> bytes:
        try:
            return pack(self._codec.encode_outputs([list(output), _STREAM] if type(output) is Chunks else [output]))
        except WireError as error:
            raise RequestError(
                500,
                f"the model returned an output that cannot be written to a store: {error}; use Cached(store='memory://')",
            ) from error

    def _decode(self, body: bytes) -> Any:
        output, *kind = self._codec.decode_outputs(*unpack(body))
        return Chunks(output) if kind else output

    async def _try(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """The response of the store; None while it is unavailable."""
        if self._clock_ns() >= self._back_off_until_ns:
            started_ns = perf_counter_ns()
            try:
                return await ask()
            except StoreUnavailable:
                self._back_off_until_ns = self._clock_ns() + _BACK_OFF_NS
            finally:
                charge(HOP, perf_counter_ns() - started_ns)
        self._tally.count("store_errors")
        return None

    async def _keep(self, key: bytes, chunks: Chunks) -> None:
        self._memory[key] = chunks

    async def _keep_in(self, store: Store, key: bytes, chunks: Chunks) -> None:
        encoded = self._encode(chunks)
        await self._try(lambda: store.put({key: encoded}))

    def _remember(self, missing: Mapping[bytes, Any], outputs: Any) -> dict[bytes, Any]:
        if recordings := self._streams.record(missing, outputs, self._keep):
            return dict(recordings)
        by_key = {key: _own_copy(output) for key, output in _by_key(missing, outputs).items()}
        for key, output in by_key.items():
            self._memory[key] = output
        return by_key

    async def _await(self, request: CacheRequest, pending: PendingByKey) -> Sequence[Any]:
        self._streams.enter(pending.values())
        started_ns, is_owner = perf_counter_ns(), bool(request.missed)
        try:
            if unresolved := [future for future in pending.values() if not future.done()]:
                await asyncio.wait(unresolved)  # does not cancel them if it is cancelled
            if not is_owner:  # the times of its own call are charged where they pass
                charge(SHARED_WAIT, perf_counter_ns() - started_ns)
            for key, future in pending.items():
                resolved = future.result()
                if isinstance(resolved, BaseException):
                    raise resolved
                request.outputs[key] = resolved.output
                if resolved.from_store:
                    request.missed.discard(key)
                    request.shared.discard(key)
            return self._finish(request)  # type: ignore[no-any-return]
        finally:
            self._streams.leave(pending.values())

    def _finish(self, request: CacheRequest) -> Any:
        """Count a request, and return its outputs in the order of its inputs, or its stream."""
        outputs, missed, shared = request.outputs, request.missed, request.shared
        duration_ns = perf_counter_ns() - request.started_ns
        if not missed and not shared:
            self._tally.count("hits", len(request.keys))
            self._tally.time("hit_ns", duration_ns)
        else:
            hits = sum(key not in missed and key not in shared for key in request.keys)
            self._tally.count("hits", hits)
            self._tally.count("misses", len(missed))
            self._tally.count("coalesced", len(request.keys) - hits - len(missed))
            self._tally.time("miss_ns", duration_ns)
        for output in outputs.values():
            if isinstance(output, Recording | Chunks):
                return self._streams.answer(output, len(request.keys), copies=self.returns_copies)
        if self.returns_copies:
            return [_own_copy(outputs[key]) for key in request.keys]
        return [outputs[key] for key in request.keys]


class Chunks(tuple[Any, ...]):
    """The chunks of a stream that ended well, as a cache remembers them."""

    __slots__ = ()


class _Streams:
    """The streams that a cache reads from its handler; requests for the same input share one."""

    def __init__(self, own: Callable[[Any], Any]) -> None:
        self._own = own
        self._reader = StreamSource()
        self._running: dict[bytes, Recording] = {}
        self._awaited: Counter[Any] = Counter()

    def running(self, keys: list[bytes]) -> dict[bytes, Recording]:
        """The stream that answers a request and has not ended, by its key; empty if there is none."""
        return {keys[0]: self._running[keys[0]]} if len(keys) == 1 and keys[0] in self._running else {}

    def record(
        self, keys: Iterable[bytes], outputs: Any, keep: Callable[[bytes, Chunks], Awaitable[None]]
    ) -> dict[bytes, Recording]:
        """Record what a handler returned, if it is a stream."""
        keys = list(keys)
        stream = self._reader.read(outputs, len(keys), "the model")
        if stream is None:
            return {}
        key = keys[0]
        recording = Recording(
            stream,
            keep=lambda chunks: keep(key, Chunks(chunks)),
            forget=lambda: self._forget(key, recording),
            own=self._own,
        )
        self._running[key] = recording
        return {key: recording}

    def _forget(self, key: bytes, recording: Recording) -> None:
        if self._running.get(key) is recording:  # not the one that a later request began
            del self._running[key]

    def answer(self, output: Recording | Chunks, count: int, *, copies: bool) -> Stream:
        """A stream for one request."""
        check_one_input(output, count, "the model")
        own = self._own if copies else None
        return replayed(output, own) if isinstance(output, Chunks) else output.reader(own)

    def enter(self, futures: Iterable[Any]) -> None:
        """A request waits for these outputs."""
        self._awaited.update(futures)

    def leave(self, futures: Iterable[Any]) -> None:
        """A request has its outputs, or its caller has gone: a stream that no request reads then is closed."""
        for future in futures:
            self._awaited[future] -= 1
            if not self._awaited[future]:
                del self._awaited[future]
                if future.done() and not future.cancelled():
                    self._close_unread(getattr(future.result(), "output", None))

    def resolved(self, future: Any, output: Any) -> None:
        """An output is there: if it is a stream, and the callers of all requests have gone, it is closed."""
        if future not in self._awaited:
            self._close_unread(output)

    def _close_unread(self, output: Any) -> None:
        if isinstance(output, Recording) and not output.is_read:
            output.reader().discard()


def _is_on_loop() -> bool:
    """False in a thread in which another layer calls plain functions."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _own_copy(output: Any) -> Any:
    try:
        return copy_of(output)
    except Exception as error:  # an object of the user's may raise anything when it is copied
        raise RequestError(
            500,
            f"Cached cannot keep an output of type {type(output).__name__}, because it cannot be copied: "
            f"{type(error).__name__}: {error}; return numbers, text, lists, dictionaries or numpy arrays",
        ) from error


def _by_key(inputs: Mapping[bytes, Any], outputs: Any) -> dict[bytes, Any]:
    """The outputs by the keys of their inputs."""
    return dict(zip(inputs, matched(outputs, len(inputs), "the model"), strict=True))


_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY


def key_of(instance: Any) -> bytes:
    """The SHA-256 of an input: equal for inputs that are equal in JSON, or as arrays in type, shape and elements.

    The order of the keys of an object does not matter. An array of Python objects counts as the list of them.
    """
    named = instance if isinstance(instance, dict) else {"": instance}
    if named and all(map(_has_bytes, named.values())):
        return _key_of_arrays(named)
    arrays = {name: value for name, value in named.items() if _has_bytes(value)}
    others = {name: value for name, value in named.items() if name not in arrays}
    if arrays and all(hasattr(value, "dtype") for value in others.values()):
        return hashlib.sha256(_key_of_arrays(arrays) + _key_of_json(others)).digest()
    return _key_of_json(instance)


def _key_of_json(instance: Any) -> bytes:
    try:
        text = orjson.dumps(instance, default=_plain, option=_CANONICAL)
        if b"null" in text:  # orjson writes NaN and the infinities so
            text = json.dumps(instance, default=_plain, sort_keys=True).encode()
    except TypeError as error:
        raise RequestError(
            500,
            f"Cached cannot compare inputs of type {type(instance).__name__}: {error}; "
            "it needs inputs that JSON can express, so put it before the stage that makes these",
        ) from error
    return hashlib.sha256(text).digest()


def _has_bytes(value: Any) -> bool:
    """Whether the bytes of a value are its content; in an array of Python objects they are addresses."""
    return isinstance(value, bytes) or not getattr(getattr(value, "dtype", None), "hasobject", True)


def _plain(value: Any) -> Any:
    """A JSON form of bytes and of numpy's types."""
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if not hasattr(value, "tolist"):
        raise TypeError(f"Type is not JSON serializable: {type(value).__name__}")
    return value.tolist()


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


def memory_of(pattern: Cached, tally: Tally, clock_ns: Callable[[], int]) -> MutableMapping[bytes, Any]:
    """An empty memory; when all its entries are valid, the least recently used one is evicted, and counted."""
    kind: Any = LRUCache if pattern.ttl is None else TTLCache

    class Memory(kind):  # type: ignore[misc]
        def popitem(self) -> Any:
            tally.count("evictions")
            return super().popitem()

    found: MutableMapping[bytes, Any]
    found = Memory(pattern.max_entries, *([] if pattern.ttl is None else [parse_duration(pattern.ttl), clock_ns]))
    return found


@dataclass(slots=True)
class CacheRequest:
    """A request: known outputs, keys that it calls the handler for, and keys whose call another request started."""

    started_ns: int
    keys: list[bytes]
    decode: Callable[[], Sequence[Any]] | None = None
    outputs: dict[bytes, Any] = field(default_factory=dict)
    missed: set[bytes] = field(default_factory=set)
    shared: set[bytes] = field(default_factory=set)

    def inputs_of(self, wanted: Mapping[bytes, Any]) -> list[Any]:
        """These inputs for the handler, which can be decoded again if the request's can."""
        decode, keys = self.decode, tuple(wanted)
        if decode is None:
            return list(wanted.values())

        def decode_wanted() -> list[Any]:
            inputs = decode()
            return [inputs[self.keys.index(key)] for key in keys]

        return DecodedInputs(wanted.values(), decode_wanted)


@dataclass(frozen=True, slots=True)
class Resolved:
    """An output, and whether it came from the store."""

    output: Any
    from_store: bool


Pending = asyncio.Future[Resolved | BaseException]
PendingByKey = dict[bytes, Pending]  # Outputs that are being computed, or the exception of their call, by key
