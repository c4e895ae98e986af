"""An attribute of :class:`pytest_mlpatterns.analysis.metrics.metrics.Metrics` that is a metric over all launches."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Protocol

from pytest_mlpatterns.analysis.metrics.definitions import METRICS

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.metrics.metric import Metric
    from pytest_mlpatterns.records.launch import Estimate


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
        self.__doc__ = inspect.cleandoc(doc)  # else it is that of this class

    if TYPE_CHECKING:

        def __get__(self, metrics: object, owner: type | None = None, /) -> Estimate | None: ...  # type: ignore[override]
