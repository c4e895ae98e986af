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

__all__ = ["Balance", "Failure", "Job", "Progress", "Recorded", "WindowOpened", "describe_failures"]


class Balance(Enum):
    """How requests are spread over the addresses of a deployment."""

    ROUND_ROBIN = "round-robin"
    LEAST_OUTSTANDING = "least-outstanding"


class Failure(IntEnum):
    """Why a request has no HTTP status; negative, so that it shares a column with the statuses."""

    TIMEOUT = -1
    CONNECT = -2
    CLOSED = -3
    MALFORMED = -4

    @property
    def label(self) -> str:
        """How reports name it."""
        return {-1: "time-out", -2: "connection failed", -3: "connection closed", -4: "malformed answer"}[self.value]


def describe_failures(failures: Mapping[int, int]) -> str:
    """Failed requests by kind, ``500: 12, time-out: 3``; keys are HTTP statuses or codes of :class:`Failure`."""
    names = {code: Failure(code).label if code < 0 else str(code) for code in failures}
    return ", ".join(f"{names[code]}: {count:,}" for code, count in failures.items())


@dataclass(frozen=True, slots=True)
class Job:
    """One stretch of load.

    ``addresses`` are ``(host, port)``; ``messages`` are complete HTTP/1.1 requests, drawn in turn. ``warmup_ns`` is a
    fixed time, or None to let the data decide. A schedule with a length of its own is the window as a whole; its
    warm-up is one caller. ``keep_answers`` asks for up to so many ``(request index, body)`` pairs, spread over the
    window. ``order`` gives the indices of messages in the order in which they are drawn (unsigned 32-bit, native,
    begun again at its end); empty draws them in turn.
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


@dataclass(frozen=True, slots=True)
class Recorded:
    """The end of a job: everything recorded since its start, warm-up included, and what the generator saw of itself.

    ``columns`` maps the names of :class:`pytest_mlpatterns.records.Samples` to raw bytes.
    """

    columns: dict[str, Any]
    window: Window
    warmup: Warmup
    generator: GeneratorReport
    answers: list[tuple[int, bytes]]
    stopped_early: bool
