"""Load beyond the NMRT in one test: its measurements, and verdicts on goodput and recovery.

It must not know how load is offered, nor pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pytest_mlpatterns.analysis.capacity.overload import (
    default_limit_ns,
    goodput_metric,
    goodput_share,
    is_lost_anyway,
    judge_recovery,
    overload_of,
    plan_overload,
    stays_failing,
)
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_limit
from pytest_mlpatterns.errors import GeneratorLimitError, InvalidResultError, SettingError
from pytest_mlpatterns.judging.limit_assertions import limit_plan
from pytest_mlpatterns.records.launch import Capacity, Estimate, SearchEnd
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.text.notes import describe_behaviour, describe_step
from pytest_mlpatterns.units import SECOND_NS, format_rate, parse_number
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.capacity.overload import OfferedLoad, OverloadPlan
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.capacity import Overload, OverloadStep

_DEFAULT_PEAK, _HIGHEST_PEAK = 2.0, 10.0
_WATCH_MARGIN = 1.25  # How much longer than a limit the recovery is watched


def require_goodput(share: object, rps: object, *, slo: str | None, at: float | None) -> str:
    """Check that an assertion on goodput has a rate, or a share and a load. Returns what each request keeps.

    Args:
        share: of the NMRT; None for a rate.
        rps: requests per second at the load of the test; None for a share.
        at: the load as a multiple of the NMRT; None for that of the test.
    """
    if (share is None) is not (at is None) or (share is None) is (rps is None):
        raise SettingError(
            'assert_goodput_at_least(...) expected a rate at the load of the test (rps=8, slo="ttft<300ms"), or a '
            'share of the NMRT at a multiple of it (0.9, at=2.0, slo="p95<200ms")'
        )
    if slo is None:
        raise SettingError('assert_goodput_at_least(...) expected what each request keeps; add slo="ttft<300ms"')
    return slo


class OverloadAssertions:
    """Measures a deployment beyond its NMRT, and judges it.

    Args:
        experiment: what is measured.
        measurement: what was measured so far.
    """

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

        Args:
            up_to: the multiple.
            slo: an objective whose time decides which answers are in time; None for ten times the median at half the
                NMRT.
        """
        peak = _peak(up_to, "measure_overload(up_to=...)")
        self._use(slo)
        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return None
        self._offer(peak)
        return self.overloads[-1]

    def decide_goodput(self, share: float, at: object, slo: str) -> Verdict | None:
        """Measure until it is decided whether the goodput at a load is a share of the NMRT; None in a smoke run.

        Raises:
            GeneratorLimitError: the load generator was the limit.
            InvalidResultError: the NMRT is not known.
        """
        peak = _peak(at, "assert_goodput_at_least(at=...)")
        self._use(slo)
        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return None
        if not any(peak in plan.ratios for _, plan, _ in self._runs):
            self._offer(peak)
        plan = limit_plan(self._experiment.settings.launches)

        def measured() -> tuple[list[Overload], Estimate]:
            runs = [one for one in self._runs if peak in one[1].ratios]
            overloads = [one for one in self.overloads if any(step.load_ratio == peak for step in one.steps)]
            return overloads, goodput_share(overloads, runs[0][0].nmrt, peak, confidence=plan.confidence(len(runs)))

        def judge() -> Verdict:
            overloads, found = measured()
            for step in (step for one in overloads for step in one.steps if step.load_ratio == peak):
                if step.limited:
                    raise GeneratorLimitError(f"at {peak:g} times the NMRT {step.limited}")
            verdict = judge_limit(goodput_metric(peak, overloads[-1].limit_ns), found, share)
            return _with_words(verdict, overloads[-1], peak)

        verdict = self._measurement.decide(judge, lambda: self._offer(peak, afresh=True))
        overloads, found = measured()
        if not is_lost_anyway(overloads, found, at=peak, share=share):
            _refuse_busy(verdict, [step for one in overloads for step in one.steps if step.load_ratio == peak])
        return verdict

    def decide_recovery(self, limit_ns: int, slo: str | None) -> Verdict | None:
        """Measure until it is decided whether the service recovers within a time; None in a smoke run.

        Raises:
            GeneratorLimitError: the load generator was the limit.
            InvalidResultError: the NMRT is not known, or answers are late already at 0.8 times the NMRT.
        """
        if slo is not None:
            self._use(slo)
        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return None
        watch_s = _WATCH_MARGIN * limit_ns / SECOND_NS
        known = [one for one in self.overloads if one.recovery_ns is not None or one.watched_ns >= limit_ns]
        if not known:
            self._offer(_DEFAULT_PEAK, watch_s=watch_s)

        def judge() -> Verdict:
            overloads = [one for one in self.overloads if one.recovery_ns is not None or one.watched_ns >= limit_ns]
            _refuse_unfit(overloads)
            verdict = judge_recovery(overloads, limit_ns)
            open_ones = [one for one in overloads if one.recovery_ns is None]
            if not open_ones:
                return verdict
            said = describe_step(open_ones[-1].back, open_ones[-1])
            return replace(verdict, reason=f"{verdict.reason}; {said}")

        verdict = self._measurement.decide(judge, lambda: self._offer(_DEFAULT_PEAK, watch_s=watch_s, afresh=True))
        if not any(stays_failing(one) for one in self.overloads):
            _refuse_busy(verdict, [one.peak for one in self.overloads])
        return verdict

    def _use(self, slo: str | None) -> None:
        self._limit_ns = None if slo is None else float(_time_of(slo))

    def _offer(self, peak: float, *, watch_s: float = 0.0, afresh: bool = False) -> None:
        if afresh:
            self._measurement.launch_again()
        capacity = self._capacity()
        plan = plan_overload(peak, self._measurement.left_s, watch_s=watch_s)
        loads = self._measurement.offer_overload(plan, capacity.nmrt.value)
        self._runs.append((capacity, plan, loads))

    def _capacity(self) -> Capacity:
        """The NMRT without an objective; searched for if it is not known."""
        self._measurement.require_valid()

        def known() -> list[Capacity]:
            return [one for one in self._measurement.metrics.capacities if one.objective is None and not one.at_least]

        if not known():
            self._measurement.search(None)
        if found := known():
            if found[-1].nmrt.value > 0:
                return found[-1]
            raise InvalidResultError(f"there is no NMRT to overload the service with: {found[-1].stopped}")
        last = [one for one in self._measurement.metrics.capacities if one.objective is None][-1]
        why = f"the NMRT is at least {format_rate(last.nmrt.value)}, but not known: {last.stopped}"
        raise (GeneratorLimitError if last.end is SearchEnd.GENERATOR else InvalidResultError)(why)


