"""Whether the samples of a load fit into memory while they are merged; the exact merge needs them all at once.

Pure; it must not know where the generators run, nor read what is free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.loadgen.steady_state import WARMUP_CAP_NS
from pytest_mlpatterns.units import SECOND_NS, format_size
from pytest_mlpatterns.workload.schedule import ClosedLoop, Stages
from pytest_mlpatterns.workload.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.loadgen.messages import LoadJob

__all__ = ["MERGED_ROW_BYTES", "ROW_BYTES", "check_samples", "most_rows"]

ROW_BYTES = 35
"""One request in the recording."""
MERGED_ROW_BYTES = 112
"""One request while recordings are merged: the parts, their times on one clock, the order, one column, the result."""
_FREE_SHARE = 0.5
_SURELY_FIT = 10_000_000
"""Rows that fit on every machine: below them no ceiling is measured for a closed loop."""
_FASTEST_RPS = 100_000
"""No generator process is faster."""


def check_samples(
    job: LoadJob, generators: int, ceiling_rps: Callable[[], float], *, free_bytes: Callable[[], int]
) -> None:
    """Check that the samples of a load take at most half of the free memory while they are merged.

    Args:
        job: the load.
        generators: number of generators that share it.
        ceiling_rps: measures what all of them reach together; asked where a closed loop could be too long.
        free_bytes: reads the memory that is free; asked where there may be too many.

    Raises:
        SettingError: they take more.
    """
    rows = most_rows(job, generators * _FASTEST_RPS)
    if rows > _SURELY_FIT and job.schedule.closed:
        rows = most_rows(job, ceiling_rps())
    if rows <= _SURELY_FIT:
        return
    needed, free = rows * MERGED_ROW_BYTES, free_bytes()
    if needed > _FREE_SHARE * free:
        raise SettingError(
            f"a load of {rows:,} requests gives {format_size(needed)} of samples while they are merged, and "
            f"{format_size(free)} are free, of which they may take half; shorten duration="
        )


def most_rows(job: LoadJob, ceiling_rps: float) -> int:
    """Most requests that a load records, its warm-up included.

    Args:
        job: the load.
        ceiling_rps: most requests per second in a closed loop.
    """
    schedule = job.schedule
    warmup_ns = WARMUP_CAP_NS if job.warmup_ns is None else job.warmup_ns
    if isinstance(schedule, Trace):
        return schedule.arrivals_count
    if isinstance(schedule, Stages):
        levels = [schedule.start, *(level for _, level in schedule.stages)]
        rate_rps = ceiling_rps if schedule.closed else max(levels)
    else:
        rate_rps = ceiling_rps if isinstance(schedule, ClosedLoop) else schedule.rate_rps
    return round(rate_rps * (job.duration_ns + warmup_ns) / SECOND_NS)
