"""Remembers what the package computes of a launch anew after each further launch, so that a world is judged faster.

A launch does not change, so neither do its figures; the verdicts are the same with and without this module.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.analysis.metrics import blocked_values
from pytest_mlpatterns.analysis.metrics import metrics as known_metrics
from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_mlpatterns.records.launch import Launch


@contextmanager
def remembered() -> Iterator[None]:
    """Cut each launch into blocks once, and compute each of its percentiles once."""
    known: dict[int, tuple[Launch, LaunchBlocks]] = {}

    def blocks_of(launch: Launch, price: Any = None) -> LaunchBlocks:
        if id(launch) not in known:
            known[id(launch)] = launch, LaunchBlocks(launch, price)
        return known[id(launch)][1]

    values: Any = blocked_values.BlockedValues
    of_metrics: Any = known_metrics
    before = of_metrics.LaunchBlocks, values.percentile, values.location
    of_metrics.LaunchBlocks = blocks_of
    values.percentile, values.location = _once(values.percentile), _once(values.location)
    try:
        yield
    finally:
        of_metrics.LaunchBlocks, values.percentile, values.location = before


def _once(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, which remembers what it gave for these arguments."""

    def again(self: Any, *arguments: Any) -> Any:
        known = self.__dict__.setdefault(f"known_{method.__name__}", {})
        if arguments not in known:
            known[arguments] = method(self, *arguments)
        return known[arguments]

    return again
