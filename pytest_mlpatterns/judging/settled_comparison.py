"""One test screened by its stored baseline, and settled by the revision that the baseline was recorded at.

The file is fast: a test that is clearly within its tolerance passes by it. Anything else is measured against the
recorded code, now and interleaved, and that verdict counts. The file adds what it saw: a metric that is worse on both
sides needs a reason, and two measurements that agree decide what one of them leaves open. This module must not know
pytest, nor how anything is measured or a revision found.
"""

from __future__ import annotations

import functools
from statistics import fmean, median
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.health.machine import (
    SLOWER,
    may_be_faster,
    ratio_of_means,
    sorting_times_ns,
    why_busy,
)
from pytest_mlpatterns.analysis.metrics.definitions import (
    STANDING,
    metric_named,
    standing_metrics,
    streams_first,
    with_role,
)
from pytest_mlpatterns.analysis.metrics.metric import Nmrt, Role
from pytest_mlpatterns.analysis.statistics.alpha_spending import REVISION_ALPHA
from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.errors import DeploymentError, GeneratorLimitError, InvalidResultError, SettingError
from pytest_mlpatterns.judging.baseline_comparison import BaselineComparison
from pytest_mlpatterns.judging.compared_metrics import Choice, ComparedMetric, Comparison, left_out_if_measured
from pytest_mlpatterns.judging.interleaved_verdicts import metrics_of
from pytest_mlpatterns.judging.machine_doubts import MachineSign, Today
from pytest_mlpatterns.records.verdict import LeftOut, OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.revision.commits import ShallowCloneError, UnknownRevisionError
from pytest_mlpatterns.units import format_percent
from pytest_mlpatterns.wording import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.analysis.metrics.metrics import Metrics
    from pytest_mlpatterns.judging.causes import Causes
    from pytest_mlpatterns.judging.experiment import Experiment, Settlement
    from pytest_mlpatterns.judging.revision_comparison import RevisionComparison
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun
    from pytest_mlpatterns.measurement.launch import LaunchRunner
    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.launch import Launch
    from pytest_mlpatterns.records.result_parts import BaselineGap, Reference
    from pytest_mlpatterns.records.setup import EnvironmentFacts, FactChange

_FEWEST_LAUNCHES = 3
"""Launches of the recorded code from which their median counts: one that was disturbed is not the median of three."""
_MOST_FACTS = 3  # Changed facts that a verdict names
_ELSEWHERE = LeftOut("needs an entry of this machine: --perf-baseline update")
"""Why what the recorded code cannot settle is not compared."""
_MAY_BE_FASTER = "this machine may be faster than when the baseline was recorded, which can hide a slower service"
"""What a reader has to know if the file decides on such a machine."""


def comparison_of(
    experiment: Experiment, measurement: SequentialMeasurement, *, runner: LaunchRunner, causes: Causes
) -> Comparison:
    """What compares a test: with a revision, with the baseline, or with the baseline and the code that it is of."""
    if experiment.revision is not None:
        from pytest_mlpatterns.judging.revision_comparison import RevisionComparison

        return RevisionComparison(experiment, experiment.revision, measurement, runner=runner, causes=causes)
    if experiment.settle is not None and experiment.settings.during is None:
        return SettledComparison(experiment, measurement, runner=runner, causes=causes)
    return BaselineComparison(experiment, measurement)


