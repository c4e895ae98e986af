"""New entries of the baseline file: anchors, drift, and what got worse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import metric_named
from pytest_mlpatterns.analysis.verdicts import judge_change
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.verdict import Verdict


_DRIFTS = ("rtm", "throughput")


def _is_worse(verdict: Verdict, tolerance: float) -> bool:
    """Worse beyond the tolerance, as it was measured, and surely worse at all."""
    change = verdict.change
    small = verdict.outcome is Outcome.PASS
    return change is not None and not small and change.value > tolerance and change.low > 0


def _judged(name: str, result: TestResult, old: Mapping[str, Sequence[LaunchValue]]) -> Verdict | None:
    """A metric of a result against what was recorded, at the test's tolerance; None where one side does not know it."""
    if name not in old or name not in result.launches:
        return None
    now = _values(result.launches[name])
    in_flight = result.setup.load.in_flight
    return judge_change(metric_named(name), now, old[name], result.tolerance, in_flight=in_flight)


def _values(launches: Sequence[tuple[float, float]]) -> tuple[LaunchValue, ...]:
    return tuple(LaunchValue(value, error) for value, error in launches)
