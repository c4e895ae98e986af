"""How often a limit on a percentile is judged wrongly, and how soon a clear one, where the truth is known.

The services have one mode, two modes with shares that differ between launches, or a heavy tail. Two modes are those of
a recorded language model, whose callers find a slot free (190 ms) or not (375 ms). A run is judged as the plugin judges
it: after every launch, up to eight; a failure is believed from the second launch on. The truth is the percentile of a
launch of mean speed, over all shares. Beside the plugin's interval stands the one by the launches' percentiles and
order statistics alone, which knows nothing of modes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table

from pytest_mlpatterns.analysis.metrics.blocked_values import BlockedValues
from pytest_mlpatterns.analysis.metrics.metric_makers import percentile_metric
from pytest_mlpatterns.analysis.metrics.percentile_estimate import LaunchTimes, PooledTimes
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.distributions import find_modes
from pytest_mlpatterns.analysis.statistics.intervals import block_weights, estimate, min_samples, order_bounds
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_limit
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Interval = Callable[["Pooled", float], Estimate]

CLAIM = (
    "a limit at a percentile, or between two modes of half of the requests each, is judged wrongly in at most 2.5 % of "
    "the runs a side; one 25 % beside both modes is decided in three launches; 1 % of samples of one mode look like two"
)
TRIALS, MODE_TRIALS = 400, 1000
LAUNCHES, BLOCKS = 8, 12
MS = 1e6
PLAN = SequentialPlan(first=1, last=LAUNCHES, alpha=0.02)
WEIGHTS = block_weights(BLOCKS)
FEW, SOME, MANY, MOST = 20, 100, 1000, 20_000
WRONG = 0.025 + 2 * math.sqrt(0.025 * 0.975 / TRIALS)
"""2.5 %, and two standard errors of a count of so many runs."""


@dataclass(frozen=True)
class Service:
    """How the times of a service are distributed, in milliseconds.

    Attributes:
        label: its name.
        middle: of the times of the only mode, or of the lower one.
        spread: standard deviation of the logarithm within a mode.
        upper: middle of the upper mode; 0 for one mode.
        low_share: share of the requests in the lower mode.
        drift: standard deviation of that share between launches.
        heavy: share of the requests in a Pareto tail of exponent 1.5.
        launch_sd: standard deviation of the logarithm of the speed of launches.
    """

    label: str
    middle: float = 20.0
    spread: float = 0.15
    upper: float = 0.0
    low_share: float = 1.0
    drift: float = 0.0
    heavy: float = 0.0
    launch_sd: float = 0.017

    def times_ns(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """The times of one launch of mean speed."""
        share = min(max(rng.normal(self.low_share, self.drift), 0.02), 0.98) if self.drift else self.low_share
        middle = np.where(rng.random(count) < share, self.middle, self.upper or self.middle)
        tail = 1 + rng.pareto(1.5, count) * (rng.random(count) < self.heavy)
        return middle * tail * np.exp(rng.normal(0, self.spread, count)) * MS

    def truth_ns(self, percentile: float) -> float:
        rng = np.random.default_rng(0)
        return float(np.percentile([self.times_ns(rng, 200) for _ in range(5000)], percentile))


@dataclass(frozen=True)
class Pooled:
    """The launches so far."""

    percentile: float
    launches: Sequence[NDArray[np.float64]]
    values: Sequence[LaunchValue]


def two_modes(label: str, low_share: float, drift: float) -> Service:
    return Service(label, 190.0, 0.05, 375.0, low_share, drift)


ONE_MODE = (
    Service("one mode"),
    Service("one mode, narrow", spread=0.03),
    Service("one mode, wide", spread=0.7),
    Service("heavy tail", heavy=0.1),
)
HALF = two_modes("two modes, half each", 0.5, 0.0)
DRIFTING = two_modes("two modes, shares differ by 5 %", 0.5, 0.05)
JUMPING = two_modes("two modes, shares differ by 10 %", 0.5, 0.1)
RECORDED = two_modes("two modes, 42 % in the lower, 5 %", 0.42, 0.05)


def by_launches(pooled: Pooled, confidence: float) -> Estimate:
    """The interval without shares: launches, and order statistics of independent requests."""
    times = np.sort(np.concatenate(pooled.launches))
    low, high = order_bounds(times.size, pooled.percentile, confidence)
    found = estimate(pooled.values, percentile_metric(pooled.percentile).launch_sd, confidence)
    return Estimate(found.value, min(found.low, float(times[low])), max(found.high, float(times[high])))


def by_shares(pooled: Pooled, confidence: float) -> Estimate:
    """The plugin's interval."""
    times = PooledTimes([LaunchTimes(one) for one in pooled.launches])
    return times.estimate(percentile_metric(pooled.percentile), pooled.percentile, pooled.values, confidence=confidence)


INTERVALS: Mapping[str, Interval] = {"launches alone": by_launches, "with shares": by_shares}


@dataclass(frozen=True)
class Count:
    """How the runs of one cell ended."""

    passed: float
    failed: float
    launches: float

    def __str__(self) -> str:
        return f"{100 * self.passed:.1f}/{100 * self.failed:.1f} % {self.launches:.1f}"


