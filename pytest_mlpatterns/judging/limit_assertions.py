"""Whether a metric keeps a limit: the verdicts behind ``perf.assert_..._below`` and ``..._at_least``.

NMRT has assertions of its own, since it is searched for. This module must not know baselines or pytest.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from pytest_mlpatterns.analysis.health.sustained import Fault
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, nmrt_metric
from pytest_mlpatterns.analysis.metrics.metric import (
    FigureOfAnswers,
    LatencyPercentile,
    Metric,
    Nmrt,
    Role,
    StreamPercentile,
    objective_of,
)
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.metrics.searched_rates import describe_pauses, searches_needed
from pytest_mlpatterns.analysis.metrics.stream_metrics import form_of_answers
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.intervals import estimate, min_samples, wilson_interval
from pytest_mlpatterns.analysis.verdicts.few_samples import judge_few
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_beyond_failures, judge_busy, judge_limit, why_invalid
from pytest_mlpatterns.config import assertions, limit_tables
from pytest_mlpatterns.config.assertions import Limit
from pytest_mlpatterns.errors import (
    GeneratorLimitError,
    InvalidResultError,
    LimitFailure,
    SettingError,
    TooFewSamplesError,
)
from pytest_mlpatterns.judging.counting import CountedPasses
from pytest_mlpatterns.judging.machine_doubts import unless_explained
from pytest_mlpatterns.judging.verdict_log import VerdictLog, assertions_at_the_call, frame_of_the_test, no_verdict
from pytest_mlpatterns.records.launch import Capacity, Estimate, LaunchValue, SearchEnd
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.records.outcomes import describe_failures
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.units import SECOND_NS, format_rate
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement

_LIMIT_ALPHA = 0.02
"""Probability, over all interim looks, of failing a value exactly at the limit, if launches vary as the prior expects.