class SettledComparison:
    """Compares one test with its stored baseline, and with the recorded code where the file does not decide."""

    alpha: float = BaselineComparison.alpha
    kind: Literal["baseline", "revision"] = "baseline"

    def __init__(
        self, experiment: Experiment, measurement: SequentialMeasurement, *, runner: LaunchRunner, causes: Causes
    ) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._runner = runner
        self._causes = causes
        self._screen = BaselineComparison(experiment, measurement, is_settled=self._is_judged_by_the_code)
        self._standing = standing_metrics(overloads=experiment.settings.overload)
        self._settlement: Settlement | None = None
        self._revision: RevisionComparison | None = None
        self._is_settled = False
        self._settled: set[str] = set()
        self._searched: dict[str, LeftOut] = {}
        self._why_not = ""
        self.remedy: str = ""
        self._may_hide = False
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
    def left_out(self) -> Mapping[str, LeftOut]:
        """Why each metric was not compared, by its label."""
        found = {} if self._revision is None else self._revision.left_out
        known = {**self._screen.left_out, **found, **self._searched}
        return {label: why for label, why in known.items() if label not in self._settled}

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
            return "; ".join(filter(None, (self._screen.note, _MAY_BE_FASTER if self._may_hide else "", self._why_not)))
        details = self._experiment.baseline.details
        elsewhere = f"its entry is of another environment ({details})" if details else ""
        return "; ".join(filter(None, (self._calm, elsewhere)))

    @property
    def is_interleaved(self) -> bool:
        """Whether the recorded code was measured too."""
        return self._run is not None

    def facts_changed(self, now: EnvironmentFacts) -> tuple[FactChange, ...] | None:
        """What of the environment differs from that of the entry; see :meth:`Comparison.facts_changed`."""
        return self._screen.facts_changed(now)

    def judge(self, choice: Choice) -> Sequence[Verdict]:
        """Compare the metrics of a choice; see :meth:`Comparison.judge`."""
        if self._experiment.smoke or not (choice(False) or choice(True)):
            return self._screen.judge(choice)
        settled = self._screened_or_settled(_only(choice, settled=True))
        others = _only(choice, settled=False)
        if not (others(False) or others(True)) or self._causes.interrupted:
            return settled
        if self._experiment.baseline.entry is None and self._is_settled:
            metrics = self._measurement.metrics
            self._searched |= left_out_if_measured(others(metrics.streams), metrics, _ELSEWHERE)
        return [*settled, *self._screen.judge(others)]

    def _screened_or_settled(self, choice: Choice) -> Sequence[Verdict]:
        """The verdicts of the file if it decides, else of the recorded code if it can be measured, else of the file."""
        try:
            seen = {verdict.metric: verdict for verdict in self._screen.screen(choice)}
        except GeneratorLimitError:
            if not self._experiment.plan.schedule.closed:
                raise  # the load was not sustained, which the short blocks of both revisions do not show
            seen = {}  # the machine is too busy for the file; both revisions may still be compared
        is_clear = bool(seen) and all(is_decided(verdict, self._standing) for verdict in seen.values())
        if is_clear and not self._is_faster():
            return [*seen.values()]
        settled = self._settle(choice, seen)
        if settled is None and is_clear:  # the only doubt is a machine that may be faster
            self._may_hide = True
            return [*seen.values()]
        return self._screen.judge(choice) if settled is None else settled

    def _settle(self, choice: Choice, seen: Mapping[str, Verdict]) -> Sequence[Verdict] | None:
        """The verdicts of the recorded code; None if it cannot be measured, and notes why."""
        if self._why_not:
            return None
        stands = {name for name, one in seen.items() if name in self._standing and is_decided(one, self._standing)}
        rest = _settled(choice, stands, self._surely_worse(seen))
        if not (rest(False) or rest(True)):
            return [*seen.values()]
        try:
            verdicts = self._by_the_recorded_code(rest)
        except (UnknownRevisionError, SettingError, InvalidResultError) as error:
            if isinstance(error, InvalidResultError) and error.side not in ("", self._found().name):
                raise  # the present fails
            self._why_not = f"not settled by the recorded revision: {error}"
            self.remedy = str(error) if isinstance(error, ShallowCloneError) else ""
            return None
        return self._merged(seen, verdicts)

    def _by_the_recorded_code(self, choice: Choice) -> Sequence[Verdict]:
        """The verdicts by the recorded code; none if the present is that code."""
        settlement = self._found()
        if settlement.revision is None:
            if settlement.note and self._experiment.baseline.entry is not None:
                raise UnknownRevisionError(f"{settlement.name} is the commit that brought the entry, {settlement.note}")
            return ()
        if self._revision is None:
            from pytest_mlpatterns.judging.revision_comparison import RevisionComparison

            self._revision = RevisionComparison(
                self._experiment,
                settlement.revision,
                self._measurement,
                runner=self._runner,
                causes=self._causes,
                name=settlement.name,
            )
        try:
            verdicts = self._revision.compare(choice)
        except DeploymentError as error:
            if error.names(settlement.name):
                raise UnknownRevisionError(str(error)) from error
            raise
        if self._revision.missing:
            raise UnknownRevisionError(self._revision.missing)
        return verdicts

    def _surely_worse(self, seen: Mapping[str, Verdict]) -> set[str]:
        """What the file saw beyond its tolerance, on a machine that is as quick and as quiet as at the recording."""
        entry, so_far = self._experiment.baseline.entry, self._measurement.so_far
        if entry is None or so_far is None or self._busy():
            return set()
        ratio = ratio_of_means(sorting_times_ns(so_far.launches), entry.sorting_ns)
        if ratio is None or ratio >= SLOWER:
            return set()
        return {name for name, one in seen.items() if one.outcome is Outcome.FAIL or one.suspected}

    def _is_judged_by_the_code(self) -> bool:
        """Whether other code was recorded, and nothing else has changed: a package has to fail by the file itself."""
        try:
            return self._found().revision is not None and not self._changed_facts()
        except (UnknownRevisionError, SettingError):
            return False

    def _found(self) -> Settlement:
        assert self._experiment.settle is not None
        if self._settlement is None:
            self._settlement = self._experiment.settle()
        return self._settlement

    def _merged(self, seen: Mapping[str, Verdict], settled: Sequence[Verdict]) -> Sequence[Verdict]:
        """The verdict on each metric, of the recorded code and of the file; and the line that names what decided."""
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
            standing=self._standing,
            busy=self._busy(),
        )
        verdicts = both.merged(settled)
        self._is_settled = True
        self._settled |= {metric_named(verdict.metric).label for verdict in settled}
        self._calm = ": ".join(filter(None, (both.calm(verdicts), f"settled by {name}"))) + (note and f", {note}")
        return verdicts

    @property
    def _run(self) -> InterleavedRun | None:
        """What measures both sides; None if the file decides so far."""
        return None if self._revision is None else self._revision.run

    def _is_faster(self) -> bool:
        """Whether the same work takes less time than when the entry was recorded, or may do: a faster machine."""
        entry = self._experiment.baseline.entry
        if entry is None:
            return True
        return may_be_faster(sorting_times_ns(self._measurement.metrics.launches), entry.sorting_ns)

    def _launches(self) -> list[Launch]:
        """Those of both sides that were measured beside each other; none if the file decides so far."""
        run = self._run
        return [] if run is None else [*run.first_launches, *run.second_launches]

    def _busy(self) -> str:
        so_far = self._measurement.so_far
        return why_busy([*(() if so_far is None else so_far.launches), *self._launches()]) or ""

    def _sign(self) -> MachineSign | None:
        entry = self._experiment.baseline.entry
        so_far = self._measurement.so_far
        if entry is None or so_far is None or self._experiment.settings.noise is NoisePolicy.TRUST:
            return None
        return MachineSign(entry, so_far.launches, self._launches(), self._standing)

    def _today(self) -> Today | None:
        """By how much the recorded code is worse than its entry in its launches; None if these are too few."""
        entry = self._experiment.baseline.entry
        run = self._run
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
    """How much worse the recorded code is than its entry, by the medians of launches; None if that is not known.

    Failures are rare, so that their shares are compared by their means, and by the difference as everywhere.
    """
    metric = metric_named(name)
    then = [launch.value for launch in entry.metrics.get(name, ())]
    now = [launch.value for launch in recorded.launch_values(metric)]
    if not now or not then:
        return None
    if metric.counts_failures:
        return fmean(now) - fmean(then)
    if not (before := median(then)):
        return None
    change = median(now) / before - 1
    return change if metric.better == "lower" else -change


