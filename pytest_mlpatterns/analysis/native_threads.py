"""Whether threads that no Python function shows use more CPU time: those that libraries such as onnxruntime start.

A profiler of Python sees the functions of Python threads. If a session gets four threads in place of one, all functions
take as long as before, or wait, and the CPU time of the process grows. Pure.
"""

from __future__ import annotations

from statistics import median_low
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.time_change import time_change
from pytest_mlpatterns.records.profile import NativeChange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.records.profile import ProfiledBlock, ProfiledRun

__all__ = ["native_change"]

_CONFIDENCE = 0.995
"""Of the growth, as for all functions together: it is one question of a test that has failed already."""
_LEAST_SHARE = 0.10
"""Share of the CPU time per request at the reference by which it must have grown: less explains no failed test, whose
tolerance for the CPU time is 7 %."""
_FEWEST = 3
"""Pairs of blocks."""


def native_change(run: ProfiledRun) -> NativeChange | None:
    """The growth of the CPU time of threads without Python code; None if it has not grown, or is not known.

    Args:
        run: of both sides.
    """
    before, now = (_per_request(blocks) for blocks in (run.before, run.now))
    if before is None or now is None or len(before) < _FEWEST or len(before) != len(now):
        return None
    change = time_change(before, now, np.zeros(len(before)))
    cpu_ns = float(np.mean([block.cpu_ns / block.requests for block in run.before]))
    if change.value_ns < _LEAST_SHARE * cpu_ns or not change.is_sure(_CONFIDENCE):
        return None
    busy_before, busy_now = (median_low([block.native_busy for block in blocks]) for blocks in (run.before, run.now))
    return NativeChange(busy_before, busy_now, change.before_ns, change.now_ns, run.libraries)


def _per_request(blocks: Sequence[ProfiledBlock]) -> NDArray[np.float64] | None:
    """CPU time of these threads per request of each block, in nanoseconds; None if it is not known of all."""
    times = [block.native_ns / block.requests for block in blocks if block.native_ns is not None]
    return np.array(times) if len(times) == len(blocks) else None
