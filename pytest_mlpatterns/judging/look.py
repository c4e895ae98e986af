"""What one verdict may see: the present, what it is compared with, and when it is looked at. All of it is frozen.

The reference is a baseline entry, or the first side of an interleaved run, whose launches are paired with those of the
present. This module must not know how anything is started or measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.health.machine import why_busy
from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.analysis.metrics.metric import Metric, StreamPercentile
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import REVISION_ALPHA, SequentialPlan, looks_beside_entry
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.latency import RequestCounts
from pytest_mlpatterns.records.launch import Launch, LaunchValue

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, PairedCapacity, PairedLaunch, RatioVerdict
    from pytest_mlpatterns.analysis.verdicts.count_comparison import ByBlock
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun

Sample = Entry | Metrics  # launches of one side: of a baseline entry, or measured ones


class UnknownMetricError(Exception):
    """A sample has no value of a metric; the text is a predicate of the metric, such as ``is not recorded yet``."""


class AbsentMetricError(UnknownMetricError):
    """The same of a metric that this system never has, so that nothing is missing unless the test asks for it."""


def values_of(side: Sample, metric: Metric) -> Sequence[LaunchValue]:
    """The metric in each launch of one side that has a finite value; empty if it is not known."""
    return side.comparable_values(metric) if isinstance(side, Metrics) else side.metrics.get(metric.name, ())


def counts_of(side: Sample, metric: Metric) -> Sequence[RequestCounts]:
    """The requests of each launch that a metric is of; empty if they are not known of all, as in older entries."""
    launches = side.request_counts if isinstance(side, Metrics) else side.counts
    if not isinstance(metric.kind, StreamPercentile):
        return launches
    found = [one for launch in launches if (one := launch.of_streams(metric.kind.quantity)) is not None]
    return found if len(found) == len(launches) else ()


def late_by_block(side: Sample, metric: Metric) -> ByBlock | None:
    """How many requests of each block took longer than a latency, and how many it has; None of an entry."""
    quantity = metric.kind.quantity if isinstance(metric.kind, StreamPercentile) else ""
    return partial(side.beyond, quantity=quantity) if isinstance(side, Metrics) else None


class Pairs(Struct, frozen=True):
    """What an interleaved run has measured so far."""

    names: tuple[str, str]  # of both variants
    launches: Sequence[PairedLaunch]
    capacities: Sequence[PairedCapacity]  # pairs of searches for NMRT
    spent_s: float
    in_flight: int | None  # requests that a closed loop keeps in flight; None for other loads
    first: Metrics  # of each side, further starts included
    second: Metrics

    @classmethod
    def of(cls, run: InterleavedRun) -> Pairs:
        """What a run has now."""
        first = Metrics(tuple(run.first_launches), starts_ns=tuple(run.first_starts_ns))
        second = Metrics(tuple(run.second_launches), starts_ns=tuple(run.second_starts_ns))
        launches, capacities = tuple(run.launches), tuple(run.capacities)
        return cls(run.names, launches, capacities, run.spent_s, run.in_flight, first, second)

    @property
    def quiet(self) -> Pairs:
        """The launches that no neighbour disturbed."""
        sides = self.first.launches, self.second.launches
        quiet = [found for found, *pair in zip(self.launches, *sides, strict=True) if not why_busy(pair)]
        return replace(self, launches=quiet)

    @property
    def punctual(self) -> Pairs:
        """The launches whose requests were sent in time."""
        return replace(self, launches=[one for one in self.launches if one.late is None])

    def ratios(self, metric: str) -> list[LogRatio]:
        """The ratios second/first of the launches, or searches, in which both variants have a metric."""
        if metric == "nmrt":
            return [one.nmrt for one in self.capacities]
        return [ratio for one in self.launches if (ratio := one.ratio(metric)) is not None]

    def figures(self, metric: str) -> tuple[list[float], list[float]]:
        """The figures of both variants in the launches, or searches, in which both have a metric."""
        if metric == "nmrt":
            return [one.first.nmrt.value for one in self.capacities], [one.second.nmrt.value for one in self.capacities]
        known = [one for one in self.launches if one.ratio(metric) is not None]
        return [one.first.figure(metric) or 0.0 for one in known], [one.second.figure(metric) or 0.0 for one in known]

    def means(self, metric: str) -> tuple[float, float]:
        """The mean of the metric for both variants."""
        first, second = self.figures(metric)
        return fmean(first), fmean(second)

    def printed(self, metric: str, verdict: RatioVerdict) -> tuple[float, float]:
        """The figures of both variants: the first's mean, and the second's that the estimated ratio gives.

        The ratio of what is printed is then the printed change. The ratio comes from neighbouring blocks; a ratio of
        the means of all launches would be another one on a machine whose speed varies.
        """
        first, _ = self.means(metric)
        return first, first * verdict.judged.value

    def named(self, metric: str, values: tuple[float, float]) -> str:
        """The figures of both variants with their names: ``2.0 ms (cached) against 4.1 ms (single)``."""
        show = metric_named(metric).show
        first, second = (f"{show(value)} ({variant})" for value, variant in zip(values, self.names, strict=True))
        return f"{first} against {second}"

    def measured(self, verdict: RatioVerdict) -> str:
        """What a verdict rests on: ``4 paired launches in 8.5 s``."""
        return f"{wording.count(verdict.launches, 'paired launch', 'paired launches')} in {self.spent_s:.1f} s"


class Look(Struct, frozen=True):
    """Everything that decides the metrics of a comparison at one moment."""

    present: Metrics
    reference: Sample
    looks: SequentialPlan  # when launches, or pairs, are looked at
    in_flight: int | None = None  # requests that a closed loop keeps in flight; None for other loads
    pattern: str = ""  # of the present in messages
    pairs: Pairs | None = None  # of an interleaved run; None beside an entry
    checks_samples: bool = False  # whether a percentile is left out if the present has too few samples for an interval
    stands: frozenset[str] = frozenset()  # names of the metrics that no machine changes
    beside: Sequence[Launch] = ()  # all launches of these minutes, which show the machine; empty for the present's

    @classmethod
    def at_pairs(cls, pairs: Pairs, looks: SequentialPlan) -> Look:
        """A look at an interleaved run of the reference and the present, in that order."""
        return cls(pairs.second, pairs.first, looks, pairs.in_flight, pairs=pairs)

    @property
    def entry(self) -> Entry:
        """The entry that is the reference."""
        assert isinstance(self.reference, Entry)
        return self.reference

    @property
    def minutes(self) -> Sequence[Launch]:
        """The launches that show the machine."""
        return self.beside or self.present.launches

    @property
    def against(self) -> Literal["baseline", "revision"]:
        """The kind of the reference."""
        return "baseline" if self.pairs is None else "revision"

    def plan(self, alpha: float, recorded: int = 0) -> SequentialPlan:
        """The looks at one metric, at a level of its own. ``recorded``: launches of the entry that have it."""
        if self.pairs is None:
            return looks_beside_entry(recorded, launches=self.looks.last, alpha=alpha)
        return replace(self.looks, alpha=alpha, pass_alpha=REVISION_ALPHA)