def _time_of(slo: str) -> int:
    """The time of an objective, within which an answer is in time."""
    objective = parse_objective(slo)
    if objective.is_of_streams:
        raise SettingError(f"slo is {shown(slo)}, expected a time of the whole answer under overload; write p95<2s")
    return objective.longest_ns


def _refuse_unfit(overloads: list[Overload]) -> None:
    """Raise if the peak was no peak, or if there is nothing that a service could recover to."""
    for overload in overloads:
        if limited := overload.peak.limited:
            raise GeneratorLimitError(f"at {overload.peak.load_ratio:g} times the NMRT {limited}")
        if not any(step.in_time_ratio for step in overload.steps if step.load_ratio < 1):
            raise InvalidResultError(
                f"no answer is in time below the NMRT either, so that there is nothing to recover to; expected a time "
                f"that the service keeps, found {describe_step(overload.steps[0], overload)}"
            )


def _refuse_busy(verdict: Verdict, steps: list[OverloadStep]) -> None:
    """Raise if a verdict fails and the machine was busy: it may be why answers were late."""
    busy = next((step.busy for step in steps if step.busy), None)
    if verdict.outcome is Outcome.FAIL and busy:
        raise GeneratorLimitError(f"{verdict.reason}, while {busy}; measure again when the machine is quieter")


def _with_words(verdict: Verdict, overload: Overload, at: float) -> Verdict:
    """The verdict with what happened to the other requests, and what would help."""
    if verdict.outcome is Outcome.PASS:
        return verdict
    step = next(step for step in overload.steps if step.load_ratio == at)
    said = f"{describe_step(step, overload)}; {describe_behaviour(overload)}"
    return replace(verdict, reason=f"{verdict.reason}; {said}")


def _peak(given: object, name: str) -> float:
    peak = parse_number(given, name=name, example="2.0")
    if not 1 < peak <= _HIGHEST_PEAK:
        raise SettingError(
            f"{name} is {given!r}, expected a multiple of the NMRT above 1 and at most {_HIGHEST_PEAK:g}; write 2.0"
        )
    return peak
