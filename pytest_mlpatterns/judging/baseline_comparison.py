"""One test compared with its stored baseline.

It must not know pytest, nor which verdicts fail a test.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from pytest_mlpatterns.analysis.capacity.scaling import why_unknown
from pytest_mlpatterns.analysis.health.machine import (
    SLOWER,
    Excuse,
    busy_on_average,
    ratio_of_sorting,
    sorting_times_ns,
    taken_excuse,
    why_busy,
)
from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS, are_of_streams, metric_named, standing_metrics
from pytest_mlpatterns.analysis.metrics.metric import AtNmrt, LatencyPercentile, Metric, Nmrt, objective_of, times_of
from pytest_mlpatterns.analysis.statistics.alpha_spending import BASELINE_ALPHA, looks_beside_entry
from pytest_mlpatterns.analysis.statistics.intervals import launch_deviation, ratio_of
from pytest_mlpatterns.analysis.verdicts.launch_kinds import judge_by_kind, side_of
from pytest_mlpatterns.analysis.verdicts.open_reasons import failed_together
from pytest_mlpatterns.analysis.verdicts.tolerances import judge_time, with_medians
from pytest_mlpatterns.analysis.verdicts.verdicts import SampleSize, judge_change
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.errors import InvalidResultError, TooFewSamplesError
from pytest_mlpatterns.judging.compared_metrics import (
    Basis,
    announce_tails,
    choose,
    describe_too_few,
    facts_of,
    is_asked_for,
    noted,
    present_values,
    sizes_for_tails,
    tails_left_out,
    why_left_out,
    with_own_scatter,
)
from pytest_mlpatterns.judging.guards import (
    AbsentMetricError,
    EntrySample,
    MeasuredSample,
    UnknownMetricError,
    is_left_to_starts,
    judge_guarded,
    launches_for_tail,
    left_out_by,
    not_judged,
    with_starts_named,
    without_start,
)
from pytest_mlpatterns.judging.leaks import confirm_growths
from pytest_mlpatterns.judging.machine_doubts import Launched
from pytest_mlpatterns.judging.result_builder import reference_from_baseline
from pytest_mlpatterns.records.setup import differing_facts
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.analysis.metrics.metrics import Metrics
    from pytest_mlpatterns.judging.compared_metrics import Choice, ComparedMetric
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.launch import LaunchValue

_SCREEN_LAUNCHES = 3
"""Launches after which a comparison that the revision can settle is no longer worth its time: a fourth narrows the
interval by an eighth, and the revision decides in the time of two."""


class BaselineComparison:
    """Compares one test with its stored baseline entry.

    ``is_settled``: whether the recorded code decides what one launch shows beyond its tolerance in a screen.
    """

    alpha: float = BASELINE_ALPHA
    kind: Literal["baseline", "revision"] = "baseline"

    def __init__(
        self,
        experiment: Experiment,
        measurement: SequentialMeasurement,
        *,
        is_settled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._is_settled = is_settled
        self._baseline = experiment.baseline
        self._left_out: dict[str, LeftOut] = {}
        self._too_few: set[str] = set()
        self._judged: set[str] = set()
        self._nothing_judged = False

    @property
    def basis(self) -> Basis:
        """What was compared with so far, and what was not compared."""
        match, so_far, missing = self._baseline, self._measurement.so_far, self._baseline.missing
        if self._nothing_judged:
            missing = (
                f"not compared with the baseline: {describe_left_out(self._left_out) or 'no metric of it is known'}"
            )
        return Basis(
            reference=None if match.entry is None else reference_from_baseline(match.entry, match.name),
            missing=missing,
            left_out=self._left_out,
            gap=match.gap,
            note="" if self._experiment.smoke else match.missing,
            facts_changed=differing_facts(match.facts, facts_of(so_far)),
        )

    def judge(self, choice: Choice) -> Sequence[Verdict]:
        """Compare the metrics of a choice with the baseline; see :meth:`Comparison.judge`.

        What the machine may explain stays open, since nothing else decides it.
        """
        verdicts = self._compare(choice, is_screen=False)
        return failed_together(verdicts, busy_on_average(self._measurement.metrics.launches)) if verdicts else ()

    def screen(self, choice: Choice) -> Sequence[Verdict]:
        """Compare with few launches and without excuses: what does not pass is settled by the recorded revision."""
        return self._compare(choice, is_screen=True)

    def _compare(self, choice: Choice, *, is_screen: bool) -> Sequence[Verdict]:
        self._measurement.want_requests(_needed(choice(False), self._baseline.entry))
        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return ()
        self._measurement.require_valid()
        entry, compared = self._baseline.entry, self.chosen(choice)
        self._left_out |= why_left_out(choice, **self._streams)
        if self._baseline.mode is not BaselineMode.OFF:
            for one in compared:
                if isinstance(one.metric.kind, Nmrt | AtNmrt) and is_asked_for(one, self._experiment.settings):
                    self._search_once(one.metric)
        if entry is None:
            return ()
        self._measure_for_tail(compared, entry, is_screen=is_screen)
        growths = [one for one in compared if one.metric.name in GROWTHS]
        together = [one for one in compared if one.metric.of is not None and one not in growths]
        verdicts = [*self._decide(together, entry, is_screen=is_screen)] if together else []
        found = self._judge_look(growths, entry, self._measurement.metrics)
        verdicts += confirm_growths(found, growths, self._measurement.follow_growth)
        for one in compared:
            if one.metric.is_of_scaling:  # another pass takes longer than a whole test
                verdicts += self._judge_all([one], entry, is_screen=is_screen)
            elif one.metric.of is None and (
                is_asked_for(one, self._experiment.settings) or not self._measurement.metrics.only_at_least(one.metric)
            ):
                more = functools.partial(self._measurement.search, objective_of(one.metric))
                verdicts += self._decide([one], entry, more, is_screen=is_screen)
        self._nothing_judged = not self._judged
        tails = tails_left_out([one.metric for one in compared], self._measurement.metrics)
        self._left_out |= {label: why for label, why in tails.items() if label in self._too_few}
        return verdicts

    def chosen(self, choice: Choice) -> list[ComparedMetric]:
        """The metrics of a choice as they are compared with the file."""
        chosen = with_own_scatter(choose(choice, **self._streams), self._experiment.scatter)
        return [replace(one, tolerance=one.stored_tolerance) for one in chosen]

    @property
    def _streams(self) -> dict[str, bool]:
        """Whether the answers streamed ``before``, and do ``now``."""
        entry, now = self._baseline.entry, self._measurement.metrics.streams
        return {"before": now if entry is None else are_of_streams(entry.metrics), "now": now}

    def _measure_for_tail(self, compared: Sequence[ComparedMetric], entry: Entry, *, is_screen: bool) -> None:
        """Measure as many launches as the percentiles need that the baseline entry can be compared by."""
        if is_screen and self._is_left_to_the_code(compared, entry):
            return
        metrics = self._measurement.metrics
        launches = len(metrics.launches)
        announce_tails(self._experiment, self._measurement, [one.metric for one in compared])
        self._measurement.measure_at_least(launches_for_tail(_needed(compared, entry), metrics.requests, launches))

    def _decide(
        self,
        compared: Sequence[ComparedMetric],
        entry: Entry,
        more: Callable[[], None] | None = None,
        *,
        is_screen: bool,
    ) -> Sequence[Verdict]:
        """Measure until the changes of these metrics are decided, and discount what a slower machine explains."""
        judge = functools.partial(self._judge_all, compared, entry, is_screen=is_screen)
        if is_screen:  # the recorded code decides a start, beside that of the present
            is_enough = functools.partial(self._is_left_to_the_code, compared, entry)
            return self._measurement.decide_all(judge, more, at_most=_SCREEN_LAUNCHES, is_enough=is_enough)
        self._measurement.decide_all(lambda: without_start(judge()), more)
        while is_left_to_starts(verdicts := judge()) and self._measurement.start_again():
            pass
        if self._trusts or not any(verdict.outcome is Outcome.FAIL for verdict in verdicts):
            return verdicts
        excuse = self._slower(entry)  # which may measure
        return self._launched(entry).left_open(verdicts, compared, excuse, stands=self._stands)

    def _is_left_to_the_code(self, compared: Sequence[ComparedMetric], entry: Entry) -> bool:
        """Whether the recorded code decides in any case: a primary metric is worse.

        If a neighbour was busy, the next launch may be a quiet one, as long as the budget has time for one.
        """
        if why_busy(self._measurement.metrics.launches) is not None and self._measurement.may_pair_after_a_launch:
            return False
        primary = [one for one in compared if not one.is_guard and one.metric.of is not None]
        verdicts = self._judge_look(primary, entry, self._measurement.metrics, is_screen=True, is_aside=True)
        return any(one.outcome is Outcome.FAIL or one.suspected for one in verdicts) and self._is_settled()

    @property
    def _trusts(self) -> bool:
        """Whether a failure stands whatever the machine did."""
        return self._experiment.settings.noise is NoisePolicy.TRUST

    @property
    def _stands(self) -> frozenset[str]:
        """Names of the metrics that no machine changes."""
        return standing_metrics(overloads=self._experiment.settings.overload)

    def _launched(self, entry: Entry) -> Launched:
        metrics = self._measurement.metrics
        return Launched(entry, metrics, metrics.launches, self.judge_aside)

    def judge_aside(self, compared: Sequence[ComparedMetric], entry: Entry, metrics: Metrics) -> Sequence[Verdict]:
        """A verdict for each metric that both sides have, of other launches or beside another entry; notes nothing."""
        return self._judge_look(compared, entry, metrics, is_aside=True)

    def _slower(self, entry: Entry) -> Excuse | None:
        """That a fixed work takes longer than when the entry was recorded; None if that is not known.

        One launch may be disturbed at its end, so three launches have to show a slower machine.
        """

        def measured() -> float:
            return ratio_of_sorting(sorting_times_ns(self._measurement.metrics.launches), entry.sorting_ns) or 0.0

        if measured() >= SLOWER:
            self._measurement.measure_at_least(_SCREEN_LAUNCHES)
        if (times := measured()) < SLOWER:
            return None
        why = f"this machine takes up to {times:.2f} times as long for the same work as when the baseline was recorded"
        return Excuse(f"{why}, which explains it", times, times)

    def _judge_all(self, compared: Sequence[ComparedMetric], entry: Entry, *, is_screen: bool) -> Sequence[Verdict]:
        """The verdicts of one look; a failure that the machine may explain stays open, if the file decides."""
        self._measurement.require_valid()
        verdicts = self._judge_look(compared, entry, self._measurement.metrics, is_screen=is_screen)
        if is_screen:
            found = {verdict.metric: verdict for verdict in verdicts}
            return [*(with_rates(found) if self._experiment.plan.schedule.closed else found).values()]
        launches = self._measurement.metrics.launches
        excuse = None if self._trusts else taken_excuse(launches, entry.taken)
        if excuse is None:
            return verdicts
        excuse = replace(excuse, why=f"{excuse.why}, which explains {excuse.times:.2f} times")
        quiet = [one for one in launches if why_busy([one]) is None]
        return self._launched(entry).left_open(verdicts, compared, excuse, stands=self._stands, quiet=quiet)

    def _judge_look(
        self,
        compared: Sequence[ComparedMetric],
        entry: Entry,
        metrics: Metrics,
        *,
        is_screen: bool = False,
        is_aside: bool = False,
    ) -> Sequence[Verdict]:
        """A verdict for each metric that both sides have; notes why the others have none, unless this is an aside."""
        verdicts = []
        for one in compared:
            try:
                if isinstance(one.metric.kind, LatencyPercentile) and not (one.is_guard or is_screen or is_aside):
                    metrics.interval_of(one.metric)  # raises TooFewSamplesError; a screen is checked anyway
                verdict = self._judge_one(one, entry, metrics, is_screen=is_screen)
            except (UnknownMetricError, InvalidResultError) as error:
                too_few = isinstance(error, TooFewSamplesError) and not one.is_guard
                if too_few and not is_aside and self._measurement.may_launch_again():
                    raise  # a primary metric is worth another launch
                if not is_aside:
                    self._leave_out(one, error)
                continue
            if not is_aside:
                self._left_out.pop(one.metric.label, None)
                self._too_few.discard(one.metric.label)
                self._judged.add(one.metric.name)
            verdicts.append(verdict)
        return verdicts

    def _judge_one(self, compared: ComparedMetric, entry: Entry, metrics: Metrics, *, is_screen: bool) -> Verdict:
        metric, in_flight = compared.metric, self._experiment.setup.load.in_flight
        if compared.is_guard:
            present = MeasuredSample(metrics)
            found = judge_guarded(compared, EntrySample(entry), present, against="baseline", in_flight=in_flight)
            return with_starts_named(found, len(metrics.starts_ns))
        if metrics.only_at_least(metric):
            raise UnknownMetricError("is a lower bound only, since its search ended before the deployment degraded")

        def before(of: Metric) -> Sequence[LaunchValue]:
            return entry.metrics.get(of.name, ())

        def now(of: Metric) -> Sequence[LaunchValue]:
            return present_values(metrics, of, before(of))

        most = self._experiment.settings.launches  # a look that never happens would waste its share of the error
        most = min(_SCREEN_LAUNCHES, most) if is_screen else most

        def judge(by: Metric) -> Verdict:
            judged = replace(by, launch_sd=metric.launch_sd, sd_degrees=metric.sd_degrees)  # of the same launches
            values, recorded = self._both_known(judged, now(by), before(by))
            looks = looks_beside_entry(len(recorded), launches=most, alpha=compared.alpha)
            change = functools.partial(
                judge_change,
                judged,
                tolerance=compared.tolerance,
                plan=looks,
                size=SampleSize(len(values), metrics.blocks),
                in_flight=in_flight,
            )
            mine, recorded_side = side_of(values, metrics.launch_values), side_of(recorded, EntrySample(entry).values)
            return judge_by_kind(judged, change, present=mine, reference=recorded_side)

        verdict = judge_time(
            metric,
            lambda of: launch_deviation(before(of)) if now(of) else math.inf,
            judge=judge,
            ratio=lambda of, confidence: ratio_of(now(of), before(of), metric.launch_sd, confidence=confidence),
        )
        return noted(with_medians(verdict, metric, before=before(metric), now=now(metric)), metric, metrics)

    def _both_known(
        self, metric: Metric, now: Sequence[LaunchValue], before: Sequence[LaunchValue]
    ) -> tuple[Sequence[LaunchValue], Sequence[LaunchValue]]:
        """The values of both sides."""
        why = "" if now else why_unknown(metric.name, self._measurement.metrics.indices.missing)
        if not before and not why:
            raise UnknownMetricError("is not recorded yet; record it: --perf-baseline update")
        if not now:
            pattern = self._experiment.setup.pattern
            raise AbsentMetricError(f"is not known for {pattern}{why and f': {why}'}")
        return now, before

    def _leave_out(self, compared: ComparedMetric, error: UnknownMetricError | InvalidResultError) -> None:
        """Note a metric that cannot be compared; a guard that this system never has is not worth a note."""
        why = left_out_by(error)
        if isinstance(error, UnknownMetricError):
            if compared.requested:
                raise not_judged(compared.metric, why, "the baseline") from None
        elif isinstance(error, TooFewSamplesError):
            if compared.requested:
                raise error
            self._too_few.add(compared.metric.label)
            why = describe_too_few(error, self._experiment.settings.duration_ns)
        if is_asked_for(compared, self._experiment.settings) or not (
            compared.is_guard and isinstance(error, AbsentMetricError)
        ):
            self._left_out[compared.metric.label] = why

    def _search_once(self, metric: Metric) -> None:
        """Search for NMRT if no search has found it yet; that of a decided assertion found a lower bound only."""
        metrics = self._measurement.metrics
        if not metrics.launch_values(metric) or metrics.only_at_least(metric):
            self._measurement.search(objective_of(metric))


def _needed(compared: Sequence[ComparedMetric], entry: Entry | None) -> int:
    """Requests that the percentiles need which an entry has enough requests for; 0 if none needs any."""
    recorded = 0 if entry is None else sum(launch.requests for launch in entry.counts)
    return max((size for size in sizes_for_tails(compared) if size <= recorded), default=0)


def describe_left_out(left_out: Mapping[str, LeftOut]) -> str:
    """Metrics that were not compared: ``p99 latency (is not recorded yet), peak memory (is not recorded yet)``."""
    return ", ".join(f"{name} ({why})" for name, why in left_out.items())


_SHARE = 0.5  # Share of its tolerance up to which the estimate of a rate shows no change


def with_rates(screened: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """The verdicts of the file on a closed loop, with the rates that its times decide.

    A rate scatters with every stall of the machine, so one disturbed launch of an entry leaves it open while the median
    of the times is known. If these are surely within their tolerance and the estimate of the rate within half of its
    own, the service is no slower. A tail that grew is seen by the guards.
    """
    return {name: _by_its_times(verdict, screened) for name, verdict in screened.items()}


def _by_its_times(verdict: Verdict, screened: Mapping[str, Verdict]) -> Verdict:
    times = [screened.get(name) for name in times_of(metric_named(verdict.metric))]
    if verdict.outcome is not Outcome.INCONCLUSIVE or verdict.change is None or not verdict.tolerance or not times:
        return verdict
    if verdict.change.value > _SHARE * verdict.tolerance or any(
        one is None or one.outcome is not Outcome.PASS for one in times
    ):
        return verdict
    return replace(verdict, outcome=Outcome.PASS, reason=f"{verdict.reason}; decided by the times that it follows from")
