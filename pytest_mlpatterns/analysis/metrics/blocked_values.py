"""A window cut into blocks: percentiles, locations and quotients of what one launch measured in them. Pure.

Their standard errors come from resampled blocks.

A request that crosses an edge of the window counts on each side by the share of its time there, so that twenty requests
are not rounded to nineteen or twenty-one. Answers of a fixed size need no statistics: the mean is exact, and any growth
is one. Sampled texts vary by themselves, so the mean over the few that a launch holds does too.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.statistics.distributions import location, trimmed_shares
from pytest_mlpatterns.analysis.statistics.intervals import block_weights, relative_error
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.samples import Samples, Window

_GRID = 4096  # Most bins of ascending values in a resample; neighbours then share one
_LEAST_ROUNDS = 2
"""Fewest requests of each input for which an error leaves out how the inputs differ; one request has no scatter."""


class BlockedValues:
    """Values above zero, such as latencies; ``ascending`` is all of them in order.

    ``values``: in any order, shape ``(values,)``. ``weights``: how often each block counts in each resample, shape
    ``(resamples, blocks)``. ``inputs``: index of the input of each value; None if they differ in nothing.
    """

    def __init__(
        self,
        values: NDArray[np.int64] | NDArray[np.float64],
        block: NDArray[np.int64],
        weights: NDArray[np.float64],
        *,
        inputs: NDArray[np.uint32] | None = None,
    ) -> None:
        order = np.argsort(values, kind="stable")
        self.ascending: NDArray[np.int64] | NDArray[np.float64] = values[order]
        self._block = block[order]
        self._weights = weights
        self._inputs = None if inputs is None else inputs[order]

    def percentile(self, percentile: float, of: int | None = None) -> LaunchValue | None:
        """A percentile; None without a value.

        ``percentile``: at least 1 and less than 100. ``of``: number of values, if some have no number because they are
        infinitely large; None: all are here.
        """
        size = self.ascending.size
        if not size:
            return None
        rank = percentile * ((of or size) / size)
        if rank > 100:
            return LaunchValue(math.inf, 0.0)
        value = float(np.percentile(self.ascending, rank))
        cumulated, upper = self._cumulated
        wanted = cumulated[:, -1] * (rank / 100)
        position = np.minimum((cumulated < wanted[:, None]).sum(axis=1), upper.size - 1)
        return LaunchValue(value, relative_error(upper[position]))

    def mean(self) -> LaunchValue | None:
        """The arithmetic mean; None without a value."""
        blocks = self._weights.shape[1]
        sums, sizes = (np.bincount(self._block, one, blocks).astype(np.float64) for one in (self.ascending, None))
        return quotient(sums, sizes, self._weights)

    def beyond(self, value: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many values of each block are larger, and how many it has."""
        blocks, first = self._weights.shape[1], np.searchsorted(self.ascending, value, side="right")
        return np.bincount(self._block[first:], minlength=blocks), np.bincount(self._block, minlength=blocks)

    def location(self) -> LaunchValue | None:
        """The location of the whole distribution, see :mod:`pytest_mlpatterns.analysis.statistics.distributions`;
        None if it is empty.

        Only the values that are here count: failed requests are judged by their number.
        """
        if not self.ascending.size:
            return None
        alike = self._without_inputs()
        error = self._location_error() if alike is None else alike
        return LaunchValue(location(self.ascending), error)

    def _location_error(self) -> float:
        cumulated, upper = self._cumulated
        drawn = cumulated[cumulated[:, -1] > 0]
        shares = trimmed_shares(drawn / drawn[:, -1:])
        return relative_error(np.exp(shares @ np.log(np.maximum(upper, 1.0)) / shares.sum(axis=1)))

    def _without_inputs(self) -> float | None:
        """The error of a location without what inputs differ by; None if that is in every block, or is not known.

        Each launch sends the same inputs as often, so that their differences are no scatter of its location. Blocks of
        few requests have some of the inputs only. So from each logarithm the mean of its input is subtracted; of n
        values and k inputs that leaves n - k degrees of freedom, so the error is multiplied by sqrt(n / (n - k)).
        """
        size, blocks = self.ascending.size, self._weights.shape[1]
        if self._inputs is None:
            return None
        counts = np.bincount(self._inputs)
        kinds = np.count_nonzero(counts)
        if kinds == 1 or not _LEAST_ROUNDS * kinds <= size < kinds * blocks:
            return None
        logs = np.log(np.maximum(self.ascending, 1.0))
        left = logs - (np.bincount(self._inputs, logs) / np.maximum(counts, 1))[self._inputs]
        alike = BlockedValues(np.exp(left + logs.mean()), self._block, self._weights)
        return alike._location_error() * math.sqrt(size / (size - kinds))

    @cached_property
    def _cumulated(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """For each resample, how many values are at most each of up to 4096 ascending ones; and these."""
        size, blocks = self.ascending.size, self._weights.shape[1]
        bins = min(size, _GRID)
        rank = np.arange(size) * bins // size
        counts = np.bincount(self._block * bins + rank, minlength=blocks * bins).reshape(blocks, bins)
        upper = self.ascending[np.flatnonzero(np.diff(rank, append=bins))].astype(np.float64)
        return np.cumsum(self._weights @ counts, axis=1), upper


def quotient(over: NDArray[np.float64], under: NDArray[np.float64], weights: NDArray[np.float64]) -> LaunchValue | None:
    """The quotient of two sums over blocks; None if the lower one is not above zero.

    ``over``: shape ``(blocks,)``. ``under``: in the same shape. ``weights``: how often each block counts in each
    resample, shape ``(resamples, blocks)``.
    """
    total = float(under.sum())
    if total <= 0:
        return None
    resampled = weights @ under
    positive = resampled > 0
    return LaunchValue(float(over.sum()) / total, relative_error((weights @ over)[positive] / resampled[positive]))


class Blocks:
    """The blocks of a window of one launch, and the requests by the block in which they were due.

    ``edges_ns``: of the blocks, one more than there are.
    """

    def __init__(self, samples: Samples, window: Window, count: int) -> None:
        self._samples = samples
        self.count = count
        self.edges_ns: NDArray[np.float64] = np.linspace(window.start_ns, window.end_ns, count + 1)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """How often each block counts in each resample, shape ``(resamples, blocks)``."""
        return block_weights(self.count)

    @property
    def lengths_ns(self) -> NDArray[np.float64]:
        """The length of each block."""
        return np.diff(self.edges_ns)

    @property
    def ends_s(self) -> NDArray[np.float64]:
        """Seconds from the begin of the window to the end of each block."""
        ends_s: NDArray[np.float64] = (self.edges_ns[1:] - self.edges_ns[0]) / 1e9
        return ends_s

    def values(
        self, of: NDArray[np.int64] | NDArray[np.float64], requests: NDArray[np.int64], *, by_input: bool = False
    ) -> BlockedValues:
        """Values of the requests with these indices; ``by_input``: whether what they differ by is their inputs too."""
        inputs = self._samples.request[requests] if by_input else None
        return BlockedValues(of, self._block_of(requests), self.weights, inputs=inputs)

    def sums(
        self, requests: NDArray[np.int64], values: Sequence[float] | NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """The sum over the requests of each block of their values; without values their number."""
        return np.bincount(self._block_of(requests), values, minlength=self.count).astype(np.float64)

    def quotient(self, over: NDArray[np.float64], under: NDArray[np.float64]) -> LaunchValue | None:
        """The quotient of two sums over the blocks; None if the lower one is not above zero."""
        return quotient(over, under, self.weights)

    def _block_of(self, requests: NDArray[np.int64]) -> NDArray[np.int64]:
        found = np.searchsorted(self.edges_ns, self._samples.due_ns[requests], side="right") - 1
        return np.clip(found, 0, self.count - 1)


_SIGNIFICANT_BITS = 7  # Bits of a latency that are kept: its error is below 1 %


def counted(latencies_ns: NDArray[np.int64]) -> dict[int, int]:
    """Count of each latency, rounded to its seven leading bits (0.8 %), so that counts can be pooled."""
    spare = np.maximum(np.frexp(latencies_ns.astype(np.float64))[1] - _SIGNIFICANT_BITS, 0)
    half = np.where(spare > 0, np.left_shift(1, np.maximum(spare - 1, 0)), 0)
    rounded = np.left_shift(np.right_shift(latencies_ns, spare), spare) + half
    values, counts = np.unique(rounded, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


class AnswerCounts:
    """The successful answers of one load, cumulative over time.

    With d the moment when a request was due and l its latency, the count until a moment t is in a closed loop ::

        C(t) = Σ clip((t - d) / l, 0, 1)

    A request of an open loop may wait behind others without being worked on, so it counts when its answer came.
    ``benchmarks/counter_simulation.py`` compares the rules.

    ``due_ns``: when each request was due, in the order of completion. ``done_ns``: when its answer came, ascending.
    ``weights``: what each answer counts for, such as its tokens; None for 1.
    """

    def __init__(
        self,
        due_ns: NDArray[np.int64],
        done_ns: NDArray[np.int64],
        *,
        closed: bool,
        weights: NDArray[np.float64] | NDArray[np.int64] | None = None,
    ) -> None:
        self._due_ns = due_ns
        self._done_ns = done_ns
        self._closed = closed
        self._weights = np.ones(done_ns.size) if weights is None else weights.astype(np.float64)

    def by(self, moments_ns: NDArray[np.float64]) -> NDArray[np.float64]:
        """The count until each of these moments, which ascend."""
        ended = self._ended[np.searchsorted(self._done_ns, moments_ns, side="right")]
        return ended + self._in_flight(moments_ns) if self._closed else ended

    def cuts(self, edges_ns: NDArray[np.float64]) -> NDArray[np.float64]:
        """The moments at which the count is cut instead of at these edges: at the last completion before each.

        n completions then take exactly n intervals. An edge is not moved if the last completion before it is a block
        away: the time of a stall counts.
        """
        if not self._done_ns.size:
            return edges_ns
        position = np.searchsorted(self._done_ns, edges_ns, side="right")
        last = self._done_ns[np.maximum(position - 1, 0)]
        close = (position > 0) & (edges_ns - last < edges_ns[1] - edges_ns[0])
        return np.where(close, last, edges_ns)

    @cached_property
    def _ended(self) -> NDArray[np.float64]:
        """What the first answers count for together: none, one, two, …"""
        return np.concatenate([[0.0], np.cumsum(self._weights)])

    def _in_flight(self, moments_ns: NDArray[np.float64]) -> NDArray[np.float64]:
        """The shares, at each moment, of the requests that were due before it and answered after it."""
        first = np.searchsorted(moments_ns, self._due_ns, side="right")
        crossed = np.maximum(np.searchsorted(moments_ns, self._done_ns, side="left") - first, 0)
        request = np.repeat(np.arange(crossed.size), crossed)
        moment = first[request] + np.arange(request.size) - np.repeat(np.cumsum(crossed) - crossed, crossed)
        due_ns, done_ns = self._due_ns[request], self._done_ns[request]
        shares = self._weights[request] * (moments_ns[moment] - due_ns) / (done_ns - due_ns)
        return np.bincount(moment, shares, minlength=moments_ns.size).astype(np.float64)


_UNKNOWN = 1e-9
"""Relative error of a single request: above zero, so that launches are not taken for exact, and without any weight."""


def mean_size(inputs: NDArray[np.integer[Any]], sizes: NDArray[np.integer[Any]]) -> LaunchValue:
    """The mean size with its relative standard error.

    If every input that was sent again had the same size again, sizes are fixed by the input. Of inputs that are sent in
    rounds, the mean is then exact but for the last, incomplete round: of n requests, r are in it, and with a
    deviation s between inputs their error is s sqrt(r) / n. Otherwise, and for inputs that are drawn, it is s / sqrt(n)
    with the deviation s of all. The error of a single request is not known. It counts as next to nothing, so that the
    scatter between launches decides.

    ``inputs``: index of the input of each request, shape ``(requests,)``, at least one. ``sizes``: bytes of each, in
    the same shape.
    """
    mean, requests = float(sizes.mean()), sizes.size
    if requests == 1:
        return LaunchValue(mean, _UNKNOWN)
    if mean <= 0 or sizes.min() == sizes.max():
        return LaunchValue(mean, 0.0)
    deviation = float(np.std(sizes, ddof=1))
    pairs = np.unique(np.stack([inputs, sizes]), axis=1)
    times_sent = np.unique(inputs, return_counts=True)[1]
    distinct, in_rounds = times_sent.size, np.ptp(times_sent) <= 1
    if distinct < requests and pairs.shape[1] == distinct and in_rounds:
        error = deviation * math.sqrt(requests % distinct) / requests
    else:
        error = deviation / math.sqrt(requests)
    return LaunchValue(mean, error / mean)
