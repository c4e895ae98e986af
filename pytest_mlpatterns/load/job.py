"""What the generator process is asked to do, and what it answers: values that cross the pipe.

Recorded arrays travel as raw bytes. This module must be cheap to import: the generator process loads it, numpy it
loads not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.load.schedule import Schedule
    from pytest_mlpatterns.records import GeneratorReport, Warmup, Window

__all__ = [
    "GRPC_OUTCOMES",
    "Answer",
    "Balance",
    "Event",
    "Failure",
    "Job",
    "OpenWindow",
    "Progress",
    "Recorded",
    "Remote",
    "Share",
    "Spoken",
    "Warm",
    "WindowOpened",
    "describe_failures",
    "describe_outcome",
    "grpc_outcome",
]


class Balance(Enum):
    """How requests are spread over the addresses of a deployment."""

    ROUND_ROBIN = "round-robin"
    LEAST_OUTSTANDING = "least-outstanding"


class Spoken(Enum):
    """How our own connections speak to a server."""

    HTTP1 = "HTTP/1.1"
    GRPC = "gRPC"


class Failure(IntEnum):
    """Why a request has no status; negative, so that it shares a column with those of HTTP and gRPC."""

    TIMEOUT = -1
    CONNECT = -2
    CLOSED = -3
    MALFORMED = -4
    RESET = -5

    @property
    def label(self) -> str:
        """How reports name it."""
        return _FAILURES[self.value]


_FAILURES = {
    -1: "time-out",
    -2: "connection failed",
    -3: "connection closed",
    -4: "malformed answer",
    -5: "stream reset",
}
GRPC_OUTCOMES = 1000
"""Outcomes above are statuses of gRPC, so much more than they are."""
_GRPC_STATUSES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


def grpc_outcome(status: int) -> int:
    """The outcome of a call that ended with this status of gRPC, other than 0: 1000 more, which no HTTP status is."""
    return GRPC_OUTCOMES + (status if 0 < status < len(_GRPC_STATUSES) else 2)  # others are to be taken as UNKNOWN


def describe_outcome(outcome: int) -> str:
    """How reports name an outcome: ``500``, ``UNAVAILABLE``, ``time-out``."""
    if outcome < 0:
        return Failure(outcome).label
    return _GRPC_STATUSES[outcome - GRPC_OUTCOMES] if outcome > GRPC_OUTCOMES else str(outcome)


def describe_failures(failures: Mapping[int, int]) -> str:
    """Failed requests by kind, ``500: 12, time-out: 3``; keys are outcomes of requests."""
    return ", ".join(f"{describe_outcome(code)}: {count:,}" for code, count in failures.items())


@dataclass(frozen=True, slots=True)
class Remote:
    """A server that is driven through a client library: ``scheme://host:port``, which HTTP, and whom to trust.

    ``ca_pem`` is the certificate of an authority to trust besides those of the system.
    """

    origin: str
    http2: bool
    ca_pem: bytes | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of a load one of several generators takes: requests ``number``, ``number + of``, ``number + 2 of``, …

    A generator that shares tells when it is warm, and opens its window when it is told to, with all the others.
    """

    number: int = 0
    of: int = 1

    def part_of(self, whole: int) -> int:
        """How many of so many callers are this generator's."""
        return len(range(self.number, whole, self.of))


@dataclass(frozen=True, slots=True)
class Job:
    """One stretch of load.

    ``addresses`` are ``(host, port)``; ``messages`` are complete requests as ``spoken`` has them, drawn in turn.
    ``warmup_ns`` is a fixed time, or None to let the data decide. A schedule with a length of its own is the window as
    a whole; its warm-up is one caller. ``keep_answers`` asks for up to so many answers, spread over the window.
    ``order`` gives the indices of messages in the order in which they are drawn (unsigned 32-bit, native, begun again
    at its end); empty draws them in turn. ``follow``: an answer of 202 is not the end of a request; its result is asked
    for where ``Location`` says, until it is there. Where ``remote`` is set, a client library drives the load and
    ``addresses``, ``balance``, ``spoken`` and ``follow`` are of no matter.
    """

    addresses: tuple[tuple[str, int], ...]
    messages: tuple[bytes, ...]
    schedule: Schedule
    balance: Balance
    duration_ns: int
    warmup_ns: int | None
    timeout_ns: int
    keep_answers: int = 0
    order: bytes = b""
    remote: Remote | None = None
    follow: bool = False
    share: Share = Share()
    spoken: Spoken = Spoken.HTTP1


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was kept: to which request, its body, and the head that came with it (status line, headers)."""

    request: int
    body: bytes
    head: bytes = b""


@dataclass(frozen=True, slots=True)
class Warm:
    """A generator that shares a load has warmed up and waits to be told when the window opens."""


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """To all generators that share a load: the window opens at this time, on the clock of ``time.perf_counter_ns``."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """The warm-up is over and the measured window has begun."""

    start_ns: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A sign of life while the load runs, for people who watch."""

    elapsed_ns: int
    completed: int
    median_ns: int | None


Event = WindowOpened | Progress | Warm
"""What a generator tells while it works."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The end of a job: everything recorded since its start, warm-up included, and what the generator saw of itself.

    ``columns`` maps the names of :class:`pytest_mlpatterns.records.Samples` to raw bytes.
    """

    columns: dict[str, Any]
    window: Window
    warmup: Warmup
    generator: GeneratorReport
    answers: list[Answer]
    stopped_early: bool
