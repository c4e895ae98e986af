"""How often the verdict against a stored baseline is wrong or missing over a whole run, where the truth is known.

A baseline is recorded from six launches; later the test is judged after every launch in two metrics, until both are
decided or eight launches are done, and a failure is believed from the second launch on, as the plugin does it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.intervals import estimate
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change, judge_limit
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLAIM = (
    "against a stored baseline at 10 % tolerance at most 1 % of unchanged runs fail, and at least 95 % of +25 %; a "
    "limit that just holds is failed in at most 2.5 %; intervals of 95 % hold the truth in at least 93 %"
)
TRIALS = 1000
BLOCKS = 4
RECORDED, LAUNCHES = 6, 8
LAUNCH_S = 1.7
TOLERANCE = 0.10
RTM, THROUGHPUT = METRICS["rtm"], METRICS["throughput"]


@dataclass(frozen=True)
class Noise:
    """Deviations between launches and between blocks, and by how much the machine drifts in half a minute or more."""

    label: str
    launch_sd: float = 0.017
    block_cv: float = 0.03
    drift: float = 0.05


STEADY = Noise("launches 1.7 %, blocks 3 %, no drift", drift=0.0)
USUAL = Noise("launches 1.7 %, blocks 3 %, drift ±2.5 %", drift=0.025)
DRIFTING = Noise("launches 1.7 %, blocks 3 %, drift ±5 %")
NOISY = Noise("launches 1.7 %, blocks 6 %, drift ±5 %", block_cv=0.06)
NOISES = (STEADY, USUAL, DRIFTING, NOISY)


def launches(rng: np.random.Generator, noise: Noise, rtm_ns: float, *, count: int) -> list[LaunchValue]:
    """Launches one after the other: the medians of their blocks, which are like their neighbours by half."""
    moment = np.arange(count)[:, None] * LAUNCH_S + np.arange(BLOCKS) * 0.25
    log = noise.drift * np.sin(2 * math.pi * (moment / rng.uniform(30, 150) + rng.random()))
    part = noise.block_cv * math.sqrt(0.5)
    log = log + rng.normal(0, part, log.shape) + np.repeat(rng.normal(0, part, (count, BLOCKS // 2)), 2, axis=1)
    log = log + rng.normal(0, noise.launch_sd, (count, 1))
    error = log.std(axis=1, ddof=1) * math.sqrt(1.5 / BLOCKS)
    return [LaunchValue(rtm_ns * math.exp(row.mean()), float(e)) for row, e in zip(log, error, strict=True)]


def procedure(rng: np.random.Generator, noise: Noise, change: float) -> tuple[Outcome, int]:
    """What a run came to, and after how many launches."""
    before = launches(rng, noise, 4e6, count=RECORDED)
    after = launches(rng, noise, 4e6 * (1 + change), count=LAUNCHES)
    plan = SequentialPlan(first=1, last=LAUNCHES, alpha=0.005, pass_alpha=0.01, fixed_launches=RECORDED)
    outcomes, used = [], 1
    for metric in (RTM, THROUGHPUT):
        sides = [[value if metric is RTM else _rate(value) for value in side] for side in (after, before)]
        while True:
            found = judge_change(metric, sides[0][:used], sides[1], tolerance=TOLERANCE, plan=plan).outcome
            if (found is Outcome.PASS or (found is Outcome.FAIL and used > 1)) or used == LAUNCHES:
                break
            used += 1
        outcomes.append(found)
    worst = next(one for one in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS) if one in outcomes)
    return worst, used


def measure() -> Iterator[Table]:
    yield against_a_baseline()
    yield against_a_limit()


def against_a_baseline() -> Table:
    rows: list[Sequence[str]] = []
    shares: dict[tuple[Noise, float], dict[Outcome, float]] = {}
    for noise in NOISES:
        for change in (0.0, 0.10, 0.20, 0.25):
            rng = np.random.default_rng(3)
            found = [procedure(rng, noise, change) for _ in range(TRIALS)]
            share = {outcome: sum(one is outcome for one, _ in found) / TRIALS for outcome in Outcome}
            shares[noise, change] = share
            taken = sum(used for _, used in found) / TRIALS
            cells = (f"{100 * share[outcome]:.1f} %" for outcome in Outcome)
            rows.append((noise.label, f"{100 * change:+g} %", *cells, f"{taken:.1f}"))
    claims = [
        Claim("no change: FAIL", max(shares[noise, 0.0][Outcome.FAIL] for noise in NOISES), at_most=0.01),
        Claim("+25 %: FAIL", min(shares[noise, 0.25][Outcome.FAIL] for noise in (STEADY, USUAL)), at_least=0.95),
    ]
    headings = ("noise", "change", "pass", "fail", "no verdict", "launches, mean")
    return Table(f"a stored baseline at {TOLERANCE:.0%}: {TRIALS} simulated runs each", headings, rows, claims)


def against_a_limit() -> Table:
    """A limit that is exactly the truth, and how often intervals hold it."""
    rows: list[Sequence[str]] = []
    wrong: list[float] = []
    held: list[float] = []
    plan = SequentialPlan(first=1, last=LAUNCHES, alpha=0.02)
    for noise in NOISES:
        rng = np.random.default_rng(4)
        failed, inside = 0, [0] * LAUNCHES
        for _ in range(TRIALS):
            values = launches(rng, noise, 4e6, count=LAUNCHES)
            for count in range(1, LAUNCHES + 1):
                known = estimate(values[:count], RTM.launch_sd)
                inside[count - 1] += known.low <= 4e6 <= known.high
            for count in range(2, LAUNCHES + 1):
                if judge_limit(RTM, estimate(values[:count], RTM.launch_sd, plan.confidence(count)), 4e6).outcome is (
                    Outcome.FAIL
                ):
                    failed += 1
                    break
        shares = [count / TRIALS for count in inside]
        rows.append((noise.label, f"{100 * failed / TRIALS:.1f} %", *(f"{100 * share:.1f} %" for share in shares)))
        if noise is STEADY:
            wrong.append(failed / TRIALS)
            held += shares
    claims = [
        Claim("a limit that just holds: FAIL", max(wrong), at_most=0.025),
        Claim("coverage, lowest", min(held), at_least=0.93),
    ]
    notes = [
        "One launch cannot know what launches differ by: its interval, of the prior alone, is wider than it had to be.",
        "Against a number that was true at another time no interval helps where the machine drifts; pairs do.",
    ]
    headings = ("noise", "FAIL at the limit", *(f"coverage, {count}" for count in range(1, LAUNCHES + 1)))
    return Table("limits, and intervals of 95 %", headings, rows, claims, notes)


def _rate(rtm: LaunchValue) -> LaunchValue:
    return LaunchValue(1e9 / rtm.value, rtm.relative_error)