def _only(choice: Choice, *, settled: bool) -> Choice:
    """The metrics of a choice that the recorded code can settle, or the others."""
    return lambda streams: [
        one for one in choice(streams) if (one.metric.of is not None or one.metric.kind == Nmrt()) is settled
    ]


def _settled(choice: Choice, stands: set[str], worse: set[str]) -> Choice:
    """The metrics that the recorded code settles, at the level of a comparison with a revision.

    What the file saw ``worse`` rests on fewer pairs: its entry knows many starts, of either way that they settle in.

    The CPU time, the guard whose looks share a level, has that of one of two primary metrics: at a fifth of it, 6 % of
    services with 15 % more work stayed open. An unchanged one is a whole tolerance away from an alarm.
    """
    factor = REVISION_ALPHA / BaselineComparison.alpha
    guarded = REVISION_ALPHA / 2

    def settled(streams: bool) -> Sequence[ComparedMetric]:
        return [
            replace(
                one,
                alpha=guarded if one.is_guard else one.alpha * factor,
                # a search has to be asked for; what is not known is the file's to judge
                requested=isinstance(one.metric.kind, Nmrt),
                seen_worse=one.metric.name in worse,
            )
            for one in choice(streams)
            if one.metric.name not in stands
        ]

    return settled


def is_decided(screened: Verdict, standing: frozenset[str] = STANDING) -> bool:
    """Whether the file alone decides: the metric passes, or it fails and is one of those that no machine changes."""
    if screened.outcome is Outcome.FAIL:
        return screened.metric in standing
    return screened.outcome is Outcome.PASS


