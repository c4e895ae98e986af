"""What a test talks to: measure, decide, assert.

An assertion measures as long as it must to decide (:mod:`pytest_mlpatterns.judging.sequential`). This module must not
know
pytest.
"""

from __future__ import annotations

import functools
import warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pytest_mlpatterns.analysis.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.capacity_search import DECIDED
from pytest_mlpatterns.analysis.intervals import CONFIDENCE, estimate, min_samples
from pytest_mlpatterns.analysis.metric_definitions import METRICS, Metric, metric_named, percentile_metric
from pytest_mlpatterns.analysis.verdicts import SampleSize, judge_limit
from pytest_mlpatterns.config.converters import read_pattern
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import InconclusivePolicy
from pytest_mlpatterns.errors import (
    InconclusiveFailure,
    InconclusiveWarning,
    InvalidResultError,
    LimitFailure,
    MlpatternsError,
    PerfFailure,
    RegressionFailure,
    SettingError,
)
from pytest_mlpatterns.judging.baseline_comparison import BaselineComparison, see_that_it_counts, stand_on, to_the_end
from pytest_mlpatterns.judging.interleaved_verdicts import RACED, judge_faster
from pytest_mlpatterns.judging.result_builder import build_result, searched_for
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.text.failure import failure_text
from pytest_mlpatterns.units import format_rate, parse_duration, parse_number, parse_share, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx

    from pytest_mlpatterns.analysis.metrics import Metrics
    from pytest_mlpatterns.baseline.lookup import BaselineMatch
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.measurement.launch import LaunchRunner
    from pytest_mlpatterns.patterns import Pattern
    from pytest_mlpatterns.records.launch import LaunchValue
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.revision.client import RevisionClient