Up to 2.5 % if they vary by up to 8 % and a baseline entry shows it (``benchmarks/verdict_simulation.py``).
"""
_FAR = 4 / 3
"""How many times the limit a value is whose failure no second start has to confirm, if the planned time has none: what
launches of one deployment differ by, 8 % at most, is far less."""


@assertions_at_the_call
class LimitAssertions:
    """The plain limits of ``perf``, whose base it is: names for a metric and a limit, which is read as its unit is."""

    _experiment: Experiment
    _measurement: SequentialMeasurement
    _verdicts: VerdictLog
    _none_may_fail = False  # whether the test asserts it, and none has failed yet

    def assert_rtm_below(self, limit: object) -> None:
        """The response time median is below a time such as ``"20ms"``."""
        self._read("rtm", limit, "assert_rtm_below(...)")

    def assert_latency_below(self, limit: object, percentile: float | None = None) -> None:
        """A latency percentile, ``percentile=99``, is below a time such as ``"80ms"``."""
        self._read("latency", limit, "assert_latency_below(...)", percentile=percentile)

    def assert_throughput_at_least(self, rps: object) -> None:
        """The throughput in successful answers per second reaches a rate."""
        self._read("throughput", rps, "assert_throughput_at_least(rps=...)")

    def assert_total_time_below(self, limit: object) -> None:
        """The time of all requests of a launch (``requests=``) is below one such as ``"2s"``; infinite if one fails."""
        self._read("total_time", limit, "assert_total_time_below(...)")

    def assert_asl_below(self, limit: object) -> None:
        """The average system load is below a share of the machine, 0.8 or ``"80%"``."""
        self._read("asl", limit, "assert_asl_below(...)")

    def assert_error_rate_below(self, limit: object) -> None:
        """The share of requests without a 2xx answer is below a limit, 0.001 or ``"0.1%"``."""
        self._read("error_rate", limit, "assert_error_rate_below(...)")

    def assert_peak_memory_below(self, limit: object) -> None:
        """The peak resident memory of the deployment's processes is below a size such as ``"512MiB"``."""
        self._read("peak_memory", limit, "assert_peak_memory_below(...)")

    def assert_cpu_per_request_below(self, limit: object) -> None:
        """The deployment's CPU time per successful answer is below a time such as ``"2ms"``."""
        self._read("cpu_per_request", limit, "assert_cpu_per_request_below(...)")

    def assert_instructions_below(self, limit: object) -> None:
        """The deployment's user-space instructions per request, counted in a pass of their own, are below 4.2M."""
        self._read("instructions", limit, "assert_instructions_below(...)")

    def assert_cold_start_below(self, limit: object) -> None:
        """The time from the start of the processes to the first answered inference is below one such as ``"3s"``."""
        self._read("cold_start", limit, "assert_cold_start_below(...)")

    def assert_cache_hit_ratio_at_least(self, limit: object) -> None:
        """The share of inputs answered without a model call of their own reaches a limit, 0.5 or ``"50%"``."""
        self._read("cache_hit_ratio", limit, "assert_cache_hit_ratio_at_least(...)")

    def assert_ttft_below(self, limit: object, percentile: float = 50) -> None:
        """The time to the first token is below one such as ``"300ms"``; of failed requests it is infinite."""
        self._read("ttft", limit, "assert_ttft_below(...)", percentile=percentile)

    def assert_itl_below(self, limit: object, percentile: float = 50) -> None:
        """The inter-token latency, the gap between two tokens of an answer, is below a time such as ``"40ms"``."""
        self._read("itl", limit, "assert_itl_below(...)", percentile=percentile)

    def assert_tpot_below(self, limit: object, percentile: float = 50) -> None:
        """The time per output token of a request is below one such as ``"40ms"``; of failed ones it is infinite."""
        self._read("tpot", limit, "assert_tpot_below(...)", percentile=percentile)

    def assert_output_tokens_at_least(self, rps: object, *, per_user: bool = False) -> None:
        """The output tokens per second reach a rate.

        Args:
            rps: tokens per second.
            per_user: those that one caller sees while its answer streams, instead of all together.
        """
        name = "output_tokens_per_user" if per_user else "output_tokens"
        self._read(name, rps, "assert_output_tokens_at_least(rps=...)")

    def assert_cost_below(self, limit: object) -> None:
        """A million successful answers cost less than an amount in the currency of the test's price: ``"0.40 USD"``.

        It pays for the CPU time that the deployment used, and for its peak memory.
        """
        self._read("cost", limit, "assert_cost_below(...)")

    def assert_no_failures(self) -> None:
        """No request of this run failed: an exact statement, which is never undecided."""
        self._settle("error_rate", lambda: judge_failures(self._measurement))
        self._none_may_fail = not self._measurement.metrics.failures

    def assert_metric(self, name: str, *, below: object = None, at_least: object = None) -> None:
        """Any metric is below a limit, or reaches one: ``assert_metric("queue_time:p95", below="5ms")``.

        Args:
            name: as results have it, such as ``"rtm"``, ``"p97"`` or ``"ttft:p95"``; of a figure of ``perf_figures``
                ``"queue_time"`` is the mean, and ``"queue_time:p95"`` a percentile.
            below: limit, with the unit of the metric.
            at_least: limit, instead of ``below``.
        """
        where = f"assert_metric({shown(name)}, {'below' if at_least is None else 'at_least'}=...)"
        if (below is None) is (at_least is None):
            raise SettingError(f"{where} expected one limit; write below= or at_least=")
        metric, given = assertions.read_metric(name, where), below if at_least is None else at_least
        better: Literal["lower", "higher"] = "lower" if at_least is None else "higher"
        write = "below=" if metric.better == "lower" else "at_least="
        asked = assertions.directed(metric, better, f"{where} ", write=write)
        self._keep(assertions.read_limit(asked, given, where, price=self._experiment.settings.price))

    def assert_that(
        self, text: str | None = None, *, limits: Mapping[str, object] | str | Path | None = None, tolerance: object = 0
    ) -> None:
        """Limits as text, each with a verdict of its own: ``"p95<50ms, mean<20ms, error_rate<1%, throughput>=100"``.

        A metric is named as ``pytest --perf-help`` names it; a time has its mean or any percentile too, ``ttft:p95``.

        Args:
            text: limits of this test under all its parameters.
            limits: limits by the id of the parameters, ``{"small-1": "p95<20ms"}``; or a TOML or CSV file of them, by
                its path from the file of the test.
            tolerance: by which a metric may be worse than each limit, ``"10%"``.
        """
        folder = Path(frame_of_the_test()[0].f_code.co_filename).parent
        rows = [] if limits is None else [limit_tables.read_row(limits, self._experiment.test, folder)]
        if text is not None or not rows:
            rows.append(limit_tables.Row(limit_tables.CALL, text))
        price = self._experiment.settings.price
        self._keep(*limit_tables.read_limits(rows, tolerance, price=price))

    def _read(self, name: str, limit: object, where: str, *, percentile: object = None) -> None:
        metric = (percentile is None and METRICS.get(name)) or assertions.percentile_of(name, percentile, where)
        self._keep(assertions.read_limit(metric, limit, where, price=self._experiment.settings.price))

    def _keep(self, *limits: Limit) -> None:
        kinds = LatencyPercentile | StreamPercentile | FigureOfAnswers
        asked = [one.metric.kind.percentile for one in limits if isinstance(one.metric.kind, kinds)]
        enough = max((min_samples(percentile) for percentile in asked if percentile), default=0)
        self._measurement.runner.want_requests(enough, decides_alone=True)
        self._settle_all(limits[0].metric.name, lambda: decide_limits(self._experiment, self._measurement, limits))

    def _settle(self, metric: str, decide: Callable[[], Verdict]) -> None:
        self._settle_all(metric, lambda: [decide()])

    def _settle_all(self, metric: str, decide: Callable[[], Sequence[Verdict]]) -> None:
        """Decide an assertion after a first launch, which is all that a smoke run measures."""
        try:
            with self._measurement.spending.counted():
                self._measurement.measure_at_least(1)
                verdicts = [] if self._experiment.smoke else decide()
        except GeneratorLimitError as error:
            verdicts = [no_verdict(metric, "limit", error)]
        self._verdicts.add(verdicts, LimitFailure)


