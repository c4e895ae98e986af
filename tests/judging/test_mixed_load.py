"""Verdicts on the classes of a mix over declared launches: limits, a baseline, a revision, and what a mix refuses."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.mixed import BULK, GOLD, mixed_launch
from support.synthetic import MS, S, make_setup

from pytest_mlpatterns.analysis.metrics.caller_classes import class_figures
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, metric_named
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, PairedLaunch, VariantFigures, paired_log_ratio
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.baseline.file import baselines_text, read_baselines
from pytest_mlpatterns.baseline.lookup import scaled
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.compared_metrics import (
    ComparedMetric,
    compared_by_default,
    compared_metrics,
    in_classes,
    read_metrics,
)
from pytest_mlpatterns.judging.experiment import load_plan, read_inputs
from pytest_mlpatterns.judging.guards import EntrySample, MeasuredSample, UnknownMetricError, judge_guarded
from pytest_mlpatterns.judging.interleaved_verdicts import judge_no_slower
from pytest_mlpatterns.judging.mixed_load import of_class, require_one_class
from pytest_mlpatterns.judging.result_builder import estimates_of
from pytest_mlpatterns.measurement.paired_blocks import class_block_figures
from pytest_mlpatterns.measurement.variant import VariantRun, _rotated
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.text.notes import describe_class
from pytest_mlpatterns.workload.mix import Mix
from pytest_mlpatterns.workload.mixed_payload import read_mix
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.records.launch import Launch

MIX = Mix({"gold": ConstantRate(100), "bulk": ClosedLoop(1)})


def entry_of(*launches: Launch) -> Entry:
    metrics = Metrics(launches)
    recorded = {
        metric.name: found
        for name in metrics.classes
        for metric in (one.of_callers(name) for one in class_figures())
        if (found := metrics.launch_values(metric))
    }
    classes = {name: metrics.of(name).request_counts for name in metrics.classes}
    entry = Entry(make_setup(load=str(MIX)), recorded, {}, None, "2026-01-31", counts=metrics.request_counts)
    return replace(entry, classes=classes)


def test_an_assertion_names_a_class_that_there_is() -> None:
    assert of_class(METRICS["rtm"], "", ClosedLoop(1)) is METRICS["rtm"]
    assert of_class(METRICS["rtm"], "gold", MIX).name == "rtm[gold]"
    with pytest.raises(SettingError, match="of='god', did you mean gold\\? expected a class of callers: gold, bulk"):
        of_class(METRICS["rtm"], "god", MIX)
    with pytest.raises(SettingError, match=r"of='gold' under closed\(1\), which has no classes of callers; write"):
        of_class(METRICS["rtm"], "gold", ClosedLoop(1))
    with pytest.raises(SettingError, match="of=5, expected a class of callers"):
        of_class(METRICS["rtm"], 5, MIX)  # type: ignore[arg-type]


def test_a_load_of_its_own_takes_no_mix() -> None:
    require_one_class(ClosedLoop(1), "measure_nmrt(...)")
    with pytest.raises(SettingError, match=r"measure_nmrt\(\.\.\.\) under mix\(gold: .*expected a load of one class"):
        require_one_class(MIX, "measure_nmrt(...)")


def test_a_mix_is_compared_in_its_classes_also_by_the_metrics_that_a_test_names() -> None:
    default = {one.name for one in compared_by_default(read_settings({"load": MIX}, {}, {}), streams=False)}
    assert {"rtm[gold]", "rtm[bulk]", "throughput[bulk]", "error_rate[gold]", "cold_start"} <= default
    assert "rtm" not in default
    named = read_settings({"load": MIX, "compare": ("rtm", "peak_memory")}, {}, {})
    assert [one.name for one in compared_by_default(named, streams=False)] == ["rtm[gold]", "rtm[bulk]", "peak_memory"]
    of_one = read_settings(
        {"load": MIX, "compare": ("rtm[gold]", "p95[bulk]"), "accept": "rtm[gold] +60 %: #1"}, {}, {}
    )
    assert [one.name for one in compared_by_default(of_one, streams=False)] == ["rtm[gold]", "p95[bulk]"]
    assert [one.metric for one in of_one.accept] == ["rtm[gold]"]
    with pytest.raises(SettingError, match=r"names the metric 'rtm\[gold'"):
        read_settings({"compare": ("rtm[gold",)}, {}, {})
    assert [one.name for one in read_metrics(("rtm[gold]",), "x")] == ["rtm[gold]"]
    alone = read_settings({"concurrency": 1}, {}, {})
    with pytest.raises(SettingError, match=r"rtm\[gold\] is to be compared under closed\(1\), which has no class of"):
        in_classes([metric_named("rtm[gold]")], alone)
    assert in_classes([METRICS["rtm"]], alone) == (METRICS["rtm"],)


@pytest.mark.parametrize(
    ("name", "change", "outcome"),
    [
        ("error_rate[gold]", {"failed": 90}, Outcome.FAIL),
        ("error_rate[bulk]", {"failed": 90}, Outcome.PASS),
        ("p95[gold]", {"gold_ms": 15}, Outcome.FAIL),
        ("p95[bulk]", {"gold_ms": 15}, Outcome.PASS),
        ("response_bytes[gold]", {}, Outcome.PASS),
    ],
)
def test_a_guard_of_a_class_judges_the_requests_of_that_class(
    name: str, change: dict[str, Any], outcome: Outcome
) -> None:
    then, now = entry_of(*[mixed_launch()] * 3), Metrics((mixed_launch(**change),) * 3)
    compared = ComparedMetric(metric_named(name), 0.1, 0.02, is_guard=True, requested=False)
    for against, reference in (
        ("baseline", EntrySample(then)),
        ("revision", MeasuredSample(Metrics((mixed_launch(),) * 3))),
    ):
        found = judge_guarded(compared, reference, MeasuredSample(now), against=against, in_flight=None)  # type: ignore[arg-type]
        assert found.outcome is outcome, (against, found.reason)
        assert found.metric == name


def test_a_class_that_an_entry_does_not_have_is_not_judged() -> None:
    compared = ComparedMetric(metric_named("p95[gold]"), 0.1, 0.02, is_guard=True, requested=False)
    old = replace(entry_of(mixed_launch()), classes={})
    with pytest.raises(UnknownMetricError, match="is not recorded yet"):
        judge_guarded(
            compared, EntrySample(old), MeasuredSample(Metrics((mixed_launch(),))), against="baseline", in_flight=None
        )


def paired(before: Launch, after: Launch) -> PairedLaunch:
    """A paired launch with the figures of both classes, as a block gives them."""

    def side(of: Launch) -> VariantFigures:
        streams = class_block_figures(of.samples, of.window, GOLD) | class_block_figures(of.samples, of.window, BULK)
        whole = Metrics((of,))
        return VariantFigures(whole.rtm_ns.value, 100.0, None, 400, 0, streams=streams)

    first, second = side(before), side(after)

    def ratio(one: float, other: float) -> LogRatio:
        return paired_log_ratio([one] * 8, [other] * 8)

    return PairedLaunch(
        rtm=ratio(first.rtm_ns, second.rtm_ns),
        throughput=ratio(100, 100),
        cpu_per_request=None,
        first=first,
        second=second,
        pairs=8,
        second_began=False,
        repeated=0,
        streams={name: ratio(value, second.streams[name]) for name, value in first.streams.items()},
    )


class Declared:
    """A run whose paired launches are all alike."""

    in_flight = None
    names = ("main (1a2b3c4)", "the present")
    spent_s = 1.0

    def __init__(self, before: Launch, after: Launch) -> None:
        self.given = before, after
        self.launches: list[PairedLaunch] = []
        self.first_launches: list[Launch] = []
        self.second_launches: list[Launch] = []
        self.first_starts_ns: list[int] = []
        self.second_starts_ns: list[int] = []

    def decide(self, judge: Any, _budget_ns: int, *, max_launches: int) -> Outcome:
        outcome = Outcome.INCONCLUSIVE
        while outcome is Outcome.INCONCLUSIVE and len(self.launches) < max_launches:
            self.launches.append(paired(*self.given))
            self.first_launches.append(self.given[0])
            self.second_launches.append(self.given[1])
            outcome = judge(self.launches) if len(self.launches) >= 3 else Outcome.INCONCLUSIVE
        return outcome


@pytest.mark.parametrize(("gold_ms", "bulk_ms", "failing"), [(6.5, 50, "rtm[gold]"), (5, 70, "rtm[bulk]"), (5, 50, "")])
def test_a_class_that_alone_gets_slower_than_a_revision_fails_after_it_is_confirmed(
    gold_ms: float, bulk_ms: float, failing: str
) -> None:
    run = Declared(mixed_launch(), mixed_launch(gold_ms=gold_ms, bulk_ms=bulk_ms))
    names = ("rtm[gold]", "rtm[bulk]", "error_rate[gold]")
    wanted = compared_metrics([metric_named(name) for name in names], Tolerances(), 0.025, requested=False)
    found, why_not = judge_no_slower(run, wanted, budget_ns=1000 * S)  # type: ignore[arg-type]
    assert why_not == {}
    assert {one.metric for one in found if one.outcome is Outcome.FAIL} == ({failing} - {""})
    assert len(run.launches) >= (4 if failing else 3)
    if failing:
        (verdict,) = (one for one in found if one.outcome is Outcome.FAIL)
        assert verdict.judged_by == failing.replace("rtm", "latency_mean")
        assert f"RTM of {failing[4:-1]} " in verdict.reason


def test_an_entry_of_a_mix_keeps_its_classes_in_the_file_and_on_a_slower_machine(tmp_path: Path) -> None:
    entry = entry_of(mixed_launch(failed=2), mixed_launch())
    path = tmp_path / "perf-baseline.json"
    path.write_text(baselines_text({"t.py::test_a": {"box": entry}}))
    again = read_baselines(path)["t.py::test_a"]["box"]
    assert again.classes == entry.classes
    assert again.metrics.keys() == entry.metrics.keys()
    slower = scaled(again, 2.0)
    assert slower.metrics["rtm[gold]"][0].value == pytest.approx(10 * MS, rel=0.02)
    assert slower.metrics["throughput[gold]"][0].value == again.metrics["throughput[gold]"][0].value
    assert slower.metrics["throughput[bulk]"][0].value == pytest.approx(again.metrics["throughput[bulk]"][0].value / 2)
    assert min(slower.classes["gold"][0].latencies) == 2 * min(again.classes["gold"][0].latencies)


def test_a_result_has_every_metric_of_every_class_and_a_note_of_each() -> None:
    metrics = Metrics((mixed_launch(seed=1, failed=3), mixed_launch(seed=2)))
    names = {metric.name for metric, _ in estimates_of(metrics)}
    assert {"rtm", "rtm[gold]", "rtm[bulk]", "p95[gold]", "throughput[bulk]", "error_rate[gold]", "asl"} <= names
    assert "asl[gold]" not in names
    note = describe_class(GOLD, metrics.of("gold"))
    assert note.startswith("gold (constant(100/s)): 600 requests, 100 req/s, RTM ")
    assert note.endswith("3 failed")
    nothing = describe_class(replace(BULK, name="none"), Metrics((mixed_launch(failed=300),)).of("gold"))
    assert nothing == "none (closed(1)): 300 requests, 100 req/s, 300 failed"


def test_a_class_makes_its_own_requests_for_a_target_alone() -> None:
    own = Mix({"gold": ClosedLoop(1), "bulk": (ClosedLoop(1), None, lambda one: {"json": one})})
    settings = read_settings({"load": own}, {}, {})
    with pytest.raises(SettingError, match="class bulk of the mix makes its own requests without a target"):
        read_inputs(settings, [1], None)
    mixed = read_settings({"load": MIX}, {}, {})
    plan = load_plan(mixed, read_inputs(mixed, [1, 2], None))
    assert [one.name for one in plan.classes] == ["gold", "bulk"]


def test_the_rarest_class_sets_the_length_of_a_block() -> None:
    plan = LoadPlan(read_mix(MIX, [1, 2]), MIX, S, None, S, None)
    run = VariantRun.__new__(VariantRun)
    run._classes = plan.classes
    shown = mixed_launch(gold_ms=5, bulk_ms=50).samples
    rows = replace(shown, request=(shown.request >= 2).astype(np.uint32) * 2)  # requests 0 and 1 are of gold
    pace = run._pace_of_classes(MIX, rows)
    assert (pace.interval_ns, pace.length_ns) == (pytest.approx(50 * MS), None)
    none = replace(rows, request=np.zeros_like(rows.request))  # nothing of bulk yet: as all requests
    assert run._pace_of_classes(MIX, none).interval_ns == pytest.approx(10 * MS)
    assert array("I", _rotated(array("I", [4, 5, 6]).tobytes(), 4)).tolist() == [5, 6, 4]
