"""How often a stored baseline is wrong or undecided, settled by the recorded revision or alone; the truth is known.

The machine of a run is faster or slower than when the baseline was recorded: everything takes that many times as long.
A run is screened by the file with up to three launches, or one that is slower than the tolerance; what does not pass is
measured interleaved with the recorded code, and that verdict counts, as ``judging/settled_comparison.py`` does it. A
file alone excuses what the fixed workload explains, as ``judging/machine_doubts.py`` does it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table
from msgspec import structs
from verdict_simulation import (
    CHANGES,
    DISTURBED,
    PAIRED_LAUNCHES,
    RATE_RPS,
    SERVICES,
    SPEED,
    STORED_LAUNCHES,
    STORED_S,
    TRIALS,
    UNCHANGED,
    Change,
    Run,
    Sample,
    Service,
    blamed,
    cells,
    decided,
    guards,
    paired_sample,
    sample,
    share,
    stored_outcomes,
)

from pytest_mlpatterns.analysis.health.machine import SLOWER, may_be_faster, ratio_of_means, ratio_of_sorting
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, STANDING
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.intervals import min_samples
from pytest_mlpatterns.analysis.statistics.log_ratio import judge_ratio
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.judging.machine_doubts import LEAST_ROOM
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CLAIM = (
    "settled by the recorded revision, at most 1 % of unchanged runs fail, at least 97 % of those with 20 % more RTM "
    "do, and at most 2 % of unchanged runs stay undecided (8 % if cores change their speed, more if launches differ by "
    "8 %), on machines that are 0.7 to 2 times as slow as when the baseline was recorded; by the file alone at most "
    "1 % of unchanged runs fail on machines up to twice as slow"
)
RECORDED, SCREEN_LAUNCHES = 8, 3
SCREEN_S = min_samples(99) / RATE_RPS
"""Window of a launch that the file is to decide: it has the requests that p99 needs."""
MOMENTS = 4
"""Moments of the fixed work in a launch: before and after its start, and twice after its load."""
BLOCKS = 10
"""Moments of the fixed work in a paired launch."""
FLICKERING = Service("cores change between two speeds, 1 and 1.6", launch_sd=0.045, flicker=1.6)
SLICED_SD = 0.02
"""Scatter of paired launches on such a host, since their blocks alternate (``benchmarks/slice_simulation.py``)."""
MOST_OPEN = {SERVICES[2].label: 1.0, FLICKERING.label: 0.08}
"""Largest shares of unchanged runs that may stay undecided, of services of which more do; 1 if nothing is claimed."""
LAST = 14
SLOWED = next(change for change, _ in CHANGES if change.rtm == 1.2)
FACTORS = (0.7, 2.0)
TOLERANCES = Tolerances()
GUARD_PLAN_ALPHA = 0.0125
"""As in ``judging/settled_comparison.py``."""
SETTLED = (UNCHANGED, *(change for change, _ in CHANGES))


def on_machine(found: Sample, factor: float) -> Sample:
    """Launches on a machine on which everything takes so many times as long."""
    slower = found.slower(factor)
    slower.moments_ns = [[factor * ns for ns in moments] for moments in found.moments_ns]
    return slower


def settled(rng: np.random.Generator, service: Service, change: Change, *, factor: float) -> Run:
    """One run: the file with few launches, then the recorded code."""
    then = sample(rng, service, UNCHANGED, launches=RECORDED, window_s=STORED_S, moments=MOMENTS)
    now = on_machine(sample(rng, service, change, launches=SCREEN_LAUNCHES, window_s=SCREEN_S, moments=MOMENTS), factor)
    launches, screened = 1, stored_outcomes(then, now.first(1), looks=SCREEN_LAUNCHES)
    while launches < SCREEN_LAUNCHES and decided(screened, launches) is None and not is_slower(then, now, launches):
        launches += 1
        screened = stored_outcomes(then, now.first(launches), looks=SCREEN_LAUNCHES)
    now = now.first(launches)
    is_faster = may_be_faster(now.fixed_ns, then.fixed_ns)
    if set(screened.values()) == {Outcome.PASS} and not is_faster:
        return Run(Outcome.PASS, launches)
    paired = service if service.flicker == 1.0 else replace(service, launch_sd=SLICED_SD)
    judged, count, suspected = interleaved(rng, paired, change)
    beside = on_machine(sample(rng, service, UNCHANGED, launches=count, window_s=0.5, moments=BLOCKS), factor)

    def explained(name: str, *sides: Sample, fixed_ns: Sequence[float]) -> bool:
        return name not in STANDING and any(is_explained(then, side, name, fixed_ns=fixed_ns) for side in sides)

    def shared(name: str) -> bool:
        has_passed = name not in STANDING and worsening(then, beside, name) <= TOLERANCES.of(name)
        return has_passed or explained(name, beside, now, fixed_ns=beside.fixed_ns)

    outcomes = {}
    for name in {**screened, **judged}:
        seen, found = screened.get(name), judged.get(name)
        worse = seen is Outcome.FAIL
        if found is None or (name in STANDING and seen in (Outcome.PASS, Outcome.FAIL)):
            outcomes[name] = seen or Outcome.PASS
        elif found is Outcome.PASS and worse:
            outcomes[name] = Outcome.PASS if shared(name) else Outcome.INCONCLUSIVE
        elif (
            found is Outcome.INCONCLUSIVE
            and worse
            and suspected[name]
            and not explained(name, now, fixed_ns=now.fixed_ns)
        ):
            outcomes[name] = Outcome.FAIL
        elif found is Outcome.INCONCLUSIVE and seen is Outcome.PASS and not suspected[name] and not is_faster:
            outcomes[name] = Outcome.PASS
        else:
            outcomes[name] = found
    return decided(outcomes, launches + count) or Run(Outcome.INCONCLUSIVE, launches + count)


def is_slower(then: Sample, now: Sample, launches: int) -> bool:
    """Whether the estimate of RTM or throughput is beyond its tolerance, so that the recorded code decides at once."""
    return any(worsening(then, now.first(launches), name) > TOLERANCES.of(name) for name in SPEED)


def alone(rng: np.random.Generator, service: Service, change: Change, *, factor: float) -> Run:
    """One run that the file decides: what the fixed workload explains, by three launches, is left undecided."""
    then = sample(rng, service, UNCHANGED, launches=RECORDED, window_s=STORED_S, moments=MOMENTS)
    everything = on_machine(
        sample(rng, service, change, launches=STORED_LAUNCHES, window_s=STORED_S, moments=MOMENTS), factor
    )
    run, launches = None, 0
    while run is None and launches < STORED_LAUNCHES:
        launches += 1
        run = decided(stored_outcomes(then, everything.first(launches)), launches)
    if run is None or run.outcome is not Outcome.FAIL:
        return run or Run(Outcome.INCONCLUSIVE, launches)
    now = everything.first(max(launches, SCREEN_LAUNCHES))
    slowdown = ratio_of_sorting(now.fixed_ns, then.fixed_ns) or 1.0
    if slowdown < SLOWER:
        return run
    beyond = stored_outcomes(then.slower(slowdown), now)
    failed = tuple(name for name in run.failed if name in STANDING or beyond.get(name) is Outcome.FAIL)
    return Run(Outcome.FAIL if failed else Outcome.INCONCLUSIVE, len(now.moments_ns), failed)


def worsening(then: Sample, beside: Sample, name: str) -> float:
    """How much worse a metric of the recorded code is today than it was, by the medians of launches; inf if unknown."""
    before, today = (float(np.median([one.value for one in side.values.get(name, ())] or 0)) for side in (then, beside))
    if not before:
        return math.inf
    return today / before - 1 if METRICS[name].better == "lower" else 1 - today / before


def is_explained(then: Sample, side: Sample, name: str, *, fixed_ns: Sequence[float]) -> bool:
    """Whether a metric is within its tolerance of what it was, on a machine that is as slow as the fixed work shows."""
    ratio = ratio_of_means(fixed_ns, then.fixed_ns)
    if ratio is None or ratio < SLOWER:
        return False
    slower = then.slower(ratio)
    if name not in then.values:  # a tail, which is judged by counts
        return stored_outcomes(slower, side).get(name) is Outcome.PASS
    return worsening(slower, side, name) <= max(TOLERANCES.of(name), LEAST_ROOM)


def interleaved(
    rng: np.random.Generator, service: Service, change: Change
) -> tuple[dict[str, Outcome], int, dict[str, bool]]:
    """The recorded code and the present one in the same minutes, at the tolerance of the test."""
    everything = paired_sample(rng, service, change)
    plan = SequentialPlan(first=3, last=LAST, alpha=0.025 / len(SPEED), pass_alpha=0.025)
    outcomes: dict[str, Outcome] = {}
    suspected: dict[str, bool] = {}
    launches = plan.first
    for launches in range(plan.first, min(plan.last, PAIRED_LAUNCHES) + 1):
        then, now = everything.then.first(launches), everything.now.first(launches)
        outcomes = guards(then, now, TOLERANCES, values=("peak_memory", "cold_start"))
        suspected = {name: outcome is not Outcome.PASS for name, outcome in outcomes.items()}
        for name, ratios in everything.judged(launches).items():
            better, tolerance = METRICS[name].better, TOLERANCES.of(name)
            limit = 1 + tolerance if better == "lower" else 1 - tolerance
            judged = plan if name in SPEED else structs.replace(plan, alpha=GUARD_PLAN_ALPHA)
            verdict = judge_ratio(ratios[:launches], limit, better, plan=judged, equivalence=name in SPEED)
            outcomes[name] = verdict.outcome
            value = verdict.judged.value
            suspected[name] = value > limit if better == "lower" else value < limit
        if decided(outcomes, launches) is not None:
            break
    return outcomes, launches, suspected


def measure() -> Iterator[Table]:
    rows: list[Sequence[str]] = []
    claims = []
    for service in (*SERVICES[:3], *DISTURBED, FLICKERING):
        for change in SETTLED:
            runs = trials(service, change)
            rows.append((change.label, service.label, *cells(runs), blamed(runs)))
            where = f"{service.label}, {change.label}"
            if change is UNCHANGED:
                claims.append(Claim(f"{where}: FAIL", share(runs, Outcome.FAIL), at_most=0.01))
                if (most_open := MOST_OPEN.get(service.label, 0.02)) < 1:
                    claims.append(Claim(f"{where}: undecided", share(runs, Outcome.INCONCLUSIVE), at_most=most_open))
            elif change.rtm >= 1.2:
                claims.append(Claim(f"{where}: FAIL", share(runs, Outcome.FAIL), at_least=0.97))
    headings = ("change", "service", "pass", "fail", "no verdict", "launches, median", "failed by")
    low, high = FACTORS
    title = f"settled, machines {low:g} to {high:g} times as slow: {TRIALS} simulated runs each"
    yield Table(title, headings, rows, claims)
    yield by_the_file_alone()


def by_the_file_alone() -> Table:
    rows: list[Sequence[str]] = []
    claims = []
    for change, factors in ((UNCHANGED, (1.0, 2.0)), (SLOWED, (1.0, 1.0)), (SLOWED, (1.0, 2.0))):
        runs = trials(SERVICES[0], change, alone, factors=factors)
        label = f"{factors[0]:g} to {factors[1]:g}"
        rows.append((change.label, label, *cells(runs), blamed(runs)))
        if change is UNCHANGED:
            claims.append(Claim(f"by the file alone, {change.label}: FAIL", share(runs, Outcome.FAIL), at_most=0.01))
    headings = ("change", "times as slow", "pass", "fail", "no verdict", "launches, median", "failed by")
    return Table(f"by the file alone: {TRIALS} simulated runs each", headings, rows, claims)


def trials(
    service: Service,
    change: Change,
    procedure: Callable[..., Run] = settled,
    *,
    factors: tuple[float, float] = FACTORS,
) -> list[Run]:
    rng = np.random.default_rng(7)
    low, high = map(math.log, factors)
    return [procedure(rng, service, change, factor=math.exp(rng.uniform(low, high))) for _ in range(TRIALS)]