def decide_limits(
    experiment: Experiment, measurement: SequentialMeasurement, limits: Sequence[Limit]
) -> Sequence[Verdict]:
    """Decide one after the other; after a failure, the others are judged by what was measured until then.

    Those that the generator leaves without a verdict stand there once.
    """
    verdicts: list[Verdict] = []
    for one in limits:
        has_failed = any(verdict.outcome is Outcome.FAIL for verdict in verdicts)
        try:
            if isinstance(one.metric.kind, Nmrt):
                found = decide_nmrt(experiment, measurement, one.value, objective=objective_of(one.metric))
            else:
                found = decide_limit(experiment, measurement, one.metric, limit=one.value, may_go_on=not has_failed)
        except GeneratorLimitError as error:
            found = no_verdict(one.metric.name, "limit", error)
            if any(verdict.why_open == found.why_open for verdict in verdicts):
                continue
        verdicts.append(found.saying(one.source))
    return verdicts


_EXACT = "perf.assert_no_failures() asserts only that none failed in this run, which is known"  # Beside an open limit


def decide_limit(
    experiment: Experiment, measurement: SequentialMeasurement, metric: Metric, *, limit: float, may_go_on: bool = True
) -> Verdict:
    """Measure until it is decided whether a metric keeps a limit, which is in the metric's unit."""
    most, noise, asked = experiment.settings.launches, experiment.settings.noise, assertions.Limit(metric, limit)

    @functools.cache  # once the first launch has shown what one takes
    def plan() -> SequentialPlan:
        return replace(limit_plan(most), planned=measurement.reachable_launches)

    def is_far_beyond() -> bool:
        found = measurement.metrics.interval_of(metric)
        return found is not None and _FAR * min(found.value, limit) <= max(found.value, limit)

    def judge() -> Verdict:
        return unless_explained(measurement.metrics, asked, judge_by, noise=noise)

    def judge_by(limit: float) -> Verdict:
        launches = measurement.launches_with(metric)
        confidence = plan().confidence(launches)
        limited: GeneratorLimitError | None = None
        try:
            measurement.require_valid(errors_count=not metric.counts_failures)
        except GeneratorLimitError as error:
            callers, limited = experiment.setup.load.in_flight, error
            if found := judge_busy(metric, measurement.metrics, limit, callers=callers, confidence=confidence):
                return found
            if callers is None or not metric.counts_failures:
                raise
        measured = _interval(experiment, measurement, metric, confidence=confidence)
        found = _judged(metric, measured, limit, metrics=measurement.metrics, launches=launches, most=most)
        return found if limited is None else _of_fewer(found, limited)

    if metric.is_counted:
        return CountedPasses(experiment, measurement).required("assert_instructions_below(...)").decide(judge)
    why = _why_hopeless(metric, limit, measurement, plan=plan()) if metric.counts_failures else ""
    try:
        is_over = why or not may_go_on
        (found,) = [judge().saying(why)] if is_over else measurement.decide(lambda: [judge()], is_sure=is_far_beyond)
        none_failed = metric.counts_failures and not measurement.metrics.failures
        return found.saying(_EXACT if none_failed and found.outcome is Outcome.INCONCLUSIVE else "")
    except TooFewSamplesError as error:
        confidence = plan().confidence(len(measurement.metrics.launches))
        few = functools.partial(judge_few, metric, error=error, metrics=measurement.metrics, confidence=confidence)
        return unless_explained(measurement.metrics, asked, lambda value: few(limit=value), noise=noise)


