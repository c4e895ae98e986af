"""How many connections a load needs, against how many the system allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.workload.schedule import ClosedLoop, Stages

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.messages import LoadJob

__all__ = ["check_connections"]


def check_connections(job: LoadJob, processes: int, allowed: int | None) -> None:
    """Check that each generator may open the connections of a closed loop: one for each caller, to each address.

    Args:
        job: the load.
        processes: number of generators that share it.
        allowed: connections that the system allows each of them; None if it knows no limit.

    Raises:
        SettingError: the system allows fewer; it names how many requests in flight are allowed.
    """
    schedule = job.schedule
    if allowed is None or job.endpoint.remote or not isinstance(schedule, ClosedLoop | Stages) or not schedule.closed:
        return
    addresses = max(len(job.endpoint.addresses), 1)
    callers = allowed // addresses * processes
    if schedule.max_concurrency > callers:
        each = f" to each of {addresses} addresses" if addresses > 1 else ""
        raise SettingError(
            f"{schedule.max_concurrency:,} requests in flight need as many connections{each}, but the system allows "
            f"{callers:,} (a process may open {allowed:,} beside its other files); lower the concurrency to {callers}, "
            "or raise the hard limit on open files (ulimit -Hn)"
        )
