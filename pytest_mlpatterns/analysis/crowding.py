"""Whether a deployment has more working threads than cores, so that they take turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.launch import Launch

__all__ = ["crowding_note"]

_FULL_RATIO = 0.8
"""Share of its cores that a deployment uses when its threads wait for each other; below it they find idle cores."""


def crowding_note(launches: Sequence[Launch]) -> str | None:
    """What to say if the replicas times the threads of each exceed the cores, and all cores are in use; else None.

    Args:
        launches: of one test; the last one that is known counts.
    """
    known = [launch for launch in launches if launch.usage is not None and launch.usage.busy_threads]
    if not known:
        return None
    usage, window = known[-1].usage, known[-1].window
    assert usage is not None
    threads = sum(usage.busy_threads)
    edges = np.array([window.start_ns, window.end_ns], dtype=np.float64)
    first, last = np.interp(edges, usage.time_ns, usage.cpu_ns)
    if threads <= max(1, usage.cores) or last - first < _FULL_RATIO * usage.cores * window.duration_ns:
        return None
    processes = len(usage.busy_threads)
    who = "1 process" if processes == 1 else f"{processes} processes"
    cores = "the 1 core" if usage.cores == 1 else f"the {usage.cores:g} cores"
    each = max(1, int(usage.cores / processes))
    fewer = f'give the pattern env={{"OMP_NUM_THREADS": "{each}"}} or fewer replicas'
    advice = "use fewer replicas" if threads == processes else fewer
    return (
        f"{threads} busy threads of {who} share {cores} that the deployment has, and wait for each other: "
        f"{advice}, or give it more cores"
    )
