"""The classes of callers of a mix: the launches of one class, and which metrics a class has of its own. Pure.

The class of a request follows from its index. What the deployment used cannot be divided among classes, so a class has
no metrics of resources. Those of all requests together depend on the shares of the classes: where callers wait for
their answers, a faster class has more requests, and the median of all moves although no class got slower. So a
comparison of a mix judges its classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.metrics.definitions import LOCATIONS, METRICS
from pytest_mlpatterns.analysis.metrics.metric import Group, Metric
from pytest_mlpatterns.analysis.metrics.samples import take_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_mlpatterns.records.caller_classes import ClassRequests
    from pytest_mlpatterns.records.launch import Launch

__all__ = ["class_figures", "class_launch", "compared_in_classes"]

_OF_REQUESTS = (Group.LATENCY, Group.STREAMS)
"""Parts of a table whose metrics are of the requests alone."""
_PER_REQUEST = "cpu_per_request"
"""What all requests use on average, which depends on the shares of the classes."""


def class_launch(launch: Launch, of: ClassRequests) -> Launch:
    """A launch with the requests of one class alone, and without what the deployment used.

    Args:
        launch: of all classes.
        of: the class.
    """
    request = launch.samples.request
    rows = np.flatnonzero((request >= of.first) & (request < of.end))
    return replace(
        launch,
        samples=take_rows(launch.samples, rows),
        usage=None,
        stats=None,
        track=None,
        cold_start_ns=None,
        open_loop=not of.closed,
        rate_rps=of.rate_rps,
        first_failure=None,
        silence="",
        classes=(),
    )


def class_figures() -> list[Metric]:
    """The metrics that a class can have, those of means included."""
    return [metric for metric in (*METRICS.values(), *LOCATIONS.values()) if _is_of_requests(metric)]


def compared_in_classes(metrics: Iterable[Metric], classes: Mapping[str, bool]) -> tuple[Metric, ...]:
    """What a comparison of a mix judges: the metrics of requests in each class, the others of the whole.

    The rate of a class is judged if its callers wait for their answers, the CPU time per request if no callers do: then
    the schedules set the shares of the classes.

    Args:
        metrics: that a comparison of another load judges.
        classes: of the mix, and whether the callers of each wait for their answers.
    """
    metrics = tuple(metrics)
    whole = [
        metric
        for metric in metrics
        if not _is_of_requests(metric) and (metric.name != _PER_REQUEST or not any(classes.values()))
    ]
    own = [
        metric.of_callers(name)
        for metric in metrics
        if _is_of_requests(metric)
        for name, is_closed in classes.items()
        if is_closed or not metric.times
    ]
    return (*own, *whole)


def _is_of_requests(metric: Metric) -> bool:
    return metric.caller_class == "" and (metric.group in _OF_REQUESTS or bool(metric.times) or metric.sampled)
