"""Whether a load fits: its connections into the limit on open files, its samples into free memory.

The samples of an open loop are known from its schedule and checked before it. A closed loop has as many as the service
answers, which is checked while it runs. Pure; it must not know where the generators run, nor read what is free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.loadgen.steady_state import WARMUP_CAP_NS
from pytest_mlpatterns.units import SECOND_NS, format_size
from pytest_mlpatterns.workload.schedule import ClosedLoop, Schedule, Stages, Trace, most_callers

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.messages import LoadJob

ROW_BYTES = 35  # One request in the recording
MERGED_ROW_BYTES = 112
"""One request while recordings are merged: the parts, their times on one clock, the order, one column, the result."""
_FREE_SHARE = 0.5  # Share of the free memory that samples may take; the rest is for merging them and for the service


def check_connections(job: LoadJob, processes: int, allowed: int | None) -> None:
    """Check that each generator may open the connections of a closed loop: one for each caller, to each address.

    Args:
        allowed: connections that the system allows each of them; None if it knows no limit.
    """
    needed = most_callers(job.schedule)
    if allowed is None or job.endpoint.remote or not needed:
        return
    addresses = max(len(job.endpoint.addresses), 1)
    callers = allowed // addresses * processes
    if needed > callers:
        each = f" to each of {addresses} addresses" if addresses > 1 else ""
        raise SettingError(
            f"{needed:,} requests in flight need as many connections{each}, but the system allows "
            f"{callers:,} (a process may open {allowed:,} beside its other files); lower the concurrency to {callers}, "
            "or raise the hard limit on open files (ulimit -Hn)"
        )


def check_samples(job: LoadJob, free_bytes: int) -> None:
    """Check that the samples of an open loop take at most half of the free memory while they are merged."""
    if (rows := known_rows(job)) is not None:
        require_fit(rows, free_bytes)


def require_fit(rows: int, free_bytes: int) -> None:
    """Check that samples take at most half of the free memory while they are merged."""
    needed = rows * MERGED_ROW_BYTES
    if needed > _FREE_SHARE * free_bytes:
        raise SettingError(
            f"a load of {rows:,} requests gives {format_size(needed)} of samples while they are merged, and "
            f"{format_size(free_bytes)} are free, of which they may take half; shorten duration="
        )


def known_rows(job: LoadJob) -> int | None:
    """Most requests that an open loop records, its warm-up included; None for a closed loop."""
    warmup_ns = WARMUP_CAP_NS if job.warmup_ns is None else job.warmup_ns
    return _rows_of(job.schedule, job.most_ns + warmup_ns)


def _rows_of(schedule: Schedule, length_ns: int) -> int | None:
    """Most requests of a schedule in a time, in nanoseconds."""
    if isinstance(schedule, ClosedLoop) or schedule.closed:
        return None
    if isinstance(schedule, Trace):
        return schedule.arrivals_count
    if isinstance(schedule, Stages):
        rate_rps = max(schedule.start, *(level for _, level in schedule.stages))
    else:
        rate_rps = schedule.rate_rps
    return round(rate_rps * length_ns / SECOND_NS)
