"""How often a verdict on launches of two kinds is wrong or missing, by the mean of all and within each kind.

A service settles at its start, by chance, at 16 or at 22 ms. A baseline is recorded from eight launches, and from more
if one kind has few; later the test is judged after every launch until it is decided or eight launches are done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, judge_ratio
from pytest_mlpatterns.analysis.verdicts.launch_kinds import (
    Side,
    judge_by_kind,
    paired_kinds,
    two_kinds,
    wants_more_launches,
)
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.records.verdict import Verdict

CLAIM = (
    "of samples of one kind less than 1 % are taken for two; of two kinds at most 1 % of unchanged runs fail, and at "
    "least 90 % of +20 % in both; a kind that is lost is named"
)
TRIALS = 300
RECORDED, MOST_RECORDED, LAUNCHES, PAIRS, CONFIRMING = 8, 12, 8, 12, 4
DRIFT = 0.025
TOLERANCE = 0.10
FAST_NS, SLOW_NS = 16e6, 22e6
ERROR = 0.008
RTM = METRICS["rtm"]
RULES = ("mean of all", "within kinds", "by batch size")


@dataclass(frozen=True)
class Truth:
    """What became of the service: a factor on the times of each kind, and the share of fast launches, also before."""

    label: str
    fast: float = 1.0
    slow: float = 1.0
    share: float | None = None
    before: float | None = None

    def shares(self, rng: np.random.Generator) -> float:
        """The share of fast launches before."""
        drawn = float(rng.uniform(0.2, 0.8))
        return drawn if self.before is None else self.before


UNCHANGED = Truth("unchanged")
SLOWER = Truth("both kinds +20 %", 1.2, 1.2)
SLIGHTLY = Truth("both kinds +5 %", 1.05, 1.05)
ONE = Truth("the slow kind alone +30 %", 1.0, 1.3)
ALIKE = Truth("both kinds +37.5 %: fast as slow was", 1.375, 1.375)
LOST = Truth("always slow now", share=0.0)
BETTER = Truth("always fast now", share=1.0)
NEW_HALF = Truth("always fast before, half slow now", share=0.5, before=1.0)
NEW_MOST = Truth("always fast before, 70 % slow now", share=0.3, before=1.0)
MORE = Truth("slow 10 % → 70 %", share=0.3, before=0.9)
RARE = Truth("unchanged, 10 % slow", before=0.9)
SHIFTED = (NEW_HALF, NEW_MOST, MORE)
TRUTHS = (UNCHANGED, SLIGHTLY, SLOWER, ONE, ALIKE, LOST, BETTER, RARE, *SHIFTED)


@dataclass(frozen=True)
class Launches:
    """The times of launches, and their batch sizes: 16 of the fast kind, 8 of the slow one."""

    times: list[LaunchValue]
    sizes: list[LaunchValue]


def launches(
    rng: np.random.Generator, count: int, *, share: float, truth: Truth = UNCHANGED, scatter: float = 0.02
) -> Launches:
    is_fast = rng.random(count) < (share if truth.share is None else truth.share)
    middle = np.where(is_fast, FAST_NS * truth.fast, SLOW_NS * truth.slow)
    times = middle * np.exp(rng.normal(0, math.hypot(scatter, ERROR), count))
    sizes = np.where(is_fast, 15.7, 8.1) * np.exp(rng.normal(0, 0.01, count))
    return Launches([LaunchValue(float(one), ERROR) for one in times], [LaunchValue(float(one), 0.0) for one in sizes])


def recorded(rng: np.random.Generator, share: float, scatter: float) -> Launches:
    """A baseline, which goes on while one of two kinds has few launches."""
    found = launches(rng, MOST_RECORDED, share=share, scatter=scatter)
    count = RECORDED
    while count < MOST_RECORDED and wants_more_launches(found.times[:count]):
        count += 1
    return Launches(found.times[:count], found.sizes[:count])


def judged(rule: str, before: Launches, now: Launches, *, used: int) -> Verdict:
    plan = SequentialPlan(
        first=1, last=LAUNCHES, alpha=0.005, pass_alpha=0.01, fixed_launches=max(len(before.times), 1)
    )

    def judge(present: Sequence[LaunchValue], reference: Sequence[LaunchValue]) -> Verdict:
        return judge_change(RTM, present, reference, tolerance=TOLERANCE, plan=plan)

    if rule == RULES[0]:
        return judge(now.times[:used], before.times)
    return judge_by_kind(
        RTM, judge, present=side_of(rule, now, used), reference=side_of(rule, before, len(before.times))
    )


def side_of(rule: str, found: Launches, used: int) -> Side:
    return Side(found.times[:used], {"batch_size": found.sizes[:used]} if rule == RULES[2] else {})


def procedure(rule: str, before: Launches, now: Launches) -> tuple[Outcome, int, str]:
    """What a run came to, after how many launches, and why."""
    for used in range(1, LAUNCHES + 1):
        found = judged(rule, before, now, used=used)
        if found.outcome is Outcome.PASS or (found.outcome is Outcome.FAIL and used > 1):
            break
    return found.outcome, used, found.reason


def measure() -> Iterator[Table]:
    yield recognition()
    yield against_a_baseline()
    yield against_a_revision()


def recognition() -> Table:
    rows: list[Sequence[str]] = []
    false: list[float] = []
    for scatter in (0.017, 0.04, 0.08):
        for tails in ("normal", "heavy"):
            rng = np.random.default_rng(1)
            shares = []
            for count in range(4, 11):
                shape = (10 * TRIALS, count)
                drawn = rng.normal(0, 1, shape) if tails == "normal" else rng.standard_t(4, shape) / math.sqrt(2)
                samples = np.exp(scatter * drawn).tolist()
                found = sum(
                    two_kinds(Side([LaunchValue(one, ERROR) for one in sample])) is not None for sample in samples
                )
                shares.append(found / len(samples))
            false += shares
            rows.append((f"one kind, {tails}, {scatter:.1%}", *(f"{100 * one:.2f} %" for one in shares)))
    for scatter in (0.02, 0.03):
        rng = np.random.default_rng(2)
        shares = []
        for count in range(4, 11):
            times = [launches(rng, count, share=0.5, scatter=scatter).times for _ in range(TRIALS)]
            shares.append(sum(two_kinds(Side(one)) is not None for one in times) / TRIALS)
        rows.append((f"two kinds, {scatter:.0%} within each", *(f"{100 * one:.0f} %" for one in shares)))
    claims = [Claim("one kind taken for two, largest share", max(false), at_most=0.01)]
    headings = ("launches", *map(str, range(4, 11)))
    return Table("samples of launches in which two kinds are seen", headings, rows, claims)


def against_a_baseline() -> Table:
    rows: list[Sequence[str]] = []
    silent: list[float] = []
    shares: dict[tuple[Truth, str], dict[Outcome, float]] = {}
    for truth in TRUTHS:
        for rule in RULES:
            rng = np.random.default_rng(3)
            found = []
            for _ in range(2 * TRIALS):
                share, scatter = truth.shares(rng), rng.uniform(0.015, 0.03)
                before = recorded(rng, share, scatter)
                now = launches(rng, LAUNCHES, share=share, truth=truth, scatter=scatter)
                found.append(procedure(rule, before, now))
            if truth is LOST and rule in RULES[1:]:
                silent.append(
                    sum(outcome is Outcome.PASS and "none of" not in why for outcome, _, why in found) / len(found)
                )
            of_each = {outcome: sum(one is outcome for one, _, _ in found) / len(found) for outcome in Outcome}
            shares[truth, rule] = of_each
            cells = (f"{100 * of_each[outcome]:.1f} %" for outcome in Outcome)
            rows.append((truth.label, rule, *cells, f"{sum(used for _, used, _ in found) / len(found):.1f}"))
    within = RULES[1:]
    claims = [
        Claim("unchanged: FAIL", _most(shares, within, Outcome.FAIL, UNCHANGED, RARE), at_most=0.01),
        Claim("both kinds +20 %: FAIL", min(shares[SLOWER, rule][Outcome.FAIL] for rule in within), at_least=0.9),
        Claim("a kind is lost: PASS in silence", max(silent), at_most=0.05),
    ]
    headings = ("truth", "rule", "pass", "fail", "no verdict", "launches, mean")
    return Table(f"a stored baseline at {TOLERANCE:.0%}, shares of 20 to 80 %", headings, rows, claims)


def against_a_revision() -> Table:
    """Both sides settle by themselves, in pairs of launches of the same minutes; a failure is confirmed by a fourth."""
    rows: list[Sequence[str]] = []
    shares: dict[tuple[Truth, str], dict[Outcome, float]] = {}
    for truth in TRUTHS:
        for rule in RULES:
            rng = np.random.default_rng(4)
            found = []
            for _ in range(2 * TRIALS):
                share, scatter = truth.shares(rng), rng.uniform(0.015, 0.03)
                drift = rng.normal(0, DRIFT, PAIRS)
                before = launches(rng, PAIRS, share=share, scatter=scatter)
                now = launches(rng, PAIRS, share=share, truth=truth, scatter=scatter)
                found.append(paired_procedure(rule, _drifted(before, drift), _drifted(now, drift)))
            of_each = {outcome: sum(one is outcome for one, _ in found) / len(found) for outcome in Outcome}
            shares[truth, rule] = of_each
            cells = (f"{100 * of_each[outcome]:.1f} %" for outcome in Outcome)
            rows.append((truth.label, rule, *cells, f"{sum(used for _, used in found) / len(found):.1f}"))
    within = RULES[1:]
    claims = [
        Claim("revision, unchanged: FAIL", _most(shares, within, Outcome.FAIL, UNCHANGED, RARE), at_most=0.01),
        Claim(
            "revision, slow launches new or more often: PASS",
            _most(shares, within, Outcome.PASS, *SHIFTED),
            at_most=0.20,
        ),
        Claim("revision, both +20 %: FAIL", min(shares[SLOWER, rule][Outcome.FAIL] for rule in within), at_least=0.9),
        Claim("revision, both +20 %: PASS", max(shares[SLOWER, rule][Outcome.PASS] for rule in within), at_most=0.025),
    ]
    headings = ("truth", "rule", "pass", "fail", "no verdict", "pairs, mean")
    note = "A kind that the first side showed in none or one of its launches is not missed on the second."
    return Table(f"a revision at {TOLERANCE:.0%}, at most {PAIRS} pairs", headings, rows, claims, [note])


def _most(
    shares: Mapping[tuple[Truth, str], Mapping[Outcome, float]], rules: Sequence[str], outcome: Outcome, *truths: Truth
) -> float:
    """The largest share of an outcome over these truths and rules."""
    return max(shares[truth, rule][outcome] for truth in truths for rule in rules)


def _drifted(found: Launches, drift: NDArray[np.float64]) -> Launches:
    moved = [
        LaunchValue(one.value * math.exp(by), one.relative_error) for one, by in zip(found.times, drift, strict=True)
    ]
    return Launches(moved, found.sizes)


def paired_procedure(rule: str, before: Launches, now: Launches) -> tuple[Outcome, int]:
    ratios = [
        LogRatio(math.log(b.value / a.value), ERROR * math.sqrt(2))
        for a, b in zip(before.times, now.times, strict=True)
    ]
    plan = SequentialPlan(first=3, last=PAIRS, alpha=0.0125, pass_alpha=0.025)
    for used in range(plan.first, PAIRS + 1):
        sides = [side_of(rule, one, used) for one in (before, now)]
        kinds = None if rule == RULES[0] else paired_kinds(ratios[:used], *sides)

        judge = partial(judge_ratio, limit=1 + TOLERANCE, better="lower", plan=replace(plan, since=used))
        found = (
            judge(ratios[:used]) if kinds is None else kinds.verdict(judge, better="lower", tolerance=TOLERANCE)
        ).outcome
        if found is Outcome.PASS or (found is Outcome.FAIL and used >= CONFIRMING):
            break
    return found, used