@dataclass(frozen=True)
class Cell:
    """What is judged, and how often."""

    service: Service
    percentile: float
    requests: int
    limits: Sequence[float]

    def launch(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], LaunchValue]:
        """The times of one launch, ascending, and their percentile."""
        times = self.service.times_ns(rng, self.requests) * math.exp(rng.normal(0, self.service.launch_sd))
        blocked = BlockedValues(times, np.arange(self.requests) * BLOCKS // self.requests, WEIGHTS)
        value = blocked.percentile(self.percentile)
        assert value is not None
        return np.asarray(blocked.ascending, dtype=np.float64), value

    def run(self, rng: np.random.Generator) -> dict[tuple[str, float], tuple[Outcome, int]]:
        """The outcome of one run by interval and limit, and after how many launches."""
        metric = percentile_metric(self.percentile)
        keys = [(name, limit) for name in INTERVALS for limit in self.limits]
        ends: dict[tuple[str, float], tuple[Outcome, int]] = {}
        pooled = Pooled(self.percentile, [], [])
        for launches in range(1, LAUNCHES + 1):
            ascending, value = self.launch(rng)
            pooled = Pooled(self.percentile, [*pooled.launches, ascending], [*pooled.values, value])
            if launches * self.requests < min_samples(self.percentile):
                continue
            for name in {name for name, limit in keys if (name, limit) not in ends}:
                found = INTERVALS[name](pooled, PLAN.confidence(launches))
                for limit in self.limits:
                    outcome = judge_limit(metric, found, limit).outcome
                    if outcome is Outcome.PASS or (outcome is Outcome.FAIL and launches > 1):
                        ends.setdefault((name, limit), (outcome, launches))
            if len(ends) == len(keys):
                break
        return dict.fromkeys(keys, (Outcome.INCONCLUSIVE, LAUNCHES)) | ends

    def counts(self) -> dict[tuple[str, float], Count]:
        """How runs end with each interval, by its name and the limit."""
        rng = np.random.default_rng(8)
        ended = [self.run(rng) for _ in range(TRIALS if self.requests <= MANY else TRIALS // 4)]
        return {
            key: Count(
                float(np.mean([one[key][0] is Outcome.PASS for one in ended])),
                float(np.mean([one[key][0] is Outcome.FAIL for one in ended])),
                float(np.mean([one[key][1] for one in ended])),
            )
            for key in ended[0]
        }


def modes_table() -> Table:
    """Limits below, between and above two modes."""
    rows: list[Sequence[str]] = []
    claims = []
    limits = (150 * MS, 270 * MS, 470 * MS)
    for service in (HALF, DRIFTING, JUMPING, RECORDED):
        for requests in (FEW, SOME, MANY, MOST):
            found = Cell(service, 50, requests, limits).counts()
            rows += [
                (service.label, f"{requests:,}", name, *(str(found[name, limit]) for limit in limits))
                for name in INTERVALS
            ]
            below, between, above = (found["with shares", limit] for limit in limits)
            label = f"{service.label}, {requests:,} requests"
            claims += [
                Claim(f"{label}: launches for a limit below both", below.launches, at_most=3),
                Claim(f"{label}: launches for a limit above both", above.launches, at_most=3),
                Claim(f"{label}: wrong below or above both", below.passed + above.failed, at_most=0),
            ]
            wrong = between.passed if service is RECORDED else max(between.passed, between.failed)
            claims.append(Claim(f"{label}: wrong between them", wrong, at_most=WRONG))
    headings = ("service", "requests a launch", "interval", "limit 150 ms", "270 ms", "470 ms")
    note = "PASS/FAIL in percent of the runs, and launches until the end. Half in each mode: both are wrong at 270 ms."
    return Table(
        f"the median of two modes, 190 and 375 ms: {TRIALS} simulated runs each", headings, rows, claims, [note]
    )


def one_mode_table() -> Table:
    """Limits at the truth, and 25 % beside it."""
    rows: list[Sequence[str]] = []
    claims = []
    for service in ONE_MODE:
        for percentile, sizes in ((50, (FEW, SOME, MANY, MOST)), (95, (SOME, MANY))):
            truth = service.truth_ns(percentile)
            limits = (truth / 1.25, truth, truth * 1.25)
            for requests in sizes:
                found = Cell(service, percentile, requests, limits).counts()
                label = f"{service.label}, p{percentile}"
                rows += [
                    (label, f"{requests:,}", name, *(str(found[name, limit]) for limit in limits)) for name in INTERVALS
                ]
                at = found["with shares", truth]
                text = f"{label}, {requests:,} requests: wrong at the percentile"
                claims.append(Claim(text, max(at.passed, at.failed), at_most=WRONG))
                spent = [sum(found[name, limit].launches for limit in limits) for name in INTERVALS]
                claims.append(
                    Claim(f"{label}, {requests:,} requests: launches, ratio", spent[1] / spent[0], at_most=1.1)
                )
    headings = ("service", "requests a launch", "interval", "limit 20 % below", "at the percentile", "25 % above")
    return Table(f"one mode: {TRIALS} simulated runs each", headings, rows, claims)


def recognition_table() -> Table:
    """How often two modes are seen."""
    rng = np.random.default_rng(4)
    rows: list[Sequence[str]] = []
    claims = []
    sizes = (FEW, 2 * FEW, SOME, MANY)
    for service in (*ONE_MODE, HALF, RECORDED):
        found = [
            np.mean([find_modes(np.sort(service.times_ns(rng, size))) is not None for _ in range(MODE_TRIALS)])
            for size in sizes
        ]
        rows.append((service.label, *(f"{100 * one:.1f} %" for one in found)))
        if service in ONE_MODE:
            claims.append(Claim(f"{service.label}: looks like two", float(max(found)), at_most=0.01))
    return Table("two modes are seen in", ("service", *(f"{size:,} requests" for size in sizes)), rows, claims)


def measure() -> Iterator[Table]:
    yield recognition_table()
    yield modes_table()
    yield one_mode_table()
