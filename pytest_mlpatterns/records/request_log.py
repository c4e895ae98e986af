"""The requests of a run as another client logged them, from which the same metrics follow as from our own loads."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median_low
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["LONGEST_RUN_NS", "LoggedRequest", "RequestLog", "fault_of_times"]


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request; times are on one clock for all requests of a run, which need not be that of this machine.

    Attributes:
        due_ns: when it was due, or sent if the client does not say when it was due.
        sent_ns: when it was sent.
        end_ns: when its answer ended, or when it failed.
        chunks_ns: arrivals of the chunks with content, ascending; empty if the answer was no stream.
        input_tokens: tokens of the request, -1 if not known.
        output_tokens: tokens of the answer, -1 if not known.
        outcome: HTTP status, or a negative code of :class:`pytest_mlpatterns.records.outcomes.Failure`.
        error: what the client says of a failed request; empty if it succeeded.
    """

    due_ns: int
    sent_ns: int
    end_ns: int
    chunks_ns: tuple[int, ...] = ()
    input_tokens: int = -1
    output_tokens: int = -1
    outcome: int = 200
    error: str = ""


@dataclass(frozen=True, slots=True)
class RequestLog:
    """One run of another client.

    Attributes:
        client: its name.
        requests: at least one.
        load: as set-ups write it, such as ``closed(8)``.
        model: name of the model; empty if the log does not name it.
    """

    client: str
    requests: tuple[LoggedRequest, ...]
    load: str
    model: str = ""


LONGEST_RUN_NS = 24 * 3600 * 1_000_000_000
"""Longest run that is read. A benchmark takes minutes or hours; one wrong time makes a run of months of it."""


def fault_of_times(requests: Sequence[LoggedRequest], place: Callable[[int], str]) -> str:
    """What is wrong with the times of a run, with the place of the request that is farthest from the others.

    Args:
        requests: of the run, at least one.
        place: where the file has the request of a number.

    Returns:
        A phrase; empty if the times can be those of one run.
    """
    lasted_ns = max(one.end_ns for one in requests) - min(one.due_ns for one in requests)
    if lasted_ns <= LONGEST_RUN_NS:
        return ""
    middle_ns = median_low([one.due_ns for one in requests])
    away_ns = [max(abs(one.due_ns - middle_ns), abs(one.end_ns - middle_ns)) for one in requests]
    farthest = max(range(len(requests)), key=away_ns.__getitem__)
    return (
        f"{place(farthest)}: with this request the run takes {lasted_ns / 1e9:,.0f} s, "
        f"expected {LONGEST_RUN_NS / 1e9:,.0f} s (a day) at most"
    )