def _of_fewer(found: Verdict, limited: GeneratorLimitError) -> Verdict:
    """The verdict on the failures of a closed loop whose generator or client was busy, and so sent fewer requests.

    Raises ``limited`` if it is a failure, which the busy one may have caused.
    """
    if found.outcome is Outcome.FAIL:
        raise limited
    return found.saying("what sends the requests was busy, so it sent fewer")


def _interval(
    experiment: Experiment, measurement: SequentialMeasurement, metric: Metric, *, confidence: float
) -> Estimate:
    """The metric over all launches; of a number of requests that blocks do not have, after a launch of its own."""
    entry = experiment.baseline.entry
    scatter = () if entry is None else entry.metrics.get(metric.name, ())
    found = measurement.metrics.interval_of(metric, confidence, scatter=scatter)
    if found is None and Role.PACED in metric.roles and experiment.settings.requests is not None:
        measurement.launch_again()  # those so far are blocks of a comparison
        found = measurement.metrics.interval_of(metric, confidence)
    if found is None:
        raise InvalidResultError(_why_unknown(metric, experiment, measurement.metrics))
    return found


def _judged(metric: Metric, measured: Estimate, limit: float, *, metrics: Metrics, launches: int, most: int) -> Verdict:
    if math.isinf(measured.high):
        return judge_beyond_failures(metric, measured, limit, metrics=metrics)
    modes = metrics.modes_of(metric)
    verdict = judge_limit(metric, measured, limit, launches=launches, modes=modes, is_only=most == 1)
    return verdict.saying(metrics.unjudged(metric))


def judge_failures(measurement: SequentialMeasurement) -> Verdict:
    """Whether no request of the launches so far failed, which is known exactly."""
    metrics = measurement.metrics
    failed, all_of_them = sum(metrics.failures.values()), f"{metrics.requests:,} requests failed"
    if failed:
        kinds = describe_failures(metrics.failures, metrics.first_failure)
        return Verdict("error_rate", "limit", Outcome.FAIL, f"{failed:,} of {all_of_them}, expected none ({kinds})")
    if (why := why_invalid(metrics)) is not None and why.fault is Fault.SERVICE:
        raise InvalidResultError(str(why))
    return Verdict("error_rate", "limit", Outcome.PASS, f"none of {all_of_them}")


