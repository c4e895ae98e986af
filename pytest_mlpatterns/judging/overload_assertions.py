"""What ``perf`` measures beside its load: loads beyond the NMRT, with verdicts on goodput and recovery; passes over
numbers of replicas, with verdicts on efficiency and scale-out time; and whether the steps of the function beside the
load hurt requests. This module must not know how any of it is measured or noted, nor pytest.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pytest_mlpatterns.analysis.capacity.overload import (
    OfferedLoad,
    OverloadPlan,
    default_limit_ns,
    goodput_metric,
    goodput_share,
    is_lost_anyway,
    judge_recovery,
    overload_of,
    plan_overload,
    stays_failing,
    times_capacity,
)
from pytest_mlpatterns.analysis.capacity.scale_out import SCALE_OUT, scale_out_ns
from pytest_mlpatterns.analysis.capacity.scaling import EFFICIENCY, Scaling
from pytest_mlpatterns.analysis.capacity.step_impact import (
    USUAL_LIMIT,
    AroundStep,
    HurtLimit,
    around_steps,
    impacts_of,
    is_failed_anyway,
    judge_errors,
    judge_hurt,
    judge_step_recovery,
    latency_moments,
)
from pytest_mlpatterns.analysis.health.machine import why_busy
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_limit
from pytest_mlpatterns.config.assertions import UnhurtLimits, read_cores_each, read_numbers, read_peak, read_time_of
from pytest_mlpatterns.engines.engine import Engine, engine_named
from pytest_mlpatterns.errors import GeneratorLimitError, InvalidResultError, SettingError
from pytest_mlpatterns.judging.budget import Budget
from pytest_mlpatterns.judging.limit_assertions import limit_plan, not_known
from pytest_mlpatterns.judging.loop import Ruling, Supply, decide, ruling_of
from pytest_mlpatterns.measurement.scaling import BY_NO_ENGINE, ScalingRun
from pytest_mlpatterns.patterns.replication import balance_of, with_replicas
from pytest_mlpatterns.records.capacity import LatencyMoment, Overload, OverloadStep, ScalingRecord, StepImpact
from pytest_mlpatterns.records.launch import Capacity, Estimate, Launch
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.reports.text.notes import describe_answers, describe_behaviour, describe_step
from pytest_mlpatterns.system.cpu_share import ReplicaCores
from pytest_mlpatterns.units import SECOND_NS
from pytest_mlpatterns.wording import did_you_mean, listed, shown

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement

_PASSES = 2  # Passes before the first verdict: an interval needs two
_MOST_PASSES = 4  # Most passes of an open verdict


class ScalingAssertions:
    """Measures the scaling of one test's pattern, and judges it."""

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._run: ScalingRun | None = None
        self._cores_each: int | None = None

    @property
    def record(self) -> ScalingRecord | None:
        """What was measured, for reports; None if nothing was."""
        return self._run.scaling.record if self._run is not None and self._run.passes else None

    def measure(self, replicas: object, cpus_per_replica: object = None) -> Scaling:
        """Measure NMRT at each number of replicas, in two passes; a smoke run measures nothing."""
        numbers, each = read_numbers(replicas), read_cores_each(cpus_per_replica)
        pattern = self._experiment.settings.pattern
        if each is not None and balance_of(pattern) is None:
            raise SettingError(
                f"measure_scaling(cpus_per_replica=...) of {pattern}, whose gateway process chooses among the "
                'replicas and needs cores too; leave cpus_per_replica= out, or choose balance="round-robin"'
            )
        if each != self._cores_each:
            self._run, self._cores_each = None, each
        return self._measured(numbers)

    def decide_efficiency(self, limit: float, number: int) -> Verdict:
        """Measure until it is decided whether the scaling efficiency of this many replicas reaches a share."""
        self._measured((1, number))

        def judged(found: Scaling, confidence: float) -> Verdict:
            verdict = judge_limit(EFFICIENCY, found.efficiency(number, confidence), limit)
            if verdict.outcome is not Outcome.PASS and found.ended_by:
                raise GeneratorLimitError(f"{found.ended_by}; measure with fewer replicas or on more cores")
            return verdict

        return self._decide(judged)

    def decide_scale_out(self, limit_ns: int) -> Verdict:
        """Measure until it is decided whether one more replica carries its share in time.

        ``limit_ns``: the longest acceptable time from asking for it, in nanoseconds.
        """
        if not self._engine.adds_replicas:  # which a pass of a minute would find out too
            raise InvalidResultError(f"the scale-out time is not known: {BY_NO_ENGINE}")
        self._measured((1,))

        def judged(found: Scaling, confidence: float) -> Verdict:
            took = scale_out_ns(found.scale_outs, confidence)
            if took is None:
                raise InvalidResultError(
                    f"the scale-out time is not known: {found.scale_out_unknown or found.steps[0].bound}"
                )
            return judge_limit(SCALE_OUT, took, limit_ns)

        return self._decide(judged)

    @property
    def _engine(self) -> Engine:
        """The engine that serves the test."""
        return engine_named(self._experiment.settings.engine)

    def _decide(self, judged: Callable[[Scaling, float], Verdict]) -> Verdict:
        """Add passes until a verdict is no longer open, or the budget is spent."""
        assert self._run is not None
        plan, run = replace(limit_plan(_MOST_PASSES), first=_PASSES), self._run

        def look() -> Ruling:
            return ruling_of([judged(run.scaling, plan.confidence(run.passes))], "search")

        budget = Budget(self._experiment.settings.budget_ns)
        passes = Supply(self._pass, lambda: run.passes, _MOST_PASSES, lambda: run.spent_s / run.passes * SECOND_NS)
        return decide(look, {"search": passes}, lambda: budget.after(round(run.spent_s * SECOND_NS))).verdicts[0]

    def _measured(self, numbers: tuple[int, ...]) -> Scaling:
        cores = None if self._cores_each is None else ReplicaCores(self._cores_each, max(numbers))
        if cores is not None and not self._experiment.smoke and not self._engine.gives_cores:
            cores.check()
        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return Scaling((), 1)
        self._measurement.require_valid()
        if self._run is None or not set(numbers) <= set(self._run.numbers):
            pattern, under = self._experiment.settings.pattern, self._experiment.variant_under
            variants = {number: under(with_replicas(pattern, number), cores) for number in numbers}
            self._run = ScalingRun(
                variants,
                self._experiment.generator,
                on_progress=self._experiment.driver.on_progress,
                price=self._experiment.settings.price,
                cpus_per_replica=self._cores_each,
                balance=balance_of(pattern),
            )
        self._measurement.runner.close()  # each number of replicas needs the machine to itself
        while self._run.passes < _PASSES:
            self._pass()
        return self._run.scaling

    def _pass(self) -> None:
        assert self._run is not None
        with self._measurement.spending.beside():
            self._run.measure_pass()
        self._measurement.adopt(indices=self._run.scaling.indices)


