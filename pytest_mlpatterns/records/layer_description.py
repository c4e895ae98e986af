"""How a kind of layer is described: its figures, charts and words, as metrics, reports and profiles read them.

Pure; this module must not know how a description is drawn.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Literal

from msgspec import Struct

from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.units import Unit

LATENCY_FLOOR_NS = 5_000
"""Change of a latency that no machine resolves reliably; a noisy one resolves less, which its intervals show."""
CPU_FLOOR_NS = 2_000  # The same for CPU time per request, which does not hold the time to wake a process


class DerivedMetric(Struct, frozen=True):
    """One metric of one window, and its relative standard error; 0 if the counts do not give one."""

    value: float
    relative_error: float


class Figure(Struct, frozen=True):
    """A value that follows from the counts of a layer: ``median``, ``mean``, ``level``, or ``of`` divided by ``over``.

    Args:
        name: of the metric; empty for a value of the note alone.
        label: as reports write the metric.
        unit: of the value.
        median: histogram whose median it is, or whose mean if a server reports nothing else.
        mean: histogram whose mean it is.
        level: name of a level, such as the depth of a queue, whose mean over time it is.
        of: counters that are added up.
        over: counters by whose sum they are divided; ``("observed_ns",)`` gives a rate per second.
        plain: counters of the same before compression; the note has them in brackets if they differ.
        note: its text in the note of the layer, such as ``"wait {}"``; empty: not there. The first value with a text
            leads: without it there is no note.
        better: which values are better.
        floor: smallest change that a comparison takes seriously.
        varies: whether launches vary by themselves.
    """

    name: str
    label: str
    unit: Unit
    median: str = ""
    mean: str = ""
    level: str = ""
    of: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    note: str = ""
    better: Literal["lower", "higher"] = "lower"
    floor: float = 0.0
    varies: bool = True

    def read(self, layer: LayerStats) -> DerivedMetric | None:
        """The value of a layer; None if the layer counted nothing that gives it."""
        if self.median:
            middle = layer.median(self.median)
            return _exact(layer.mean(self.median) if middle is None else middle)
        if self.mean:
            return _mean(layer, self.mean)
        if self.level:
            observed = layer.counters.get("observed_ns", 0)
            depth_ns = layer.counters.get(f"{self.level}_ns", 0)
            return _exact(depth_ns / observed if observed else layer.mean(self.level))
        counted, total = layer.counted(self.of), layer.counted(self.over)
        if not total:
            return None
        if self.over == ("observed_ns",):
            return _exact(counted * 1e9 / total)
        ratio = counted / total
        is_share = set(self.of) < set(self.over)
        return DerivedMetric(ratio, sqrt((1 - ratio) / counted) if is_share and counted else 0.0)


def _exact(value: float | None) -> DerivedMetric | None:
    return None if value is None else DerivedMetric(value, 0.0)


def _mean(layer: LayerStats, name: str) -> DerivedMetric | None:
    if (mean := layer.mean(name)) is None:
        return None
    values = layer.histograms.get(name, {})
    count = sum(values.values())
    variance = sum((value - mean) ** 2 * times for value, times in values.items())
    return DerivedMetric(mean, sqrt(variance) / count / mean if mean and count else 0.0)


def time_figure(name: str, label: str, median: str, *, note: str, floor: float = LATENCY_FLOOR_NS) -> Figure:
    """The median time of a histogram; arguments as of :class:`Figure`."""
    return Figure(name, label, Unit.DURATION, median=median, note=note, floor=floor)


def share_figure(
    name: str,
    label: str,
    *,
    of: tuple[str, ...],
    over: tuple[str, ...],
    note: str = "",
    better: Literal["lower", "higher"] = "lower",
) -> Figure:
    """A share of what was counted, which launches repeat; arguments as of :class:`Figure`. One per cent counts."""
    return Figure(name, label, Unit.RATIO, of=of, over=over, note=note, better=better, floor=0.01, varies=False)


class PartsChart(Struct, frozen=True):
    """The shares of counters in their sum."""

    title: str  #: of the chart
    part: str  #: what a counter is, such as ``"answer"``
    what: str  #: what is counted, such as ``"inputs"``
    parts: Mapping[str, str]  #: label of each counter; the last one is the rest, which the summary leaves out
    summary: str  #: end of the summary, after the share and ``of 400 inputs``
    optional: tuple[str, ...] = ()  #: counters that are left out if they are zero


class SizesChart(Struct, frozen=True):
    """How often each value of a histogram of whole numbers was observed."""

    title: str  #: of the chart
    histogram: str  #: its name
    what: str  #: what a value counts, such as ``"inputs"``
    group: str  #: what has the value, such as ``"batch"``
    when: str  #: what was observed, in the plural, such as ``"calls"``


class LevelChart(Struct, frozen=True):
    """A level over time."""

    title: str  #: of the chart
    level: str  #: name of the level
    what: str  #: what the level counts, such as ``"waiting"``


class Exported(Struct, frozen=True):
    """A metric of another server, by the fields of :class:`pytest_mlpatterns.serving.prometheus.Prometheus`."""

    field: str  # its name there
    into: str  # histogram or counter of the layer
    is_counter: bool = False  # whether it is a counter as it is; else it becomes a histogram
    whole: bool = False  # whether the values are whole numbers; else they are times
    total: str = ""  # counter of the sum, for servers without the histogram; empty: ``field`` itself
    times: str = ""  # counter of the observations that belongs to it; empty: only a histogram is read
    counts: tuple[str, ...] = ()  # counters of the layer for the sum and for the number of observations


class LayerKind(Struct, frozen=True):
    """The description of a kind of layer.

    Args:
        figures: metrics and values of the note, in the order of both.
        words: counters that the note has if they are not zero, and their text after the number.
        charts: charts of the page; times have one without a description.
        split: parts of the split of latencies that histograms of another server stand for.
        exported: what is read from another server.
        prometheus: names of the fields of ``exported`` in servers; the first that exists is read.
        paths: beginnings of the paths in this package whose functions are of the layer in a profile.
        stores: whether it answers from what it stored, so that a load that repeats its inputs makes it look better.
    """

    figures: tuple[Figure, ...] = ()
    words: Mapping[str, str] = {}
    charts: tuple[PartsChart | SizesChart | LevelChart, ...] = ()
    split: tuple[tuple[str, str], ...] = ()
    exported: tuple[Exported, ...] = ()
    prometheus: Mapping[str, tuple[str, ...]] = {}
    paths: tuple[str, ...] = ()
    stores: bool = False
