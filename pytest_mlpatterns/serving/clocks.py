"""Clocks of a serving process: garbage collection, awaits, waits for a core, and a request's times between processes.

Each suspension of a model is charged to the chain of coroutines that wait for each other, from the model's own to the
innermost one (:mod:`pytest_mlpatterns.records.telemetry`).

On a busy machine the wait for a core is most of what a server seems to take. The system counts it for a thread, not for
a stretch of code, so it is taken out of the times that can contain it, in proportion.
"""

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter_ns
from typing import Any

import orjson

from pytest_mlpatterns.patterns.request_clock import (
    BATCH_WAIT,
    HOP,
    QUEUE_WAIT,
    RUN_QUEUE,
    SHARED_WAIT,
    WIRE,
    WOKEN,
    RequestClock,
)
from pytest_mlpatterns.records.telemetry import Awaiting, chain_name
from pytest_mlpatterns.system.thread_times import RunQueueClock

_MOST_FRAMES = 100  # Most coroutines of a chain; a deeper one is cut
_REQUESTS_WATCHED = 16  # Requests that are watched after a long one, and the interval at which one is watched anyway
_LONG_NS = 150_000  # Time of a request beside its parts, in nanoseconds, from which the next requests are watched
_LATE_NS = 50_000  # Wait of the loop for a core, in nanoseconds, from which the next requests are watched
_ON_LOOP = frozenset({WIRE, HOP})
_WAITS = frozenset({QUEUE_WAIT, BATCH_WAIT, SHARED_WAIT})
"""Parts in which the thread works on other requests, and may wait for a processor for them."""


def suspended_chain(awaitable: Any) -> str:
    """The chain in which an awaitable that has just been suspended waits; empty if it has no coroutine."""
    return chain_name(_suspended(awaitable))


def _suspended(awaitable: Any) -> Iterator[Awaiting]:
    """Each coroutine or generator that waits for the next one."""
    for _ in range(_MOST_FRAMES):
        if (frame := getattr(awaitable, "cr_frame", None)) is not None:
            inner = awaitable.cr_await
        elif (frame := getattr(awaitable, "gi_frame", None)) is not None:
            inner = awaitable.gi_yieldfrom
        elif (frame := getattr(awaitable, "ag_frame", None)) is not None:
            inner = awaitable.ag_await
        else:
            return
        yield Awaiting(frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno)
        awaitable = inner


class GcClock:
    """Adds up the times of collections as long as it lives; it costs each less than a microsecond.

    ``total_ns``: nanoseconds in collections so far, of whichever thread.
    """

    def __init__(self) -> None:
        self.total_ns = 0
        callback = _callback(weakref.ref(self))
        gc.callbacks.append(callback)
        weakref.finalize(self, gc.callbacks.remove, callback)


def _callback(owner: weakref.ref[GcClock]) -> Callable[[str, Mapping[str, int]], None]:
    """What the collector calls before and after each collection; it keeps no reference to its owner."""
    started_ns = 0

    def on_collection(phase: str, _: Mapping[str, int]) -> None:
        nonlocal started_ns
        now_ns = perf_counter_ns()
        if phase == "start":
            started_ns = now_ns
        elif (clock := owner()) is not None and started_ns:
            clock.total_ns += now_ns - started_ns

    return on_collection


class LoopWatch:
    """Watches the requests of a server after one that took it long outside of models; others cost 0.3 µs."""

    def __init__(self, run_queue: RunQueueClock) -> None:
        self._run_queue = run_queue
        self._watched = 0
        self._requests = 0
        self._ended: int | None = None

    def begin(self) -> int | None:
        """A request begins; what :meth:`end` takes, None if it is not watched."""
        if self._watched:
            self._watched -= 1
        elif self._ended is None:
            return None
        return self._run_queue.unclaimed_ns()

    def end_for_gateway(self, clock: RequestClock, total_ns: int, begun: int | None) -> None:
        """As :meth:`end`, in a process behind another, which learns how late this one ran."""
        self.end(clock, total_ns, begun)
        if begun is not None and self._ended is not None and begun > self._ended:
            clock.add(WOKEN, begun - self._ended)
            if begun - self._ended > _LATE_NS:
                self._watched = _REQUESTS_WATCHED
        self._requests += 1
        looks = self._watched or not self._requests % _REQUESTS_WATCHED
        self._ended = self._run_queue.unclaimed_ns() if looks else None

    def end(self, clock: RequestClock, total_ns: int, begun: int | None) -> None:
        """A request is answered: charge what its thread waited for a processor."""
        parts = clock.parts
        rest_ns = total_ns - sum(parts.values())
        if rest_ns > _LONG_NS:
            self._watched = _REQUESTS_WATCHED
        if begun is None or rest_ns <= 0 or (now := self._run_queue.unclaimed_ns()) is None or now <= begun:
            return
        names = {key: key.rpartition("/")[2] for key in parts}
        on_loop = {key: parts[key] for key, name in names.items() if name in _ON_LOOP}
        whole_ns = rest_ns + sum(on_loop.values())
        waits_ns = sum(parts[key] for key, name in names.items() if name in _WAITS)
        share = min((now - begun) / (whole_ns + waits_ns), 1.0)
        for key, value in on_loop.items():
            parts[key] -= int(share * value)
        clock.add(RUN_QUEUE, int(share * whole_ns))


def written_parts(parts: Mapping[str, int]) -> bytes:
    """The times of a clock as JSON, which fits into a header."""
    return orjson.dumps(parts)


def parts_in(written: bytes) -> dict[str, int]:
    """The inverse of :func:`written_parts`; nothing from what another program wrote."""
    try:
        found = orjson.loads(written) if written else {}
    except orjson.JSONDecodeError:
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in items if type(value) is int}
