"""One test screened by its stored baseline, and settled by the revision that the baseline was recorded at.

The file is fast: a test that is clearly within its tolerance passes by it. Anything else is measured against the
recorded code, now and interleaved, and that verdict counts. It must not know pytest, nor how a revision is found.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Literal

from pytest_mlpatterns.analysis.machine_speed import ratio_of_sorting, sorting_times_ns
from pytest_mlpatterns.analysis.metric_definitions import NOT_OF_THE_MACHINE, metric_named
from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.errors import DeploymentError, GeneratorLimitError, InvalidResultError, SettingError
from pytest_mlpatterns.judging.baseline_comparison import BaselineComparison
from pytest_mlpatterns.judging.interleaved_verdicts import metrics_of
from pytest_mlpatterns.judging.machine_sign import MachineSign
from pytest_mlpatterns.judging.revision_comparison import RevisionComparison
from pytest_mlpatterns.judging.settled_verdicts import SettledVerdicts, is_decided
from pytest_mlpatterns.revision.recorded import UnknownRevisionError
from pytest_mlpatterns.wording import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.analysis.metrics import Metrics
    from pytest_mlpatterns.judging.baseline_comparison import Comparison
    from pytest_mlpatterns.judging.compared_metrics import Choice, ComparedMetric
    from pytest_mlpatterns.judging.experiment import Experiment, Settlement
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.launch import LaunchRunner
    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.environment_facts import EnvironmentFacts, FactChange
    from pytest_mlpatterns.records.result import BaselineGap, Reference
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["SettledComparison", "comparison_of"]

_FASTER = 0.95
"""Ratio of the fixed work's time to that of the recording below which the machine counts as faster, which would hide a
slower service. A change of 20 % passes the file only below 0.9. With launches that differ by 3 %, twice what was seen,
a machine that stays the same is below in one of fifty runs; such a run takes the time of a settling."""
_FEWEST_LAUNCHES = 3
"""Launches of the recorded code from which their median counts: one that was disturbed is not the median of three."""
_MOST_FACTS = 3
"""Changed facts that a verdict names."""


def comparison_of(experiment: Experiment, measurement: SequentialMeasurement, runner: LaunchRunner) -> Comparison:
    """What compares a test: with a revision, with the baseline, or with the baseline and the code that it is of.

    Args:
        experiment: what is measured, and what it is compared with.
        measurement: what was measured so far.
        runner: runs the test's deployment.
    """
    if experiment.revision is not None:
        return RevisionComparison(experiment, experiment.revision, measurement, runner=runner)
    if experiment.settle is not None:
        return SettledComparison(experiment, measurement, runner=runner)
    return BaselineComparison(experiment, measurement)


class SettledComparison:
    """Compares one test with its stored baseline, and with the recorded code where the file does not decide.

    Args:
        experiment: what is measured, and its baseline; knows how to find the recorded code.
        measurement: what was measured so far; grows as verdicts need it.
        runner: runs the test's deployment, which is closed before both revisions are started.
    """

    alpha: float = BaselineComparison.alpha
    kind: Literal["baseline", "revision"] = "baseline"

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement, *, runner: LaunchRunner) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._runner = runner
        self._screen = BaselineComparison(experiment, measurement)
        self._settlement: Settlement | None = None
        self._revision: RevisionComparison | None = None
        self._is_settled = False
        self._settled: set[str] = set()
        self._why_not = ""
        self._calm = ""

    @property
    def reference(self) -> Reference | None:
        """The recorded code's figures if it was measured, else the baseline entry's; None without both."""
        found = None if self._revision is None else self._revision.reference
        return self._screen.reference if found is None else replace(found, entry=self._experiment.baseline.name)

    @property
    def missing(self) -> str:
        """Why nothing was compared; empty if something was."""
        return "" if self._is_settled else self._screen.missing

    @property
    def left_out(self) -> Mapping[str, str]:
        """Why each metric was not compared, by its label."""
        found = {} if self._revision is None else self._revision.left_out
        return {label: why for label, why in {**self._screen.left_out, **found}.items() if label not in self._settled}

    @property
    def gap(self) -> BaselineGap | None:
        """Why there is no comparable baseline; None if there is one, or if the recorded code was compared with."""
        return None if self._is_settled else self._screen.gap

    @property
    def note(self) -> str:
        """What a reader of the comparison has to know; empty if there is nothing."""
        if self._experiment.smoke:
            return ""
        if not self._is_settled:
            return "; ".join(filter(None, (self._screen.note, self._why_not)))
        details = self._experiment.baseline.details
        elsewhere = f"its entry is of another environment ({details})" if details else ""
        return "; ".join(filter(None, (self._calm, elsewhere)))

    @property
    def is_interleaved(self) -> bool:
        """Whether the recorded code was measured too."""
        return self._revision is not None and self._revision.run is not None

    def facts_changed(self, now: EnvironmentFacts) -> tuple[FactChange, ...] | None:
        """What of the environment differs from that of the entry; see :meth:`Comparison.facts_changed`."""
        return self._screen.facts_changed(now)

    def judge(self, choice: Choice) -> Sequence[Verdict]:
        """Compare the metrics of a choice; see :meth:`Comparison.judge`."""
        if self._experiment.smoke or not (choice(False) or choice(True)):
            return self._screen.judge(choice)
        settled = self._screened_or_settled(_only(choice, settled=True))
        return [*settled, *(self._screen.judge(_only(choice, settled=False)) if _has_others(choice) else ())]

    def _screened_or_settled(self, choice: Choice) -> Sequence[Verdict]:
        """The verdicts of the file if it decides, else of the recorded code if it can be measured, else of the file."""
        try:
            seen = {verdict.metric: verdict for verdict in self._screen.screen(choice)}
        except GeneratorLimitError:
            if not self._experiment.plan.schedule.closed:
                raise  # the load was not sustained, which the short blocks of both revisions do not show
            seen = {}  # the machine is too busy for the file; both revisions may still be compared
        is_clear = bool(seen) and all(is_decided(verdict) for verdict in seen.values())
        if is_clear and not self._is_faster():
            return [*seen.values()]
        settled = self._settle(choice, seen)
        if settled is None and is_clear:  # nothing speaks against it but a machine that may be faster
            self._why_not = ""
            return [*seen.values()]
        return self._screen.judge(choice) if settled is None else settled

    def _settle(self, choice: Choice, seen: Mapping[str, Verdict]) -> Sequence[Verdict] | None:
        """The verdicts of the recorded code; None if it cannot be measured, and notes why."""
        if self._why_not:
            return None
        stands = {name for name, verdict in seen.items() if name in NOT_OF_THE_MACHINE and is_decided(verdict)}
        rest = _settled(choice, stands)
        if not (rest(False) or rest(True)):
            return [*seen.values()]
        try:
            verdicts = self._by_the_recorded_code(rest)
        except (UnknownRevisionError, SettingError, InvalidResultError) as error:
            self._why_not = f"not settled by the recorded revision: {error}"
            return None
        return self._merged(seen, verdicts)

    def _by_the_recorded_code(self, choice: Choice) -> Sequence[Verdict]:
        """The verdicts by the recorded code; none if the present is that code.

        Raises:
            UnknownRevisionError: it is not known, or cannot be measured.
            SettingError: the load is longer than the budget allows.
            InvalidResultError: a side gives no measurement, such as a load that the generator could not send.
            DeploymentError: the present fails.
        """
        settlement = self._found()
        if settlement.revision is None:
            if settlement.note and self._experiment.baseline.entry is not None:
                raise UnknownRevisionError(f"{settlement.name} is the commit that brought the entry, {settlement.note}")
            return ()
        if self._revision is None:
            self._revision = RevisionComparison(
                self._experiment, settlement.revision, self._measurement, runner=self._runner, name=settlement.name
            )
        try:
            verdicts = self._revision.compare(choice)
        except DeploymentError as error:
            if settlement.name in str(error):
                raise UnknownRevisionError(str(error)) from error
            raise
        if self._revision.missing:
            raise UnknownRevisionError(self._revision.missing)
        return verdicts

    def _found(self) -> Settlement:
        assert self._experiment.settle is not None
        if self._settlement is None:
            self._settlement = self._experiment.settle()
        return self._settlement

    def _merged(self, seen: Mapping[str, Verdict], settled: Sequence[Verdict]) -> Sequence[Verdict]:
        """The verdict on each metric, of the recorded code and of the file; and the line that says what decided."""
        assert self._settlement is not None
        name, note = self._settlement.name, self._settlement.note
        is_present = self._settlement.revision is None
        both = SettledVerdicts(
            name,
            is_present,
            seen,
            sign=self._sign(),
            is_faster=self._is_faster(),
            facts=self._changed_facts(),
            today=self._today(),
        )
        verdicts = both.merged(settled)
        self._is_settled = True
        self._settled |= {metric_named(verdict.metric).label for verdict in settled}
        self._calm = ": ".join(filter(None, (both.calm(verdicts), f"settled by {name}"))) + (note and f", {note}")
        return verdicts

    def _is_faster(self) -> bool:
        """Whether the same work takes less than when the entry was recorded, so that the machine is faster."""
        entry = self._experiment.baseline.entry
        if entry is None:
            return True
        launches = self._measurement.metrics.launches
        ratio = ratio_of_sorting(sorting_times_ns(launches), entry.sorting_ns)
        return ratio is not None and ratio < _FASTER

    def _sign(self) -> MachineSign | None:
        entry = self._experiment.baseline.entry
        so_far = self._measurement.so_far
        if entry is None or so_far is None or self._experiment.settings.noise is NoisePolicy.TRUST:
            return None
        return MachineSign(entry, so_far.launches)

    def _today(self) -> Callable[[str], float | None] | None:
        """By how much the recorded code is worse than its entry in its launches; None if these are too few."""
        entry = self._experiment.baseline.entry
        run = None if self._revision is None else self._revision.run
        if entry is None or run is None or len(run.first_launches) < _FEWEST_LAUNCHES:
            return None
        return functools.partial(_worsening, entry, metrics_of(run)[0])

    def _changed_facts(self) -> str:
        so_far = self._measurement.so_far
        facts = next((one.facts for one in so_far.launches if one.facts), {}) if so_far is not None else {}
        changes = [str(one) for one in self._screen.facts_changed(facts) or () if one.may_be_intended]
        more = f" and {len(changes) - _MOST_FACTS} more" if len(changes) > _MOST_FACTS else ""
        return f"{', '.join(changes[:_MOST_FACTS])}{more}" if more else listed(changes)


def _worsening(entry: Entry, recorded: Metrics, name: str) -> float | None:
    """How much worse the recorded code is than its entry, by the medians of launches; None if that is not known."""
    metric, then = metric_named(name), entry.metrics.get(name, ())
    now = recorded.launch_values(metric)
    if not now or not then or not (before := median(launch.value for launch in then)):
        return None
    change = median(launch.value for launch in now) / before - 1
    return change if metric.better == "lower" else -change


def _can_be_settled(one: ComparedMetric) -> bool:
    """Whether an interleaved run gives the metric."""
    return one.metric.of is not None or (one.metric.is_nmrt and one.metric.objective is None)


def _has_others(choice: Choice) -> bool:
    return any(not _can_be_settled(one) for streams in (False, True) for one in choice(streams))


def _only(choice: Choice, *, settled: bool) -> Choice:
    """The metrics of a choice that the recorded code can settle, or the others."""
    return lambda streams: [one for one in choice(streams) if _can_be_settled(one) is settled]


def _settled(choice: Choice, stands: set[str]) -> Choice:
    """The metrics that the recorded code settles, at the level of a comparison with a revision.

    The CPU time, the guard whose looks share a level, has that of one of two primary metrics: at a fifth of it, 6 % of
    services with 15 % more work stayed open. An unchanged one is a whole tolerance away from an alarm.
    """
    factor = RevisionComparison.alpha / BaselineComparison.alpha
    guarded = RevisionComparison.alpha / 2

    def settled(streams: bool) -> Sequence[ComparedMetric]:
        return [
            replace(
                one,
                alpha=guarded if one.is_guard else one.alpha * factor,
                requested=one.metric.is_nmrt,  # a search has to be asked for; what is not known is the file's to judge
            )
            for one in choice(streams)
            if one.metric.name not in stands
        ]

    return settled
