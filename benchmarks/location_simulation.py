"""Which statistic of a launch's times a comparison should judge, where the truth is known.

A launch is a row of times; its median and its location are those of ``analysis/metrics/blocked_values.py``, with
their errors. A run draws launches from many, adds what launches differ by, and is judged after each of them as the
plugin does it: by the median, by the location, and by the one of both that the reference knows better. All statistics
grow in proportion to the times, so that one draw shows the verdict on every change of all times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table

from pytest_mlpatterns.analysis.metrics.blocked_values import BlockedValues
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.distributions import location
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD, block_weights, launch_deviation, ratio_of
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, paired_log_ratio, ratio_estimate
from pytest_mlpatterns.analysis.verdicts.tolerances import knows_the_median_better
from pytest_mlpatterns.records.launch import Estimate, LaunchValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Logs = NDArray[np.float64]
    Draw = Callable[[np.random.Generator, int, int], Logs]

CLAIM = (
    "judged by the statistic that the reference knows better, at most 1 % of unchanged runs fail in every family and "
    "both modes; where the median is better known, as on a busy machine, little is lost; a new mode of a "
    "quarter of the requests that take three times as long passes in at most 6 % of runs"
)
TRIALS = 200
POOL = 200
"""Launches from which runs are drawn."""
BLOCKS = 24
TOLERANCE = 0.10
RECORDED, LAUNCHES = 4, 8
PAIRED, PAIRS = 8, 4
METRICS_TOGETHER = 2
REQUESTS = (8, 20, 60, 300)
CHANGES = (0.20, 0.35, 0.50, 0.73)
BLOCK_SD = 0.03
"""Deviation between neighbouring blocks, half of which both sides share; a block in fifty is disturbed."""
STATISTICS = ("median", "location", "judged")
SUSPICION = 0.90
"""Confidence of the interval of the location whose lower end is above zero if it is suspected."""
DRIFT = 0.025
"""Deviation of the speed of the machine between paired launches."""
START_S = 2.0
"""Start and warm-up of a launch."""
WIDEST = 9.0
"""Largest change that is looked for."""


# --- the families ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """How the times of a service are distributed: ``draw`` gives their logarithms, shape ``(launches, requests)``.

    ``drift`` is the standard deviation between launches of the share of the slow mode, ``stay`` the probability that a
    request is of the same mode as the one before.
    """

    label: str
    share: float = 0.0
    drift: float = 0.0
    stay: float = 0.5
    heavy: float = 0.0
    trend: float = 0.0
    stretched: bool = False
    disturbed: bool = False
    inputs: float = 0.0

    def draw(self, rng: np.random.Generator, launches: int, requests: int, *, change: Change | None = None) -> Logs:
        """Logarithms of the times, one after the other."""
        change = change or Change("none")
        shape = (launches, requests)
        logs = rng.normal(0, SPREAD if not self.share else SPREAD_OF_MODE, shape)
        if self.share:
            slow = self._slow(rng, shape)
            logs += slow * (math.log(MODES[1] / MODES[0]) + math.log1p(change.slow_mode))
            logs += ~slow * math.log1p(change.fast_mode)
        logs += (rng.random(shape) < self.heavy) * math.log(10) + np.linspace(0, math.log1p(self.trend), requests)
        logs += (rng.random(shape) < change.tail) * math.log(4)
        if change.new_mode:
            share = np.clip(rng.normal(change.new_mode, change.drift, (launches, 1)), 0, 0.49)
            logs += (rng.random(shape) < share) * math.log(3)
        if self.inputs:  # the same inputs in the same order in each launch
            logs += np.random.default_rng(9).normal(0, self.inputs, INPUTS)[np.arange(requests) % INPUTS]
        some = rng.random((launches, 1)) < 0.5
        if self.stretched:  # neighbours hold up to half of the requests of a launch
            logs += (rng.random(shape) < some * rng.uniform(0.05, 0.5, (launches, 1))) * rng.exponential(0.5, shape)
        if self.disturbed:  # or whole stretches of time
            busy = (some & (rng.random((launches, 12)) < 0.35)) * rng.exponential(0.3, (launches, 12))
            logs += busy[:, np.arange(requests) * 12 // requests]
        return logs

    def _slow(self, rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Which requests are of the slow mode."""
        if self.stay == 0.5:
            shares = np.clip(rng.normal(self.share, self.drift, (shape[0], 1)), 0.02, 0.98)
            found: NDArray[np.bool_] = rng.random(shape) < shares
            return found
        switches = rng.random(shape) > self.stay
        switches[:, 0] = rng.random(shape[0]) < self.share
        slow: NDArray[np.bool_] = np.cumsum(switches, axis=1) % 2 == 1
        return slow


