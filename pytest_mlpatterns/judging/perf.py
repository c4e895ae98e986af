"""The ``perf`` fixture: everything that a test may ask and assert.

An assertion measures until it is decided or the budget is spent (:mod:`pytest_mlpatterns.judging.sequential`). What it
means stands in the module of its kind; this one reads the arguments and logs the verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_mlpatterns.analysis.capacity.scale_out import SCALE_OUT
from pytest_mlpatterns.analysis.capacity.scaling import EFFICIENCY, Scaling
from pytest_mlpatterns.analysis.metrics.definitions import goodput_metric
from pytest_mlpatterns.analysis.metrics.estimates import searched_for
from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.analysis.metrics.metrics import Metrics, missing_attribute
from pytest_mlpatterns.analysis.statistics.alpha_spending import BASELINE_ALPHA, REVISION_ALPHA
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.config import assertions
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.errors import (
    GeneratorLimitError,
    PerfFailure,
    RegressionFailure,
    SettingError,
    UnequalAnswersWarning,
)
from pytest_mlpatterns.judging.basis import Basis
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.compared_metrics import (
    ComparedMetric,
    compared_by_default,
    compared_metrics,
    marked_accepted,
)
from pytest_mlpatterns.judging.counting import CountedComparison
from pytest_mlpatterns.judging.leaks import decide_leak
from pytest_mlpatterns.judging.limit_assertions import LimitAssertions, decide_nmrt, search_for_ranking
from pytest_mlpatterns.judging.overload_assertions import OverloadAssertions, ScalingAssertions, UnhurtAssertions
from pytest_mlpatterns.judging.result_builder import Found, build_result
from pytest_mlpatterns.judging.sequential import SequentialMeasurement, measure_for_the_baseline
from pytest_mlpatterns.judging.settled_comparison import comparison_of
from pytest_mlpatterns.judging.verdict_log import (
    VerdictLog,
    assertions_at_the_call,
    at_the_call,
    no_verdict,
    refuse_missing_figures,
    refuse_settings,
)
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.patterns import Pattern
from pytest_mlpatterns.records.capacity import Overload
from pytest_mlpatterns.records.objective import Objective, parse_objective, parse_promise
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.text.failure import diagnosis_of
from pytest_mlpatterns.serving.targets import Target
from pytest_mlpatterns.units import parse_duration, parse_number, parse_share, parse_size
from pytest_mlpatterns.workload.schedule import Schedule

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.judging.experiment import Experiment


@assertions_at_the_call
class Perf(LimitAssertions):
    """One test's measurement: the ``perf`` fixture. The load starts when the first figure or assertion needs it.

    ``spent_ns``: time that a first start took before.
    """

    def __init__(self, experiment: Experiment, runner: LaunchRunner, spent_ns: int = 0) -> None:
        settings = experiment.settings
        reserved_ns = experiment.planned_ns // 2 if experiment.searches else 0  # for the searches of a ranking
        measurement = SequentialMeasurement(
            runner,
            Spending(Budget(experiment.budget_ns, spent_ns, reserved_ns, experiment.planned_ns)),
            settings.launches,
            overload=settings.overload,
            price=settings.price,
            announce=experiment.driver.on_forecast,
        )
        self._experiment = experiment
        self._measurement = measurement
        self._overload = OverloadAssertions(experiment, measurement)
        self._unhurt = UnhurtAssertions(experiment, measurement)
        self._scaling = ScalingAssertions(experiment, measurement)
        self._basis = Basis(experiment, measurement)
        self._comparison = CountedComparison(comparison_of(self._basis).judge, self._basis)
        self._verdicts = VerdictLog(experiment, lambda: self.result(passed=False))

    @property
    def smoke(self) -> bool:
        """Whether this run sends one request per test and makes no verdict (``--perf-smoke``); there are no figures."""
        return self._experiment.smoke

    @at_the_call
    def __call__(self, *args: object, **given: object) -> NoReturn:
        """Refuse arguments of the marker in the test's body, which is too late for them."""
        refuse_settings(args, given)

    def __getattr__(self, name: str) -> NoReturn:
        """Only called for a name that does not exist."""
        __tracebackhide__ = True
        is_assertion = name.startswith("assert_")
        latency = "assert_latency_below(..., percentile={})" if is_assertion else "perf.metrics.latency_ns({})"
        raise missing_attribute(self, name, latency)

    def __repr__(self) -> str:
        return f"<perf of {self._experiment.setup.pattern} under {self._experiment.setup.load}>"

    @property
    @at_the_call
    def metrics(self) -> Metrics:
        """The figures measured so far; the first access starts the load.

        Raises:
            DeploymentError: the deployment did not start, or died.
            SettingError: the figure that is asked for does not exist.
        """
        if self._measurement.so_far is None:
            refuse_missing_figures(self)
        return self._measurement.metrics

    @property
    @at_the_call
    def client(self) -> httpx.Client:
        """An ``httpx.Client`` bound to the deployment: ``perf.client.get("/health")``, outside the load.

        Raises:
            DeploymentError: the deployment did not start.
        """
        return self._measurement.runner.deployment.client

    @at_the_call
    def predict(self, value: Any) -> Any:
        """Send one input to the deployment, outside the load: a functional check under the pattern.

        Args:
            value: the input, as ``perf_payload`` lists it; its output is returned.

        Raises:
            DeploymentError: it does not answer, or answers with an error.
        """
        return self._measurement.runner.deployment.predict(value)

    def measure_nmrt(self, *, slo: str | None = None) -> Metrics:
        """Search for NMRT, the most requests per second that the deployment sustains before it begins to degrade.

        Takes at most 15 seconds of the test's budget. Assertions about NMRT start it by themselves.

        Args:
            slo: a latency objective such as ``"p95<50ms"``; the search is then for the highest rate that keeps it.

        Returns:
            The metrics with ``nmrt_rps`` and ``nmrt_concurrency``; ``capacities`` holds the ladder.
        """
        objective = _objective(slo)
        self._measurement.measure_at_least(1)
        if not self.smoke:
            self._measurement.search(objective)
        return self.metrics

    def assert_nmrt_at_least(self, rps: object, *, slo: str | None = None) -> None:
        """The deployment sustains a rate; measures until that is decided.

        Args:
            rps: requests per second.
            slo: a latency objective such as ``"p95<50ms"`` that must hold at that rate.
        """
        limit, objective = parse_number(rps, name="assert_nmrt_at_least(...)"), _objective(slo)
        self._settle("nmrt", lambda: decide_nmrt(self._experiment, self._measurement, limit, objective=objective))

    def measure_overload(self, *, up_to: float = 2.0, slo: str | None = None) -> Overload | None:
        """Offer open-loop load below and beyond the NMRT, up to a multiple of it, and back to 0.8 times.

        Args:
            up_to: the highest load, as a multiple of the NMRT.
            slo: an objective such as ``"p95<200ms"``; answers within its time are in time. Without one the time is ten
                times the median at half the NMRT.

        Returns:
            Goodput, rejected and late requests for each load, and the time to recover; None in a smoke run.
        """
        return self._overload.measure(up_to, slo)

    def assert_goodput_at_least(
        self, share: object = None, *, slo: str | None = None, at: float | None = None, rps: object = None
    ) -> None:
        """The requests that keep an objective reach a rate; beyond the NMRT, a share of it.

        Write ``(rps=8, slo="ttft<300ms, tpot<40ms")`` for the load of the test, or
        ``(0.9, at=2.0, slo="p95<200ms")`` for a load beyond the NMRT.

        Args:
            share: of the NMRT, 0.9 or ``"90%"``.
            slo: required: what each request keeps; with ``at`` an objective, within whose time an answer is in time.
            at: the load, as a multiple of the NMRT.
            rps: requests per second, at the load of the test.
        """
        kept = assertions.require_goodput(share, rps, slo=slo, at=at)
        if at is None:
            least = parse_number(rps, name="assert_goodput_at_least(rps=...)")
            self._keep(assertions.Limit(goodput_metric(parse_promise(kept)), least))
            return
        least, limit_ns = parse_share(share, name="assert_goodput_at_least(...)"), assertions.read_time_of(kept)
        peak = assertions.read_peak(at, "assert_goodput_at_least(at=...)")
        self._settle("goodput", lambda: self._overload.decide_goodput(least, peak, limit_ns))

    def assert_recovers_within(self, limit: object, *, slo: str | None = None) -> None:
        """After a load beyond the NMRT the service answers in time again within a time such as ``"5s"``."""
        limit_ns = parse_duration(limit, name="assert_recovers_within(...)")
        in_time_ns = None if slo is None else assertions.read_time_of(slo)
        self._settle("recovery", lambda: self._overload.decide_recovery(limit_ns, in_time_ns))

    def assert_unhurt(self, *, step: object = None, errors: object = 0, within: object = None, **limit: object) -> None:
        """A step of the function beside the load (``during=``) does not hurt the requests around it.

        Around it are the requests in flight at its begin, and those due from then until a second after its end, or
        until the service was well again if that is later. They are compared with those before the step.

        Args:
            step: name of the step; None for each one.
            errors: requests around it that may fail in each launch, or a share of them, ``"1%"``; None for any.
            within: time such as ``"5s"`` from its begin, within which requests are answered as before. Until then they
                may be hurt, and the percentile is only the limit by which they are.
            limit: ``p50``, ``p90``, ``p95`` or ``p99``: ``"2x"`` that before the step (p99 by default), or ``"200ms"``.
        """
        limits = assertions.read_unhurt_limits(step, limit, errors=errors, within=within)
        self._settle_all("unhurt", self._unhurt.kept(limits))

    def measure_scaling(self, replicas: Iterable[int] = (1, 2, 4), *, cpus_per_replica: int | None = None) -> Scaling:
        """Measure NMRT of the test's pattern at several numbers of replicas, as ``Replicated(n)`` starts them.

        Two passes, the second in the opposite order. Each number of replicas takes a search for NMRT and a window in
        each pass, about ten seconds beside the test's budget. One replica then gets another under load.

        Args:
            replicas: different numbers from 1 on, 1 among them.
            cpus_per_replica: number of cores on which each replica runs alone, instead of the marker's ``cpus=``; one
                more is left for the load generator. None: they share the cores.

        Returns:
            The steps, the fitted scalability law, predictions, and the scale-out time; without steps in a smoke run.
        """
        return self._scaling.measure(replicas, cpus_per_replica)

    def assert_scaling_efficiency_at_least(self, limit: object, *, replicas: int) -> None:
        """NMRT of this many replicas over as many times the NMRT of one reaches a share, 0.8 or ``"80%"``.

        Args:
            limit: the smallest acceptable share.
            replicas: number of replicas, from 2.
        """
        share = parse_share(limit, name="assert_scaling_efficiency_at_least(...)")
        number = assertions.read_replicas(replicas)
        self._settle(EFFICIENCY.name, lambda: self._scaling.decide_efficiency(share, number))

    def assert_scale_out_below(self, limit: object) -> None:
        """One more replica, asked for while callers keep one at its knee, carries its share in less than this time.

        Uses what :meth:`measure_scaling` has measured, or measures one replica alone.

        Args:
            limit: the time, such as ``"2s"``, from asking for the replica until it gives at least 90 % of its share of
                the answers.
        """
        limit_ns = parse_duration(limit, name="assert_scale_out_below(...)")
        self._settle(SCALE_OUT.name, lambda: self._scaling.decide_scale_out(limit_ns))

    def assert_no_leak(self, limit: object = "1KiB", *, duration: object = "10s") -> None:
        """Resident memory grows by less than a size such as ``"100 B"`` per request, or its growth levels off.

        The running deployment is loaded for 2, 4 or 10 s, until that is decided, also if the budget is spent; a smaller
        limit needs more requests. Open descriptors and threads grow by less than 1 per 1,000 requests, if the system
        counts them. A growth that slows down, stops or comes in single steps is no failure: the verdict is then open,
        with the number of requests that would decide it.

        Args:
            limit: growth of memory per request, such as ``"100 B"``; 512 requests show a leak of 1 KiB.
            duration: the longest load, such as ``"60s"``; at least one second.
        """
        limit_bytes = parse_size(limit, name="assert_no_leak(...)")
        longest_ns = parse_duration(duration, name="assert_no_leak(duration=...)")
        assertions.check_leak_limits(limit_bytes, longest_ns, limit=limit, duration=duration)
        parts = self._experiment, self._measurement
        self._settle_all("memory_growth", lambda: decide_leak(*parts, limit_bytes, longest_ns=longest_ns))

    def assert_faster_than(
        self,
        other: Pattern | Target | Callable[..., Any] | str | None = None,
        *,
        by: object = 1.0,
        on: str = "rtm",
        reference: Callable[..., Any] | str | None = None,
        load: Schedule | None = None,
        payload: object = None,
    ) -> None:
        """The test's service is faster than another one, measured interleaved.

        Both are started several times and loaded in short alternating blocks, so that the speed of the machine does not
        matter. Three launches of each are measured, also if the budget is spent. A factor above 1 that is missed beside
        busy neighbours stays undecided (see ``noise=``). Answers of both that differ are reported without ``check=``.

        Args:
            other: the same model under another pattern, or its name; another model under the test's pattern, as a
                callable, a class or an import string; or a service, ``App(...)``, ``Command(...)`` or ``Url(...)``.
                It gets the same inputs in the same order, under the same load, over the same wire or by the same
                ``request=``.
            by: smallest acceptable factor, such as 1.3 or ``"30%"``.
            on: ``"rtm"``, ``"ttft"`` or ``"instructions"`` (the other's over this one's), ``"throughput"`` or
                ``"nmrt"`` (the inverse).
            reference: instead of ``other`` a model, or function of a library, that is called without a server: with a
                list of one input, in a process of its own, by as many threads as the test has callers. The median
                latency is compared with the median time of a call, throughput with calls per second.
            load: instead of ``other`` another load of the test's own service, such as ``ClosedLoop(2)``.
            payload: instead of ``other`` other inputs of the test's own service, as of ``perf_payload``.
        """
        given = {"other": other, "reference": reference, "load": load, "payload": payload}
        self._compare_sides("assert_faster_than", given, on=on, by=by)

    def assert_not_slower_than(
        self,
        other: Pattern | Target | Callable[..., Any] | str | None = None,
        *,
        by: object = None,
        on: str = "rtm",
        reference: Callable[..., Any] | str | None = None,
        load: Schedule | None = None,
        payload: object = None,
    ) -> None:
        """The test's service is not slower than another one by more than a margin, measured interleaved.

        Two equally fast services pass. No measurement can show that one is not slower at all, so there is a margin. All
        else is as for ``assert_faster_than``.

        Args:
            other: as for ``assert_faster_than``.
            by: the margin: ``"10%"`` allows 1.1 times the other's latency, or its rate over 1.1; 2.0 twice its latency,
                or half its rate. None is the test's tolerance of this metric, 10 % unless it sets another.
            on, reference, load, payload: as for ``assert_faster_than``.
        """
        given = {"other": other, "reference": reference, "load": load, "payload": payload}
        self._compare_sides("assert_not_slower_than", given, on=on, by=by)

    def assert_no_regression(self, metrics: Sequence[str] = ("rtm", "throughput"), tolerance: object = None) -> None:
        """No metric is worse than the baseline, or than the other revision, beyond the tolerance.

        Every perf test with a baseline is compared anyway (see ``compare=``); this requests more metrics, or a
        tighter tolerance. NMRT is searched for. A test without a comparable entry is not compared, and the summary
        reports that (``--perf-baseline require`` makes it a failure); otherwise each metric is judged.

        Args:
            metrics: names such as ``"rtm"``, ``"p95"``, ``"throughput"``, ``"error_rate"``, ``"peak_memory"``.
            tolerance: largest acceptable worsening of each of them, 0.05 or ``"5%"``; None for the test's own.

        Raises:
            RegressionFailure: a metric is surely worse.
            PerfFailure: a metric cannot be judged; the message gives the reason.
        """
        requested = assertions.read_metrics(metrics, "assert_no_regression(metrics=...)")
        if self._experiment.settings.compare == ():
            raise SettingError(
                "perf(compare=()) compares nothing, but assert_no_regression(...) does; leave one of them out"
            )
        tolerances = self._experiment.settings.tolerance
        if tolerance is not None:
            share = parse_share(tolerance, name="assert_no_regression(tolerance=...)")
            tolerances = Tolerances({metric.name: share for metric in requested})
        self._verdicts.ask({metric.name: tolerances.of(metric) for metric in requested})
        self._compare(lambda _streams: requested, tolerances, requested=True)

    def finish(self, warn: Callable[[Warning], None] | None = None) -> None:
        """After the test's body: measure what is still missing, a first launch or a search for NMRT, and compare.

        ``warn``: takes the warning of an open verdict, since there is no line of the test to point to any more. Raises
        PerfFailure: worse than the baseline, or without a comparison that is required.
        """
        if warn is not None:
            self._verdicts.warn_through(warn)
        mode = self._experiment.baseline.mode
        if not self.smoke:
            if mode is BaselineMode.UPDATE:
                steady = not self._experiment.changes
                measure_for_the_baseline(self._measurement, lambda: self.result(passed=True), steady=steady)
            search_for_ranking(self._experiment, self._measurement)
        judged = {verdict.metric for verdict in self._verdicts.all if verdict.against in ("baseline", "revision")}
        searched = searched_for(self._measurement.so_far)

        def others(streams: bool) -> Sequence[Metric]:
            metrics = (*compared_by_default(self._experiment.settings, streams=streams), *searched)
            return [metric for metric in metrics if metric.name not in judged]

        if self._none_may_fail and not self.smoke and self._measurement.metrics.failures:
            self.assert_no_failures()  # launches after the assertion count, too
        self._basis.causes.profile_alone()
        self._compare(others, self._experiment.settings.tolerance, requested=False)
        why = self._basis.required(self._experiment.command)
        if why and mode is BaselineMode.REQUIRE and not self.smoke:
            self._verdicts.fail(PerfFailure(why))

    @property
    def interrupted(self) -> bool:
        """Whether an interrupt ended what came after the verdicts, which were to be shown first."""
        return self._basis.causes.interrupted

    @property
    def took_ns(self) -> int:
        """The time that the test measured so far."""
        return self._measurement.took_ns

    @property
    def advised(self) -> Sequence[PerfFailure]:
        """Failures that the test does not show, because its gate only warns."""
        return tuple(self._verdicts.advised)

    def result(self, *, passed: bool) -> TestResult | None:
        """Everything for reports and the baseline; None if nothing was measured.

        ``passed``: whether nothing failed the test; one whose gate only warns has failed nevertheless.
        """
        found = Found(
            passed=passed and not self._verdicts.advised,
            basis=self._basis,
            verdicts=self._verdicts.all,
            raised=self._verdicts.raised,
            asked=self._verdicts.asked,
            overloads=self._overload.overloads,
            scaling=self._scaling.record,
            steps=self._unhurt.impacts,
            course=self._unhurt.course,
        )
        return build_result(found)

    def diagnosis(self) -> str:
        """Text that helps to understand a failing test: the model's tracebacks, and the end of its processes' log."""
        return diagnosis_of(self._measurement.so_far, self._measurement.runner.log_tail())

    def _compare_sides(self, method: str, given: Mapping[str, object], *, on: object, by: object) -> None:
        from pytest_mlpatterns.judging.sides import (  # starts processes: not on Windows
            Factor,
            SideComparison,
            asked_side,
        )

        factor = Factor.asked(method, on=on, by=by, tolerances=self._experiment.settings.tolerance)
        side = asked_side(self._experiment, method, given, on=factor.on)
        sides = SideComparison(self._experiment, self._measurement, side)
        if self.smoke:
            sides.ask_both()
        self._settle(factor.on, lambda: sides.decide(factor))
        undecided = not self.smoke and self._verdicts.all[-1].outcome is Outcome.INCONCLUSIVE
        if sides.difference and not undecided:  # the warning of an undecided one has it
            text = f"{self._experiment.test}: {sides.difference}; if both are right, say so with check="
            self._verdicts.warn(UnequalAnswersWarning(text))

    def _compare(self, metrics: Callable[[bool], Sequence[Metric]], tolerances: Tolerances, *, requested: bool) -> None:
        known: dict[str, ComparedMetric] = {}
        alpha = BASELINE_ALPHA if self._experiment.revision is None else REVISION_ALPHA

        def choice(streams: bool) -> Sequence[ComparedMetric]:
            accepted = self._experiment.agreed.in_force
            chosen = compared_metrics(metrics(streams), tolerances, alpha, requested=requested, accepted=accepted)
            known.update({one.metric.name: one for one in chosen})
            return chosen

        try:
            with self._measurement.spending.counted():
                verdicts = self._comparison.judge(choice)
        except GeneratorLimitError as error:
            revision, before = self._experiment.revision, self._verdicts.all
            found = no_verdict("rtm", "baseline" if revision is None else "revision", error)
            compares = revision is not None or self._experiment.baseline.entry is not None
            is_said = any(one.why_open == found.why_open for one in before) or (before and not compares)
            verdicts = [] if is_said else [found]
        except PerfFailure as failure:
            self._verdicts.fail(failure)
            return
        self._verdicts.add([marked_accepted(one, known.get(one.metric)) for one in verdicts], RegressionFailure)
        if self.interrupted:
            raise KeyboardInterrupt


def _objective(slo: str | None) -> Objective | None:
    return None if slo is None else parse_objective(slo)
