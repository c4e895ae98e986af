"""How often the verdict on all metrics together is wrong or missing, where the truth is known, request by request.

A run is judged as the plugin judges it: RTM and throughput must be shown to be within the tolerance, the other metrics
are guards, which fail if they are surely worse and keep measuring while they are suspected.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.blocked_values import counted
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric_makers import percentile_metric
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.distributions import TRIM, location
from pytest_mlpatterns.analysis.statistics.intervals import estimate, launch_deviation, median_error, min_samples
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, judge_ratio, paired_log_ratio
from pytest_mlpatterns.analysis.verdicts.count_comparison import (
    STORED_TAIL_ALPHA,
    TAIL_ALPHA,
    judge_failures,
    judge_tail,
)
from pytest_mlpatterns.analysis.verdicts.tolerances import STORED_TAIL_FACTOR, Tolerances, knows_the_median_better
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change, judge_guard, judge_limit
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.records.latency import RequestCounts
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Procedure = Callable[[np.random.Generator, "Service", "Change"], "Run"]
    Judge = Callable[["Sample", "Sample"], dict[str, Outcome]]

CLAIM = (
    "over all default metrics together at most 1 % of unchanged runs fail; at least 95 % of runs with 2 % of the "
    "requests slowed to four times the median, twice the start, 15 % more CPU time or 20 % more RTM fail, and 99 % of "
    "those with 2 % new failures or 25 % more memory"
)
TRIALS = 1000
RATE_RPS = 330
LATENCY_NS = 3e6
RECORDED, STORED_LAUNCHES, STORED_S = 6, 8, 0.7
PAIRED_LAUNCHES, PAIRS, BLOCK_S = 15, 4, 0.1
LAUNCH_S = 1.7
"""From one launch to the next: start, warm-up and window."""
SPEED = ("rtm", "throughput")
LOCATION = "location"
"""The location of the latencies, by which RTM is judged if the launches know it better."""
TAIL = (95, 99)
VALUES = ("cpu_per_request", "peak_memory", "cold_start")
DEFAULTS = Tolerances()


@dataclass(frozen=True)
class Service:
    """How the latency of a service is distributed, and by how much its launches and the machine vary.

    ``heavy`` requests have a Pareto tail of exponent 2.5 (a share), ``second`` take 2.5 times as long (a share),
    ``pauses`` come per second and hold five neighbouring requests for 10 ms each.
    """

    label: str
    launch_sd: float = 0.017
    spread: float = 0.15
    heavy: float = 0.0
    second: float = 0.0
    drift: float = 0.0
    pauses: float = 0.0
    failing: float = 0.0


USUAL = Service("launches 1.7 %, lognormal")
SERVICES = (
    USUAL,
    Service("launches 4 %", launch_sd=0.04),
    Service("launches 8 %", launch_sd=0.08),
    Service("heavy tail (Pareto, 5 % of the requests)", heavy=0.05),
    Service("bimodal (30 % take 2.5 times as long)", second=0.3),
    Service("drift of ±2.5 % within and between launches", drift=0.025),
    Service("a pause of 10 ms every 2 s", pauses=0.5),
    Service("1 % of the requests always fail", failing=0.01),
)


@dataclass(frozen=True)
class Change:
    """What became worse."""

    label: str
    rtm: float = 1.0
    slow: float = 0.0
    failing: float = 0.0
    cpu: float = 1.0
    memory: float = 1.0
    start: float = 1.0


UNCHANGED = Change("no change")
CHANGES = (
    (Change("2 % of requests take 4 times the median", slow=0.02), 0.95),
    (Change("2 % of requests fail", failing=0.02), 0.99),
    (Change("memory +25 %", memory=1.25), 0.99),
    (Change("start twice as long", start=2.0), 0.95),
    (Change("CPU time +15 %", cpu=1.15), 0.95),
    (Change("RTM +20 %", rtm=1.20, cpu=1.20), 0.95),
    (Change("RTM +25 %", rtm=1.25, cpu=1.25), 0.98),
)


@dataclass
class Sample:
    """The launches of one side: requests (empty if unknown), and values by metric."""

    counts: list[RequestCounts] = field(default_factory=list)
    values: dict[str, list[LaunchValue]] = field(default_factory=dict)

    def of(self, launches: Sequence[int]) -> Sample:
        """Some of the launches, by their numbers from zero."""
        values = {name: [found[number] for number in launches] for name, found in self.values.items()}
        return Sample([self.counts[number] for number in launches if self.counts], values)

    def first(self, launches: int) -> Sample:
        return self.of(range(launches))


@dataclass(frozen=True)
class Scatter:
    """The factors of one launch, and the time at which it was measured."""

    latency: float
    cpu: float
    memory: float
    start: float
    phase: float
    period_s: float
    moment_s: float

    @classmethod
    def draw(cls, rng: np.random.Generator, service: Service, *, number: int, machine: tuple[float, float]) -> Scatter:
        log = rng.normal(0, service.launch_sd)
        memory = rng.normal(0, 0.01) + (0.03 if rng.random() < 0.1 else 0.0)
        start = rng.normal(0, 0.08) + (0.3 if rng.random() < 0.03 else 0.0)
        cpu = 0.5 * log + rng.normal(0, 0.022)
        latency, cpu, memory, start = (math.exp(one) for one in (log, cpu, memory, start))
        return cls(latency, cpu, memory, start, machine[0], machine[1], number * LAUNCH_S)


def latencies(
    rng: np.random.Generator, service: Service, change: Change, *, scatter: Scatter, count: int
) -> NDArray[np.float64]:
    """Latencies of requests, one after the other, in nanoseconds."""
    factor = np.exp(rng.normal(0, service.spread, count))
    factor[rng.random(count) < service.second] *= 2.5
    heavy = rng.random(count) < service.heavy
    factor[heavy] *= 1 + rng.pareto(2.5, int(heavy.sum()))
    moment = scatter.moment_s + np.arange(count) / RATE_RPS
    factor *= np.exp(service.drift * np.sin(2 * math.pi * (moment / scatter.period_s + scatter.phase)))
    factor *= scatter.latency * change.rtm
    factor[rng.random(count) < change.slow] = 4.0
    found = LATENCY_NS * factor
    for at in np.flatnonzero(rng.random(count) < service.pauses / RATE_RPS):
        found[at : at + 5] += 10e6
    return found


def one_launch(found: NDArray[np.float64], failing: float, rng: np.random.Generator) -> RequestCounts:
    failed = int(rng.binomial(found.size, failing))
    return RequestCounts(found.size, failed, counted(found[failed:].astype(np.int64)))


def sample(rng: np.random.Generator, service: Service, change: Change, *, launches: int, window_s: float) -> Sample:
    """Launches measured one after the other."""
    machine = (float(rng.random()), float(rng.uniform(30, 150)))
    found = Sample(values={name: [] for name in (*SPEED, LOCATION, *VALUES)})
    count = round(RATE_RPS * window_s)
    for number in range(launches):
        scatter = Scatter.draw(rng, service, number=number, machine=machine)
        requests = latencies(rng, service, change, scatter=scatter, count=count)
        found.counts.append(one_launch(requests, service.failing + change.failing, rng))
        median, mean = float(np.median(requests)), float(requests.mean())
        error = 1.2533 * service.spread / math.sqrt(count)
        found.values["rtm"].append(LaunchValue(median, error))
        winsorized = np.log(np.minimum(requests, np.quantile(requests, 1 - TRIM)))
        spread = float(winsorized.std()) / (1 - TRIM)
        found.values[LOCATION].append(LaunchValue(location(requests), spread / math.sqrt(count)))
        found.values["throughput"].append(LaunchValue(1e9 / mean, float(requests.std()) / mean / math.sqrt(count)))
        found.values["cpu_per_request"].append(LaunchValue(2e6 * scatter.cpu * change.cpu, 0.005))
        found.values["peak_memory"].append(LaunchValue(100 * 2**20 * scatter.memory * change.memory, 0.0))
        found.values["cold_start"].append(LaunchValue(0.6e9 * scatter.start * change.start, 0.0))
    return found


def guards(
    then: Sample,
    now: Sample,
    tolerances: Tolerances,
    *,
    values: Sequence[str] = VALUES,
    tail_factor: float = 1.0,
    tail_alpha: float = TAIL_ALPHA,
) -> dict[str, Outcome]:
    """The outcomes of the metrics that are guarded."""
    found = {}
    for percentile in TAIL:
        name = f"p{percentile}"
        if min(sum(one.requests for one in side.counts) for side in (then, now)) < min_samples(percentile):
            found[name] = Outcome.INCONCLUSIVE  # the percentile needs more requests
        else:
            with contextlib.suppress(InvalidResultError):  # too many requests of the reference fail
                found[name] = judge_tail(
                    then.counts,
                    now.counts,
                    metric=percentile_metric(percentile),
                    tolerance=tail_factor * tolerances.of(name),
                    alpha=tail_alpha,
                ).outcome
    found["error_rate"] = judge_failures(then.counts, now.counts, tolerance=tolerances.of("error_rate")).outcome
    for name in values:
        found[name] = judge_guard(
            METRICS[name], now.values[name], then.values[name], tolerance=tolerances.of(name)
        ).outcome
    return found


@dataclass(frozen=True)
class Run:
    """What a run came to, after how many launches, and which metrics failed."""

    outcome: Outcome
    launches: int
    failed: tuple[str, ...] = ()


def decided(outcomes: Mapping[str, Outcome], launches: int) -> Run | None:
    failed = tuple(name for name, outcome in outcomes.items() if outcome is Outcome.FAIL)
    if failed and launches > 1:
        return Run(Outcome.FAIL, launches, failed)
    return Run(Outcome.PASS, launches) if set(outcomes.values()) == {Outcome.PASS} else None


def speed_outcomes(
    then: Sample, now: Sample, tolerances: Tolerances, *, looks: int = STORED_LAUNCHES
) -> dict[str, Outcome]:
    """The outcomes of RTM and throughput beside a stored baseline."""
    recorded = len(then.values[SPEED[0]])
    plan = SequentialPlan(first=1, last=looks, alpha=0.01 / len(SPEED), pass_alpha=0.01, fixed_launches=recorded)
    deviations = (launch_deviation(then.values[name]) for name in ("rtm", LOCATION))
    by = {name: name for name in SPEED} | {"rtm": "rtm" if knows_the_median_better(*deviations) else LOCATION}
    return {
        name: judge_change(
            METRICS[name], now.values[by[name]], then.values[by[name]], tolerance=tolerances.of(name), plan=plan
        ).outcome
        for name in SPEED
    }


def stored_outcomes(
    then: Sample, now: Sample, tolerances: Tolerances = DEFAULTS, *, looks: int = STORED_LAUNCHES
) -> dict[str, Outcome]:
    """The outcomes of all default metrics beside a stored baseline."""
    guarded = guards(then, now, tolerances, tail_factor=STORED_TAIL_FACTOR, tail_alpha=STORED_TAIL_ALPHA)
    return speed_outcomes(then, now, tolerances, looks=looks) | guarded


def stored(rng: np.random.Generator, service: Service, change: Change, *, judge: Judge = stored_outcomes) -> Run:
    """A run against a stored baseline."""
    then = sample(rng, service, UNCHANGED, launches=RECORDED, window_s=STORED_S)
    everything = sample(rng, service, change, launches=STORED_LAUNCHES, window_s=STORED_S)
    for launches in range(1, STORED_LAUNCHES + 1):
        if (run := decided(judge(then, everything.first(launches)), launches)) is not None:
            return run
    return Run(Outcome.INCONCLUSIVE, STORED_LAUNCHES)


@dataclass
class PairedSample:
    """Paired launches: counts and values of both sides, the ratios of each launch, and the times of the first side."""

    then: Sample
    now: Sample
    ratios: dict[str, list[LogRatio]]
    first: dict[str, list[LaunchValue]]

    def judged(self, launches: int) -> dict[str, list[LogRatio]]:
        """The ratios of the first launches, RTM by the statistic that those of the first side know better."""
        found = {name: ratios[:launches] for name, ratios in self.ratios.items()}
        whole = found.pop(LOCATION)
        deviations = (launch_deviation(self.first[name][:launches]) for name in ("rtm", LOCATION))
        if not knows_the_median_better(*deviations):
            found["rtm"] = whole
        return found


def paired_sample(rng: np.random.Generator, service: Service, change: Change) -> PairedSample:
    """Launches of both sides at the same time, in pairs of neighbouring blocks."""
    machine = (float(rng.random()), float(rng.uniform(30, 150)))
    names = ("peak_memory", "cold_start")
    then, now = (Sample(values={name: [] for name in names}) for _ in range(2))
    ratios: dict[str, list[LogRatio]] = {name: [] for name in (*SPEED, LOCATION, "cpu_per_request")}
    found = PairedSample(then, now, ratios, {"rtm": [], LOCATION: []})
    block = round(RATE_RPS * BLOCK_S)
    for number in range(PAIRED_LAUNCHES):
        blocks, cpus = [], []
        for side, what in ((found.then, UNCHANGED), (found.now, change)):
            scatter = Scatter.draw(rng, service, number=number, machine=machine)
            requests = latencies(rng, service, what, scatter=scatter, count=PAIRS * block)
            side.counts.append(one_launch(requests, service.failing + what.failing, rng))
            side.values["peak_memory"].append(LaunchValue(100 * 2**20 * scatter.memory * what.memory, 0.0))
            side.values["cold_start"].append(LaunchValue(0.6e9 * scatter.start * what.start, 0.0))
            common = rng.normal(0, 0.02, PAIRS)
            blocks.append(requests.reshape(PAIRS, block) * np.exp(common + rng.normal(0, 0.02, PAIRS))[:, None])
            cpus.append(scatter.cpu * what.cpu * np.exp(rng.normal(0, 0.02, PAIRS)))
        columns = {
            "rtm": [np.median(one, axis=1) for one in blocks],
            LOCATION: [np.apply_along_axis(location, 1, one) for one in blocks],
            "throughput": [1 / one.mean(axis=1) for one in blocks],
            "cpu_per_request": cpus,
        }
        for name, (first, second) in columns.items():
            found.ratios[name].append(paired_log_ratio(first.tolist(), second.tolist()))
            if name in found.first:
                found.first[name].append(LaunchValue(float(first.mean()), median_error(first.tolist())))
    return found


def paired(rng: np.random.Generator, service: Service, change: Change) -> Run:
    """A run against another revision at a tolerance of 5 %."""
    everything = paired_sample(rng, service, change)
    tolerances = Tolerances(0.05)
    plan = SequentialPlan.for_tolerance(0.05, 0.025 / len(SPEED), 0.025, most=PAIRED_LAUNCHES)
    for launches in range(plan.first, min(plan.last, PAIRED_LAUNCHES) + 1):
        outcomes = {}
        for name, ratios in everything.judged(launches).items():
            better = METRICS[name].better
            limit = 1 + tolerances.of(name) if better == "lower" else 1 - tolerances.of(name)
            equivalence = name in SPEED
            judged = plan if equivalence else replace(plan, alpha=GUARD_PLAN_ALPHA)
            outcomes[name] = judge_ratio(ratios[:launches], limit, better, plan=judged, equivalence=equivalence).outcome
        then, now = everything.then.first(launches), everything.now.first(launches)
        outcomes |= guards(then, now, tolerances, values=("peak_memory", "cold_start"))
        if (run := decided(outcomes, launches)) is not None:
            return run
    return Run(Outcome.INCONCLUSIVE, plan.last)


GUARD_PLAN_ALPHA = 0.005
"""Level of the guard of CPU time against a revision, over all looks."""
LIMIT_ALPHA = 0.02
LIMIT_TRIALS = 10 * TRIALS
DESIGNS: dict[str, Procedure] = {"stored baseline, 10 %": stored, "against a revision, 5 %": paired}


def measure() -> Iterator[Table]:
    yield false_alarms()
    yield power()
    yield limits()


def false_alarms() -> Table:
    """Unchanged runs of every service."""
    rows: list[Sequence[str]] = []
    claims = []
    for design, procedure in DESIGNS.items():
        for service in SERVICES:
            runs = trials(procedure, service, UNCHANGED)
            rows.append((design, service.label, *cells(runs), blamed(runs)))
            claims.append(Claim(f"{design}, {service.label}: FAIL", share(runs, Outcome.FAIL), at_most=0.01))
    headings = ("design", "service", "pass", "fail", "no verdict", "launches, median", "failed by")
    return Table(f"nothing changed: {TRIALS} simulated runs each", headings, rows, claims)


def power() -> Table:
    """Runs of services that became worse."""
    rows: list[Sequence[str]] = []
    claims = []
    for design, procedure in DESIGNS.items():
        for change, least in CHANGES:
            for service in SERVICES[:3]:
                runs = trials(procedure, service, change)
                rows.append((design, change.label, service.label, *cells(runs), blamed(runs)))
                if service is USUAL:
                    claims.append(Claim(f"{design}, {change.label}: FAIL", share(runs, Outcome.FAIL), at_least=least))
    headings = ("design", "change", "service", "pass", "fail", "no verdict", "launches, median", "failed by")
    return Table(f"something became worse: {TRIALS} simulated runs each", headings, rows, claims)


def limits() -> Table:
    """A limit that is exactly the truth, and one that is 20 % away, by the scatter of launches."""
    rows: list[Sequence[str]] = []
    claims = []
    for recorded in (0, RECORDED):
        for deviation in (0.017, 0.026, 0.04, 0.08):
            at = limit_runs(deviation, 0.0, recorded)
            below = limit_runs(deviation, -math.log(1.2), recorded)
            cells_at = (f"{100 * share(at, outcome):.1f} %" for outcome in (Outcome.FAIL, Outcome.PASS))
            used = float(np.mean([run.launches for run in below]))
            rows.append((f"{recorded or 'none'}", f"{100 * deviation:g} %", *cells_at, f"{used:.1f}"))
            if recorded:
                text = f"a limit that just holds, launches {100 * deviation:g} %: FAIL"
                claims.append(Claim(text, share(at, Outcome.FAIL), at_most=0.028))
    headings = (
        "recorded launches",
        "launches differ by",
        "FAIL at the limit",
        "PASS at the limit",
        "launches, 20 % below",
    )
    note = "2.5 % are meant; a sample of this size is off by 0.3 % at most."
    return Table(f"limits: {LIMIT_TRIALS} simulated runs each", headings, rows, claims, [note])


def limit_runs(deviation: float, log_value: float, recorded: int) -> list[Run]:
    """Runs of one limit of 1, judged after every launch; a failure is believed from the second launch on."""
    rng = np.random.default_rng(6)
    plan = SequentialPlan(first=1, last=STORED_LAUNCHES, alpha=LIMIT_ALPHA)
    runs = []
    for _ in range(LIMIT_TRIALS):
        before = [LaunchValue(float(one), 0.0) for one in np.exp(rng.normal(0, deviation, recorded))]
        values = [LaunchValue(float(one), 0.0) for one in np.exp(rng.normal(log_value, deviation, STORED_LAUNCHES))]
        runs.append(limit_run(values, before, plan))
    return runs


def limit_run(values: Sequence[LaunchValue], before: Sequence[LaunchValue], plan: SequentialPlan) -> Run:
    for launches in range(1, plan.last + 1):
        found = estimate(values[:launches], METRICS["rtm"].launch_sd, plan.confidence(launches), scatter=before)
        outcome = judge_limit(METRICS["rtm"], found, 1.0).outcome
        if outcome is Outcome.PASS or (outcome is Outcome.FAIL and launches > 1):
            return Run(outcome, launches)
    return Run(Outcome.INCONCLUSIVE, plan.last)


def trials(procedure: Procedure, service: Service, change: Change, *, count: int = 0) -> list[Run]:
    rng = np.random.default_rng(5)
    return [procedure(rng, service, change) for _ in range(count or TRIALS)]


def share(runs: Sequence[Run], outcome: Outcome) -> float:
    return sum(run.outcome is outcome for run in runs) / len(runs)


def cells(runs: Sequence[Run]) -> tuple[str, ...]:
    launches = float(np.median([run.launches for run in runs]))
    return (*(f"{100 * share(runs, outcome):.1f} %" for outcome in Outcome), f"{launches:g}")


def blamed(runs: Sequence[Run]) -> str:
    """The metrics that failed, the most frequent first."""
    names = [name for run in runs for name in run.failed]
    counts = sorted({name: names.count(name) for name in names}.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {100 * count / len(runs):.1f} %" for name, count in counts[:4])