def _why_hopeless(metric: Metric, limit: float, measurement: SequentialMeasurement, *, plan: SequentialPlan) -> str:
    """Why no number of further launches decides an error rate, which is left open then; empty if they may.

    Without a failure so far nothing shows a high rate, and too few requests to exclude one stay too few. So
    the time is left to the other assertions.
    """
    metrics = measurement.metrics
    if not metrics.requests or metrics.failures:
        return ""
    last = measurement.reachable_launches
    requests = metrics.requests * last // len(metrics.launches)
    wanted = wilson_interval(0, requests, plan.confidence(last)).high
    if wanted < limit:
        return ""
    needed = math.ceil(requests * wanted / (1 - wanted) * (1 - limit) / limit)
    so_far_s = sum(launch.window.duration_ns for launch in metrics.launches) / SECOND_NS
    window_s = math.ceil(needed / last * so_far_s / metrics.requests)
    longer = f"requests={math.ceil(needed / last)}" if metrics.launches[-1].requests else f'duration="{window_s}s"'
    return (
        f"none of {metrics.requests:,} requests failed, and {needed:,} without a failure decide it; the test has "
        f"time for {requests:,}: measure longer ({longer})"
    )


def _why_unknown(metric: Metric, experiment: Experiment, metrics: Metrics) -> str:
    if Role.PACED in metric.roles:
        return (
            f"there is no {metric.label} of a window by time, expected a number of requests; write perf(requests=500)"
        )
    pattern = experiment.setup.pattern
    if isinstance(metric.kind, FigureOfAnswers):
        return f"no answer has {metric.kind.figure}; add it to the perf_figures of this test"
    if metric.of_streams and any(launch.samples.stream for launch in metrics.launches):
        return f"the streams have no chunk with content, so there is no {metric.label}; yield at least one"
    if metric.of_streams:
        seen = form_of_answers(metrics.launches)
        return (
            f"the answers do not stream, so there is no {metric.label}{seen}; expected a model that yields, or a "
            "service that answers with server-sent events, or with JSON lines or chunks in chunked transfer"
        )
    if metric.name == "cache_hit_ratio":
        ours = experiment.system.model is not None
        use = "Cached()" if ours else 'metrics=Prometheus("/metrics", cache_hits="...", cache_misses="...")'
        return f"{pattern} has no cache that was asked, so there is no {metric.label}; use {use}"
    return f"{metric.label} is not known for {pattern}; name its process: Url(..., pid=...)"


_FEWEST_SEARCHES, _SEARCH_NS = 4, 10_000_000_000
"""Searches that a verdict is planned for at least, and time of the budget for each further one: a look that never
happens wastes its part of the error probability."""
_AGAIN_S = 4.0
"""Least time of a further search under an objective, which does not climb again: three windows of a second."""
_STEP_S = 5  # A budget that is advised is a multiple of it


def search_for_ranking(experiment: Experiment, measurement: SequentialMeasurement) -> None:
    """Do the searches that a ranking needs and the test did not do, or stopped when its own limit was decided."""
    if not experiment.searches:
        return
    measurement.measure_at_least(1)
    measurement.require_valid()
    for objective in experiment.searches:
        capacities = measurement.metrics.capacities
        if not any(one.objective == objective and one.end is not SearchEnd.DECIDED for one in capacities):
            measurement.search(objective)