_NMRT = METRICS["nmrt"]
_DEFAULT_PEAK = 2.0  # Highest load beyond which a service is to recover
_WATCH_MARGIN = 1.25  # How much longer than a limit the recovery is watched


class OverloadAssertions:
    """Measures a deployment beyond its NMRT, and judges it."""

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._runs: list[tuple[Capacity, OverloadPlan, tuple[OfferedLoad, ...]]] = []
        self._limit_ns: float | None = None

    @property
    def overloads(self) -> tuple[Overload, ...]:
        """Every measurement so far, by the time of the latest objective."""
        return tuple(
            overload_of(loads, capacity.nmrt.value, self._limit_ns or default_limit_ns(loads), cut=plan.cut)
            for capacity, plan, loads in self._runs
        )

    def measure(self, up_to: object, slo: str | None) -> Overload | None:
        """Offer loads up to a multiple of the NMRT; None in a smoke run.

        ``slo``: an objective whose time decides which answers are in time; None for ten times the median at half the
        NMRT.
        """
        peak = read_peak(up_to, "measure_overload(up_to=...)")
        self._limit_ns = None if slo is None else read_time_of(slo)
        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return None
        self._offer(peak)
        return self.overloads[-1]

    def decide_goodput(self, share: float, peak: float, limit_ns: float) -> Verdict:
        """Measure until it is decided whether the goodput at a load is a share of the NMRT."""
        self._limit_ns = limit_ns
        if not any(peak in plan.ratios for _, plan, _ in self._runs):
            self._offer(peak)
        plan = limit_plan(self._experiment.settings.launches)

        def steps(overloads: list[Overload]) -> list[OverloadStep]:
            return [step for one in overloads for step in one.steps if step.load_ratio == peak]

        def measured() -> tuple[list[Overload], Estimate]:
            runs = [one for one in self._runs if peak in one[1].ratios]
            overloads = [one for one in self.overloads if steps([one])]
            return overloads, goodput_share(overloads, runs[0][0].nmrt, peak, confidence=plan.confidence(len(runs)))

        def judge() -> Verdict:
            overloads, found = measured()
            for step in steps(overloads):
                if step.limited:
                    raise GeneratorLimitError(f"at {times_capacity(peak)} {step.limited}")
            last = overloads[-1]
            verdict = judge_limit(goodput_metric(peak, last.limit_ns), found, share)
            said = f"{describe_answers(steps([last])[0], last)}; {describe_behaviour(last)}"
            return verdict if verdict.outcome is Outcome.PASS else verdict.saying(said)

        (verdict,) = self._measurement.decide(lambda: [judge()], lambda: self._offer(peak, afresh=True))
        overloads, found = measured()
        if not is_lost_anyway(overloads, found, at=peak, share=share):
            _refuse_busy(verdict, steps(overloads))
        return verdict

    def decide_recovery(self, limit_ns: int, in_time_ns: float | None) -> Verdict:
        """Measure until it is decided whether the service recovers within a time.

        ``in_time_ns``: within which an answer is in time; None for the last objective's.
        """
        self._limit_ns = self._limit_ns if in_time_ns is None else in_time_ns
        watch_s = _WATCH_MARGIN * limit_ns / SECOND_NS

        def known() -> list[Overload]:
            return [one for one in self.overloads if one.recovery_ns is not None or one.watched_ns >= limit_ns]

        if not known():
            self._offer(_DEFAULT_PEAK, watch_s=watch_s)

        def judge() -> Verdict:
            overloads = known()
            _refuse_unfit(overloads)
            said = [describe_step(one.back, one) for one in overloads if one.recovery_ns is None]
            return judge_recovery(overloads, limit_ns).saying("".join(said[-1:]))

        offer = functools.partial(self._offer, _DEFAULT_PEAK, watch_s=watch_s, afresh=True)
        (verdict,) = self._measurement.decide(lambda: [judge()], offer)
        if not any(stays_failing(one) for one in self.overloads):
            _refuse_busy(verdict, [one.peak for one in self.overloads])
        return verdict

    def _offer(self, peak: float, *, watch_s: float = 0.0, afresh: bool = False) -> None:
        if afresh:
            self._measurement.launch_again()
        capacity = self._capacity()
        budget = self._measurement.budget if self._runs else self._measurement.budget.planned
        plan = plan_overload(peak, budget.left_ns / SECOND_NS, watch_s=watch_s)
        loads = self._measurement.offer_overload(plan, capacity.nmrt.value)
        self._runs.append((capacity, plan, loads))

    def _capacity(self) -> Capacity:
        """The NMRT without an objective; searched for if it is not known."""
        self._measurement.require_valid()
        known = [one for one in self._measurement.metrics.capacities if one.objective is None and not one.at_least]
        if not known:
            self._measurement.search(None)
        found = known[-1] if known else self._measurement.metrics.capacities[-1]
        if found.at_least:
            raise not_known(found, _NMRT.label)
        if found.nmrt.value <= 0:
            raise InvalidResultError(f"{_NMRT.label} is 0 req/s, so that no load is beyond it: {found.stopped}")
        return found


