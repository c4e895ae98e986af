"""Whether threads that no Python function shows use more CPU time: those that libraries such as onnxruntime start.

A profiler of Python sees the functions of Python threads. If a session gets four threads in place of one, all functions
take as long as before, or wait, and the CPU time of the process grows. Pure.
"""

from __future__ import annotations

from statistics import median_low
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.intervals import estimate
from pytest_mlpatterns.records.launch import LaunchValue
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
_LEAST_RATIO = 1.05
"""Of the CPU time, by the lower end of its interval: pairs of blocks do not show that two starts of equal code differ,
by 1.5 % as functions do, or by more if their threads wait actively."""
_PAIR_SD = 0.1
"""Standard deviation of the ratio of a pair that is assumed: five times that of functions, since threads that wait
actively take what is left of the machine."""
_NONE = 0.01
"""Share of the CPU time that counts as none, so that a ratio to it exists."""
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
    cpu_ns = float(np.mean([block.cpu_ns / block.requests for block in run.before]))
    before_ns, now_ns = float(before.mean()), float(now.mean())
    least_ns = max(_NONE * cpu_ns, 1.0)
    ratios = np.maximum(now, least_ns) / np.maximum(before, least_ns)
    ratio = estimate([LaunchValue(float(one), 0.0) for one in ratios], _PAIR_SD, _CONFIDENCE)
    if now_ns - before_ns < _LEAST_SHARE * cpu_ns or ratio.low < _LEAST_RATIO:
        return None
    busy_before, busy_now = (median_low([block.native_busy for block in blocks]) for blocks in (run.before, run.now))
    return NativeChange(busy_before, busy_now, before_ns, now_ns, run.libraries)


def _per_request(blocks: Sequence[ProfiledBlock]) -> NDArray[np.float64] | None:
    """CPU time of these threads per request of each block, in nanoseconds; None if it is not known of all."""
    times = [block.native_ns / block.requests for block in blocks if block.native_ns is not None]
    return np.array(times) if len(times) == len(blocks) else None
