"""The streams of one launch, by block: first tokens, gaps between tokens, tokens per second, deadlines met.

Pure; it must not know limits, baselines or other launches. Fluidity is after Etalon (Agrawal et al., arXiv 2407.07000).

Goodput is the rate of the requests that kept it (Zhong et al., DistServe, OSDI 2024).
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.metrics.blocked_values import AnswerCounts, BlockedValues, Blocks, counted
from pytest_mlpatterns.analysis.metrics.samples import StreamTimes
from pytest_mlpatterns.records.latency import COUNTED_QUANTITIES
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.objective import Promise
from pytest_mlpatterns.records.samples import Samples, StreamSamples, Window


class StreamBlocks:
    """Streams of one launch. A quantity is ``ttft``, ``itl`` or ``tpot``."""

    def __init__(
        self, samples: Samples, streams: StreamSamples, window: Window, *, blocks: Blocks, closed: bool
    ) -> None:
        self.times: StreamTimes = StreamTimes(samples, streams)
        self._samples = samples
        self._blocks = blocks
        self._closed = closed
        self._values: dict[str, BlockedValues] = {}
        due = samples.due_in(window)
        self._failed = np.flatnonzero(due & ~samples.succeeded)
        self._succeeded = np.flatnonzero(due & samples.succeeded)
        self._answered = np.flatnonzero(due & samples.succeeded & self.times.has_chunks)

    @property
    def count(self) -> int:
        """Number of successful streams that were due in the window."""
        return self._answered.size

    @property
    def counts(self) -> dict[str, dict[int, int]]:
        """How many of these have each TTFT and each TPOT."""
        return {name: counted(self.values(name).ascending.astype(np.int64)) for name in COUNTED_QUANTITIES}

    @property
    def failed(self) -> int:
        """Number of requests due in the window that failed."""
        return self._failed.size

    @property
    def succeeded(self) -> int:
        """Number of successful requests due in the window, those without a chunk included."""
        return self._succeeded.size

    def left_out(self, quantity: str) -> int:
        """Number of successful requests due in the window that have no such time: too few tokens."""
        return int(np.isinf(self.times.of(quantity)[self._succeeded]).sum())

    @property
    def distrusted(self) -> int:
        """Number of successful streams due in the window whose usage cannot be, so that their chunks are counted."""
        return int(self.times.distrusted[self._answered].sum())

    def values(self, quantity: str) -> BlockedValues:
        """The quantity of every successful stream due in the window that has it; of ITL every gap, pooled."""
        if quantity not in self._values:
            self._values[quantity] = self._gaps() if quantity == "itl" else self._times(quantity)
        return self._values[quantity]

    def percentile(self, quantity: str, percentile: float) -> LaunchValue | None:
        """A percentile over all requests due: a failed one is infinitely late, and has no gaps that are known."""
        found = self.values(quantity)
        return found.percentile(percentile, found.ascending.size + (0 if quantity == "itl" else self.failed))

    def output_tokens(self) -> LaunchValue | None:
        """Tokens per second of the window, of streams that ended well; a token counts as the answer does that it is of.

        In an open loop it counts when it arrived.
        """
        counts = self._token_counts
        cuts_ns = counts.cuts(self._blocks.edges_ns)
        tokens = np.diff(counts.by(cuts_ns))
        return self._blocks.quotient(tokens * 1e9, np.diff(cuts_ns)) if tokens.any() else None

    def tokens_over_time(self) -> tuple[tuple[float, float], ...]:
        """Seconds from the window's begin to the end of each block, and the tokens per second that arrived in it."""
        arrived_ns, tokens = self._arrivals
        counted, _ = np.histogram(arrived_ns, self._blocks.edges_ns, weights=tokens)
        rates = counted * 1e9 / self._blocks.lengths_ns
        return tuple(zip(self._blocks.ends_s.tolist(), rates.tolist(), strict=True))

    def output_tokens_per_user(self) -> LaunchValue | None:
        """Tokens per second that one caller sees while its answer streams: the inverse of the median TPOT."""
        tpot = self.percentile("tpot", 50)
        if tpot is None or not 0 < tpot.value < np.inf:
            return None
        return LaunchValue(1e9 / tpot.value, tpot.relative_error)

    def mean_tokens(self, *, of_input: bool) -> LaunchValue | None:
        """Mean number of input or output tokens of the successful streams; None if the server reports no input."""
        tokens = (self.times.input_tokens if of_input else self.times.tokens)[self._answered]
        known = tokens[tokens >= 0]
        return LaunchValue(float(known.mean()), 0.0) if known.size else None

    def fluidity(self, first_ns: int, next_ns: int) -> LaunchValue | None:
        """Share of the chunks that arrived by their deadline, over the successful streams due in the window.

        The first chunk is due ``first_ns`` after the request, each further one ``next_ns`` after the deadline of the
        one before, so that what comes early earns slack for what comes later. After a late chunk the deadlines begin
        anew from its arrival.
        """
        since_due = map(self.times.since_due_ns, self._answered.tolist())
        met = [float(in_time(arrived_ns, first_ns, next_ns)) for arrived_ns in since_due]
        chunks = self.times.chunk_count[self._answered]
        return self._blocks.quotient(self._blocks.sums(self._answered, met), self._blocks.sums(self._answered, chunks))

    def _times(self, quantity: str) -> BlockedValues:
        values = self.times.of(quantity)
        known = self._answered[np.isfinite(values[self._answered])]
        return self._blocks.values(np.maximum(values[known], 1), known, by_input=True)

    def _gaps(self) -> BlockedValues:
        gaps, owner = self.times.gaps
        wanted = np.zeros(self.times.chunk_count.size, bool)
        wanted[self._answered] = True
        inside = wanted[owner]
        return self._blocks.values(np.maximum(gaps[inside], 1), owner[inside])

    @property
    def _token_counts(self) -> AnswerCounts:
        if not self._closed:
            arrived_ns, tokens = self._arrivals
            return AnswerCounts(arrived_ns, arrived_ns, closed=False, weights=tokens)
        good = self._samples.succeeded & self.times.has_chunks
        due_ns, done_ns = self._samples.due_ns[good], self._samples.done_ns[good]
        return AnswerCounts(due_ns, done_ns, closed=True, weights=self.times.tokens[good])

    @cached_property
    def _arrivals(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Arrival of every chunk of the streams that ended well, ascending, and how many tokens each counts for."""
        owner = self.times.owner
        good = self._samples.succeeded[owner]
        arrived_ns, owner = self.times.arrival_ns[good], owner[good]
        each = self.times.tokens[owner] / self.times.chunk_count[owner]
        order = np.argsort(arrived_ns, kind="stable")
        return arrived_ns[order], each[order]


def in_time(since_due_ns: NDArray[np.int64], first_ns: int, next_ns: int) -> int:
    """How many chunks of one stream arrived by their deadline; times since the request was due."""
    met, at, deadline_ns = 0, 0, first_ns
    while at < since_due_ns.size:
        left = since_due_ns[at:]
        late = np.flatnonzero(left > deadline_ns + next_ns * np.arange(left.size))
        if not late.size:
            return met + left.size
        met += int(late[0])
        at += int(late[0]) + 1
        deadline_ns = int(since_due_ns[at - 1]) + next_ns
    return met


class PromiseBlocks:
    """A promise over the requests of one launch.

    A failed or timed-out request breaks every promise.

    ``times``: of its streams; None if its answers came whole.
    """

    def __init__(
        self, promise: Promise, samples: Samples, times: StreamTimes | None, *, window: Window, blocks: Blocks
    ) -> None:
        due = samples.due_in(window)
        answered = np.flatnonzero(due & samples.succeeded)
        kept, known = np.ones(answered.size, bool), np.ones(answered.size, bool)
        for bound in promise.bounds:
            values = samples.latency_ns if times is None else times.of(bound.quantity)
            kept &= values[answered] < bound.limit_ns
            known &= np.isfinite(values[answered])
        broken = np.concatenate([answered[known & ~kept], np.flatnonzero(due & ~samples.succeeded)])
        self.unknown: int = int(answered.size - known.sum())
        self._kept, self._broken = blocks.sums(answered[known & kept]), blocks.sums(broken)
        self._blocks = blocks

    def goodput(self) -> LaunchValue | None:
        """Requests per second, of those due in the window, that kept the promise; None if none can be judged."""
        if self.unknown and not (self._kept.any() or self._broken.any()):
            return None
        return self._blocks.quotient(self._kept * 1e9, self._blocks.lengths_ns)

    def attainment(self) -> LaunchValue | None:
        """Share of the requests due in the window that kept the promise; None if none can be judged."""
        return self._blocks.quotient(self._kept, self._kept + self._broken)
