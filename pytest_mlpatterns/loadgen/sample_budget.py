"""Whether the samples of a load fit into memory while they are merged; the exact merge needs them all at once.

An open loop has as many as its schedule, which is checked before it; a closed loop as many as the service answers,
which is checked while it runs. Pure; it must not know where the generators run, nor read what is free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.loadgen.steady_state import WARMUP_CAP_NS
from pytest_mlpatterns.units import SECOND_NS, format_size
from pytest_mlpatterns.workload.schedule import ClosedLoop, Stages
from pytest_mlpatterns.workload.trace import Trace

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.messages import LoadJob

__all__ = ["MERGED_ROW_BYTES", "ROW_BYTES", "check_samples", "known_rows", "require_fit"]

ROW_BYTES = 35
"""One request in the recording."""
MERGED_ROW_BYTES = 112
"""One request while recordings are merged: the parts, their times on one clock, the order, one column, the result."""
_FREE_SHARE = 0.5


def check_samples(job: LoadJob, free_bytes: int) -> None:
    """Check that the samples of an open loop take at most half of the free memory while they are merged.

    Args:
        job: the load; how many requests a closed loop sends is not known before.
        free_bytes: memory that is free.

    Raises:
        SettingError: they take more.
    """
    if (rows := known_rows(job)) is not None:
        require_fit(rows, free_bytes)


def require_fit(rows: int, free_bytes: int) -> None:
    """Check that so many samples take at most half of the free memory while they are merged.

    Raises:
        SettingError: they take more.
    """
    needed = rows * MERGED_ROW_BYTES
    if needed > _FREE_SHARE * free_bytes:
        raise SettingError(
            f"a load of {rows:,} requests gives {format_size(needed)} of samples while they are merged, and "
            f"{format_size(free_bytes)} are free, of which they may take half; shorten duration="
        )


def known_rows(job: LoadJob) -> int | None:
    """Most requests that an open loop records, its warm-up included; None for a closed loop."""
    schedule = job.schedule
    if isinstance(schedule, ClosedLoop) or schedule.closed:
        return None
    if isinstance(schedule, Trace):
        return schedule.arrivals_count
    warmup_ns = WARMUP_CAP_NS if job.warmup_ns is None else job.warmup_ns
    if isinstance(schedule, Stages):
        rate_rps = max(schedule.start, *(level for _, level in schedule.stages))
    else:
        rate_rps = schedule.rate_rps
    return round(rate_rps * (job.most_ns + warmup_ns) / SECOND_NS)