def decide_nmrt(
    experiment: Experiment, measurement: SequentialMeasurement, limit: float, *, objective: Objective | None
) -> Verdict:
    """Search until it is decided whether the deployment sustains a rate, and there keeps a latency objective."""
    metric, settings = nmrt_metric(objective), experiment.settings
    planned, most = (
        min(settings.launches, max(time_ns // _SEARCH_NS, _FEWEST_SEARCHES))
        for time_ns in (settings.planned_ns, settings.budget_ns)
    )
    plan = replace(limit_plan(most), planned=planned)

    def is_enough(value: LaunchValue) -> bool:
        measured = estimate([value], metric.launch_sd, plan.confidence(1))
        return objective is None and judge_limit(metric, measured, limit).outcome is Outcome.PASS

    def found() -> Estimate | None:
        metrics = measurement.metrics
        return metrics.estimate(metric, plan.confidence(len(metrics.launch_values(metric))))

    def searches() -> list[Capacity]:
        return [one for one in measurement.metrics.capacities if one.objective == objective]

    def judge() -> Verdict:
        measurement.require_valid()
        known, launches = found() or Estimate(0.0, 0.0, 0.0), measurement.launches_with(metric)
        judge_by = functools.partial(judge_limit, metric, known, launches=launches)
        verdict = unless_explained(measurement.metrics, assertions.Limit(metric, limit), judge_by, noise=settings.noise)
        return _so_far(verdict, metric, searches())

    measurement.require_valid()  # what serves no launch is not worth a search
    search = functools.partial(measurement.search, objective, is_enough, shares=True)
    before = found()
    if before is None or judge_limit(metric, before, limit).outcome is not Outcome.PASS:
        search()
    (verdict,) = measurement.decide(lambda: [judge()], search, more_s=None if objective is None else _AGAIN_S)
    if verdict.outcome is Outcome.PASS:
        return verdict
    if early := _ended_early(searches()):
        raise not_known(early, metric.label)
    is_confirmed = verdict.outcome is not Outcome.FAIL or len(searches()) > 1 or settings.launches == 1
    if not _lacks(metric, searches()) and is_confirmed:
        return verdict
    return verdict.saying(_second_search(experiment, measurement, done=len(searches())))


def _so_far(verdict: Verdict, metric: Metric, searches: Sequence[Capacity]) -> Verdict:
    """A verdict by the searches so far, with the pauses of the service.

    It is open if the generator ended them, since the next may not be held up, and if a PASS rests on too few.
    """
    verdict = verdict.saying(describe_pauses(searches))
    early = _ended_early(searches)
    is_open = early is not None and early.end is SearchEnd.GENERATOR
    if verdict.outcome is Outcome.PASS:
        is_open = _lacks(metric, searches)
    return replace(verdict, outcome=Outcome.INCONCLUSIVE) if is_open else verdict


def _second_search(experiment: Experiment, measurement: SequentialMeasurement, *, done: int) -> str:
    """What a second search takes, where the budget had no time for one."""
    needed = done + 1
    needed_s = _STEP_S * math.ceil(needed / done * measurement.budget.spent_ns / SECOND_NS / _STEP_S)
    launches = f"launches={needed} and " if experiment.settings.launches < needed else ""
    return f'it rests on one search; {launches}budget="{needed_s}s" has time for a second one, which confirms it'


def _lacks(metric: Metric, searches: Sequence[Capacity]) -> bool:
    """Whether a PASS needs another search."""
    objective = objective_of(metric)
    return objective is not None and len(searches) < searches_needed(searches, objective)


def _ended_early(searches: Sequence[Capacity]) -> Capacity | None:
    """The last search that ended for another reason than a decided limit, if none found the capacity."""
    early = [one for one in searches if one.at_least and one.end is not SearchEnd.DECIDED]
    return early[-1] if early and all(one.at_least for one in searches) else None


def not_known(search: Capacity, what: str) -> GeneratorLimitError | InvalidResultError:
    """The error of a search that ended before it found the capacity."""
    why = f"{what} is at least {format_rate(search.nmrt.value)}, but not known: {search.stopped}"
    return (GeneratorLimitError if search.end is SearchEnd.GENERATOR else InvalidResultError)(why)


def limit_plan(max_launches: int) -> SequentialPlan:
    """The plan by which a limit is judged: after every launch."""
    return SequentialPlan(first=1, last=max_launches, alpha=_LIMIT_ALPHA)
