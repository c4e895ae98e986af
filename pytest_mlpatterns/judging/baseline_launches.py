"""The launches that a baseline is recorded from: more than a verdict needs, and quiet ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.baseline.record_rules import reasons_not_to_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["measure_for_the_baseline"]

_UPDATE_LAUNCHES = 8
"""Launches that a baseline is recorded from, since it is compared with many times: eight that differ by 1.7 % make it
known to ±1.7 %."""
_FEWEST_UPDATE_LAUNCHES = 3
_UPDATE_NS = 12_000_000_000
"""Time for these launches; beyond it there are fewer."""


def measure_for_the_baseline(
    measurement: SequentialMeasurement, result: Callable[[], TestResult | None], *, steady: bool
) -> None:
    """Measure what an update records; what should not be recorded is measured once more.

    Args:
        measurement: of one test; grows.
        result: the result of the test so far.
        steady: whether its load does not change.
    """
    measurement.measure_at_least(_UPDATE_LAUNCHES, within_ns=_UPDATE_NS)
    found = result()
    if found is not None and reasons_not_to_record(found):
        measurement.measure_again(_FEWEST_UPDATE_LAUNCHES, steady=steady)
