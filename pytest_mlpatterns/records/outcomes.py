"""Outcomes of a request: HTTP statuses, gRPC statuses and failures, as one column of numbers, with their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from msgspec import Struct

_CLASS = re.compile(
    r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Failure|Group|Interrupt|Iteration|Timeout|Warning)(?=:|$)",
    re.ASCII,
)
"""Name of a class of errors, by the endings that these have, so that a word of a text is none."""


class Failure(IntEnum):
    """Why a request has no status; negative, so that one column holds it beside the statuses of HTTP and gRPC.

    ``ERROR_EVENT`` is an error in the middle of a stream, ``CUT_OFF`` a stream whose connection stayed whole and whose
    end never came. ``NO_STREAM`` is an answer of another kind although a stream was requested, ``EMPTY_STREAM`` a
    stream without a chunk, ``COMPRESSED`` one that the generator cannot read, ``NOT_ENDED`` one whose last event came
    in time and whose HTTP response did not end, ``UNASKED`` one that came on a connection without a request, and
    ``RAISED`` an exception of the user's own client.
    """

    TIMEOUT = -1
    CONNECT = -2
    CLOSED = -3
    MALFORMED = -4
    RESET = -5
    ERROR_EVENT = -7
    CUT_OFF = -8
    NO_STREAM = -9
    EMPTY_STREAM = -10
    COMPRESSED = -11
    NOT_ENDED = -12
    UNASKED = -13
    RAISED = -14

    @property
    def label(self) -> str:
        """How reports name it."""
        return _FAILURES[self.value]

    @property
    def is_answer(self) -> bool:
        """Whether the service answered, and its answer is none that counts."""
        return self in _ANSWERS


class FailedAnswer(NamedTuple):
    """An answer that does not count, as the load generator read it."""

    request: int  # index of the prepared request
    words: str  # what it is, or its error, in one line


_FAILURES = {
    -1: "time-out",
    -2: "connection failed",
    -3: "connection closed",
    -4: "malformed answer",
    -5: "stream reset",
    -6: "cancelled",  # in results of 0.2, of requests that its generator cancelled
    -7: "error in the stream",
    -8: "stream cut off",
    -9: "no stream",
    -10: "empty stream",
    -11: "compressed stream",
    -12: "no end after [DONE]",
    -13: "answer without a request",
    -14: "exception of perf_client",
}
_ANSWERS = (Failure.ERROR_EVENT, Failure.NO_STREAM, Failure.EMPTY_STREAM, Failure.COMPRESSED, Failure.NOT_ENDED)
GRPC_OUTCOMES = 1000  # Offset of the statuses of gRPC in the column of outcomes
REFUSALS = (429, 503, GRPC_OUTCOMES + 8, GRPC_OUTCOMES + 14)
"""Outcomes of requests that a busy service refuses: RESOURCE_EXHAUSTED and UNAVAILABLE in gRPC."""
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
    """The outcome of a call that ended with this gRPC status, other than 0: the status plus 1000."""
    is_known = 0 < status < len(_GRPC_STATUSES)
    return GRPC_OUTCOMES + (status if is_known else 2)  # the specification: an unknown code counts as UNKNOWN


def describe_outcome(outcome: int) -> str:
    """How reports name an outcome: ``500``, ``UNAVAILABLE``, ``time-out``."""
    if outcome < 0:
        return _FAILURES[outcome]
    return _GRPC_STATUSES[outcome - GRPC_OUTCOMES] if outcome > GRPC_OUTCOMES else str(outcome)


def error_class(text: str) -> str:
    """The class of the error that begins a text: ``ValueError`` of ``ValueError: no sevens``; empty without one."""
    found = _CLASS.match(text)
    return found[0] if found else ""


_FAILED_WITH = " -> "  # What stands between an input and the error of its request


class FirstFailure(Struct, frozen=True):
    """The first input whose request failed."""

    input: str  # its name, ``perf_payload item 1``
    error: str = ""  # of the model or the answer, or the outcome of the request; empty if it may not be shown

    def __str__(self) -> str:
        return f"{self.input}{_FAILED_WITH}{self.error}" if self.error else self.input

    @classmethod
    def read(cls, text: str) -> FirstFailure | None:
        """The failure that a file holds; None for an empty text."""
        name, _, error = text.partition(_FAILED_WITH)
        return cls(name, error) if name or error else None

    @property
    def without_text(self) -> FirstFailure:
        """The same with the class of the error alone, since its text may quote an input."""
        return FirstFailure(self.input, error_class(self.error))


def describe_failures(failures: Mapping[int, int], first: FirstFailure | None = None) -> str:
    """Failed requests by kind, ``500: 12, time-out: 3``, and the first of them.

    ``failures``: number of requests by outcome. ``first``: the first failed input and its error; None if it is not
    known.
    """
    kinds = ", ".join(f"{describe_outcome(code)}: {count:,}" for code, count in failures.items())
    return f"{kinds}; first: {first}" if first else kinds
