"""How often the verdict on a ratio of paired launches is wrong or missing, where the truth is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table

from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.log_ratio import judge_ratio, paired_log_ratio, ratio_estimate
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio

CLAIM = (
    "at 5 % tolerance at most 0.5 % false alarms and 5 % without a verdict, at least 95 % of +10 % caught; "
    "at 2.5 % at least 95 % of +5 % in moderate noise; intervals of 95 % hold the truth in 93 % to 97 %"
)
TRIALS = 4000
BLOCKS = 8
SECONDS_PER_LAUNCH = 2.8


@dataclass(frozen=True)
class Noise:
    """Deviations between launches and between blocks; share of blocks, and of launches, that others disturb."""

    label: str
    launch_sd: float = 0.017
    block_cv: float = 0.03
    disturbed_blocks: float = 0.02
    disturbed_launches: float = 0.0


QUIET = Noise("quiet: launches 1 %, blocks 2 %", 0.010, 0.02)
USUAL = Noise("launches 1.7 %, blocks 3 %")
LIVELY = Noise("launches 1.7 %, blocks 4.5 %", block_cv=0.045)
NOISY = Noise("launches 1.7 %, blocks 6 %", block_cv=0.06)
SHARED = Noise("as the second, every third launch disturbed", disturbed_launches=0.33)
NOISES = (QUIET, USUAL, LIVELY, NOISY, SHARED)


def launches(rng: np.random.Generator, noise: Noise, ratio: float, *, count: int) -> list[LogRatio]:
    """Paired launches of blocks A B B A, the next beginning with B.

    Neighbouring blocks correlate by 0.5 (0.6 was measured); both sides drift by 5 % over half a minute to minutes.
    """
    shape = (count, BLOCKS)
    part = noise.block_cv * math.sqrt(0.5)
    moment = np.arange(count)[:, None] * SECONDS_PER_LAUNCH + np.arange(BLOCKS) * 0.26
    log = rng.normal(0, part, shape) + np.repeat(rng.normal(0, part, (count, BLOCKS // 2)), 2, axis=1)
    log += 0.05 * np.sin(2 * math.pi * (moment / rng.uniform(30, 150) + rng.random()))
    busy = rng.random(shape) < noise.disturbed_blocks
    busy |= (rng.random((count, 1)) < noise.disturbed_launches) & (rng.random(shape) < 0.5)
    log += busy * rng.exponential(0.3, shape)
    second = np.tile([False, True, True, False], BLOCKS // 4) ^ (np.arange(count) % 2 == 1)[:, None]
    log += second * (math.log(ratio) + rng.normal(0, noise.launch_sd, (count, 1)))
    times = np.exp(log)
    return [paired_log_ratio(row[~of].tolist(), row[of].tolist()) for row, of in zip(times, second, strict=True)]


def measure() -> Iterator[Table]:
    yield verdicts()
    yield coverage()
    yield together()


def verdicts() -> Table:
    """Shares of the outcomes of whole procedures."""
    rows: list[Sequence[str]] = []
    shares: dict[tuple[Noise, float, float], dict[Outcome, float]] = {}
    for tolerance, changes in ((0.05, (0.0, 0.05, 0.10)), (0.025, (0.0, 0.025, 0.05))):
        plan = SequentialPlan.for_tolerance(tolerance, 0.0125, 0.025)  # of one of two metrics
        for noise in NOISES:
            for change in changes:
                rng = np.random.default_rng(1)
                found = [
                    judge_ratio(launches(rng, noise, 1 + change, count=plan.last), 1 + tolerance, "lower", plan=plan)
                    for _ in range(TRIALS)
                ]
                share = {outcome: sum(one.outcome is outcome for one in found) / TRIALS for outcome in Outcome}
                shares[noise, tolerance, change] = share
                taken = float(np.median([one.launches for one in found]))
                rows.append(
                    (
                        noise.label,
                        f"{100 * tolerance:g} %",
                        f"{100 * change:+g} %",
                        *(f"{100 * share[outcome]:.2f} %" for outcome in Outcome),
                        f"{taken:g}",
                        f"{taken * SECONDS_PER_LAUNCH:.0f} s",
                    )
                )
    headings = ("noise", "tolerance", "change", "pass", "fail", "no verdict", "launches, median", "time")
    return Table(f"verdicts of {TRIALS} simulated procedures each", headings, rows, list(claims_of(shares)))


def claims_of(shares: dict[tuple[Noise, float, float], dict[Outcome, float]]) -> Iterator[Claim]:
    """What is claimed, each of the noise in which it is worst."""
    unchanged, doubled = ([shares[noise, 0.05, change] for noise in NOISES] for change in (0.0, 0.10))
    at_limit = [share for (_, tolerance, change), share in shares.items() if change == tolerance]
    tight = [shares[noise, 0.025, 0.05] for noise in (QUIET, USUAL)]
    yield Claim("no change, tolerance 5 %: FAIL", max(share[Outcome.FAIL] for share in unchanged), at_most=0.005)
    missing = max(share[Outcome.INCONCLUSIVE] for share in unchanged)
    yield Claim("no change, tolerance 5 %: no verdict", missing, at_most=0.05)
    yield Claim("+10 %, tolerance 5 %: FAIL", min(share[Outcome.FAIL] for share in doubled), at_least=0.95)
    yield Claim("+5 %, tolerance 2.5 %, blocks up to 3 %: FAIL", min(one[Outcome.FAIL] for one in tight), at_least=0.95)
    for outcome, most in ((Outcome.FAIL, 0.0175), (Outcome.PASS, 0.035)):  # 1.25 % and 2.5 % are meant
        text = f"a change of exactly the tolerance: {outcome.upper()}"
        yield Claim(text, max(share[outcome] for share in at_limit), at_most=most)


def coverage() -> Table:
    """How often an interval of 95 % holds the truth, at fixed numbers of launches."""
    rows: list[Sequence[str]] = []
    claimed: list[float] = []
    for noise in NOISES:
        shares = []
        for count in (3, 5, 8, 18):
            rng = np.random.default_rng(2)
            estimates = (ratio_estimate(launches(rng, noise, 1.0, count=count)) for _ in range(TRIALS))
            shares.append(sum(one.low <= 1.0 <= one.high for one in estimates) / TRIALS)
        rows.append((noise.label, *(f"{100 * share:.1f} %" for share in shares)))
        claimed += shares if noise in (USUAL, LIVELY, NOISY) else []
    claims = [
        Claim("coverage, lowest", min(claimed), at_least=0.93),
        Claim("coverage, highest", max(claimed), at_most=0.97),
    ]
    note = "Claimed where launches vary by 1.7 %; the prior is wider than a quiet machine needs, and intervals with it."
    headings = ("noise", "3 launches", "5", "8", "18")
    return Table("how often an interval of 95 % holds the truth", headings, rows, claims, [note])


DRAWS = 200_000


def together() -> Table:
    """Two metrics of unchanged services that are each three times as bad by their estimates, whose noise is shared.

    They fail together only if their intervals show it too, which is left out here.
    """
    rows: list[Sequence[str]] = []
    claimed: list[float] = []
    for deviation in (0.1, 0.25, 0.5, 0.7, 1.0):
        for shared in (0.0, 0.9):
            shares = []
            for pairs in (4, 8):
                rng = np.random.default_rng(3)
                both, own = rng.normal(0, 1, DRAWS), rng.normal(0, 1, (2, DRAWS))
                found = deviation / math.sqrt(pairs) * (math.sqrt(shared) * both + math.sqrt(1 - shared) * own)
                shares.append(float((found >= math.log(3)).all(axis=0).mean()))
            claimed += shares if deviation <= 0.7 else []
            rows.append((f"{deviation:.0%}", f"{shared:.0%}", *(f"{100 * share:.3f} %" for share in shares)))
    claims = [Claim("three times as bad in two metrics, launches up to 70 %", max(claimed), at_most=0.001)]
    headings = ("launches differ by", "shared noise", "4 pairs", "8")
    return Table("unchanged services that are three times as bad in two metrics", headings, rows, claims)
