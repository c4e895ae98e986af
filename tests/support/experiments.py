"""A perf test of which nothing is started, since the launches that are judged are declared."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from msgspec.structs import replace

from pytest_mlpatterns.analysis.health.machine import sorting_times_ns
from pytest_mlpatterns.analysis.metrics.definitions import LOCATIONS, METRICS
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.baseline.lookup import BaselineMatch
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import InconclusivePolicy, read_settings
from pytest_mlpatterns.judging.baseline_comparison import BaselineComparison
from pytest_mlpatterns.judging.basis import Basis
from pytest_mlpatterns.judging.compared_metrics import ComparedMetric
from pytest_mlpatterns.judging.experiment import Experiment, LoadDriver
from pytest_mlpatterns.judging.screen import Screen
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.judging.verdict_log import VerdictLog
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import Accepted, Gate, Verdict
from support.synthetic import SETUP


def declared_experiment(entry: Entry | None = None, **marker: object) -> Experiment:
    """The experiment of a test with these arguments of the marker, beside an entry if one is given."""
    settings = read_settings(marker, {}, {})
    mode = BaselineMode.OFF if entry is None else BaselineMode.CHECK
    return Experiment(
        test="test_it",
        settings=settings,
        setup=SETUP,
        system=cast("Any", None),
        plan=cast("Any", None),
        driver=LoadDriver({}, lambda _progress: None),
        command="pytest",
        baseline=BaselineMatch(SETUP, mode, entry),
        accepted=Accepted(settings.accept),
    )


def entry_of(launches: Sequence[Launch]) -> Entry:
    """What a baseline file keeps of these launches."""
    metrics = Metrics(tuple(launches))
    known = [metric for metric in (*METRICS.values(), *LOCATIONS.values()) if metric.of is not None]
    recorded = {metric.name: found for metric in known if (found := metrics.launch_values(metric))}
    entry = Entry(SETUP, recorded, {}, None, "2026-01-31", counts=metrics.request_counts)
    return replace(entry, sorting_ns=sorting_times_ns(launches))


def beside_the_file(
    experiment: Experiment,
    measurement: SequentialMeasurement,
    choice: Callable[[bool], Sequence[ComparedMetric]],
    *,
    is_settled: Callable[[], bool] | None = None,
    is_alone: bool = False,
) -> tuple[dict[str, Verdict], Basis]:
    """The verdicts on what is measured, by metric, beside the entry of an experiment.

    ``is_settled``: whether the recorded code decides the rest; None if the entry decides alone. ``is_alone``: whether
    the working tree is that code.
    """
    basis = Basis(experiment, measurement)
    comparison = BaselineComparison(basis)
    if is_settled is not None:
        comparison = Screen(basis, is_settled=is_settled, is_alone=lambda: is_alone)
    return {verdict.metric: verdict for verdict in comparison.judge(choice)}, basis


def verdict_log(
    test: str, found: TestResult, *, gate: Gate = Gate.FAIL, policy: InconclusivePolicy = InconclusivePolicy.WARN
) -> VerdictLog:
    """The verdicts of a test with this result."""
    experiment = declared_experiment()
    settings = replace(experiment.settings, gate=gate, inconclusive=policy)
    return VerdictLog(replace(experiment, test=test, settings=settings), lambda: found)
