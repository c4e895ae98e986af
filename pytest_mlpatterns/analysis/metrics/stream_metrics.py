"""The metrics of answers that come in pieces, over all launches of a test. Pure."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks
from pytest_mlpatterns.analysis.metrics.metric import Goodput, Metric, StreamPercentile
from pytest_mlpatterns.analysis.metrics.metric_makers import stream_metric
from pytest_mlpatterns.analysis.metrics.pattern_metrics import Figure
from pytest_mlpatterns.analysis.metrics.percentile_estimate import LaunchTimes, PooledTimes
from pytest_mlpatterns.analysis.metrics.stream_blocks import StreamBlocks
from pytest_mlpatterns.analysis.statistics.distributions import Modes
from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE, LAUNCH_SD, estimate, min_samples
from pytest_mlpatterns.errors import InvalidResultError, SettingError
from pytest_mlpatterns.records.latency import STREAM_QUANTITIES
from pytest_mlpatterns.records.launch import Estimate, Launch, LaunchValue
from pytest_mlpatterns.records.objective import Promise, parse_promise
from pytest_mlpatterns.wording import count, listed, shown


def form_of_answers(launches: Sequence[Launch]) -> str:
    """What answers that do not stream looked like, as a part of a message; empty if it is not known."""
    form = next((launch.answer_form for launch in launches if launch.answer_form), "")
    return form and f": {form}"


class StreamMetrics(ABC):
    """What streams give; a base of :class:`pytest_mlpatterns.analysis.metrics.metrics.Metrics`.

    The metrics are None if the answers of the test do not stream.
    """

    @property
    @abstractmethod
    def by_launch(self) -> Sequence[LaunchBlocks]:
        """The launches, cut into blocks."""

    @property
    def streams(self) -> bool:
        """Whether answers of the test came in pieces."""
        return bool(self._streams)

    def ttft_ns(self, percentile: float = 50) -> Estimate | None:
        """Time to first token: from when a request was due until its first chunk with content.

        A failed request is infinitely late.

        Args:
            percentile: at least 1 and less than 100.

        Raises:
            TooFewSamplesError: too few requests to bound it at 99 % confidence.
            InvalidResultError: no request succeeded.
        """
        return self.stream_percentile("ttft", percentile)

    def itl_ns(self, percentile: float = 50) -> Estimate | None:
        """Inter-token latency: the gaps between neighbouring chunks of one answer, pooled; as :meth:`ttft_ns`."""
        return self.stream_percentile("itl", percentile)

    def tpot_ns(self, percentile: float = 50) -> Estimate | None:
        """Time per output token of each request, (last - first chunk) / (tokens - 1); as :meth:`ttft_ns`."""
        return self.stream_percentile("tpot", percentile)

    def stream_percentile(
        self, quantity: str, percentile: float, confidence: float = CONFIDENCE, *, scatter: Sequence[LaunchValue] = ()
    ) -> Estimate | None:
        """A percentile of ``ttft``, ``itl`` or ``tpot``.

        Args:
            quantity: which one.
            percentile: at least 1 and less than 100.
            confidence: of the interval.
            scatter: launches of a baseline, which show how much launches differ.
        """
        min_samples(percentile)  # refuses what is no percentile
        streams = self._streams
        if not streams:
            return None
        metric = stream_metric(quantity, percentile)
        times = self._times[quantity]
        if not times.finite and any(one.count for one in streams):
            raise InvalidResultError(
                f"no answer has a second chunk, so there is no {metric.label}; ask for longer ones"
            )
        launches = [value for one in streams if (value := one.percentile(quantity, percentile)) is not None]
        return times.estimate(metric, percentile, launches, confidence=confidence, scatter=scatter)

    def stream_modes(self, quantity: str) -> Modes | None:
        """The two modes of ``ttft``, ``itl`` or ``tpot``; None if it has one, and without streams."""
        return self._times[quantity].modes if self._streams else None

    output_tokens_rps: ClassVar[Figure] = Figure("output_tokens", "Output tokens per second, of all requests together.")
    output_tokens_rps_per_user: ClassVar[Figure] = Figure(
        "output_tokens_per_user",
        "Output tokens per second that one caller sees while its answer streams: one over the median TPOT.",
    )

    @property
    def input_tokens(self) -> Estimate | None:
        """Mean number of input tokens of a request; None if the server does not report it."""
        return self._mean([one.mean_tokens(of_input=True) for one in self._streams])

    @property
    def output_tokens(self) -> Estimate | None:
        """Mean number of output tokens of an answer: by the server's usage, else its chunks."""
        return self._mean([one.mean_tokens(of_input=False) for one in self._streams])

    def goodput_rps(self, slo: str) -> Estimate:
        """Requests per second that kept an objective, of all that were due; failed ones break it.

        Args:
            slo: what each request keeps, such as ``"ttft<300ms, tpot<40ms"`` or ``"latency<200ms"``.

        Raises:
            SettingError: it cannot be read.
            InvalidResultError: the answers do not stream, or no request has what it judges.
        """
        return self.promised(parse_promise(slo), goodput=True)

    def slo_attainment_ratio(self, slo: str) -> Estimate:
        """Share of the requests that were due that kept an objective; as :meth:`goodput_rps`."""
        return self.promised(parse_promise(slo), goodput=False)

    def fluidity_ratio(self, slo: str) -> Estimate:
        """Share of the tokens that arrived by their deadline, slack carried over (Etalon, arXiv 2407.07000).

        The first token is due after ``ttft``, each further one ``tpot`` after the deadline of the one before. After a
        late one the deadlines begin anew from its arrival.

        Args:
            slo: both times, such as ``"ttft<300ms, tpot<40ms"``.

        Raises:
            SettingError: it cannot be read, or has other times.
            InvalidResultError: the answers do not stream.
        """
        times = {bound.quantity: bound.limit_ns for bound in parse_promise(slo).bounds}
        if times.keys() != {"ttft", "tpot"}:
            raise SettingError(
                f"slo is {shown(slo)}, expected the deadlines of the first and of each further token; write "
                '"ttft<300ms, tpot<40ms"'
            )
        found = [one.fluidity(times["ttft"], times["tpot"]) for one in self._streams]
        return _share(self._required(found, "fluidity"))

    def promised(self, promise: Promise, *, goodput: bool, confidence: float = CONFIDENCE) -> Estimate:
        """Goodput, or the share of the requests that kept a promise."""
        if promise.is_of_streams and not self.streams:
            names = " and ".join(bound.quantity for bound in promise.bounds if bound.quantity != "latency")
            form = form_of_answers([blocks.launch for blocks in self.by_launch])
            raise InvalidResultError(
                f"the answers do not stream, so there is no {names}{form}; "
                "give a time of the whole answer: latency<200ms"
            )
        kept = [blocks.promise(promise) for blocks in self.by_launch]
        name = "goodput" if goodput else "attainment"
        found = self._required([getattr(one, name)() for one in kept], name, confidence)
        return found if goodput else _share(found)

    def unjudged(self, metric: Metric) -> str:
        """A sentence about successful requests that a metric cannot judge; empty if there are none."""
        match metric.kind:
            case Goodput(promise):
                what, unknown = str(promise), sum(blocks.promise(promise).unknown for blocks in self.by_launch)
            case StreamPercentile(quantity):
                what, unknown = quantity.upper(), self._left_out(quantity)
            case _:
                return ""
        return f"{count(unknown, 'answer')} of too few tokens for {what} left out" if unknown else ""

    def stream_notes(self) -> list[str]:
        """Sentences about successful requests that a time of streams leaves out, and about usage that cannot be."""
        notes = []
        total = sum(one.succeeded for one in self._streams)
        partly = {name: left for name in STREAM_QUANTITIES if 0 < (left := self._left_out(name)) < total}
        if partly:
            counted = listed([f"{left:,} out of {name.upper()}" for name, left in partly.items()], "and")
            notes.append(f"answers of too few tokens are left out: of {total:,} answers {counted}")
        if distrusted := sum(one.distrusted for one in self._streams):
            what = f"{count(distrusted, 'answer')} with a usage that cannot be"
            notes.append(
                f"{what}: no token although text came, or more tokens than bytes; their chunks are counted instead"
            )
        return notes

    def _left_out(self, quantity: str) -> int:
        return sum(one.left_out(quantity) for one in self._streams)

    @cached_property
    def _streams(self) -> list[StreamBlocks]:
        """Those of every launch, also of one without an answer, if any answer of the test came in pieces."""
        found = [blocks.streams for blocks in self.by_launch if blocks.streams is not None]
        return found if any(one.times.has_chunks.any() for one in found) else []

    @cached_property
    def _times(self) -> dict[str, PooledTimes]:
        """The times of each quantity, of all launches; the gaps of failed streams are not known."""
        return {
            name: PooledTimes(
                [LaunchTimes(one.values(name).ascending, 0 if name == "itl" else one.failed) for one in self._streams]
            )
            for name in STREAM_QUANTITIES
        }

    @staticmethod
    def _mean(values: Sequence[LaunchValue | None]) -> Estimate | None:
        known = [value for value in values if value is not None]
        return estimate(known, 0.0) if known else None

    @staticmethod
    def _required(values: Sequence[LaunchValue | None], name: str, confidence: float = CONFIDENCE) -> Estimate:
        known = [value for value in values if value is not None]
        if not known:
            raise InvalidResultError(f"no request has what the objective judges, so there is no {name}")
        return estimate(known, LAUNCH_SD, confidence)


def _share(found: Estimate) -> Estimate:
    """An estimate of a share, which is at most 1."""
    return replace(found, high=min(found.high, 1.0))