@dataclass(frozen=True)
class Change:
    """What became worse, apart from all times: a mode takes this much longer, or a share of the requests four times.

    ``new_mode``: share of the requests that take three times as long; ``drift``: its deviation between launches.
    """

    label: str
    slow_mode: float = 0.0
    fast_mode: float = 0.0
    tail: float = 0.0
    new_mode: float = 0.0
    drift: float = 0.0


MODES = (190e6, 375e6)
SPREAD, SPREAD_OF_MODE = 0.15, 0.04
INPUTS = 8
IN_TURNS = Family("two modes that take turns", share=0.5, stay=0.1)
ONE = Family("one mode")
HEAVY = Family("1 % take ten times as long", heavy=0.01)
DRIFTING = Family("two modes, 50 ± 5 %", share=0.5, drift=0.05)
STRETCHED = Family("busy machine, half stretched", stretched=True)
DISTURBED = Family("busy machine, for some time", disturbed=True)
FAMILIES = (
    ONE,
    IN_TURNS,
    Family("two modes, 50 % each", share=0.5),
    DRIFTING,
    Family("two modes, 50 ± 10 %", share=0.5, drift=0.1),
    Family("two modes, 30 ± 10 %", share=0.3, drift=0.1),
    HEAVY,
    Family("trend of 20 % in a launch", trend=0.2),
    Family("inputs differ by 40 %", inputs=0.4),
    STRETCHED,
    DISTURBED,
)
BUSY = (STRETCHED, DISTURBED)


# --- the candidates -------------------------------------------------------------------------------------------------


def trimmed(low: float, high: float) -> Callable[[Logs], Logs]:
    """The mean of the logarithms without these shares of the fastest and slowest."""

    def of(logs: Logs) -> Logs:
        ascending = np.sort(logs, axis=1)
        weights = np.diff(np.clip(np.arange(logs.shape[1] + 1) / logs.shape[1], low, 1 - high))
        return np.asarray(ascending @ weights / weights.sum())

    return of


def hodges_lehmann(logs: Logs) -> Logs:
    """The median of the means of all pairs; of 60 quantiles where there are more values."""
    if logs.shape[1] > 60:
        logs = np.quantile(logs, (np.arange(60) + 0.5) / 60, axis=1).T
    first, second = np.triu_indices(logs.shape[1])
    return np.asarray(np.median((logs[:, first] + logs[:, second]) / 2, axis=1))


def stratified(logs: Logs) -> Logs:
    """The mean over the inputs of the mean of each; an input without a request has no part."""
    inputs = np.arange(logs.shape[1]) % INPUTS
    means = [logs[:, inputs == one].mean(axis=1) for one in range(INPUTS) if (inputs == one).any()]
    return np.asarray(np.mean(means, axis=0))


CANDIDATES: Mapping[str, Callable[[Logs], Logs]] = {
    "median": lambda logs: np.median(logs, axis=1),
    "mean": lambda logs: np.log(np.exp(logs).mean(axis=1)),
    "geometric": trimmed(0, 0),
    "by input": stratified,
    "trim 5+5": trimmed(0.05, 0.05),
    "trim 0+5": trimmed(0, 0.05),
    "trim 0+10": trimmed(0, 0.10),
    "trim 10+10": trimmed(0.10, 0.10),
    "midmean": trimmed(0.25, 0.25),
    "quantiles": lambda logs: np.quantile(logs, np.arange(0.1, 0.91, 0.1), axis=1).mean(axis=0),
    "Hodges-L.": hodges_lehmann,
}


def candidates() -> Table:
    """How much each statistic differs between launches that differ in nothing."""
    rows: list[Sequence[str]] = []
    for requests in (20, 300):
        for family in FAMILIES:
            logs = family.draw(np.random.default_rng(1), 1000, requests)
            cells = (f"{100 * float(of(logs).std()):.1f}" for of in CANDIDATES.values())
            rows.append((family.label, f"{requests}", *cells))
    title = "standard deviation between launches of the same service, in percent"
    return Table(title, ("family", "requests", *CANDIDATES), rows)