class SettledVerdicts(Struct, frozen=True):
    """What one look at the file shows, and what is known beside it."""

    name: str  # of the recorded code in messages
    is_present: bool  # whether the present code is the recorded code, which was then not measured again
    seen: Mapping[str, Verdict]  # the verdicts by the file, by metric
    sign: MachineSign | None = None  # what the machine explains; None if nothing is to be explained by it
    is_faster: bool = False  # whether the machine is faster than when the baseline was recorded
    facts: str = ""  # what of the environment a person changed since then, in words; empty if nothing
    # how much worse than its entry the recorded code is now, by metric, each None if that is not known; None if
    # none is
    today: Today | None = None
    standing: frozenset[str] = STANDING  # names of the metrics that no machine changes
    busy: str = ""  # what others took of the machine meanwhile, on either side; empty if nothing

    def merged(self, settled: Sequence[Verdict]) -> list[Verdict]:
        """The verdict on each metric."""
        judged = {verdict.metric: verdict for verdict in settled}
        return [
            self._of_both(self.seen[name], judged[name])
            if name in self.seen and name in judged
            else judged.get(name) or self._of_the_file(self.seen[name])
            for name in {**self.seen, **judged}
        ]

    def calm(self, verdicts: Sequence[Verdict]) -> str:
        """How much slower the machine is, if that is why the file decided nothing; empty otherwise."""
        worse = next((self.seen[name] for name in streams_first(with_role(Role.LEADING)) if self._is_worse(name)), None)
        passes = all(verdict.outcome is Outcome.PASS for verdict in verdicts)
        if not passes or worse is None or worse.change is None or not (why := self._explanation(worse, self._later)):
            return ""
        later = self._later(worse.metric)
        times = 1 + (worse.change.value if later is None else min(worse.change.value, later))
        return (
            f"this machine takes {times:.1f} times as long as when the baseline was recorded ({why}); the code does not"
        )

    def _of_the_file(self, screened: Verdict) -> Verdict:
        """The verdict on a metric that only the file knows, or that needs no more."""
        if is_decided(screened, self.standing):
            return screened
        if not self.is_present:
            why = self._explanation(screened) if screened.outcome is Outcome.FAIL else ""
            if not why:
                return screened
            return screened.left_open(WhyOpen(OpenBy.MACHINE, why), f"but {why}")
        return self._shared(screened) if self._is_worse(screened.metric) else replace(screened, outcome=Outcome.PASS)

    def _of_both(self, screened: Verdict, judged: Verdict) -> Verdict:
        is_worse = self._is_worse(screened.metric)
        if judged.outcome is Outcome.PASS:
            return self._shared(screened) if is_worse and not self._has_passed(screened) else judged
        if judged.outcome is Outcome.INCONCLUSIVE:
            if screened.outcome is Outcome.PASS and not judged.suspected and not self.is_faster:
                return screened
            is_sure = judged.suspected and judged.change is not None and judged.change.low > 0
            if screened.outcome is Outcome.FAIL and is_sure and not self._explanation(screened):
                judged = replace(judged, outcome=Outcome.FAIL)  # two measurements agree, and no machine explains them
        return replace(judged, reason=f"{judged.reason}; by the file: {_short(screened)}") if is_worse else judged

    def _shared(self, screened: Verdict) -> Verdict:
        """The verdict on a metric that is worse than the entry, and no worse than the recorded code today."""
        who = "with the code that was recorded" if self.is_present else f"and so is {self.name} today"
        said = f"{_short(screened)}, {who}"
        if why := self._explanation(screened, self._later):  # the first launches may have been disturbed besides
            return replace(screened, outcome=Outcome.PASS, reason=f"{said}: {why}")
        if self.facts and screened.outcome is Outcome.FAIL:
            reason = f"{said}: not the code, but {self.facts} changed since the baseline was recorded"
            return replace(screened, outcome=Outcome.FAIL, reason=f"{reason}; if that is intended, record it anew")
        if self.busy and screened.metric not in self.standing:
            open_by = WhyOpen(OpenBy.MACHINE, f"{who}: not the code, and {self.busy} meanwhile")
        else:
            sign = "" if self.busy else ", and no sign of the machine explains it"
            open_by = WhyOpen(OpenBy.UNEXPLAINED, f"{who}: not the code{sign}")
        return replace(screened.left_open(open_by), reason=f"{_short(screened)}, {open_by}")

    def _has_passed(self, screened: Verdict) -> bool:
        """Whether the recorded code is today as it was, so that what slowed the first launches down has passed."""
        change = self._later(screened.metric)
        return change is not None and screened.tolerance is not None and change <= screened.tolerance

    def _later(self, metric: str) -> float | None:
        """By how much the recorded code is worse than its entry in these minutes; None if that is not known."""
        return None if self.today is None else self.today(metric)

    def _explanation(self, screened: Verdict, today: Today | None = None) -> str:
        """What of the machine explains what the file saw, or what is left of it today; empty if nothing does."""
        return "" if self.sign is None else self.sign.explains(screened, list(self.seen.values()), today)

    def _is_worse(self, metric: str) -> bool:
        """Whether the file saw the metric worse than its tolerance, surely or by its estimate."""
        screened = self.seen.get(metric)
        return screened is not None and (screened.outcome is Outcome.FAIL or screened.suspected)


def _short(screened: Verdict) -> str:
    """What the file saw, in short: ``RTM 1.45 ms → 1.85 ms, 27 % worse than the baseline``."""
    metric, then, now = metric_named(screened.figure), screened.reference_value, screened.present_value
    figures = "" if then is None or now is None else f" {metric.show(then)} → {metric.show(now)},"
    worse = "" if screened.change is None else f" {format_percent(abs(screened.change.value))}"
    return f"{metric.label}{figures}{worse} worse than the baseline"
