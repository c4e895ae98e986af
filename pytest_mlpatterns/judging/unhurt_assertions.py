"""Whether the steps of the function beside the load hurt requests: the verdicts behind ``perf.assert_unhurt``.

It must not know how the steps were noted, nor pytest.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.capacity.step_impact import (
    USUAL_LIMIT,
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
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.limit_assertions import limit_plan
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.wording import did_you_mean, listed, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.analysis.capacity.step_impact import AroundStep
    from pytest_mlpatterns.config.assertions import UnhurtLimits
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.capacity import LatencyMoment, StepImpact
    from pytest_mlpatterns.records.launch import Launch

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

        return self._measurement.decide_all(judge)

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