# --- a run, judged ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bounds:
    """Ends of the intervals of now/then at each look: shape ``(runs, looks)``, one pair for each statistic.

    ``low`` is that of a FAIL, ``high`` that of a PASS. ``value`` and ``sign`` are of the location: its estimate, and
    what 95 % of it is above. ``by_median``: whether the median was chosen.
    """

    low: Mapping[str, NDArray[np.float64]]
    high: Mapping[str, NDArray[np.float64]]
    value: NDArray[np.float64]
    sign: NDArray[np.float64]
    by_median: NDArray[np.bool_]
    first_failure: int

    @classmethod
    def empty(cls, looks: int, first_failure: int) -> Bounds:
        low, high = ({name: np.empty((TRIALS, looks)) for name in STATISTICS[:2]} for _ in range(2))
        value, sign = (np.empty((TRIALS, looks)) for _ in range(2))
        return cls(low, high, value, sign, np.empty((TRIALS, looks), bool), first_failure)

    def share(self, statistic: str, change: float = 0.0, *, passed: bool = False) -> float:
        """The share of runs that fail, or pass, if everything takes this much longer."""
        if statistic == "judged":
            fails, passes = self._judged(1 + change)
        else:
            fails, passes = self._by(statistic, 1 + change)
        fails[:, : self.first_failure] = False
        looks = fails.shape[1]
        first_fail, first_pass = (np.where(found.any(1), found.argmax(1), looks) for found in (fails, passes))
        return float(np.mean(first_pass < first_fail if passed else first_fail < first_pass))

    def _by(self, statistic: str, times: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        return self.low[statistic] * times > 1 + TOLERANCE, self.high[statistic] * times <= 1 + TOLERANCE

    def _judged(self, times: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """By the chosen statistic; what the median passes and the location suspects, by the location."""
        (fails, passes), (of_whole, passes_whole) = (self._by(name, times) for name in STATISTICS[:2])
        suspected = (self.value * times > 1 + TOLERANCE) & (self.sign * times > 1)
        whole = ~self.by_median | (passes & suspected)
        return np.where(whole, of_whole, fails), np.where(whole, passes_whole, passes)

    def smallest_seen(self, statistic: str, wanted: float = 0.95) -> float | None:
        """The smallest change of all times that fails in this share of runs; None if none up to ``WIDEST`` does."""
        low, high = 0.0, math.log1p(WIDEST)
        if self.share(statistic, WIDEST) < wanted:
            return None
        while high - low > 0.002:
            middle = (low + high) / 2
            low, high = (low, middle) if self.share(statistic, math.expm1(middle)) >= wanted else (middle, high)
        return math.expm1(high)


Pool = dict[str, list[LaunchValue]]


def pool_of(family: Family, requests: int, *, seed: int, change: Change | None = None) -> Pool:
    """Launches: their medians and locations."""
    rng = np.random.default_rng(seed)
    return _launch_values(np.exp(family.draw(rng, POOL, requests, change=change)) * MODES[0], rng)


def _launch_values(times: NDArray[np.float64], rng: np.random.Generator) -> Pool:
    requests = times.shape[1]
    weights, inputs = block_weights(BLOCKS), (np.arange(requests) % INPUTS).astype(np.uint32)
    found: Pool = {"median": [], "location": []}
    for row in times:
        at = np.sort(rng.random(requests)) * BLOCKS
        values = BlockedValues(row, at.astype(np.int64), weights, inputs=inputs)
        median, whole = values.percentile(50), values.location()
        assert median is not None
        assert whole is not None
        found["median"].append(median)
        found["location"].append(whole)
    return found


def stored(then: Pool, now: Pool, *, launches: int = LAUNCHES, recorded: int = RECORDED, sd: float = 0.017) -> Bounds:
    """Runs beside a stored baseline, whose launches choose the statistic."""
    plan = SequentialPlan(
        first=1, last=launches, alpha=0.01 / METRICS_TOGETHER, pass_alpha=0.01, fixed_launches=recorded
    )
    rng = np.random.default_rng(2)
    found = Bounds.empty(launches, first_failure=1)
    for trial in range(TRIALS):
        before = _drawn(rng, then, launches=recorded, sd=sd)
        after = _drawn(rng, now, launches=launches, sd=sd)
        found.by_median[trial] = by_median(before)
        for look in range(launches):
            ratios = {name: partial(ratio_of, after[name][: look + 1], before[name], LAUNCH_SD) for name in before}
            _fill(found, (trial, look), ratios, plan=plan, launches=look + 1)
    return found


def by_median(known: Pool) -> bool:
    return knows_the_median_better(*(launch_deviation(known[name]) for name in STATISTICS[:2]))


def _fill(
    found: Bounds,
    at: tuple[int, int],
    ratios: Mapping[str, Callable[..., Estimate]],
    *,
    plan: SequentialPlan,
    launches: int,
) -> None:
    for name, ratio in ratios.items():
        found.low[name][at] = ratio(confidence=plan.confidence(launches)).low
        found.high[name][at] = ratio(confidence=plan.confidence_of_pass(launches)).high
    suspicion = ratios["location"](confidence=SUSPICION)
    found.value[at], found.sign[at] = suspicion.value, suspicion.low


def _drawn(rng: np.random.Generator, pool: Pool, *, launches: int, sd: float) -> Pool:
    chosen, factors = rng.integers(0, POOL, launches), np.exp(rng.normal(0, sd, launches)).tolist()
    return {
        name: [
            LaunchValue(values[at].value * factor, values[at].relative_error)
            for at, factor in zip(chosen, factors, strict=True)
        ]
        for name, values in pool.items()
    }


@dataclass(frozen=True)
class PairedPool:
    """Paired launches: the ratios of both sides, and the first side alone, by statistic."""

    ratios: Mapping[str, Sequence[LogRatio]]
    first: Pool


def paired_pool(family: Family, requests: int, pairs: int, *, seed: int, change: Change | None = None) -> PairedPool:
    """Paired launches: so many requests in each block."""
    rng = np.random.default_rng(seed)
    part = BLOCK_SD * math.sqrt(0.5)
    sides = []
    shared = rng.normal(0, part, (POOL, pairs))
    for what in (None, change):
        logs = family.draw(rng, POOL, pairs * requests, change=what).reshape(POOL, pairs, requests)
        busy = (rng.random((POOL, pairs)) < 0.02) * rng.exponential(0.3, (POOL, pairs))
        sides.append(np.exp(logs + (shared + rng.normal(0, part, (POOL, pairs)) + busy)[:, :, None]) * MODES[0])
    found: dict[str, list[LogRatio]] = {"median": [], "location": []}
    for first, second in zip(*sides, strict=True):
        for name, of in (("median", np.median), ("location", location)):
            found[name].append(paired_log_ratio([float(of(one)) for one in first], [float(of(one)) for one in second]))
    return PairedPool(found, _launch_values(sides[0].reshape(POOL, -1), rng))


def interleaved(pool: PairedPool, *, launches: int = PAIRED, sd: float = 0.017) -> Bounds:
    """Runs against a revision, whose launches choose the statistic; a machine that drifts stretches both sides."""
    plan = SequentialPlan(first=3, last=launches + 1, alpha=0.025 / METRICS_TOGETHER, pass_alpha=0.025)
    rng = np.random.default_rng(2)
    found = Bounds.empty(launches - plan.first + 1, first_failure=0)
    for trial in range(TRIALS):
        chosen, between = rng.integers(0, POOL, launches), rng.normal(0, sd, launches).tolist()
        drift = np.exp(rng.normal(0, DRIFT, launches)).tolist()
        drawn = {
            name: [LogRatio(ratios[at].value + by, ratios[at].error) for at, by in zip(chosen, between, strict=True)]
            for name, ratios in pool.ratios.items()
        }
        first = {
            name: [
                LaunchValue(values[at].value * by, values[at].relative_error)
                for at, by in zip(chosen, drift, strict=True)
            ]
            for name, values in pool.first.items()
        }
        for look in range(found.value.shape[1]):
            number = plan.first + look
            found.by_median[trial, look] = by_median({name: values[:number] for name, values in first.items()})
            ratios = {name: partial(ratio_estimate, values[:number]) for name, values in drawn.items()}
            _fill(found, (trial, look), ratios, plan=plan, launches=number)
    return found


# --- the tables -----------------------------------------------------------------------------------------------------


def measure() -> Iterator[Table]:
    yield candidates()
    yield power("a stored baseline", {(family, n): of_file(family, n) for family in FAMILIES for n in REQUESTS})
    yield power("a revision", {(family, n): of_revision(family, n) for family in FAMILIES for n in REQUESTS})
    yield parts()
    yield new_modes()
    yield services()


def of_file(family: Family, requests: int) -> Bounds:
    return stored(pool_of(family, requests, seed=3), pool_of(family, requests, seed=4))


def of_revision(family: Family, requests: int) -> Bounds:
    return interleaved(paired_pool(family, max(requests // PAIRS, 2), PAIRS, seed=3))


def power(mode: str, found: Mapping[tuple[Family, int], Bounds]) -> Table:
    """Shares of runs by the three statistics: unchanged ones that fail and stay undecided, changed ones that fail."""
    rows: list[Sequence[str]] = []
    for (family, requests), runs in found.items():
        cells = []
        for name in STATISTICS:
            undecided = 1 - runs.share(name) - runs.share(name, passed=True)
            cells.append(f"{100 * runs.share(name):.1f}")
            cells.append(f"{100 * undecided:.0f}")
            cells.append(" ".join(f"{100 * runs.share(name, change):.0f}" for change in CHANGES))
        rows.append((family.label, f"{requests}", *cells))
    unchanged = [runs.share("judged") for runs in found.values()]
    at_limit = [runs.share("judged", TOLERANCE) for runs in found.values()]
    lost = max(
        runs.share("median", 0.2) - runs.share("judged", 0.2) for (family, _), runs in found.items() if family in BUSY
    )
    undecided = max(
        runs.share("median", passed=True) - runs.share("judged", passed=True)
        for (family, _), runs in found.items()
        if family in (*BUSY, ONE, HEAVY)
    )
    claims = [
        Claim(f"{mode}, no change, over all families: FAIL", fmean(unchanged), at_most=0.005),
        Claim(f"{mode}, no change, in the worst family: FAIL", max(unchanged), at_most=0.03),
        Claim(f"{mode}, a change of exactly the tolerance, over all families: FAIL", fmean(at_limit), at_most=0.02),
        Claim(f"{mode}, busy machine, +20 %: fewer FAIL than by the median", lost, at_most=0.05),
        Claim(f"{mode}, one mode or busy, no change: fewer PASS than by the median", undecided, at_most=0.08),
    ]
    changes = " ".join(f"+{100 * change:.0f}" for change in CHANGES)
    headings = ["family", "requests"]
    for name in STATISTICS:
        headings += [f"{name}: failed", "open", changes]
    title = f"{mode}, {TRIALS} runs each: percent of unchanged runs that fail and stay undecided, of changed that fail"
    return Table(title, headings, rows, claims)


NEW_MODES = (
    Change("new: 25 % take 3 times as long", new_mode=0.25),
    Change("new: 25 ± 10 % take 3 times as long", new_mode=0.25, drift=0.10),
    Change("new: 30 % take 3 times as long", new_mode=0.30),
    Change("new: 35 % take 3 times as long", new_mode=0.35),
)
PARTS = (
    (IN_TURNS, Change("the slow mode +73 %", slow_mode=0.73)),
    (IN_TURNS, Change("the fast mode +73 %", fast_mode=0.73)),
    (FAMILIES[5], Change("the slow mode (30 %) +73 %", slow_mode=0.73)),
    (FAMILIES[5], Change("the fast mode (70 %) +73 %", fast_mode=0.73)),
    (ONE, Change("5 % of the requests take 4 times as long", tail=0.05)),
    (ONE, Change("20 % of the requests take 4 times as long", tail=0.20)),
)


def parts() -> Table:
    """Changes of one mode, or of the tail alone."""
    rows: list[Sequence[str]] = []
    for requests in (20, 60, 300):
        for family, change in PARTS:
            then, now = pool_of(family, requests, seed=3), pool_of(family, requests, seed=4, change=change)
            file = stored(then, now)
            pairs = interleaved(paired_pool(family, max(requests // PAIRS, 2), PAIRS, seed=3, change=change))
            cells = (f"{100 * runs.share(name):.0f}" for runs in (file, pairs) for name in STATISTICS)
            rows.append((family.label, change.label, f"{requests}", *cells))
    headings = (
        "family",
        "change",
        "requests",
        *(f"{mode}: {name}" for mode in ("file", "rev.") for name in STATISTICS),
    )
    note = "What the location does not see of a tail, p95 and p99 do from 90 and 459 requests on."
    return Table("percent of runs that fail if a part of the requests got slower", headings, rows, (), [note])


def new_modes() -> Table:
    """A mode that only the present has: it makes the mean of the present scatter, which must not choose the median."""
    rows: list[Sequence[str]] = []
    passes: dict[str, list[float]] = {"file": [], "rev.": []}
    for requests in (20, 60, 300):
        for change in NEW_MODES:
            then, now = pool_of(ONE, requests, seed=3), pool_of(ONE, requests, seed=4, change=change)
            pairs = paired_pool(ONE, max(requests // PAIRS, 2), PAIRS, seed=3, change=change)
            runs = {"file": stored(then, now), "rev.": interleaved(pairs)}
            cells = [
                f"{100 * bounds.share(name):.0f} / {100 * bounds.share(name, passed=True):.0f}"
                for bounds in runs.values()
                for name in STATISTICS
            ]
            for mode, bounds in runs.items():
                passes[mode].append(bounds.share("judged", passed=True))
            rows.append((change.label, f"{requests}", *cells))
    claims = [
        Claim(f"{mode}, a quarter or more three times as slow: PASS", max(found), at_most=0.06)
        for mode, found in passes.items()
    ]
    headings = ("change", "requests", *(f"{mode}: {name}" for mode in passes for name in STATISTICS))
    return Table("percent of runs that fail / pass if a part of the requests is of a new mode", headings, rows, claims)


def services() -> Table:
    """The smallest change of all times that fails in 95 % of runs, by answers per second and budget."""
    rows: list[Sequence[str]] = []
    for rate in (0.5, 2.0, 5.0, 20.0):
        for family in (ONE, IN_TURNS, DRIFTING, HEAVY):
            for mode, runs_in in (("file", file_in), ("revision", revision_in)):
                found = [runs_in(family, rate, budget_s) for budget_s in (30, 60, 120)]
                cells = [_seen(runs, name) for runs in found for name in ("median", "judged")]
                rows.append((f"{rate:g}", family.label, mode, *cells))
    headings = ["answers/s", "times", "compared with"]
    for budget_s in (30, 60, 120):
        headings += [f"{budget_s} s: median", "after"]
    note = "–: none up to ten times as long. Tolerance 10 %; launches differ by 1.7 %, and each needs 2 s to start."
    return Table("smallest change of all times that fails in 95 % of runs", headings, rows, (), [note])


def _seen(runs: Bounds | None, statistic: str) -> str:
    found = None if runs is None else runs.smallest_seen(statistic)
    return "–" if found is None else f"+{100 * found:.0f} %"


def file_in(family: Family, rate: float, budget_s: float) -> Bounds | None:
    """Four to eight launches in the budget, and as many of the same length recorded."""
    launches = min(max(round(budget_s / 10), 4), 8)
    requests = round(rate * (budget_s / launches - START_S))
    if requests < 2:
        return None
    then, now = pool_of(family, requests, seed=3), pool_of(family, requests, seed=4)
    return stored(then, now, launches=launches, recorded=launches)


def revision_in(family: Family, rate: float, budget_s: float) -> Bounds | None:
    """Three to twelve paired launches in the budget, each of four pairs of blocks, or of two."""
    launches = min(max(round(budget_s / 10), 3), 12)
    while launches > 3 and rate * (budget_s / launches - START_S) / 2 < 2 * PAIRS:
        launches -= 1
    requests = rate * (budget_s / launches - START_S) / 2
    pairs = PAIRS if requests >= 2 * PAIRS else 2
    if requests < 2 * pairs:
        return None
    return interleaved(paired_pool(family, int(requests / pairs), pairs, seed=3), launches=launches)


if __name__ == "__main__":
    for table in measure():
        print(f"{table}\n", flush=True)
