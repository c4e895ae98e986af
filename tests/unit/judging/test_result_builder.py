"""The result record: what it leaves out."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from msgspec.structs import replace
from support.experiments import declared_experiment
from support.profiles import slower_normalize
from support.reported import OVERLOAD, SCALING, report
from support.stepped import Step, stepped_launch
from support.synthetic import MS, START_NS, S, counterpart, even_launch, launch, result, samples

from pytest_mlpatterns.analysis.capacity.step_impact import USUAL_LIMIT, around_steps, impacts_of
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.estimates import estimate_or_none
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.judging.basis import Basis
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.result_builder import (
    Found,
    build_result,
    with_compared_figures,
)
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.records.launch import Estimate, GeneratorReport, Launch, Noise, Warmup
from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.files.ci_reports import properties_of
from pytest_mlpatterns.reports.text.notes import generator_notes, unsteady_notes
from pytest_mlpatterns.reports.text.summary_table import cells_of


@pytest.mark.parametrize(("outcome", "known"), [(500, False), (200, True)])
def test_the_rate_of_successes_is_not_shown_beside_an_error_rate_of_100_percent(outcome: int, known: bool) -> None:
    before, count = 40, 200  # requests of the warm-up succeeded, and the last of them were answered in the window
    due = START_NS + np.arange(-before, count) * (S // count)
    outcomes = np.where(due < START_NS, 200, outcome)
    metrics = Metrics((launch(samples(due, np.full(due.size, 20 * MS), outcome=outcomes), seconds=1.0),))
    assert (estimate_or_none(metrics, METRICS["throughput"]) is not None) is known
    error_rate = estimate_or_none(metrics, METRICS["error_rate"])
    assert error_rate.value == (0.0 if known else 1.0)


def test_a_warm_up_without_an_end_is_worth_a_note_if_latency_went_on_to_change() -> None:
    even = even_launch()
    ended = {steady: replace(even, warmup=Warmup(3 * S, 100, steady)) for steady in (False, True)}
    assert unsteady_notes(Metrics((ended[False],)), changes=False) == ()
    rising = replace(
        ended[False], samples=samples(even.samples.due_ns, np.linspace(2 * MS, 8 * MS, even.samples.due_ns.size))
    )
    why, trend = unsteady_notes(Metrics((rising,)), changes=False)
    assert why == "the warm-up ended by its limit, not because the load was steady"
    assert trend.startswith("not stationary: the median latency changed by +")
    assert unsteady_notes(Metrics((replace(rising, warmup=ended[True].warmup),)), changes=False) == (trend,)
    assert unsteady_notes(Metrics((rising,)), changes=True) == ()


def test_every_report_has_the_figure_that_was_compared() -> None:
    """The change is +96.6 % of 600 µs, whatever the launches before the comparison gave."""
    change = Estimate(0.966, 0.9, 1.0)
    judged = Verdict("cpu_per_request", "revision", Outcome.FAIL, "", change, 0.07, 600_000.0, 600_000.0 * 1.966)
    rtm = Verdict("rtm", "revision", Outcome.FAIL, "", change, 0.1, 3.0 * MS, 5.898 * MS)
    alone = result(verdicts=(judged, rtm), passed=False, reference=counterpart(3.0 * MS, kind="revision"))
    assert cells_of(alone)["median"] == "5.90 ms"
    assert alone.metrics["rtm"][0] != 5.898 * MS  # measured alone, before

    built = with_compared_figures(alone)

    assert built.to_json()["metrics"]["cpu_per_request"][0] == pytest.approx(600_000 * 1.966)
    assert built.to_json()["metrics"]["rtm"][0] == pytest.approx(5.898 * MS)
    assert dict(properties_of(built))["perf_rtm_ns"] == "5898000"
    assert dict(properties_of(built))["perf_cpu_per_request_ns"] == "1179600"
    assert cells_of(built)["median"] == "5.90 ms"
    page = report([built])
    for name, shown, changed in (("rtm", "5.90 ms", "+96.6 %"), ("cpu_per_request", "1.18 ms", "+96.6 %")):
        assert METRICS[name].show(built.metrics[name][0]) == shown
        assert f">{shown}<" in page
        assert f">{changed}<" in page
    assert with_compared_figures(built) == built


def built(
    launched: Launch,
    *,
    spent_s: float = 0.0,
    cluster: Any = None,
    counts: tuple[Count, ...] = (),
    profile: ProfileRecord | None = None,
    **found: Any,
) -> TestResult:
    """The result of a test whose only launch an interleaved run made."""
    spending = Spending(Budget(60 * S, round(spent_s * S)))
    experiment = replace(declared_experiment(), cluster=cluster)
    measurement = SequentialMeasurement(cast("Any", None), spending, 8)
    measurement.adopt(counts=counts)
    measurement.take(cast("Any", SimpleNamespace(second_launches=[launched], second_starts_ns=[], spent_s=spent_s)))
    basis = Basis(experiment, measurement)
    basis.causes.profile = profile
    return build_result(Found(passed=True, basis=basis, **found))


def test_a_result_has_what_was_measured_beside_its_launches() -> None:
    profile, steps = slower_normalize(), impacts_of(around_steps([stepped_launch(Step(blocked_s=0.5))]), USUAL_LIMIT)
    found = built(even_launch(), overloads=(OVERLOAD,), scaling=SCALING, profile=profile, steps=steps, asked={"p99": 2})
    assert (found.limits.overloads, found.limits.scaling) == ((OVERLOAD,), SCALING)
    assert (found.causes.profile, found.causes.steps) == (profile, steps)
    shed, *_, step = found.judged.notes
    assert shed.startswith("the service sheds load: at 2 times the capacity (NMRT) of ")
    assert step.startswith("step reload, ")
    assert found.definition.terms.tolerances["p99"] == 2


def test_what_a_test_spent_is_what_its_budget_has_counted() -> None:
    assert built(even_launch(), spent_s=20.0).measured.seconds_spent == 20.0


@pytest.mark.parametrize(("core_share", "limited"), [(0.1, False), (1.0, True)])
def test_a_result_says_whether_the_load_generator_was_the_limit(core_share: float, limited: bool) -> None:
    one = even_launch()
    report = replace(one.generator, cpu_ns=int(core_share * one.generator.wall_ns))
    generator = built(replace(one, generator=report)).conditions.generator
    assert (generator["limited"], generator["core_share"]) == (limited, pytest.approx(core_share))


def test_requests_that_were_sent_again_are_noted_by_their_number() -> None:
    reports = [GeneratorReport(0, 1, 9, connections=1, sent_again=again) for again in (5, 7)]
    why = "sent again on a fresh connection: the server had closed the idle one"
    assert generator_notes(reports, "64 MiB") == [f"12 requests were {why}"]
    assert generator_notes([replace(reports[0], sent_again=1)], "64 MiB") == [f"1 request was {why}"]


@pytest.mark.parametrize("change", [None, Noise("a node of the cluster left")])
def test_a_result_has_what_changed_in_the_cluster_and_the_last_count(change: Noise | None) -> None:
    counts = tuple(Count((work,), work, work, 1, 1.0) for work in (4e6, 5e6))
    cluster = SimpleNamespace(change=lambda: change, description="2 nodes")
    found = built(even_launch(), cluster=cluster, counts=counts)
    assert found.conditions.noise == (() if change is None else (change,))
    assert found.causes.work.now == counts[-1]