__all__ = ["Perf"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_UPDATE_LAUNCHES = 3
"""A baseline is recorded from so many launches, since it will be compared with many times."""
_COMPARED = ("rtm", "throughput")
_LIMIT_ALPHA = (1 - CONFIDENCE) / 2
"""Chance that a limit is failed by what is just within it, over all looks; that of one interval of 95 %."""


def _at_the_call(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let what a method raises end at the test's own line: how it came about inside is of no use to the reader."""

    @functools.wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        __tracebackhide__ = True
        try:
            return method(*args, **kwargs)
        except (MlpatternsError, PerfFailure) as error:
            raise error.with_traceback(None) from None

    return call


class Perf:
    """One test's measurement: the ``perf`` fixture.

    Nothing is sent before the first figure, prediction or assertion is asked for.

    Args:
        test: the test's id.
        bench: starts and measures its deployments.
        settings: what it was asked to do.
        subject: what is measured.
        reference: the baseline.
        revision: the same test at another git revision, which is compared with instead of the baseline.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what one test is about
        self,
        test: str,
        bench: LaunchRunner,
        settings: Settings,
        subject: Experiment,
        reference: BaselineMatch,
        revision: RevisionClient | None = None,
    ) -> None:
        self._test = test
        self._bench = bench
        self._settings = settings
        self._reference = reference
        self._evidence = SequentialMeasurement(bench, settings.budget_ns, settings.launches)
        self._subject = subject
        self._setup = subject.setup
        self._comparison = BaselineComparison(self._evidence, bench, settings, subject, reference, revision)
        self._verdicts: list[Verdict] = []
        self._warn: Callable[[Warning], None] = functools.partial(warnings.warn, stacklevel=6)  # the test's own line

    @property
    def smoke(self) -> bool:
        """Whether this run sends one request and judges nothing (``--perf-smoke``), so that there are no figures."""
        return self._bench.smoke

    def __repr__(self) -> str:
        return f"<perf of {self._setup.pattern} under {self._setup.load}>"

    @property
    @_at_the_call
    def metrics(self) -> Metrics:
        """What was measured; the first access starts the load.

        Raises:
            InvalidResultError: not a single request was due in the window.
            DeploymentError: the deployment did not start, or died.
        """
        return self._evidence.metrics

    @property
    @_at_the_call
    def client(self) -> httpx.Client:
        """An ``httpx.Client`` bound to the deployment: ``perf.client.get("/health")``, outside the load.

        Raises:
            DeploymentError: the deployment did not start.
        """
        return self._bench.deployment.client

    @_at_the_call
    def predict(self, value: Any) -> Any:
        """Ask the deployment for one input, outside the load: a functional check under the pattern.

        Raises:
            DeploymentError: it does not answer, or with an error.
        """
        return self._bench.deployment.predict(value)

    @_at_the_call
    def assert_rtm_below(self, limit: object) -> None:
        """The response time median is below a time such as ``"20ms"``."""
        self._assert_limit(METRICS["rtm"], parse_duration(limit, name="assert_rtm_below(...)"))

    @_at_the_call
    def assert_latency_below(self, limit: object, *, percentile: float) -> None:
        """A latency percentile, ``percentile=99``, is below a time such as ``"80ms"``."""
        try:
            min_samples(percentile)
        except (ValueError, TypeError) as error:
            raise SettingError(f"assert_latency_below(percentile={percentile!r}): {error}") from None
        self._assert_limit(
            percentile_metric(percentile),
            parse_duration(limit, name="assert_latency_below(...)"),
            lambda metrics, confidence: metrics.latency_ns(percentile, confidence),
        )

    @_at_the_call
    def assert_throughput_at_least(self, rps: object) -> None:
        """Successful answers per second reach a rate."""
        self._assert_limit(METRICS["throughput"], parse_number(rps, name="assert_throughput_at_least(rps=...)"))

    @_at_the_call
    def assert_asl_below(self, limit: object) -> None:
        """The average system load is below a share of the machine, 0.8 or ``"80%"``."""
        self._assert_limit(METRICS["asl"], parse_share(limit, name="assert_asl_below(...)"))

    @_at_the_call
    def assert_error_rate_below(self, limit: object) -> None:
        """The share of requests without a 2xx answer is below a limit, 0.001 or ``"0.1%"``."""
        share = parse_share(limit, name="assert_error_rate_below(...)")
        if share == 0:
            raise SettingError(
                f"assert_error_rate_below({limit!r}), expected more than 0: no run can show that nothing ever fails; "
                'write "0.1%"'
            )
        self._assert_limit(
            METRICS["error_rate"],
            share,
            lambda metrics, confidence: metrics.error_share(confidence),
        )

    @_at_the_call
    def assert_peak_memory_below(self, limit: object) -> None:
        """The peak resident memory of the deployment's processes is below a size such as ``"512MiB"``."""
        self._assert_limit(METRICS["peak_memory"], parse_size(limit, name="assert_peak_memory_below(...)"))

    @_at_the_call
    def assert_cpu_per_request_below(self, limit: object) -> None:
        """The deployment's CPU time per successful answer is below a time such as ``"2ms"``."""
        self._assert_limit(METRICS["cpu_per_request"], parse_duration(limit, name="assert_cpu_per_request_below(...)"))

    @_at_the_call
    def assert_cache_hit_ratio_at_least(self, limit: object) -> None:
        """The share of inputs answered without a model call of their own reaches a limit, 0.5 or ``"50%"``."""
        share = parse_share(limit, name="assert_cache_hit_ratio_at_least(...)")
        self._assert_limit(METRICS["cache_hit_ratio"], share)

    @_at_the_call
    def measure_nmrt(self, *, slo: str | None = None) -> Metrics:
        """Search for NMRT, the most requests per second that the deployment sustains before it begins to degrade.

        Takes at most 15 seconds of the test's budget. Assertions about NMRT start it by themselves.

        Args:
            slo: a latency objective such as ``"p95<50ms"``; the search is then for the highest rate that keeps it.

        Returns:
            The metrics with ``nmrt_rps`` and ``nmrt_concurrency``; ``capacities`` holds the ladder.
        """
        objective = None if slo is None else parse_objective(slo)
        self._evidence.measure_at_least(1)
        if not self._bench.smoke:
            self._evidence.search(to_the_end, objective)
        return self.metrics

    @_at_the_call
    def assert_nmrt_at_least(self, rps: object, *, slo: str | None = None) -> None:
        """The deployment sustains at least so many requests per second; measures until that is decided.

        Args:
            rps: requests per second.
            slo: a latency objective such as ``"p95<50ms"`` that has to be kept at that rate.
        """
        limit = parse_number(rps, name="assert_nmrt_at_least(...)")
        objective = None if slo is None else parse_objective(slo)
        metric = METRICS["nmrt"] if objective is None else metric_named(f"nmrt({objective})")

        looks = self._looks()

        def enough(value: LaunchValue) -> bool:
            measured = estimate([value], metric.launch_sd, looks.confidence(1))
            return objective is None and judge_limit(metric, measured, limit).outcome is Outcome.PASS

        def known() -> Estimate | None:
            return self.metrics.estimate(metric, looks.confidence(len(self.metrics.launch_values(metric))))

        def judge() -> Verdict:
            self._countable()
            verdict = judge_limit(metric, known() or Estimate(0.0, 0.0, 0.0), limit, self._stand(metric))
            ends_early = [one for one in self.metrics.capacities if one.at_least and one.stopped != DECIDED]
            if verdict.outcome is not Outcome.PASS and ends_early:
                raise InvalidResultError(
                    f"{metric.label} is at least {format_rate(ends_early[-1].nmrt.value)}, "
                    f"but not known: {ends_early[-1].stopped}"
                )
            return verdict

        self._evidence.measure_at_least(1)
        if not self._bench.smoke:
            search = functools.partial(self._evidence.search, enough, objective)
            before = known()
            if before is None or judge_limit(metric, before, limit).outcome is not Outcome.PASS:
                search()
            self._settle(self._evidence.decide(judge, search))

    @_at_the_call
    def assert_faster_than(self, other: Pattern | str, *, by: object = 1.0, on: str = "rtm") -> None:
        """The model is so many times as fast under this pattern as under another, measured interleaved.

        Both are started several times and loaded in short blocks that take turns, so that it holds on any machine; it
        takes some seconds a launch, within a budget of its own that is as large as the test's.

        Args:
            other: a pattern, or its name.
            by: at least so many times, such as 3.0.
            on: ``"rtm"`` (the other's RTM over this one's), ``"throughput"`` or ``"nmrt"`` (this one's over the
                other's).
        """
        times = parse_number(by, name="assert_faster_than(by=...)", example="2.0")
        rival = read_pattern(other, "assert_faster_than(...)")
        if on not in RACED:
            raise SettingError(f"assert_faster_than(on={on!r}), expected one of {', '.join(map(repr, RACED))}")
        if self._subject.under is None:
            raise SettingError(f"assert_faster_than({rival}) for {self._setup.pattern}, expected a model of our own")
        if str(rival) == self._setup.pattern:
            raise SettingError(f"assert_faster_than({rival}) under that very pattern, expected another")
        start = self._subject.under(rival)
        self._evidence.measure_at_least(1)
        if self._bench.smoke:
            return
        self._bench.close()  # the two sides have the machine to themselves
        plan = self._subject.plan
        pairing = self._subject.pair(
            Variant(self._setup.pattern, self._subject.start, plan), Variant(str(rival), start, plan)
        )
        self._settle(judge_faster(pairing, on, times, self._settings.budget_ns))

    @_at_the_call
    def assert_no_regression(self, metrics: Sequence[str] = _COMPARED, tolerance: object = None) -> None:
        """No metric is worse than the baseline beyond the tolerance.

        Every perf test with a baseline is compared in RTM and throughput by itself; this asks for more metrics, or a
        tighter tolerance. NMRT is searched for. Without a comparable entry, or one that holds the metric, it judges
        nothing, and the summary says so (``--perf-baseline require`` makes that a failure).

        Args:
            metrics: names such as ``"rtm"``, ``"p95"``, ``"throughput"``, ``"cpu_per_request"``, ``"peak_memory"``.
            tolerance: largest acceptable worsening, 0.05 or ``"5%"``; the test's own where None.
        """
        allowed = [name for name in METRICS if name != "error_rate"]
        for name in [metrics] if isinstance(metrics, str) else metrics:
            if isinstance(metrics, str) or name not in allowed:
                close = get_close_matches(str(name), allowed, n=1)
                hint = f"did you mean {close[0]}? " if close and close[0] != name else ""
                raise SettingError(
                    f"assert_no_regression(metrics={metrics!r}), {hint}expected a tuple of {', '.join(allowed)}"
                )
        given = self._settings.tolerance
        if tolerance is not None:
            given = parse_share(tolerance, name="assert_no_regression(tolerance=...)")
        self._compare([METRICS[name] for name in metrics], given, asked=True)

    def finish(self, warn: Callable[[Warning], None] | None = None) -> None:
        """After the body: measure if nothing was measured yet, and what a ranking needs; compare with the baseline.

        Args:
            warn: how to warn of a verdict that stays open, now that there is no line of the test to point to.

        Raises:
            RegressionFailure: worse than the baseline beyond the tolerance.
            PerfFailure: there is no comparable entry, and one is required.
        """
        self._warn = warn or self._warn
        if self._reference.mode is BaselineMode.UPDATE and not self._bench.smoke:
            self._evidence.measure_at_least(_UPDATE_LAUNCHES)
        if self._subject.searches and not self._bench.smoke:
            self._know_nmrt()
        judged = {verdict.metric for verdict in self._verdicts if verdict.against in ("baseline", "revision")}
        so_far = self._evidence.so_far
        metrics = [METRICS[name] for name in _COMPARED] + ([] if so_far is None else searched_for(so_far))
        self._compare(
            [metric for metric in metrics if metric.name not in judged], self._settings.tolerance, asked=False
        )
        if self._bench.smoke:
            return
        if self._reference.mode is BaselineMode.REQUIRE and (why := self._comparison.missing):
            update = f"{self._subject.command} --perf-baseline update"
            raise PerfFailure(f"{why}, and --perf-baseline require asks for one; record it: {update}")

    def result(self, *, passed: bool) -> TestResult | None:
        """Everything for reports and the baseline; None where nothing was measured."""
        return build_result(
            self._evidence,
            test=self._test,
            setup=self._setup,
            command=self._subject.command,
            verdicts=self._verdicts,
            baseline_note=self._comparison.note,
            passed=passed,
            reference=self._comparison.counterpart,
        )

    def diagnosis(self) -> str:
        """What helps to understand a failing test: the model's tracebacks and what its processes printed last."""
        so_far = self._evidence.so_far
        launches = () if so_far is None else so_far.launches
        tracebacks = [text for launch in launches if launch.stats for text in launch.stats.tracebacks]
        log = self._bench.log_tail()
        parts = [f"The model raised:\n{text}" for text in dict.fromkeys(tracebacks)]
        return "\n\n".join([*parts, f"The deployment printed last:\n{log}"] if log else parts)

    def _assert_limit(
        self, metric: Metric, limit: float, read: Callable[[Metrics, float], Estimate | None] | None = None
    ) -> None:
        looks = self._looks()

        def judge() -> Verdict:
            self._countable(errors_count=metric.name != "error_rate")
            stand = self._stand(metric)
            confidence = looks.confidence(stand.launches)
            measured = read(self.metrics, confidence) if read else self.metrics.estimate(metric, confidence)
            if measured is None:
                raise InvalidResultError(self._why_unknown(metric))
            return judge_limit(metric, measured, limit, stand)

        self._evidence.measure_at_least(1)
        if self._bench.smoke:
            return
        self._settle(self._evidence.decide(judge))

    def _why_unknown(self, metric: Metric) -> str:
        if metric.name == "cache_hit_ratio":
            ours = self._subject.under is not None
            use = "Cached()" if ours else 'metrics=Prometheus("/metrics", cache_hits="...", cache_misses="...")'
            return f"{self._setup.pattern} has no cache that was asked, so there is no {metric.label}; use {use}"
        return f"{metric.label} is not known for {self._setup.pattern}; name its process: Url(..., pid=...)"

    def _settle(self, verdict: Verdict) -> None:
        """Keep the verdict on a limit, and let it fail the test where it must."""
        self._verdicts.append(verdict)
        if verdict.outcome is Outcome.FAIL:
            raise LimitFailure(self._failure([verdict]))
        if verdict.outcome is Outcome.INCONCLUSIVE:
            self._leave_open([verdict])

    def _compare(self, metrics: Sequence[Metric], tolerance: float, *, asked: bool) -> None:
        """Compare with the revision or the baseline, and let the verdicts fail the test where they must."""
        found = self._comparison.judge(metrics, tolerance, asked=asked)
        self._verdicts.extend(found)
        if failed := [verdict for verdict in found if verdict.outcome is Outcome.FAIL]:
            raise RegressionFailure(self._failure(failed))
        if undecided := [verdict for verdict in found if verdict.outcome is Outcome.INCONCLUSIVE]:
            self._leave_open(undecided)

    def _looks(self) -> SequentialPlan:
        """A limit is judged after every launch; what the looks may cost together."""
        return SequentialPlan(first=1, last=self._settings.launches, alpha=_LIMIT_ALPHA)

    def _stand(self, metric: Metric) -> SampleSize:
        return stand_on(self.metrics, metric)

    def _countable(self, *, errors_count: bool = True) -> None:
        see_that_it_counts(self.metrics, errors_count=errors_count)

    def _leave_open(self, verdicts: list[Verdict]) -> None:
        if self._settings.inconclusive is InconclusivePolicy.FAIL:
            raise InconclusiveFailure(self._failure(verdicts))
        if self._settings.inconclusive is InconclusivePolicy.WARN:
            reasons = "; ".join(verdict.reason for verdict in verdicts)
            self._warn(InconclusiveWarning(f"{self._test}: undecided: {reasons}"))

    def _failure(self, verdicts: list[Verdict]) -> str:
        result = self.result(passed=False)
        assert result is not None
        return failure_text(verdicts, result)

    def _know_nmrt(self) -> None:
        """Search for NMRT where the test itself did not, or stopped as soon as it knew enough for its own limit."""
        self._evidence.measure_at_least(1)
        self._countable()
        for objective in self._subject.searches:
            known = [one for one in self.metrics.capacities if one.objective == objective and one.stopped != DECIDED]
            if not known:
                self._evidence.search(to_the_end, None if objective is None else parse_objective(objective))
