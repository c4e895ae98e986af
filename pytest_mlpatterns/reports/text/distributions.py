"""The distribution of a time of the requests, beside that of what a test was compared with. Pure.

The time is the latency, or what streams have: TTFT, ITL, TPOT. The terminal and the HTML report draw the same values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import stream_metric

if TYPE_CHECKING:
    from pytest_mlpatterns.records.latency import Latency, Percentiles
    from pytest_mlpatterns.records.result import Reference, TestResult

__all__ = ["LATENCY", "Distributions", "distributions_of"]

LATENCY = "latency"
"""The time of the whole answer."""
_MEASURED = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Distributions:
    """One time of the requests of a test.

    Attributes:
        own: of the test; None if no request has it.
        other: percentiles of the reference; empty if its distribution is unknown.
        beside: percentiles of the present, measured together with the reference; empty if it was not.
        other_points: percentiles that are known of the reference, of which there may be three without the others.
    """

    own: Latency | None
    other: Percentiles
    beside: Percentiles
    other_points: Percentiles

    @property
    def present(self) -> Percentiles:
        """Percentiles of the present, from the same measurement as those of the reference."""
        own = () if self.own is None else self.own.percentiles
        return self.beside if self.other and self.beside else own


def distributions_of(result: TestResult, quantity: str = LATENCY) -> Distributions:
    """The distribution of a time.

    Args:
        result: of one test.
        quantity: ``latency``, ``ttft``, ``itl`` or ``tpot``.
    """
    reference = result.reference
    if quantity == LATENCY:
        if reference is None:
            return Distributions(result.latency, (), (), ())
        other = reference.latency_percentiles
        return Distributions(result.latency, other, reference.present_latency_percentiles, other)
    own = None if result.stream is None else result.stream.of(quantity)
    if reference is None:
        return Distributions(own, (), (), ())
    other = reference.stream_percentiles.get(quantity, ())
    beside = reference.present_stream_percentiles.get(quantity, ())
    return Distributions(own, other, beside, other or _points(reference, quantity))


def _points(reference: Reference, quantity: str) -> Percentiles:
    """The percentiles that a baseline has as metrics."""
    names = {percent: stream_metric(quantity, percent).name for percent in _MEASURED}
    return tuple(
        (float(percent), reference.metrics[name][0]) for percent, name in names.items() if name in reference.metrics
    )
