"""The capacity of a running deployment: real load for the searches of :mod:`pytest_mlpatterns.analysis.capacity`.

Each step or probe of a search is one job of the generator. This module must not know limits or baselines.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.capacity.capacity_search import climb
from pytest_mlpatterns.analysis.capacity.objective_search import (
    MAX_WINDOWS,
    PIECES,
    Probe,
    ProbePlan,
    Tally,
    highest_rate,
)
from pytest_mlpatterns.analysis.capacity.reference_queue import SEEDS, ReferenceQueue, typical_seed
from pytest_mlpatterns.analysis.health.sustained import backlog_of, why_limited, why_not_sustained
from pytest_mlpatterns.analysis.metrics.blocked_values import AnswerCounts
from pytest_mlpatterns.analysis.metrics.samples import StreamTimes
from pytest_mlpatterns.analysis.metrics.searched_rates import describe_pauses
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.measurement.load_source import LoadEvents
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.launch import Capacity, LaunchValue, SearchEnd, Step, Usage
from pytest_mlpatterns.records.objective import Bound, Objective
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.system.process_tree import Monitor
from pytest_mlpatterns.units import SECOND_NS
from pytest_mlpatterns.wording import count
from pytest_mlpatterns.workload.schedule import ClosedLoop, PoissonRate, Schedule

_STEP_NS = 500_000_000  # Shortest step of a search, in nanoseconds
_MAX_STEP_NS = 3_000_000_000  # Longest step of a search, in nanoseconds; a search has about ten
_STEP_COMPLETIONS = 40  # Fewest requests that a step should have room for
_STEP_WAVES = 20  # Requests of each caller that a step should have room for
_WINDOWS = 10  # Most windows into which a step is divided for its interval
_WINDOW_COMPLETIONS = 8  # Fewest requests of such a window
_WINDOW_WAVES = 4  # Answers can arrive in waves as large as the concurrency; a window covers several waves
_WARMUP_NS = 100_000_000  # Shortest warm-up of a step, in nanoseconds; the service is warm from the step before
_MAX_WARMUP_NS = 1_000_000_000  # Longest warm-up of a step, in nanoseconds
_NEAR_CAPACITY = 0.9  # Share of a climb that was cut short, from which a higher rate may keep the objective too
_POLL_S = 0.1  # Interval of the samples of the monitor during a step, in seconds


class LastStep(Struct, frozen=True):
    """The last load of a search."""

    schedule: Schedule
    samples: Samples
    window: Window
    asl_ratio: float | None
    peak_rss_bytes: int | None


class Climbed(Struct, frozen=True):
    """What a search under an objective leaves to the next one of the same service, which need not climb again."""

    capacity: Capacity
    levels: tuple[float, ...]  # of the fitted curves, one for each bound of the objective


@dataclass(slots=True)
class CapacitySearch:
    """One search over one deployment.

    ``last``: the last load of the search; None before the first. ``climbed``: what a search under an objective leaves
    to the next one; None if it was ended by the load generator.
    """

    template: LoadJob  # a job for this deployment; each step replaces its schedule and times
    generator: Generator
    monitor: Monitor
    deadline_ns: int  # end of the search, on the clock of ``time.perf_counter_ns``
    on_progress: Callable[[Progress], None]
    ceiling_rps: float | None  # rate that one generator process reaches on this machine; None if it is not known
    generators: int = 1
    tokens: Callable[[str], int] | None = None  # counts the tokens of texts that the job keeps; None if it keeps none
    last: LastStep | None = None
    climbed: Climbed | None = None
    number: int = 0
    _last_rate_rps: float = 0.0
    _left_out: int = 0

    def run(self, decided: Callable[[LaunchValue], bool], objective: Objective | None) -> Capacity:
        """Climb the ladder of concurrencies; with an objective, then search for the highest rate that keeps it.

        ``objective``: latency objective to keep; None for throughput alone.
        """
        if objective is not None and self.climbed is not None:
            again = self._under(objective, self.climbed.capacity, self.climbed.levels)
            return replace(again, ladder=(), asl=None, peak_rss_bytes=None)
        capacity = climb(self._step, out_of_time=self._out_of_time, decided=decided, confirms=objective is None)
        if (usage := self.monitor.usage()) is not None:
            capacity = replace(capacity, cores=usage.cores, limited=usage.limited)
        if objective is None:
            return capacity
        if capacity.nmrt.value <= 0:
            return replace(capacity, objective=objective)
        return self._under(objective, capacity, ())

    def _under(self, objective: Objective, capacity: Capacity, levels: tuple[float, ...]) -> Capacity:
        """Search for the highest rate that keeps an objective, below the capacity of a climb."""
        reference = ReferenceQueue(capacity.nmrt.value, _servers(capacity))
        found = highest_rate(
            lambda plan: self._probe(plan, objective, reference),
            objective,
            reference,
            left_s=lambda: (self.deadline_ns - time.perf_counter_ns()) / SECOND_NS,
            levels=levels,
        )
        rate, limited = found.rate, found.limited
        is_whole = limited is None and not capacity.at_least
        self.climbed = Climbed(capacity, found.levels) if is_whole else None
        return self._found(replace(capacity, nmrt=rate, objective=objective, pauses=found.pauses), capacity, limited)

    def _found(self, found: Capacity, capacity: Capacity, limited: str | None) -> Capacity:
        """What was found under an objective, and what ended the search for it."""
        rate = found.nmrt
        left_out = f"{count(self._left_out, 'answer')} of too few tokens for {found.objective} left out"
        also = "".join(f"; {text}" for text in (left_out if self._left_out else "", describe_pauses([found])) if text)
        if limited is not None:
            return replace(found, stopped=f"{limited}{also}", at_least=True, end=SearchEnd.GENERATOR)
        if capacity.at_least and rate.value >= _NEAR_CAPACITY * capacity.nmrt.value:
            stopped = f"{capacity.stopped}{also}"
            return replace(found, stopped=stopped)  # a higher rate may keep the objective too, beyond what was climbed
        stopped = f"the highest rate that keeps the objective was found{also}"
        return replace(found, stopped=stopped, at_least=False, end=SearchEnd.FOUND)

    def _out_of_time(self) -> bool:
        return time.perf_counter_ns() >= self.deadline_ns

    def _step(self, concurrency: int) -> Step:
        """One closed-loop step, long enough for at least 40 completions at the rate of the last step."""
        expected_ns = 1e9 / self._last_rate_rps if self._last_rate_rps else 0.0
        completions = max(_STEP_COMPLETIONS, _STEP_WAVES * concurrency)
        duration_ns = int(min(max(_STEP_NS, completions * expected_ns), _MAX_STEP_NS))
        warmup_ns = int(min(max(_WARMUP_NS, 2 * concurrency * expected_ns), _MAX_WARMUP_NS))
        result = self._drive(ClosedLoop(concurrency), duration_ns, warmup_ns)
        samples, inside, good = self._window(result)
        while not inside.any() and duration_ns < self.template.timeout_ns and not self._out_of_time():
            duration_ns *= 4  # no request was due: the service is slow, or still busy with earlier requests
            result = self._drive(ClosedLoop(concurrency), duration_ns, warmup_ns)
            samples, inside, good = self._window(result)
        requests, successes = int(inside.sum()), int((inside & good).sum())
        in_one = max(_WINDOW_COMPLETIONS, _WINDOW_WAVES * concurrency)
        windows = max(1, min(_WINDOWS, successes // in_one))
        edges = np.linspace(result.window.start_ns, result.window.end_ns, windows + 1)
        answers = AnswerCounts(samples.due_ns[good], samples.done_ns[good], closed=True)
        cuts_ns = answers.cuts(edges)
        counts, spans_ns = np.diff(answers.by(cuts_ns)), np.diff(cuts_ns)
        rates = tuple(float(count * 1e9 / span) for count, span in zip(counts, spans_ns, strict=True) if span > 0)
        step = Step(
            concurrency=concurrency,
            rates_rps=rates if successes else (),
            median_ns=float(np.median(samples.latency_ns[inside & good])) if successes else None,
            error_ratio=1 - successes / requests if requests else 1.0,
            limited=why_limited(replace(result.generator, ceiling_rps=self.ceiling_rps)),
            asl_ratio=None if self.last is None else self.last.asl_ratio,
            peak_rss_bytes=None if self.last is None else self.last.peak_rss_bytes,
        )
        self._last_rate_rps = step.rate_rps
        return step

    def _probe(self, plan: ProbePlan, objective: Objective, reference: ReferenceQueue) -> Probe:
        """One open-loop window with arrivals of its own; a failed request violates the objective."""
        warmup_ns, duration_ns = int(plan.warmup_s * SECOND_NS), int(plan.window_s * SECOND_NS)
        seed = typical_seed(
            lambda seed: PoissonRate(plan.rate_rps, seed).merged_arrivals(self.generators),
            plan.rate_rps,
            reference,
            window=Window(warmup_ns, warmup_ns + duration_ns),
            tail=min(bound.allowed for bound in objective.bounds),
            first_seed=(self.number * MAX_WINDOWS + plan.number) * SEEDS,
        )
        result = self._drive(PoissonRate(plan.rate_rps, seed), duration_ns, warmup_ns)
        samples, inside, good = self._window(result)
        self._left_out += _without_value(objective, samples, inside & good)
        backlog = backlog_of(samples, result.window, plan.rate_rps)
        lags = backlog is not None and why_not_sustained([backlog]) is not None
        sent = samples.due_ns < result.window.end_ns
        order = np.argsort(samples.due_ns[sent], kind="stable")
        return Probe(
            tallies=tuple(_tally(bound, samples, result.window) for bound in objective.bounds),
            due_ns=samples.due_ns[sent][order].astype(np.float64),
            window=result.window,
            limited=why_limited(replace(result.generator, ceiling_rps=self.ceiling_rps)),
            answered_rps=backlog.answered_rps if backlog is not None and lags else None,
            done_ns=samples.done_ns[sent][order].astype(np.float64) if good[sent].all() else None,
        )

    def _window(self, result: LoadResult) -> tuple[Samples, NDArray[np.bool_], NDArray[np.bool_]]:
        """The samples, which of them were due in the window, and which succeeded."""
        samples = samples_of(result, self.tokens)
        return samples, samples.due_in(result.window), samples.succeeded

    def _drive(self, schedule: Schedule, duration_ns: int, warmup_ns: int) -> LoadResult:
        job = replace(self.template, schedule=schedule, duration_ns=duration_ns, warmup_ns=warmup_ns)
        self.monitor.sample()
        events = LoadEvents(self.on_progress, on_poll=partial(self.monitor.sample, poll=True))
        result = self.generator.run(job, poll_s=_POLL_S, on_poll=events.handle, processes=self.generators)
        self.monitor.sample()
        usage, window = self.monitor.usage(), result.window
        self.last = LastStep(
            schedule, samples_of(result, self.tokens), window, _asl_ratio(usage, window), _peak_rss_bytes(usage, window)
        )
        return result


def _tally(bound: Bound, samples: Samples, window: Window) -> Tally:
    """Count late answers and failed requests in the pieces of a window; one without a value is not judged."""
    values, owner = _values(bound.quantity, samples)
    inside, edges = samples.due_in(window), np.linspace(window.start_ns, window.end_ns, PIECES + 1)
    judged = (inside & samples.succeeded)[owner] & np.isfinite(values)
    lag_ns = samples.send_lag_ns[owner] if bound.quantity in ("latency", "ttft") else 0
    late, late_unlagged = values >= bound.limit_ns, values - lag_ns >= bound.limit_ns
    due_ns, fails = samples.due_ns[owner], samples.due_ns[inside & ~samples.succeeded]

    def counts(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.asarray(np.histogram(due_ns[chosen], edges)[0] + np.histogram(fails, edges)[0])

    return Tally(counts(judged), counts(judged & late), counts(judged & late_unlagged))


def _without_value(objective: Objective, samples: Samples, good: NDArray[np.bool_]) -> int:
    """Number of successful requests that a bound of streams cannot judge: their answers have too few tokens."""
    if samples.stream is None:
        return 0
    times = StreamTimes(samples, samples.stream)
    unknown = np.any([np.isinf(times.of(bound.quantity)) for bound in objective.bounds], axis=0)
    return int((good & unknown).sum())


def _values(quantity: str, samples: Samples) -> tuple[NDArray[np.int64] | NDArray[np.float64], NDArray[np.int64]]:
    """The values of a quantity, infinite for a request without it, and the request of each."""
    every = np.arange(samples.outcome.size)
    if quantity == "latency":
        return samples.latency_ns, every
    if samples.stream is None:
        return np.full(samples.outcome.size, np.inf), every
    times = StreamTimes(samples, samples.stream)
    return times.gaps if quantity == "itl" else (times.of(quantity), every)


def _asl_ratio(usage: Usage | None, window: Window) -> float | None:
    """Share of its cores that the deployment used in a window; None if its processes are not known."""
    if usage is None:
        return None
    start_ns, end_ns = np.interp((window.start_ns, window.end_ns), usage.time_ns, usage.cpu_ns)
    return float((end_ns - start_ns) / (usage.cores * window.duration_ns))


def _peak_rss_bytes(usage: Usage | None, window: Window) -> int | None:
    """Highest resident memory from the last sample before a window on; None if the processes are not known."""
    if usage is None:
        return None
    first = max(int(np.searchsorted(usage.time_ns, window.start_ns)) - 1, 0)
    return int(usage.rss_bytes[first:].max())


def _servers(capacity: Capacity) -> int:
    """Requests that the deployment serves at a time: its capacity times the latency of a single caller."""
    alone = capacity.ladder[0].median_ns
    return 1 if alone is None else max(1, round(capacity.nmrt.value * alone / SECOND_NS))
