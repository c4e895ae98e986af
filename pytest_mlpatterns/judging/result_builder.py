"""The result record of one test: from its measurement and verdicts to the plain values for reports and the baseline.

It must not know pytest, and makes no verdict.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.causes.growth import growth_record
from pytest_mlpatterns.analysis.causes.latency_split import splits_of
from pytest_mlpatterns.analysis.health.machine import (
    busy_on_average,
    node_figures,
    noise_of,
    sorting_times_ns,
    taken_in,
)
from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named, with_locations, with_role
from pytest_mlpatterns.analysis.metrics.distribution_summary import (
    latency_of,
    percentiles_of_counts,
    stream_percentiles,
    stream_record,
)
from pytest_mlpatterns.analysis.metrics.estimates import estimated, estimates_of, plain
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.intervals import estimate
from pytest_mlpatterns.analysis.statistics.log_ratio import VariantFigures
from pytest_mlpatterns.analysis.verdicts.open_reasons import probably_slower
from pytest_mlpatterns.judging.compared_metrics import compared_by_default
from pytest_mlpatterns.judging.look import Pairs
from pytest_mlpatterns.loadgen.recorder import KEPT_BYTES
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.capacity import LatencyMoment, Overload, ScalingRecord, StepImpact
from pytest_mlpatterns.records.launch import Busy, Noise
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import (
    BaselineGap,
    Beside,
    CauseRecord,
    Conditions,
    CountedWork,
    Definition,
    Judged,
    Limits,
    Measured,
    Reference,
    Terms,
)
from pytest_mlpatterns.records.setup import EnvironmentFacts
from pytest_mlpatterns.records.verdict import Kind, Unjudged, Verdict
from pytest_mlpatterns.reports.text.comparison import figure_of
from pytest_mlpatterns.reports.text.notes import (
    describe_indices,
    describe_overload,
    describe_scaling,
    describe_steps,
    launch_notes,
    layer_notes,
    unsteady_notes,
)
from pytest_mlpatterns.units import format_duration, format_size
from pytest_mlpatterns.wire import REST_JSON

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.basis import Basis
    from pytest_mlpatterns.judging.counting import CountedBeside
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun


class Found(Struct, frozen=True, kw_only=True):
    """What a test has found beside its launches."""

    passed: bool
    basis: Basis  # what it was compared with
    verdicts: Sequence[Verdict] = ()
    raised: Sequence[str] = ()  # the errors of its assertions, in a line each
    asked: Mapping[str, float] = {}  # metrics that its own assertions compare, by name with the tolerance of each
    overloads: tuple[Overload, ...] = ()  # beyond the NMRT
    scaling: ScalingRecord | None = None  # at several numbers of replicas
    steps: tuple[StepImpact, ...] = ()  # what the steps of the function beside the load did
    course: tuple[LatencyMoment, ...] = ()  # the latency through the window of the last launch, if it had steps


def build_result(found: Found) -> TestResult | None:
    """The result record of one test, for reports and the baseline; None if nothing was measured."""
    experiment, measurement = found.basis.experiment, found.basis.measurement
    if (metrics := measurement.so_far) is None:
        return None
    figures, by_launch = estimated(metrics, [*experiment.ranked, *(verdict.metric for verdict in found.verdicts)])
    measured = _measured(metrics, by_launch, measurement.budget.spent_ns / 1e9)
    missing = dict(metrics.indices.missing)
    notes = [*_notes(metrics, measurement, experiment), *map(describe_overload, found.overloads)]
    if found.scaling is not None:
        notes += [*describe_scaling(found.scaling), *describe_indices(figures, missing)]
    change = None if experiment.cluster is None else experiment.cluster.change()  # in the cluster meanwhile
    noise = [*noise_of(metrics.launches, interleaved=found.basis.is_interleaved), *([] if change is None else [change])]
    return with_compared_figures(
        TestResult(
            test=experiment.test,
            setup=experiment.setup,
            metrics=figures,
            verdicts=tuple(found.verdicts),
            reference=found.basis.reference,
            stream=stream_record(metrics),
            definition=_definition(experiment, metrics, found.asked),
            judged=_judged(found, (*notes, *describe_steps(found.steps)), busy=measured.busy),
            measured=measured,
            conditions=_conditions(metrics, experiment, noise, dropped=measurement.dropped),
            limits=Limits(metrics.capacities, found.overloads, found.scaling, missing),
            causes=CauseRecord(
                splits_of(metrics.launches),
                found.basis.causes.profile,
                found.basis.causes.held,
                CountedWork(metrics.counts[-1], found.basis.work.then) if metrics.counts else None,
                None if measurement.growth is None else growth_record(measurement.growth.track),
                found.steps,
                found.course if found.steps else (),
            ),
        )
    )


def _judged(found: Found, notes: tuple[str, ...], *, busy: Busy | None) -> Judged:
    basis, verdicts, experiment = found.basis, found.verdicts, found.basis.experiment
    asks = found.passed and not experiment.smoke and experiment.settings.compare != ()
    is_open = basis.missing and (not verdicts or basis.gap is BaselineGap.NOT_COMPARABLE)
    caught = tuple(found.raised) if found.passed else ()
    return Judged(
        passed=found.passed,
        unjudged=Unjudged(Kind.NOT_COMPARED, basis.missing) if asks and is_open else None,
        accepted=experiment.agreed.states,
        baseline_note=basis.note,
        baseline_gap=basis.gap,
        not_compared=dict(basis.left_out),
        not_counted=basis.work.not_counted,
        probably_slower=probably_slower(verdicts, busy),
        caught=caught,
        notes=(*(f"the test caught this failure and passed: {one}" for one in caught), *notes),
        facts_changed=basis.facts_changed,
    )


def with_compared_figures(result: TestResult) -> TestResult:
    """The result with the figures that were compared, so that every report has the same one beside a change."""
    return replace(result, metrics={name: figure_of(result, name) or found for name, found in result.metrics.items()})


def _definition(experiment: Experiment, metrics: Metrics, asked: Mapping[str, float]) -> Definition:
    settings = experiment.settings
    compared = compared_by_default(settings, streams=metrics.streams)
    tolerances = {**{metric.name: settings.tolerance.of(metric) for metric in compared}, **asked}
    return Definition(
        command=experiment.command,
        tolerance=settings.tolerance.usual,
        gate=settings.gate,
        overload=settings.overload,
        price=metrics.price,
        terms=Terms(settings.budget_ns, settings.launches, tolerances, settings.budget_in_marker),
    )


def reference_from_baseline(entry: Entry, name: str) -> Reference:
    """The reference for reports from a baseline entry, without the metrics that this version does not know."""
    known = [metric for metric in entry.metrics if is_known_metric(metric)]
    estimates = {metric: estimate(entry.metrics[metric], metric_named(metric).launch_sd) for metric in known}
    launches = max((len(entry.metrics[metric]) for metric in known), default=0)
    return Reference(
        "baseline",
        name,
        plain(estimates),
        entry.latency,
        launches=launches,
        split=entry.split,
        recorded_commit=entry.unchanged_commit,
    )


def reference_from_interleaved(run: InterleavedRun, *, commit: str, entry: str) -> Reference:
    """The reference for reports from the first variant of an interleaved run; the second is the present.

    ``commit``: full hash of what was measured. ``entry``: name of the baseline entry that it was recorded as, or empty.
    """
    of_streams = [name for launch in run.launches for name in launch.streams]
    names = tuple(dict.fromkeys((*with_locations(with_role(Role.PAIRED)), *of_streams)))
    ratios = {name: [found for one in run.launches if (found := one.ratio(name)) is not None] for name in names}
    pairs = Pairs.of(run)
    before = _side(pairs.first, [launch.first for launch in run.launches], names)
    return Reference(
        "revision",
        run.names[0],
        before.metrics,
        before.latency_percentiles,
        _side(pairs.second, [launch.second for launch in run.launches], names),
        {name: tuple((ratio.value, ratio.error) for ratio in found) for name, found in ratios.items() if found},
        stream_percentiles=before.stream_percentiles,
        split=before.split,
        entry=entry,
        revision_commit=commit,
    )


def _side(metrics: Metrics, figures: Sequence[VariantFigures], names: Sequence[str]) -> Beside:
    """One side of an interleaved run: every metric of its launches and further starts, and the latencies of its blocks.

    Metrics that blocks measure have the mean, smallest and largest of the launches.
    """
    known = plain({metric.name: found for metric, found in estimates_of(metrics)}) if metrics.launches else {}
    values = {name: [figure for one in figures if (figure := one.figure(name)) is not None] for name in names}
    counts: Counter[int] = Counter()
    for one in figures:
        counts.update(one.latencies)
    return Beside(
        {**known, **{name: (fmean(found), min(found), max(found)) for name, found in values.items() if found}},
        percentiles_of_counts(counts),
        stream_percentiles(metrics) if metrics.launches else {},
        splits_of(metrics.launches),
    )


_WIDTH = 2 * 2.576  # Width of an interval of 99 %, in standard errors


def reference_with_work(known: Reference | None, beside: CountedBeside, work: Verdict | None) -> Reference | None:
    """The reference with the instructions that the present was compared with; ``work``: the verdict on them."""
    if work is None or work.change is None:
        return known
    found, change, name = known or Reference(beside.kind, beside.name, {}), work.change, work.metric
    then, now = ({name: 3 * (value or 0.0,)} for value in (work.reference_value, work.present_value))
    found = replace(found, metrics={**found.metrics, **then})
    if beside.kind == "baseline" or found.kind == "baseline":
        return found
    ratio = math.log1p(change.value), (math.log1p(change.high) - math.log1p(change.low)) / _WIDTH
    present = replace(found.present, metrics={**found.present.metrics, **now})
    return replace(found, present=present, log_ratios={**found.log_ratios, name: (ratio,)})


def facts_of(measured: Metrics | None) -> EnvironmentFacts:
    """The environment of what was measured; empty if it is not known."""
    return {} if measured is None else next((launch.facts for launch in measured.launches if launch.facts), {})


def _measured(
    metrics: Metrics, by_launch: Mapping[str, tuple[tuple[float, float], ...]], seconds_spent: float
) -> Measured:
    return Measured(
        launches=by_launch,
        launch_count=len(metrics.launches),
        blocks=metrics.blocks,
        seconds_spent=seconds_spent,
        requests=metrics.requests,
        failed_requests={str(code): number for code, number in metrics.failures.items()},
        first_failure=metrics.first_failure,
        counts=metrics.request_counts,
        replica_share=tuple((share.value, share.low, share.high) for share in metrics.replica_share or ()),
        latency=latency_of(metrics.latencies_ns),
        layers=metrics.layers,
        busy=busy_on_average(metrics.launches),
    )


def _conditions(metrics: Metrics, experiment: Experiment, noise: Sequence[Noise], *, dropped: int) -> Conditions:
    return Conditions(
        load_over_time=tuple(metrics.load_over_time()),
        memory_over_time=tuple(metrics.memory_over_time()),
        warmups=tuple(launch.warmup for launch in metrics.launches),
        noise=tuple(noise),
        unsteady=unsteady_notes(metrics, changes=experiment.changes),
        taken=taken_in(metrics.launches),
        sorting_ns=() if experiment.cluster else sorting_times_ns(metrics.launches),  # which is of this machine
        generator=_generator_figures(metrics, dropped),
        facts=facts_of(metrics),
        cluster="" if experiment.cluster is None else experiment.cluster.description,
        nodes=node_figures(metrics.launches),
        generator_parts=metrics.launches[-1].generator.parts,
    )


def _generator_figures(metrics: Metrics, dropped: int) -> dict[str, Any]:
    reports = [launch.generator for launch in metrics.launches]
    return {
        "cpu_ns_per_request": metrics.generator.cpu_ns_per_request,
        "send_lag_p99_ns": metrics.generator.send_lag_ns(99) if metrics.requests else None,
        "limited": metrics.generator.limited is not None,
        "core_share": sum(report.cpu_ns for report in reports) / sum(report.core_ns for report in reports),
        "connections": max(report.connections for report in reports),
        "sent_again": sum(report.sent_again for report in reports),
        "ceiling_rps": reports[-1].ceiling_rps,
        "processes": reports[-1].processes,
        "launches_dropped": dropped,
    }


def _notes(metrics: Metrics, measurement: SequentialMeasurement, experiment: Experiment) -> tuple[str, ...]:
    silences = [launch.silence for launch in metrics.launches if launch.silence]
    notes = [*silences, *experiment.agreed.notes, *unsteady_notes(metrics, changes=experiment.changes)]
    notes += launch_notes(metrics, kept=format_size(KEPT_BYTES), stretches=experiment.settings.stretches)
    if experiment.run_ns is not None and experiment.budget_ns < experiment.settings.budget_ns:
        share = format_duration(experiment.run_ns) if experiment.run_ns else "nothing"
        notes.append(f"had {share} of --perf-time, less than its budget")
    dropped, forecast = measurement.dropped, measurement.forecast
    if forecast is not None and forecast.beyond_ns:
        notes.append(forecast.text)
    notes += experiment.starts.notes
    if dropped:
        notes.append(
            f"{dropped} of {dropped + len(metrics.launches)} launches were dropped and measured again, because the "
            "load generator was the limit"
        )
    return (*notes, *layer_notes(metrics, names_wire=experiment.setup.wire != str(REST_JSON)))
