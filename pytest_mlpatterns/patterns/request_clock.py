"""Where the time of one request goes: each layer that it meets charges what it took to the clock of the request.

The server makes a :class:`RequestClock` for each request and puts it into a context variable, so that layers and models
find it wherever the request is worked on. A layer that works for several requests at once, such as a batch, has a clock
of its own, whose times it gives to each of them, since each waited for all of it.

A time is charged under a key: the name of its part, or ``OF/PART`` for the part of one stage of a pipeline or one model
of an ensemble, such as ``features/model_cpu``. The keys are also the names of counters of the layer ``split``; see
:class:`pytest_mlpatterns.patterns.tally.SplitTally`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

WIRE = "wire"  # Decoding and encoding of bodies, with compression, in all processes of the deployment
HOP = "hop"  # Transport between processes of the deployment, and to a store of ``Cached``
WOKEN = "woken"
"""Between processes only: until the process ran that a request had reached; the one before takes it for a hop."""
MODEL_CPU = "model_cpu"  # CPU time of the thread in which the model runs, without garbage collection
MODEL_GC = "model_gc"  # Garbage collection while the model runs
RUN_QUEUE = "run_queue"
"""The thread of the model was ready to run, and the system ran others; if the system does not show it, a wait."""
MODEL_WAIT = "model_wait"
"""The rest of a call: locks, sleeps, input and output, helper threads; of a coroutine also while it is suspended."""
MODEL_BLOCK = "model_block"  # As :data:`MODEL_WAIT`, while the model is a coroutine that keeps the event loop
QUEUE_WAIT = "queue_wait"
"""In a queue, or while a process behind this one, or the thread of a plain model, works for other requests."""
BATCH_WAIT = "batch_wait"  # Until a batch is sent
SHARED_WAIT = "shared_wait"  # For a call of another request, which gives this one its output or goes first
CALLS = "calls"  # Number of calls of the model, which is no time; of several requests in one call the first has it

_CLOCK: ContextVar[RequestClock | None] = ContextVar("mlpatterns_request_clock", default=None)


class RequestClock:
    """The times of one request so far. ``parts``: nanoseconds by key, and the number of calls under ``calls``."""

    __slots__ = ("_reported", "parts")

    def __init__(self) -> None:
        self.parts: dict[str, int] = {}
        self._reported: dict[str, int] = {}

    def add(self, key: str, duration_ns: int) -> None:
        """Charge a time in nanoseconds; about 0.1 µs."""
        parts = self.parts
        parts[key] = parts.get(key, 0) + duration_ns

    def take(self, parts: Mapping[str, int], of: str = "") -> None:
        """Charge what another clock measured for this request."""
        for key, duration_ns in parts.items():
            self.add(key_of_part(key, of) if of and "/" not in key else key, duration_ns)

    def report(self) -> dict[str, int]:
        """What was charged since the last report: for the process before this one."""
        reported, self._reported = self._reported, dict(self.parts)
        return {key: value - reported.get(key, 0) for key, value in self.parts.items() if value != reported.get(key)}


def key_of_part(part: str, of: str = "") -> str:
    """The key of a part of a stage or model; ``of`` is empty for the model alone."""
    return f"{of}/{part}" if of else part


def counts_calls(key: str) -> bool:
    """Whether a key stands for a number of calls, not for a time."""
    return key == CALLS or key.endswith(f"/{CALLS}")


def current_clock() -> RequestClock | None:
    """The clock of the request that is worked on; None outside of requests."""
    return _CLOCK.get()


def set_clock(clock: RequestClock | None) -> None:
    """Charge this clock from now on, in this task or thread and in the tasks that it starts."""
    _CLOCK.set(clock)


def charge(key: str, duration_ns: int) -> None:
    """Charge a time in nanoseconds to the request that is worked on, if there is one."""
    clock = _CLOCK.get()
    if clock is not None:
        clock.add(key, duration_ns)
