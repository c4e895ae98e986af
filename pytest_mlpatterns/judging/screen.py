"""One test screened by its stored baseline: few launches and no excuses, since the recorded code settles the rest.

It must not know how the recorded code is found or measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pytest_mlpatterns.analysis.health.machine import why_busy
from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.analysis.metrics.metric import times_of
from pytest_mlpatterns.analysis.statistics.alpha_spending import FEWEST_PAIRS
from pytest_mlpatterns.judging.baseline_comparison import BaselineComparison
from pytest_mlpatterns.judging.compared_metrics import ComparedMetric
from pytest_mlpatterns.judging.loop import Ruling
from pytest_mlpatterns.records.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.basis import Basis

_SCREEN_LAUNCHES = 3
"""Launches after which a comparison that the revision can settle is no longer worth its time: a fourth narrows the
interval by an eighth, and the revision decides in the time of two."""


class Screen(BaselineComparison):
    """Compares one test with its stored baseline entry, as far as that is fast.

    A start is left to the recorded code, whose starts are paired.

    ``is_settled``: whether the recorded code decides what one launch shows beyond its tolerance. ``is_alone``: whether
    the working tree is the recorded code, so that only its own launches tell more.
    """

    _most_launches: int | None = _SCREEN_LAUNCHES
    _checks_samples: bool = False

    def __init__(self, basis: Basis, *, is_settled: Callable[[], bool], is_alone: Callable[[], bool]) -> None:
        super().__init__(basis)
        self._is_settled, self._is_alone = is_settled, is_alone

    def _together(self, verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
        return verdicts

    def _discounted(self, verdicts: Sequence[Verdict], compared: Sequence[ComparedMetric]) -> Sequence[Verdict]:
        closed = self._experiment.plan.schedule.closed
        return [*with_rates({verdict.metric: verdict for verdict in verdicts}).values()] if closed else verdicts

    def _decided(self, verdicts: Sequence[Verdict], compared: Sequence[ComparedMetric]) -> Sequence[Verdict]:
        return verdicts

    def _wanted(self, ruling: Ruling, launches: int, *, is_enough: bool) -> Ruling:
        if launches >= _SCREEN_LAUNCHES and rests_on_an_estimate(ruling.verdicts) and self._is_alone():
            self._most_launches = None
            return ruling
        return rule_screen(ruling, launches, is_enough=is_enough)

    def _is_enough(self, compared: Sequence[ComparedMetric], verdicts: Sequence[Verdict]) -> bool:
        """Whether a screen ends here, since the recorded code decides.

        It does if the budget has no time for another launch and the pairs, or if a primary metric is worse and no
        neighbour was busy, without whom it may be better.
        """
        budget, launch_ns = self._measurement.budget.planned, self._measurement.cost.launch_ns
        has_time = budget.allows((1 + FEWEST_PAIRS) * launch_ns)  # a pair takes about as long as a launch
        if has_time and why_busy(self._measurement.metrics.launches) is not None:
            return False
        primary = {one.metric.name for one in compared if not one.is_guard and one.metric.of is not None}
        is_worse = any(one.is_worse for one in verdicts if one.metric in primary)
        return (is_worse or not has_time) and self._is_settled()


def rule_screen(ruling: Ruling, launches: int, *, is_enough: bool) -> Ruling:
    """What a screen wants: nothing if the recorded code decides, and in any case after three launches."""
    return replace(ruling, wants=None) if is_enough or launches >= _SCREEN_LAUNCHES else ruling


def rests_on_an_estimate(verdicts: Sequence[Verdict]) -> bool:
    """Whether a metric is worse by its estimate alone, and none surely."""
    open_and_worse = any(one.outcome is Outcome.INCONCLUSIVE and one.is_worse for one in verdicts)
    return open_and_worse and not any(one.outcome is Outcome.FAIL for one in verdicts)


_SHARE = 0.5  # Share of its tolerance up to which the estimate of a rate shows no change


def with_rates(screened: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """The verdicts of the file on a closed loop, with the rates that its times decide.

    A rate scatters with every stall of the machine, so one disturbed launch of an entry leaves it open while the median
    of the times is known. If these are surely within their tolerance and the estimate of the rate within half of its
    own, the service is no slower. A tail that grew is seen by the guards.
    """
    found = dict(screened)
    for name, verdict in screened.items():
        times = [screened.get(time) for time in times_of(metric_named(verdict.metric))]
        if (
            times
            and verdict.outcome is Outcome.INCONCLUSIVE
            and verdict.change is not None
            and verdict.tolerance
            and verdict.change.value <= _SHARE * verdict.tolerance
            and all(one is not None and one.outcome is Outcome.PASS for one in times)
        ):
            said = verdict.saying("decided by the times that it follows from")
            found[name] = replace(said, outcome=Outcome.PASS)
    return found
