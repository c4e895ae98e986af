"""The metrics that a pattern counts itself: replicas, cache, batches, queue, stages and wire. Pure.

A :class:`Figure` is an attribute of :class:`pytest_mlpatterns.analysis.metrics.metrics.Metrics` that is a metric over
all launches.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Protocol

from pytest_mlpatterns.analysis.metrics.definitions import METRICS, is_known_metric, layer_metrics, metric_named
from pytest_mlpatterns.analysis.metrics.metric import FigureOfAnswers, Metric
from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE, estimate
from pytest_mlpatterns.records.latency import SPLIT_LAYER
from pytest_mlpatterns.records.launch import Estimate, Launch, LaunchValue
from pytest_mlpatterns.records.telemetry import LayerStats, straggler_shares
from pytest_mlpatterns.wording import did_you_mean, listed, shown


class _Estimates(Protocol):
    def estimate(self, metric: Metric) -> Estimate | None: ...


class Figure(property):
    """The estimate of a metric; None if it does not apply.

    Args:
        name: of the metric.
        doc: what it is, for readers of the class.
    """

    def __init__(self, name: str, doc: str) -> None:
        def read(metrics: _Estimates) -> Estimate | None:
            return metrics.estimate(METRICS[name])

        super().__init__(read)
        self.__doc__ = inspect.cleandoc(doc)  # else it is this class's

    if TYPE_CHECKING:

        def __get__(self, metrics: object, owner: type | None = None, /) -> Estimate | None: ...  # type: ignore[override]


class PatternMetrics(ABC):
    """What the telemetry of a pattern gives; a base of :class:`pytest_mlpatterns.analysis.metrics.metrics.Metrics`.

    Attributes:
        launches: at least one.
    """

    launches: tuple[Launch, ...]

    @abstractmethod
    def estimate(self, metric: Metric, confidence: float = CONFIDENCE) -> Estimate | None:
        """The metric over all launches; None if it does not apply."""

    @cached_property
    def replica_share(self) -> tuple[Estimate, ...] | None:
        """Share of the window's requests that each replica answered.

        None for a single process, or if launches ended with different numbers of replicas.
        """
        counts = [launch.stats.replica_requests for launch in self.launches if launch.stats is not None]
        sizes = {len(row) for row in counts}
        if len(sizes) != 1 or sizes <= {0, 1} or not all(sum(row) for row in counts):
            return None
        shares = [[row[replica] / sum(row) for row in counts] for replica in range(len(counts[0]))]
        return tuple(Estimate(sum(values) / len(values), min(values), max(values)) for values in shares)

    @property
    def replica_ns(self) -> dict[str, float]:
        """Mean time at each replica behind a gateway that chooses among them, by its number, over the last launch."""
        return dict(sorted(self._means("replica:").items()))

    cache_hit_ratio: ClassVar[Figure] = Figure(
        "cache_hit_ratio", "Share of inputs that were answered without a model call of their own; None without a cache."
    )
    cache_hit_ns: ClassVar[Figure] = Figure(
        "cache_hit", "Median time in the cache's layer of a request answered from it."
    )
    cache_miss_ns: ClassVar[Figure] = Figure(
        "cache_miss", "Median time in the cache's layer of a request that needed a model call."
    )
    batch_size: ClassVar[Figure] = Figure(
        "batch_size", "Mean inputs in one model call, or sequences in one step; None without batching."
    )
    batch_wait_ns: ClassVar[Figure] = Figure(
        "batch_wait", "Median time that a request waited for others of its batch, or to join it."
    )
    queue_depth: ClassVar[Figure] = Figure(
        "queue_depth", "Mean over time of the requests that waited in the queue; None without one."
    )
    queue_wait_ns: ClassVar[Figure] = Figure("queue_wait", "Median time that a request waited in the queue.")
    hop_ns: ClassVar[Figure] = Figure(
        "hop", "Median hop time to an upstream process: transport, without its work and the wait for its model."
    )
    decode_ns: ClassVar[Figure] = Figure("decode", "Mean time to decode a request, decompression included.")
    encode_ns: ClassVar[Figure] = Figure("encode", "Mean time to encode a response, compression included.")

    def figure(self, name: str) -> Estimate | None:
        """A metric that a pattern describes, your own one in its ``layer_kind``; or a figure of ``perf_figures``.

        None if no layer counted it, or no answer has it.

        Raises:
            KeyError: there is no such metric, or it has an attribute.
        """
        known = layer_metrics()
        found = known.get(name) or (metric_named(name) if is_known_metric(str(name)) else None)
        if found is None or not (name in known or isinstance(found.kind, FigureOfAnswers)):
            __tracebackhide__ = True
            described = listed(list(known), "or")
            hint = did_you_mean(str(name), known)
            raise KeyError(f"no pattern describes the metric {shown(name)}, {hint}expected {described}")
        return self.estimate(found)

    @property
    def layers(self) -> tuple[LayerStats, ...]:
        """What the pattern's layers, without the split, counted in the last launch's window, the outermost first."""
        stats = self.launches[-1].stats
        return () if stats is None else tuple(layer for layer in stats.layers if layer.layer != SPLIT_LAYER)

    @property
    def stage_ns(self) -> dict[str, float]:
        """Mean time in each stage of a pipeline, or model of an ensemble, by its name, over the last launch."""
        return self._means("stage:", "model:")

    def _means(self, *prefixes: str) -> dict[str, float]:
        """The mean times whose names begin so, by the rest of their names, over the last launch."""
        return {
            name.partition(":")[2]: mean
            for layer in self.layers
            for name in layer.histograms
            if name.startswith(prefixes) and (mean := layer.mean(name)) is not None
        }

    @property
    def bottleneck(self) -> str | None:
        """The stage that takes longest; for an ensemble the slowest model; None without stages."""
        times = self.stage_ns
        return max(times, key=times.__getitem__) if times else None

    @property
    def straggler_share(self) -> dict[str, float]:
        """How often each model of an ensemble was the last to answer, a share by its name, over the last launch."""
        return {name: share for layer in self.layers for name, share in straggler_shares(layer).items()}


@dataclass(frozen=True, slots=True)
class ScalingIndices:
    """HSX, its three parts and SC, each an :class:`Estimate` with its interval over the passes, or None.

    Attributes:
        values: value in each pass of each index that is known, by the name of the metric.
        missing: why each of the others is not known, and what to measure.
    """

    values: Mapping[str, tuple[LaunchValue, ...]]
    missing: Mapping[str, str]

    hsxt: ClassVar[Figure] = Figure(
        "hsxt", "Time of scaling out, ``1 / (1 + scale-out time / 10 s)``: 1 if a further replica is there at once."
    )
    hsxe: ClassVar[Figure] = Figure("hsxe", "Ease of scaling out: the efficiency of doubling the replicas, at most 1.")
    hsxc: ClassVar[Figure] = Figure(
        "hsxc",
        "Cost of scaling out: cost per request of N replicas over the cost with 2N, at most 1, both at their NMRT.",
    )
    hsx: ClassVar[Figure] = Figure("hsx", "Horizontal scaling index: the geometric mean of time, ease and cost.")
    sc: ClassVar[Figure] = Figure("sc", "Scalability coefficient: requests in flight at NMRT × HSX × ASL at NMRT.")

    def estimate(self, metric: Metric) -> Estimate | None:
        """An index over the passes; None if it is not known."""
        values = self.values.get(metric.name)
        return None if values is None else metric.bounded(estimate(values, metric.launch_sd))


NO_INDICES = ScalingIndices({}, {})  # Those of a test that does not measure how its pattern scales
