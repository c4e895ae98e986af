"""Whether the steps of the function beside the load hurt requests: the verdicts behind ``perf.assert_unhurt``.

It must not know how the steps were noted, nor pytest.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from msgspec import Struct

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
from pytest_mlpatterns.fields import plain_number, whole_number
from pytest_mlpatterns.judging.limit_assertions import limit_plan
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import parse_duration, parse_number, parse_share
from pytest_mlpatterns.wording import did_you_mean, listed, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.analysis.capacity.step_impact import AroundStep
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.capacity import LatencyMoment, StepImpact
    from pytest_mlpatterns.records.launch import Launch

_METHOD = "assert_unhurt"
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}
"""Percentiles that an assertion may limit, by their names."""
_BUSY_FACTOR = 3
"""How many times as late neighbours make an answer: with two of them on each core a service has a third of it."""


class UnhurtLimits(Struct, frozen=True):
    """What an assertion asks of a step."""

    step: str | None  # its name; None for each step
    hurt: HurtLimit  # when requests are hurt
    errors: float | None  # requests that may fail in each launch, from 1 on; or below 1 their share; None for any
    # time until it must be well again, in place of the limit of the percentile; None if it may not be hurt at all
    within_ns: int | None


def read_unhurt_limits(
    step: object, percentiles: Mapping[str, object], *, errors: object, within: object
) -> UnhurtLimits:
    """The arguments of the assertion."""
    if step is not None and not isinstance(step, str):
        raise SettingError(f'{_METHOD}(step={shown(step)}), expected the name of a step; write step="reload"')
    if len(percentiles) > 1:
        raise SettingError(f"{_METHOD}({', '.join(f'{name}=...' for name in percentiles)}), expected one percentile")
    hurt = USUAL_LIMIT
    for name, limit in percentiles.items():
        if name not in _PERCENTILES:
            hint = did_you_mean(name, [*_PERCENTILES, "step", "errors", "within"], "{}=")
            known = listed([f"{one}=" for one in _PERCENTILES], "or")
            raise SettingError(f"{_METHOD}({name}={shown(limit)}), {hint}expected {known}")
        hurt = _hurt_limit(name, limit)
    return UnhurtLimits(
        step,
        hurt,
        None if errors is None else _errors(errors),
        None if within is None else parse_duration(within, name=f"{_METHOD}(within=...)"),
    )


def _hurt_limit(name: str, limit: object) -> HurtLimit:
    """The limit of a percentile: ``"2x"`` of the one before, or a time."""
    said = f"{_METHOD}({name}={shown(limit)})"
    if isinstance(limit, str) and limit.strip().endswith("x"):
        ratio = parse_number(limit.strip()[:-1], name=said, example='"2x"')
        if ratio <= 1:
            raise SettingError(f'{said}, expected a multiple above 1 of the {name} before the step; write "2x"')
        return HurtLimit(_PERCENTILES[name], ratio)
    if plain_number(limit) is not None:
        raise SettingError(f'{said}, expected "2x" for a multiple of the {name} before the step, or a time: "200ms"')
    return HurtLimit(_PERCENTILES[name], None, float(parse_duration(limit, name=said)))


def _errors(errors: object) -> float:
    found = f"{_METHOD}(errors={shown(errors)})"
    if isinstance(errors, str) or (isinstance(errors, float) and 0 < errors < 1):
        share = parse_share(errors, name=found)
        if share in (0, 1):
            raise SettingError(f'{found}, expected a share above 0 and below 100 %, or errors=0; write "1%"')
        return share
    expected = 'a whole number of failed requests, or a share of them such as "1%"'
    return whole_number(errors, found, least=0, expected=expected)


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
            confidence = plan.confidence(len(self._launches))
            steps = self._steps(limits.step)
            self._limits.update(dict.fromkeys(steps, limits.hurt))
            return [
                verdict
                for found in steps.values()
                for verdict in _judged(found, limits, self._launches, confidence=confidence)
            ]

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
    verdict = of(limits.hurt)
    if verdict.outcome is Outcome.FAIL and busy and of(limits.hurt.times(_BUSY_FACTOR)).outcome is not Outcome.FAIL:
        verdict = verdict.left_open(WhyOpen(OpenBy.MACHINE, _busy_words(busy)))
    if limits.errors is None:
        return [verdict]
    failed = judge_errors(found, limits.hurt, limits.errors, confidence=confidence)
    is_doubted = failed.outcome is Outcome.FAIL and busy and not is_failed_anyway(found, limits.hurt, limits.errors)
    if is_doubted:
        failed = failed.left_open(WhyOpen(OpenBy.MACHINE, _busy_words(busy or "")))
    return [verdict, failed]


def _busy_words(busy: str) -> str:
    return f"meanwhile {busy}"
