"""Whether the times in a file of another client can be those of one run. Pure; it knows no file format."""

from __future__ import annotations

from statistics import median_low
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.records.request_log import LoggedRequest

__all__ = ["LONGEST_RUN_NS", "fault_of_times"]

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
