"""The window of one launch in blocks of 0.25 s: the value of every metric, and its standard error.

Every metric of a launch is a function of how much each block counts: a quotient of two sums (throughput, CPU per
request, ASL) or a percentile of latencies. So one resampling of blocks gives the standard error of them all. Pure; it
must not know limits, baselines or other launches.

Memory is paid at its peak for the whole time, since a machine has to hold that much ready. Cores are paid in one of two
ways. With ``p_core`` per core and nanosecond, and ``p_GiB`` per GiB and nanosecond, it is ::

    used:   10^6 · (p_core · CPU per request + p_GiB · peak memory / throughput)
    given:  10^6 · (p_core · cores           + p_GiB · peak memory) / throughput

What was used is the bill if other services pay for the time that is left. What was given is the bill of a pod that has
its cores to itself: two cores cost two cores, also while they are idle. Its cores are ASL times those used, so it costs
the least at the highest throughput. At NMRT, ASL and the peak memory are those that the search saw at the knee.
"""

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.metrics.blocked_values import AnswerCounts, BlockedValues, Blocks, counted, mean_size
from pytest_mlpatterns.analysis.metrics.stream_blocks import PromiseBlocks, StreamBlocks
from pytest_mlpatterns.analysis.statistics.distributions import median_slope
from pytest_mlpatterns.records.latency import RequestCounts
from pytest_mlpatterns.records.launch import Capacity, Launch, LaunchValue
from pytest_mlpatterns.records.objective import Promise
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.records.samples import ResourceTrack
from pytest_mlpatterns.units import format_percent

BLOCK_NS = 250_000_000  # Nominal length of a block
MOST_BLOCKS = 2_400
"""Most blocks of a window, ten minutes of nominal length; a longer window has longer blocks. More would not narrow a
standard error that 200 resamples find, and memory grows with them, for a trend with their square."""
_MIN_BLOCKS = 8  # Fewest blocks, without which a standard error has no use
_TREND = 0.10  # Relative change over a window from which it is a trend
_TREND_Z = 2.576  # Quantile of the normal distribution for a trend, two-sided 1 %