def _refuse_unfit(overloads: list[Overload]) -> None:
    """Raise if the peak was no peak, or if there is nothing that a service could recover to."""
    for overload in overloads:
        if limited := overload.peak.limited:
            raise GeneratorLimitError(f"at {times_capacity(overload.peak.load_ratio)} {limited}")
        if not any(step.in_time_ratio for step in overload.steps if step.load_ratio < 1):
            raise InvalidResultError(
                f"below the {_NMRT.label} no answer is in time either, so there is nothing to recover to; expected a "
                f"time that the service keeps, found {describe_step(overload.steps[0], overload)}"
            )


def _refuse_busy(verdict: Verdict, steps: list[OverloadStep]) -> None:
    """Raise if a verdict fails and the machine was busy: it may be why answers were late."""
    busy = next((step.busy for step in steps if step.busy), None)
    if verdict.outcome is Outcome.FAIL and busy:
        raise GeneratorLimitError(f"{verdict.reason}, while {busy}; measure again when the machine is quieter")


_METHOD = "assert_unhurt"
_BUSY_FACTOR = 3
"""How many times as late neighbours make an answer: with two of them on each core a service has a third of it."""


class UnhurtAssertions:
    """Judges the steps of one test."""

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._limits: dict[str, HurtLimit] = {}

    @property
    def impacts(self) -> tuple[StepImpact, ...]:
        """What every step of every launch did, by the limit of the latest assertion on it."""
        found = around_steps(self._launches)
        return tuple(
            impact for one in found for impact in impacts_of([one], self._limits.get(one.step.name, USUAL_LIMIT))
        )

    @property
    def course(self) -> tuple[LatencyMoment, ...]:
        """The latency through the window of the last launch; empty without a step in it."""
        launches = self._launches
        return latency_moments(launches[-1]) if launches and launches[-1].steps else ()

    def kept(self, limits: UnhurtLimits) -> Callable[[], Sequence[Verdict]]:
        """What decides whether the steps keep their limits; until then a launch may lag as far as these allow.

        Requests that fail or are late make no other verdict of the test invalid then, since this one judges them.
        """
        if self._experiment.settings.during is None:
            raise SettingError(
                f"{_METHOD}(...) of a test without a function beside its load, expected one that names the steps; "
                "write perf(rate_rps=200, during=function)"
            )
        self._measurement.allow_lag_beside(limits.hurt.limit_ns or 0.0)
        return functools.partial(self._decide, limits)

    def _decide(self, limits: UnhurtLimits) -> Sequence[Verdict]:
        """Measure until it is decided."""
        plan = limit_plan(self._experiment.settings.launches)

        def judge() -> Sequence[Verdict]:
            self._measurement.excuse_failures()
            judged_ns = self._least_limit_ns(limits)
            self._measurement.allow_lag_beside(judged_ns)
            self._measurement.require_valid(judged_ns=judged_ns)
            steps, launches = self._steps(limits.step), self._launches
            self._limits.update(dict.fromkeys(steps, limits.hurt))
            confidence = plan.confidence(len(launches))
            judged = [_judged(found, limits, launches, confidence=confidence) for found in steps.values()]
            return [verdict for verdicts in judged for verdict in verdicts]

        return self._measurement.decide(judge)

    @property
    def _launches(self) -> Sequence[Launch]:
        metrics = self._measurement.so_far
        return () if metrics is None else metrics.launches

    def _least_limit_ns(self, limits: UnhurtLimits) -> float:
        """The lowest limit of the judged steps, beside which a lag of the generator matters; 0 if none is known."""
        judged = [one for one in around_steps(self._launches) if limits.step in (None, one.step.name)]
        return min(filter(math.isfinite, (limits.hurt.of(one.before_ns) for one in judged)), default=0.0)

    def _steps(self, name: str | None) -> dict[str, list[AroundStep]]:
        """The steps by their names, of all launches: those of this name, or all of them."""
        steps: dict[str, list[AroundStep]] = {}
        for one in around_steps(self._launches):
            steps.setdefault(one.step.name, []).append(one)
        if name is not None and name not in steps:
            hint = did_you_mean(name, steps)
            known = listed([shown(one) for one in steps], "or") if steps else "a step"
            raise SettingError(
                f"{_METHOD}(step={shown(name)}), {hint}expected {known}; the function names one by "
                "`with during.step(...)`"
            )
        if not steps:
            raise SettingError(
                f"{_METHOD}(...) of a function that named no step in the window; write `with during.step(...)`"
            )
        return steps if name is None else {name: steps[name]}


def _judged(
    found: Sequence[AroundStep], limits: UnhurtLimits, launches: Sequence[Launch], *, confidence: float
) -> list[Verdict]:
    """The verdicts on the steps of one name; one that busy neighbours may explain is left open."""

    def of(hurt: HurtLimit) -> Verdict:
        if limits.within_ns is not None:
            return judge_step_recovery(found, hurt, limits.within_ns)
        return judge_hurt(found, hurt, confidence=confidence)

    busy = why_busy(launches)
    machine = WhyOpen(OpenBy.MACHINE, f"meanwhile {busy}")
    verdict = of(limits.hurt)
    if verdict.outcome is Outcome.FAIL and busy and of(limits.hurt.times(_BUSY_FACTOR)).outcome is not Outcome.FAIL:
        verdict = verdict.left_open(machine)
    if limits.errors is None:
        return [verdict]
    failed = judge_errors(found, limits.hurt, limits.errors, confidence=confidence)
    if failed.outcome is Outcome.FAIL and busy and not is_failed_anyway(found, limits.hurt, limits.errors):
        failed = failed.left_open(machine)
    return [verdict, failed]
