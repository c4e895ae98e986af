"""The launches that a baseline is recorded from: more than a verdict needs, and quiet ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.baseline.record_rules import is_narrow, may_be_of_two_kinds, reasons_not_to_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["announcement", "measure_for_the_baseline"]

_UPDATE_LAUNCHES = 8
"""Launches that a baseline is recorded from, since it is compared with many times: eight that differ by 1.7 % make it
known to ±1.7 %."""
_LAUNCHES_OF_TWO_KINDS = 12
"""The same where launches settle in one of two ways: chance leaves each of them three of twelve in nearly all runs."""
_FEWEST_UPDATE_LAUNCHES = 3
_UPDATE_NS = 12_000_000_000
"""Time for these launches; beyond it there are fewer, if they make the entry narrow enough."""
_UPDATE_BUDGETS = 2
"""Budgets of the test that an update may take for an entry that is still wide: the default of 30 s twice is time for
eight launches of a service that answers four times a second, of which a comparison measures four."""


def announcement(budget: object) -> str:
    """What an update takes, for the line at the start of the run; with the budget of a test as it was given."""
    return f"records up to {_UPDATE_LAUNCHES} launches of a test, up to twice its budget of {budget}"


def measure_for_the_baseline(
    measurement: SequentialMeasurement, result: Callable[[], TestResult | None], *, steady: bool
) -> None:
    """Measure what an update records; what should not be recorded is measured once more.

    Args:
        measurement: of one test; grows.
        result: the result of the test so far.
        steady: whether its load does not change.
    """

    def is_wide() -> bool:
        found = result()
        return found is not None and not is_narrow(found)

    measurement.measure_at_least(_UPDATE_LAUNCHES, within_ns=_UPDATE_NS)

    def lacks_a_kind() -> bool:
        found = result()
        return found is not None and may_be_of_two_kinds(found)

    measurement.measure_while(is_wide, _UPDATE_LAUNCHES, _UPDATE_BUDGETS)
    measurement.measure_while(lacks_a_kind, _LAUNCHES_OF_TWO_KINDS, _UPDATE_BUDGETS)
    found = result()
    if found is not None and reasons_not_to_record(found):
        measurement.measure_again(_FEWEST_UPDATE_LAUNCHES, steady=steady)