class LaunchBlocks:
    """The samples and usage of one launch, by block.

    Latencies belong to the block in which their request was due, so that a stall counts in full even if its responses
    came after the window. Completions belong to the block in which they came.

    ``price``: None if there is no cost.

    ``latencies_ns``: sorted latencies of the successful ones, int64, shape ``(successes,)``. ``send_lag_ns``: how late
    each request was sent, int64, shape ``(requests,)``.
    """

    def __init__(self, launch: Launch, price: Price | None = None) -> None:
        samples, window = launch.samples, launch.window
        self.launch: Launch = launch
        self._price = price
        self.count: int = min(max(_MIN_BLOCKS, round(window.duration_ns / BLOCK_NS)), MOST_BLOCKS)
        self._blocks = Blocks(samples, window, self.count)
        due, good = samples.due_in(window), samples.succeeded
        self.requests: int = int(due.sum())
        self.send_lag_ns: NDArray[np.int64] = samples.send_lag_ns[due]
        codes, counts = np.unique(samples.outcome[due & ~good], return_counts=True)
        self.failures: dict[int, int] = {int(code): int(count) for code, count in zip(codes, counts, strict=True)}
        successes = np.flatnonzero(due & good)
        latencies = samples.latency_ns[successes]
        order = np.argsort(latencies, kind="stable")
        self._successes = successes[order]
        self.latencies_ns: NDArray[np.int64] = latencies[order]
        self._answers = AnswerCounts(samples.due_ns[good], samples.done_ns[good], closed=not launch.open_loop)

    @property
    def counts(self) -> RequestCounts:
        """The requests that were due in the window, counted by latency."""
        streams = {} if self.streams is None else self.streams.counts
        return RequestCounts(self.requests, sum(self.failures.values()), counted(self.latencies_ns), streams)

    def percentile(self, percentile: float) -> LaunchValue | None:
        """A latency percentile in nanoseconds over all requests that were due; None if no request succeeded.

        A failed request is infinitely late, and so is the percentile if more requests failed than may be above it.
        """
        return self._latencies.percentile(percentile, self.requests)

    def beyond(self, latency_ns: float, quantity: str = "") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many successful requests of each block took longer, and how many it has; ``quantity``: of streams."""
        streams = self.streams if quantity else None
        values = self._latencies if streams is None else streams.values(quantity)
        return values.beyond(latency_ns)

    def location(self) -> LaunchValue | None:
        """The location of the latencies of the successful requests; None if there is none."""
        return self._latencies.location()

    def mean(self) -> LaunchValue | None:
        """The arithmetic mean of the latencies of the successful requests; None if there is none."""
        return self._latencies.mean()

    def figure(self, name: str, percentile: float | None = None) -> LaunchValue | None:
        """The mean of a figure of answers, or a percentile of it; None if no answer has it."""
        found = self.figures.get(name)
        if found is None:
            return None
        return found.mean() if percentile is None else found.percentile(percentile)

    @cached_property
    def figures(self) -> dict[str, BlockedValues]:
        """The figures that were read from the successful answers, of those that have them."""
        found, rows = {}, self._successes
        for name, values in self.launch.samples.figures.items():
            has = rows[~np.isnan(values[rows])]
            found[name] = self._blocks.values(values[has], has)
        return found

    def throughput(self) -> LaunchValue | None:
        """Successful answers per second."""
        cuts_ns = self._answers.cuts(self._blocks.edges_ns)
        answers = np.diff(self._answers.by(cuts_ns))
        return self._blocks.quotient(answers * 1e9, np.diff(cuts_ns)) if answers.any() else None

    def total_time(self) -> LaunchValue | None:
        """Nanoseconds from when the first of the given requests was due until the last one was answered.

        Infinite if one failed, since its answer never came. None of a window by time.
        """
        if not self.launch.requests:
            return None
        rate = self.throughput()
        if rate is None or self.failures or self.requests < self.launch.requests:
            return LaunchValue(math.inf, 0.0)
        return LaunchValue(float(self.launch.window.duration_ns), rate.relative_error)

    def error_rate(self) -> LaunchValue | None:
        """Share of requests that got no 2xx answer."""
        return LaunchValue(sum(self.failures.values()) / self.requests, 0.0) if self.requests else None

    def asl(self) -> LaunchValue | None:
        """Share of the cores that it may use that the deployment used; None if its processes are unknown."""
        usage = self.launch.usage
        if usage is None:
            return None
        return self._blocks.quotient(self._gained(usage.cpu_ns), usage.cores * self._blocks.lengths_ns)

    def performance_coefficient(self) -> LaunchValue | None:
        """``1 / (RTM in seconds × ASL)``; None if one of them is not known or has no positive value."""
        rtm, asl = self.percentile(50), self.asl()
        if rtm is None or asl is None or not math.isfinite(rtm.value) or min(rtm.value, asl.value) <= 0:
            return None
        return LaunchValue(1e9 / (rtm.value * asl.value), math.hypot(rtm.relative_error, asl.relative_error))

    def used_per_answer(self, column: str) -> LaunchValue | None:
        """Growth of a cumulative column of the usage per successful answer; None if the column is not known."""
        values = getattr(self.launch.usage, column, None)
        return None if values is None else self._per_answer(self._gained(values, self._cuts_ns))

    def peak_memory(self) -> LaunchValue | None:
        """Highest resident bytes seen in the window."""
        usage, window = self.launch.usage, self.launch.window
        if usage is None:
            return None
        inside = (usage.time_ns >= window.start_ns) & (usage.time_ns <= window.end_ns)
        seen = usage.rss_bytes[inside] if inside.any() else usage.rss_bytes
        return LaunchValue(float(seen.max()), 0.0)

    def cost(self) -> LaunchValue | None:
        """Cost of a million successful answers from the CPU time that was used; None without a price."""
        usage = self.launch.usage
        return None if usage is None else self._cost(self._gained(usage.cpu_ns, self._cuts_ns))

    def cold_start(self) -> LaunchValue | None:
        """Nanoseconds from the start of the processes to the first answered inference."""
        cold = self.launch.cold_start_ns
        return None if cold is None else LaunchValue(float(cold), 0.0)

    def request_bytes(self) -> LaunchValue | None:
        """Mean size of the requests that succeeded."""
        if not self._successes.size:
            return None
        inputs = self.launch.samples.request[self._successes]
        return mean_size(inputs, self.launch.request_bytes[inputs])

    def response_bytes(self) -> LaunchValue | None:
        """Mean size of the successful answers."""
        if not self._successes.size:
            return None
        samples = self.launch.samples
        return mean_size(samples.request[self._successes], samples.received_bytes[self._successes])

    @cached_property
    def streams(self) -> StreamBlocks | None:
        """The streams of the launch; None if no answer was one, and none was to be one that failed."""
        samples = self.launch.samples
        if samples.stream is None or not (samples.came_in_pieces or self.failures):
            return None
        closed = not self.launch.open_loop
        return StreamBlocks(samples, samples.stream, self.launch.window, blocks=self._blocks, closed=closed)

    def promise(self, promise: Promise) -> PromiseBlocks:
        """What the requests kept of a promise."""
        times = None if self.streams is None else self.streams.times
        return PromiseBlocks(promise, self.launch.samples, times, window=self.launch.window, blocks=self._blocks)

    def load_over_time(self) -> list[tuple[float, float, float]]:
        """ASL over time: ``(seconds since the window began, deployment's share, whole machine's share)`` per block.

        Empty without the processes, and if the window has no length.
        """
        usage = self.launch.usage
        if usage is None or self.launch.window.duration_ns <= 0:
            return []
        lengths_ns = self._blocks.lengths_ns
        own = self._gained(usage.cpu_ns) / (usage.cores * lengths_ns)
        machine = self._gained(usage.machine_busy_ns) / (usage.machine_cores * lengths_ns)
        return [*zip(self._blocks.ends_s.tolist(), own.tolist(), machine.tolist(), strict=True)]

    def memory_over_time(self) -> list[tuple[float, float]]:
        """The highest resident bytes of each block: ``(seconds since the window began, bytes)``."""
        usage = self.launch.usage
        if usage is None:
            return []
        block = np.searchsorted(self._blocks.edges_ns, usage.time_ns, side="right") - 1
        highest = [usage.rss_bytes[block == number].max(initial=0) for number in range(self.count)]
        return [(t, float(found)) for t, found in zip(self._blocks.ends_s.tolist(), highest, strict=True) if found]

    def trend(self) -> str | None:
        """A sentence if latency rose or fell steadily through the window; None if it was stationary.

        The slope is of the block medians, on logarithms. It counts when it would change the latency by over a
        tenth through the window and Kendall's test finds it at 99 %.
        """
        due_ns = self.launch.samples.due_ns[self._successes]
        block = np.searchsorted(self._blocks.edges_ns, due_ns, side="right") - 1
        present = [number for number in range(self.count) if (block == number).any()]
        if len(present) < _MIN_BLOCKS:
            return None
        medians = np.log([max(np.median(self.latencies_ns[block == number]), 1.0) for number in present])
        change = math.expm1(median_slope(np.array(present), medians) * (self.count - 1))
        n = len(present)
        first, second = np.triu_indices(n, k=1)
        concordance = float(np.sign(medians[second] - medians[first]).sum())
        deviation = (n * (n - 1) * (2 * n + 5) / 18) ** 0.5
        if abs(change) < _TREND or abs(concordance) < _TREND_Z * deviation:
            return None
        seconds = self.launch.window.duration_ns / 1e9
        return (
            f"not stationary: the median latency changed by {format_percent(change, signed=True)} through the "
            f"{seconds:.1f} s window"
        )

    @cached_property
    def _cuts_ns(self) -> NDArray[np.float64]:
        """The moments between which the answers of each block are divided into what was used for them."""
        assert self.launch.usage is not None
        read_ns = self.launch.usage.time_ns
        return np.clip(self._answers.cuts(self._blocks.edges_ns), read_ns[0], read_ns[-1])

    def _gained(
        self, readings: NDArray[np.int64] | NDArray[np.float64], moments_ns: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """What a cumulative reading gained in each block, or between other moments."""
        assert self.launch.usage is not None
        moments_ns = self._blocks.edges_ns if moments_ns is None else moments_ns
        return np.diff(np.interp(moments_ns, self.launch.usage.time_ns, readings))

    def _per_answer(self, used: NDArray[np.float64]) -> LaunchValue | None:
        """What was used between the cuts, over the answers of that time."""
        return self._blocks.quotient(used, np.diff(self._answers.by(self._cuts_ns)))

    def _cost(self, core_ns: NDArray[np.float64]) -> LaunchValue | None:
        """Cost of a million successful answers from the paid core time of each block; None without a price."""
        memory = self.peak_memory()
        if self._price is None or memory is None:
            return None
        held_ns = np.diff(self._cuts_ns)
        return self._per_answer(cost_of_a_million(self._price, core_ns, held_ns, memory_bytes=memory.value))

    @cached_property
    def _latencies(self) -> BlockedValues:
        return self._blocks.values(self.latencies_ns, self._successes, by_input=True)


_FEWEST_REQUESTS = 100  # Requests below which a growth per request is not given


_MOST_POINTS = 60  # Readings between which slopes are taken; more would not change their median


def growth_rate(track: ResourceTrack | None, resource: str) -> float | None:
    """Growth of one resource, such as ``rss_bytes``, per request over a whole track, at least 0; None if not known."""
    amounts = None if track is None else getattr(track, resource)
    if track is None or amounts is None or track.requests[-1] - track.requests[0] < _FEWEST_REQUESTS:
        return None
    chosen = np.unique(np.linspace(0, amounts.size - 1, min(amounts.size, _MOST_POINTS)).round().astype(np.int64))
    return max(median_slope(track.requests[chosen], amounts[chosen]), 0.0)


_REQUESTS = 1e6  # Requests that a cost is given for
_NS_PER_HOUR = 3.6e12  # Nanoseconds of an hour, in which clouds charge
_BYTES_PER_GIB = 2.0**30  # Bytes of a GiB, in which clouds charge


def cost_of_a_million(
    price: Price, core_ns: NDArray[np.float64], held_ns: NDArray[np.float64], *, memory_bytes: float
) -> NDArray[np.float64]:
    """One million times what each block of a launch cost; over its answers, it is the cost of a million of them.

    ``core_ns``: core time of each block that is paid, shape ``(blocks,)``. ``held_ns``: length of each block, for which
    the memory was held, shape ``(blocks,)``.
    """
    core_hours = core_ns / _NS_PER_HOUR
    gib_hours = held_ns / _NS_PER_HOUR * (memory_bytes / _BYTES_PER_GIB)
    return _REQUESTS * (price.per_core_hour * core_hours + price.per_gib_hour * gib_hours)


def cost_at_nmrt(capacity: Capacity, price: Price | None) -> LaunchValue | None:
    """Cost of a million answers at NMRT from the cores that were used; None if a part of it is not known."""
    nmrt, share, cores, memory = capacity.nmrt, capacity.asl, capacity.cores, capacity.peak_rss_bytes
    if price is None or share is None or cores is None or memory is None or capacity.at_least or nmrt.value <= 0:
        return None
    millions_per_hour = nmrt.value * (_NS_PER_HOUR / 1e9) / _REQUESTS
    of_cores = price.per_core_hour * share.value * cores / millions_per_hour
    cost = of_cores + price.per_gib_hour * (memory / _BYTES_PER_GIB) / millions_per_hour
    error = math.hypot(cost * nmrt.relative_error, of_cores * share.relative_error)
    return LaunchValue(cost, error / cost if cost else 0.0)
