"""The watch over generator processes: one that is stopped, silent or does not end invalidates its load.

A generator reports its progress every quarter of a second, from the first request to the last answer. It must not be
waited for longer than its job can take.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.loadgen.steady_state import WARMUP_CAP_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.loadgen.generator_process import GeneratorProcess
    from pytest_mlpatterns.loadgen.messages import LoadJob

__all__ = ["GeneratorWatch"]

_QUIET_S = 0.75
"""Three intervals of progress; then the state of the process is read."""
_SILENT_S = 20.0
"""Longest time without a message, including the start of the process and the reading of a large job."""
_LATE_S = 30.0
"""Time that a job may take beyond its warm-up, its window and its time-out."""
_ENDED = "this load is invalid; the process was ended, and the next load gets another"


class GeneratorWatch:
    """Watches the processes of one job.

    Only the time in which this process waited counts, so that a pause of the whole machine is no silence.

    Args:
        processes: what is watched.
        job: what they do.

    Attributes:
        processes: the same.
    """

    def __init__(self, processes: Sequence[GeneratorProcess], job: LoadJob) -> None:
        self.processes = processes
        self._quiet_s = [0.0] * len(processes)
        warmup_ns = WARMUP_CAP_NS if job.warmup_ns is None else job.warmup_ns
        self._longest_s = (warmup_ns + job.most_ns + job.timeout_ns) / 1e9 + _LATE_S
        self._began = time.perf_counter()

    def heard(self, number: int) -> None:
        """Note a message of a process.

        Raises:
            ChildError: the job takes longer than it can.
        """
        self._quiet_s[number] = 0.0
        if time.perf_counter() - self._began > self._longest_s:
            raise ChildError(
                f"the load generator ({self.processes[number].name}) is not done with its load after "
                f"{self._longest_s:.0f} s: {_ENDED}"
            )

    def waited(self, numbers: Sequence[int], seconds: float) -> None:
        """Note that no message of these processes came for so long.

        Raises:
            ChildError: one of them is stopped, or was silent for too long.
        """
        for number in numbers:
            self._quiet_s[number] += seconds
            quiet_s, process = self._quiet_s[number], self.processes[number]
            if quiet_s >= _QUIET_S and (stopped := process.why_stopped()):
                raise ChildError(f"the load generator is stopped: {stopped}: {_ENDED}")
            if quiet_s >= _SILENT_S:
                raise ChildError(f"the load generator ({process.name}) has sent nothing for {quiet_s:.0f} s: {_ENDED}")
