"""What the generator process is asked to do, and what it answers: values that cross the pipe.

Recorded arrays travel as raw bytes. This module must be cheap to import: the generator process loads it, numpy it
loads not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.records.addressing import Answer, Balance, Progress, Remote

if TYPE_CHECKING:
    from pytest_mlpatterns.records.launch import GeneratorReport, Warmup
    from pytest_mlpatterns.records.samples import Window
    from pytest_mlpatterns.workload.schedule import Schedule

__all__ = ["Event", "LoadJob", "LoadResult", "OpenWindow", "Share", "Transport", "Warm", "WindowOpened"]


class Transport(Enum):
    """How our own connections speak to a server."""

    HTTP1 = "HTTP/1.1"
    GRPC = "gRPC"


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
class LoadJob:
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
    spoken: Transport = Transport.HTTP1


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


Event = WindowOpened | Progress | Warm
"""What a generator tells while it works."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The end of a job: everything recorded since its start, warm-up included, and what the generator saw of itself.

    ``columns`` maps the names of :class:`pytest_mlpatterns.records.samples.Samples` to raw bytes.
    """

    columns: dict[str, Any]
    window: Window
    warmup: Warmup
    generator: GeneratorReport
    answers: list[Answer]
    stopped_early: bool
