"""Which requests of one launch kept a promise such as ``ttft<300ms, tpot<40ms``: goodput and attainment. Pure.

Goodput is the rate of the requests that kept it (Zhong et al., DistServe, OSDI 2024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.blocked_values import quotient

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_mlpatterns.analysis.stream_times import StreamTimes
    from pytest_mlpatterns.records.launch import LaunchValue
    from pytest_mlpatterns.records.objective import Promise
    from pytest_mlpatterns.records.samples import Samples, Window

__all__ = ["PromiseBlocks"]


class PromiseBlocks:
    """A promise over the requests of one launch.

    A failed or timed-out request breaks every promise. A request that the generator cancelled is left out.

    Args:
        promise: what each request is to keep.
        samples: of the launch.
        times: of its streams; None if its answers came whole.
        window: the measured window.
        edges: block edges in nanoseconds, one more than blocks.
        weights: how often each block counts in each resample, shape ``(resamples, blocks)``.

    Attributes:
        unknown: number of successful requests that have nothing to judge, such as the TPOT of a single token; they are
            neither kept nor broken.
    """

    def __init__(
        self,
        promise: Promise,
        samples: Samples,
        times: StreamTimes | None,
        *,
        window: Window,
        edges: NDArray[np.float64],
        weights: NDArray[np.float64],
    ) -> None:
        due = samples.due_in(window)
        answered = np.flatnonzero(due & samples.succeeded)
        kept, known = np.ones(answered.size, bool), np.ones(answered.size, bool)
        for bound in promise.bounds:
            values = samples.latency_ns if times is None else times.of(bound.quantity)
            kept &= values[answered] < bound.limit_ns
            known &= np.isfinite(values[answered])
        broken = np.concatenate([answered[known & ~kept], np.flatnonzero(due & ~samples.succeeded)])
        blocks = edges.size - 1

        def counted(requests: NDArray[np.int64]) -> NDArray[np.float64]:
            block = np.clip(np.searchsorted(edges, samples.due_ns[requests], side="right") - 1, 0, blocks - 1)
            return np.bincount(block, minlength=blocks).astype(np.float64)

        self.unknown: int = int(answered.size - known.sum())
        self._kept, self._broken = counted(answered[known & kept]), counted(broken)
        self._edges, self._weights = edges, weights

    def goodput(self) -> LaunchValue | None:
        """Requests per second, of those due in the window, that kept the promise; None if none can be judged."""
        if self.unknown and not (self._kept.any() or self._broken.any()):
            return None
        return quotient(self._kept * 1e9, np.diff(self._edges), self._weights)

    def attainment(self) -> LaunchValue | None:
        """Share of the requests due in the window that kept the promise; None if none can be judged."""
        return quotient(self._kept, self._kept + self._broken, self._weights)
