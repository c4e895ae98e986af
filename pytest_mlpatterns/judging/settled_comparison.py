"""One test screened by its stored baseline, and settled by the revision that the baseline was recorded at.

The file is fast: a test that is clearly within its tolerance passes by it. Anything else is measured against the
recorded code, now and interleaved, and that verdict counts. The file adds what it saw: a metric that is worse on both
sides needs a reason, and two measurements that agree decide what one of them leaves open. This module must not know
pytest, nor how anything is measured or a revision found. Also: ``judging/settling_rules.py`` has the rules by which a
metric passes, fails or stays open where the file and the recorded code disagree.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.health.machine import SLOWER, may_be_faster, ratio_of_means, sorting_times_ns, why_busy
from pytest_mlpatterns.analysis.metrics.definitions import metric_named, standing_metrics, streams_first, with_role
from pytest_mlpatterns.analysis.metrics.metric import Nmrt, Role
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import BASELINE_ALPHA, REVISION_ALPHA
from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.errors import DeploymentError, GeneratorLimitError, InvalidResultError, SettingError
from pytest_mlpatterns.judging.baseline_comparison import BaselineComparison
from pytest_mlpatterns.judging.compared_metrics import Choice, ComparedMetric, left_out_if_measured, only
from pytest_mlpatterns.judging.look import Pairs
from pytest_mlpatterns.judging.machine_doubts import change_in, doubt_of, excuses, explains
from pytest_mlpatterns.judging.metric_rules import judge_metrics
from pytest_mlpatterns.judging.screen import Screen
from pytest_mlpatterns.judging.settling_rules import EXCUSED, Decision, Seen, settle
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.setup import FactChange
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict
from pytest_mlpatterns.revision.commits import ShallowCloneError, UnknownRevisionError

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.basis import Basis
    from pytest_mlpatterns.judging.experiment import Settlement
    from pytest_mlpatterns.judging.revision_comparison import RevisionComparison

_FEWEST_LAUNCHES = 3
"""Launches of the recorded code from which their median counts: one that was disturbed is not the median of three."""
_FACTOR = REVISION_ALPHA / BASELINE_ALPHA  # Of the error probabilities of both comparisons
_ELSEWHERE = LeftOut("needs an entry of this machine: --perf-baseline update")
"""Why what the recorded code cannot settle is not compared."""


def comparison_of(basis: Basis) -> BaselineComparison | RevisionComparison | SettledComparison:
    """What compares a test: with a revision, with the baseline, or with the baseline and the code that it is of."""
    experiment = basis.experiment
    if experiment.revision is not None:
        from pytest_mlpatterns.judging.revision_comparison import RevisionComparison

        return RevisionComparison(basis, experiment.revision)
    if experiment.settle is not None and experiment.settings.during is None:
        return SettledComparison(basis)
    return BaselineComparison(basis)


class Screened(Struct, frozen=True):
    """What the file sees of a test, and on which machine."""

    seen: Mapping[str, Verdict]  # by metric; empty if the load generator was the limit
    entry: Entry | None  # None without a comparable one
    present: Metrics | None  # None before the first launch
    standing: frozenset[str]  # names of the metrics that no machine changes
    limited: GeneratorLimitError | None = None  # why it sees nothing

    @property
    def is_clear(self) -> bool:
        """Whether the file alone decides every metric."""
        return bool(self.seen) and all(map(self.decides, self.seen.values()))

    def decides(self, verdict: Verdict) -> bool:
        """Whether the file alone decides a metric."""
        return Seen(file=verdict, is_standing=verdict.metric in self.standing).is_decided

    @property
    def is_faster(self) -> bool:
        """Whether the same work takes less time than when the entry was recorded, or may do: a faster machine."""
        if self.entry is None or self.present is None:
            return True
        return may_be_faster(sorting_times_ns(self.present.launches), self.entry.sorting_ns)

    @property
    def is_as_then(self) -> bool:
        """Whether the machine is as quick and as quiet as at the recording."""
        if self.entry is None or self.present is None or why_busy(self.present.launches):
            return False
        ratio = ratio_of_means(sorting_times_ns(self.present.launches), self.entry.sorting_ns)
        return ratio is not None and ratio < SLOWER

    def to_settle(self, compared: Sequence[ComparedMetric]) -> list[ComparedMetric]:
        """The metrics that the recorded code settles, at the level of a comparison with a revision.

        What the file saw worse on a machine that is as then rests on fewer pairs: its entry knows many starts, of
        either way that they settle in.

        The CPU time, the guard whose looks share a level, has one of two primary metrics' level: at a fifth of it, 6 %
        of services with 15 % more work stayed open. An unchanged one is a whole tolerance away from an alarm.
        """
        worse = {name for name, one in self.seen.items() if one.is_worse}
        seen_worse = worse if self.is_as_then else set()
        stands = {name for name, one in self.seen.items() if name in self.standing and self.decides(one)}
        return [
            replace(
                one,
                alpha=REVISION_ALPHA / 2 if one.is_guard else one.alpha * _FACTOR,
                # a search has to be asked for; what is not known is the file's to judge
                requested=isinstance(one.metric.kind, Nmrt),
                seen_worse=one.metric.name in seen_worse,
                is_suspected=one.metric.name in worse,
            )
            for one in compared
            if one.metric.name not in stands
        ]


class SettledComparison:
    """Compares one test with its stored baseline, and with the recorded code where the file does not decide."""

    def __init__(self, basis: Basis) -> None:
        self._basis, self._experiment, self._measurement = basis, basis.experiment, basis.measurement
        self._screen = Screen(basis, is_settled=self._is_judged_by_the_code, is_alone=self._is_the_recorded_code)
        self._file = BaselineComparison(basis)
        self._code: RevisionComparison | None = None

    def judge(self, choice: Choice) -> Sequence[Verdict]:
        """Compare the metrics of a choice, and measure as much as that takes."""
        if self._experiment.smoke or not (choice(False) or choice(True)):
            return self._file.judge(choice)
        settles, others = only(choice, _is_settled), only(choice, lambda one: not _is_settled(one))
        screened = self._screened(settles)
        settled: Sequence[Verdict] = [*screened.seen.values()]
        if not screened.is_clear or screened.is_faster:
            settled = self._settle(settles, screened)
        if not (others(False) or others(True)) or self._basis.causes.interrupted:
            return settled
        if self._experiment.baseline.entry is None and self._basis.settled.labels is not None:
            metrics = self._measurement.metrics
            searched = left_out_if_measured(others(metrics.streams), metrics, _ELSEWHERE)
            self._basis.leave_out("settled", searched)
        return [*settled, *self._file.judge(others)]

    def _screened(self, choice: Choice) -> Screened:
        """What the file sees; nothing if the load generator was the limit, where both revisions may be compared yet."""
        seen: Sequence[Verdict] = ()
        limited: GeneratorLimitError | None = None
        try:
            seen = self._screen.judge(choice)
        except GeneratorLimitError as error:
            if not self._experiment.plan.schedule.closed:
                raise  # the load was not sustained, which the short blocks of both revisions do not show
            limited = error
        standing = standing_metrics(overloads=self._experiment.settings.overload)
        by_metric = {verdict.metric: verdict for verdict in seen}
        return Screened(by_metric, self._experiment.baseline.entry, self._measurement.so_far, standing, limited)

    def _settle(self, choice: Choice, screened: Screened) -> Sequence[Verdict]:
        """The verdicts of the recorded code; if it cannot be measured, notes why and takes the file's."""

        def rest(streams: bool) -> Sequence[ComparedMetric]:
            return screened.to_settle(choice(streams))

        if not self._basis.settled.why_not:
            try:
                found = self._by_the_recorded_code(rest) if rest(False) or rest(True) else None
            except (UnknownRevisionError, SettingError, InvalidResultError) as error:
                if isinstance(error, InvalidResultError) and error.side not in ("", self._settlement.name):
                    raise  # the present fails
                remedy = str(error) if isinstance(error, ShallowCloneError) else ""
                self._basis.keep("settled", why_not=f"not compared with the recorded commit: {error}", remedy=remedy)
            else:
                if screened.limited is not None and self._settlement.revision is None:
                    raise screened.limited  # there is nothing else to measure
                known = {verdict.metric: verdict for verdict in found or ()}
                return [*screened.seen.values()] if found is None else self._merged(choice, screened, known)
        return self._file.judge(choice)

    def _by_the_recorded_code(self, choice: Choice) -> Sequence[Verdict]:
        """The verdicts by the recorded code; none if the present is that code."""
        settlement = self._settlement
        if settlement.revision is None:
            if settlement.note and self._experiment.baseline.entry is not None:
                raise UnknownRevisionError(f"{settlement.name} is the commit that brought the entry, {settlement.note}")
            return ()
        if self._code is None:
            from pytest_mlpatterns.judging.revision_comparison import RevisionComparison

            self._code = RevisionComparison(self._basis, settlement.revision)
        try:
            verdicts = self._code.compare(choice)
        except DeploymentError as error:
            if error.names(settlement.name):
                raise UnknownRevisionError(str(error)) from error
            raise
        if missing := self._basis.code.missing:
            raise UnknownRevisionError(missing)
        return verdicts

    def _is_judged_by_the_code(self) -> bool:
        """Whether other code was recorded, and nothing else has changed: a package has to fail by the file itself."""
        found = self._known_settlement
        return found is not None and found.revision is not None and not found.note and not self._changed_facts()

    def _is_the_recorded_code(self) -> bool:
        """Whether the working tree is the code that was recorded, so that nothing else can be measured."""
        found = self._known_settlement
        return found is not None and found.revision is None and not found.note

    @property
    def _known_settlement(self) -> Settlement | None:
        """What settles the test; None if that cannot be found."""
        try:
            return self._settlement
        except (UnknownRevisionError, SettingError):
            return None

    @functools.cached_property
    def _settlement(self) -> Settlement:
        assert self._experiment.settle is not None
        return self._experiment.settle()

    def _merged(self, choice: Choice, screened: Screened, judged: Mapping[str, Verdict]) -> Sequence[Verdict]:
        """The verdict on each metric, of the recorded code and of the file; and the line that names what decided."""
        settlement, run = self._settlement, self._basis.code.run
        seen, entry = screened.seen, screened.entry
        common = Seen(
            name=settlement.name,
            is_same=settlement.revision is None,
            is_faster=screened.is_faster,
            other_files=settlement.note,
        ).after(self._changed_facts())
        compared = {} if entry is None else {one.metric.name: one for one in self._file.chosen(choice).compared}
        if not seen and entry is not None and run is not None:  # the load generator was the limit of what the file saw
            shown = judge_metrics([*compared.values()], self._file.look(Pairs.of(run).second)).verdicts
            seen = {verdict.metric: verdict for verdict in shown}
        decisions: dict[str, Decision] = {}
        for name in {**seen, **judged}:
            is_standing = name in screened.standing
            known = replace(common, file=seen.get(name), recorded=judged.get(name), is_standing=is_standing)
            decisions[name] = settle(self._explained(known, compared[name]) if known.is_worse else known)
        why = ", ".join(filter(None, (f"{_slower_machine(decisions)}compared with {settlement.name}", settlement.note)))
        labels = (self._basis.settled.labels or frozenset()) | {metric_named(name).label for name in judged}
        self._basis.keep("settled", labels=labels, why=why)
        return [one.verdict for one in decisions.values()]

    def _explained(self, seen: Seen, one: ComparedMetric) -> Seen:
        """The same, with what the launches show of a metric that the file sees worse."""
        so_far, run = self._measurement.so_far, self._basis.code.run
        assert so_far is not None
        then = now = self._file.look(so_far)
        if run is not None and len(run.first_launches) >= _FEWEST_LAUNCHES:
            both = (*run.first_launches, *run.second_launches)
            now = replace(self._file.look(Pairs.of(run).first), beside=both)
        may_excuse = not seen.is_standing and self._experiment.settings.noise is not NoisePolicy.TRUST
        return replace(
            seen,
            today=None if now is then else change_in(now, one),
            excuse=explains(now, one, so_far) if may_excuse else "",
            excuse_then=explains(then, one) if may_excuse else "",
            slower=doubt_of(seen.file, now, one) if may_excuse else "",
            busy=next((excuse.why for excuse in excuses(now, one.metric)), ""),
        )

    def _changed_facts(self) -> list[FactChange]:
        """What of the environment a person has changed since the recording."""
        return [one for one in self._basis.facts_changed or () if one.may_be_intended]


def _is_settled(one: ComparedMetric) -> bool:
    """Whether the recorded code can settle a metric: one of launches, or NMRT without an objective."""
    return one.metric.of is not None or one.metric.kind == Nmrt()


def _slower_machine(decisions: Mapping[str, Decision]) -> str:
    """How much slower the machine is, if that is why the file decided nothing; empty otherwise."""
    leading = next((decisions[name] for name in streams_first(with_role(Role.LEADING)) if name in decisions), None)
    if leading is None or leading.rule is not EXCUSED:
        return ""
    if any(one.verdict.outcome is not Outcome.PASS for one in decisions.values()):
        return ""
    changes = [one.change.value for one in (leading.verdict, leading.seen.today) if one is not None and one.change]
    times, why = 1 + min(changes), leading.seen.excuse
    return (
        f"this machine takes {times:.1f} times as long as when the baseline was recorded ({why}); the code does not: "
    )
