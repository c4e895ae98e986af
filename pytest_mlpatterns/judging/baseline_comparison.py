"""One test compared with its stored baseline, which decides alone. It must not know pytest, nor which verdicts fail a
test. Also: ``judging/screen.py`` has what differs where the recorded code settles the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pytest_mlpatterns.analysis.health.machine import Excuse, busy_on_average, slower_excuse, taken_excuse
from pytest_mlpatterns.analysis.metrics.definitions import are_of_streams, standing_metrics
from pytest_mlpatterns.analysis.metrics.metric import AtNmrt, Nmrt, objective_of
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import CONFIRMING_LAUNCHES, SequentialPlan
from pytest_mlpatterns.analysis.verdicts.few_samples import foreseen_tails
from pytest_mlpatterns.analysis.verdicts.open_reasons import failed_together
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.errors import TooFewSamplesError
from pytest_mlpatterns.judging.compared_metrics import Choice, Chosen, ComparedMetric, is_asked_for, requests_for_tails
from pytest_mlpatterns.judging.dropped_launches import is_disturbed
from pytest_mlpatterns.judging.leaks import confirm_growths
from pytest_mlpatterns.judging.look import Look
from pytest_mlpatterns.judging.loop import Ruling, Want, ruling_of
from pytest_mlpatterns.judging.machine_doubts import left_open, unhidden
from pytest_mlpatterns.judging.metric_rules import (
    START,
    is_left_to_starts,
    judge_metrics,
    launches_for_tail,
)
from pytest_mlpatterns.records.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.basis import Basis

_SHOW_SPEED = 3  # Launches that show whether the machine is slower, since one of them may be disturbed at its end


class BaselineComparison:
    """Compares one test with its stored baseline entry; what the machine may explain stays open."""

    _most_launches: int | None = None  # that its looks count with; None for the test's own
    _checks_samples: bool = True  # whether a percentile is left out if the present has too few samples for an interval

    def __init__(self, basis: Basis) -> None:
        self._basis, self._experiment, self._measurement = basis, basis.experiment, basis.measurement
        self._entry = entry = basis.experiment.baseline.entry
        self._recorded = 0 if entry is None else sum(launch.requests for launch in entry.counts)

    def judge(self, choice: Choice) -> Sequence[Verdict]:
        """Compare the metrics of a choice with the baseline, and measure as much as that takes.

        A metric that one side only knows is left out; if the test requested it itself, that is a failure.
        """
        measurement = self._measurement
        measurement.runner.want_requests(requests_for_tails(choice(False), self._recorded))
        measurement.measure_at_least(1)
        if self._experiment.smoke:
            return ()
        measurement.require_valid()
        chosen = self.chosen(choice)
        self._basis.leave_out("file", chosen.left_out)
        asked = [one for one in chosen.compared if is_asked_for(one, self._experiment.settings)]
        for one in asked if self._experiment.baseline.mode is not BaselineMode.OFF else ():
            if isinstance(one.metric.kind, Nmrt | AtNmrt):
                known = measurement.metrics.launch_values(one.metric)
                if not known or measurement.metrics.only_at_least(one.metric):  # a decided assertion's is a bound
                    measurement.search(objective_of(one.metric))
        return () if self._entry is None else self._judged(chosen, asked)

    def _judged(self, chosen: Chosen, asked: Sequence[ComparedMetric]) -> Sequence[Verdict]:
        """The verdicts beside an entry, of which those of a search have to be ``asked`` for."""
        compared, growths, measurement = chosen.compared, chosen.growths, self._measurement
        verdicts = [*self._decide(chosen.together, beside=compared)] if chosen.together else []
        verdicts += confirm_growths(self._noted(growths).verdicts, growths, measurement.follow_growth)
        for one in compared:
            if one.metric.is_of_scaling:  # another pass takes longer than a whole test
                verdicts += self._ruled([one], "launch", 0).verdicts
            elif one.metric.of is None and (one in asked or not measurement.metrics.only_at_least(one.metric)):
                verdicts += self._decide([one], beside=[one])
        return self._together(verdicts) if verdicts else ()

    def _together(self, verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
        """The verdicts on all metrics, as they decide each other."""
        return failed_together(verdicts, busy_on_average(self._measurement.metrics.launches))

    def chosen(self, choice: Choice) -> Chosen:
        """The metrics of a choice as they are compared with the file."""
        now = self._measurement.metrics.streams
        before = now if self._entry is None else are_of_streams(self._entry.metrics)
        found = Chosen.of(choice, self._experiment.scatter, before=before, now=now)
        return replace(found, compared=[replace(one, tolerance=one.stored_tolerance) for one in found.compared])

    def _decide(self, compared: Sequence[ComparedMetric], *, beside: Sequence[ComparedMetric]) -> Sequence[Verdict]:
        """Measure until the changes of these metrics are decided. ``beside``: all that are compared."""
        measurement, metric = self._measurement, compared[0].metric
        wants: Want = "launch" if metric.of is not None else "search"
        for_tail, fewest = 0, measurement.confirming if wants == "launch" else 0

        def look() -> Ruling:
            nonlocal for_tail
            ruling, metrics = self._ruled(compared, wants, fewest), measurement.metrics
            is_enough = self._is_enough(compared, ruling.verdicts)
            done = len(metrics.launches)
            if not for_tail:  # by the first look
                for_tail = done if is_enough else self._launches_for_tail(beside)
            if done < for_tail or ruling.why_not is not None:
                return replace(ruling, wants=ruling.wants or "launch")
            return self._wanted(ruling, done, is_enough=is_enough)

        verdicts = measurement.rule(look, functools.partial(measurement.search, objective_of(metric))).verdicts
        return self._decided(verdicts, compared)

    def _is_enough(self, _compared: Sequence[ComparedMetric], _verdicts: Sequence[Verdict]) -> bool:
        """Whether a look ends the measurement although it does not decide."""
        return False

    def _wanted(self, ruling: Ruling, launches: int, *, is_enough: bool) -> Ruling:
        """What a look wants after this number of launches; ``is_enough``: whether it ends the measurement."""
        is_doubted = self._may_be_excused(ruling.verdicts) and self._slower is not None
        return rule_alone(ruling, launches, starts=len(self._measurement.metrics.starts_ns), is_doubted=is_doubted)

    def _decided(self, verdicts: Sequence[Verdict], compared: Sequence[ComparedMetric]) -> Sequence[Verdict]:
        """The verdicts at the end of a measurement, without what a slower or faster machine explains."""
        found = self.look(self._measurement.metrics)
        if not self._may_be_excused(verdicts):
            return unhidden(found, verdicts, compared)
        return left_open(found, verdicts, compared, excuse=self._slower)

    def _launches_for_tail(self, compared: Sequence[ComparedMetric]) -> int:
        """Launches after which the percentiles are known that the baseline entry can be compared by."""
        metrics = self._measurement.metrics
        named = [one.metric for one in compared]
        if foreseen := foreseen_tails(named, metrics, self._measurement.reachable_launches):
            self._experiment.driver.on_note(foreseen)
        needed = requests_for_tails(compared, self._recorded)
        return launches_for_tail(needed, metrics.requests, len(metrics.launches))

    def _may_be_excused(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether one of them failed, and ``noise="trust"`` does not forbid that the machine excuses it."""
        is_trusted = self._experiment.settings.noise is NoisePolicy.TRUST
        return not is_trusted and any(verdict.outcome is Outcome.FAIL for verdict in verdicts)

    @property
    def _slower(self) -> Excuse | None:
        """What shows that the machine is slower than at the recording."""
        launches, entry = self._measurement.metrics.launches, self._entry
        return None if entry is None else slower_excuse(launches, entry.sorting_ns)

    def _ruled(self, compared: Sequence[ComparedMetric], wants: Want, fewest: int) -> Ruling:
        """What one look comes to."""
        self._measurement.require_valid()
        found = self._noted(compared)
        if found.why_not is not None:
            return replace(found, wants=wants, fewest=fewest)
        verdicts = self._discounted(found.verdicts, compared)
        return ruling_of(verdicts, wants, is_confirmed=self._measurement.is_confirmed, fewest=fewest)

    def _discounted(self, verdicts: Sequence[Verdict], compared: Sequence[ComparedMetric]) -> Sequence[Verdict]:
        """The verdicts of one look, with every failure left open that other processes explain."""
        if not self._may_be_excused(verdicts):
            return verdicts
        launches = self._measurement.metrics.launches
        look = self.look(self._measurement.metrics)
        excuse = taken_excuse(launches, look.entry.taken)
        if excuse is not None:
            excuse = replace(excuse, why=f"{excuse.why}, which explains {excuse.times:.2f} times")
        return left_open(
            look, verdicts, compared, excuse=excuse, quiet=[one for one in launches if not is_disturbed(one)]
        )

    def _noted(self, compared: Sequence[ComparedMetric]) -> Ruling:
        """What one look at everything finds; notes why the other metrics have no verdict."""
        look = replace(self.look(self._measurement.metrics), checks_samples=self._checks_samples)
        found = judge_metrics(compared, look)
        for one in compared:
            error = found.left_out.get(one.metric.name)
            # a primary metric is worth another launch: a service that became slow has few requests
            is_worth_it = not one.is_guard and self._measurement.may_launch_again(CONFIRMING_LAUNCHES)
            if isinstance(error, TooFewSamplesError) and (one.requested or is_worth_it):
                return replace(found, why_not=error)
        self._basis.judged("file", found, compared, look=look)
        return found

    def look(self, present: Metrics) -> Look:
        """What decides these launches beside the entry."""
        assert self._entry is not None
        most = self._experiment.settings.launches  # a look that never happens would waste its share of the error
        looks = SequentialPlan(first=1, last=min(self._most_launches or most, most))
        setup, stands = self._experiment.setup, standing_metrics(overloads=self._experiment.settings.overload)
        return Look(present, self._entry, looks, setup.load.in_flight, str(setup.pattern), stands=stands)


def rule_alone(ruling: Ruling, launches: int, *, starts: int, is_doubted: bool) -> Ruling:
    """What the file wants if it decides alone.

    Starts without a load decide a start that alone is open. Further launches show whether the machine is slower.

    ``starts``: those without a load so far. ``is_doubted``: whether a slower machine may explain a failure.
    """
    if is_left_to_starts(ruling.verdicts):
        return replace(ruling, wants="start", fewest=0)
    if starts and {one.metric for one in ruling.verdicts if one.outcome is Outcome.FAIL} == {START}:
        return replace(ruling, wants=None)
    may_show = is_doubted and ruling.wants is None and launches < _SHOW_SPEED
    return replace(ruling, wants="launch") if may_show else ruling
