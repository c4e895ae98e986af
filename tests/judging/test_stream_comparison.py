"""What is compared where answers stream: TTFT, TPOT and tokens per second, with a baseline and with a revision."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.streams import stream_launch, streamed
from support.synthetic import MS, SETUP, START_NS, S, samples

from pytest_mlpatterns.analysis.log_ratio import PAIRED_METRICS, LogRatio, PairedLaunch, VariantFigures
from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.analysis.metrics import Metrics
from pytest_mlpatterns.analysis.tolerances import Tolerances
from pytest_mlpatterns.baseline.lookup import BaselineMatch
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.judging.baseline_comparison import BaselineComparison
from pytest_mlpatterns.judging.compared_metrics import compared_by_default, compared_metrics
from pytest_mlpatterns.judging.interleaved_verdicts import judge_no_slower
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.measurement.block_figures import stream_figures
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.judging.compared_metrics import ComparedMetric
    from pytest_mlpatterns.records.launch import Launch


def names(*, streams: bool, **marker: object) -> list[str]:
    return [metric.name for metric in compared_by_default(read_settings(marker, {}, {}), streams=streams)]


def test_streams_are_compared_by_their_tokens_in_place_of_whole_answers() -> None:
    whole, stream = names(streams=False), names(streams=True)
    assert whole[:2] == ["rtm", "throughput"]
    assert stream[:3] == ["ttft", "tpot", "output_tokens"]
    assert whole[2:] == stream[3:]


def test_an_open_loop_sets_the_rate_of_its_tokens() -> None:
    assert "output_tokens" not in names(streams=True, rate_rps=5)
    assert names(streams=True, compare=("itl:p99", "rtm")) == ["itl:p99", "rtm"]


def launches(count: int, **changes: Any) -> list[Launch]:
    return [stream_launch(jitter=0.03, rate_rps=40, seed=seed, **changes) for seed in range(count)]


def entry() -> Entry:
    metrics = Metrics(tuple(stream_launch(jitter=0.03, rate_rps=40, seed=100 + seed) for seed in range(6)))
    values = {name: metrics.launch_values(metric) for name, metric in METRICS.items() if metric.of is not None}
    return Entry(
        SETUP, {name: found for name, found in values.items() if found}, {}, None, "2026-01-31", metrics.request_counts
    )


def against_the_baseline(**changes: Any) -> dict[str, Outcome]:
    """The outcomes of a comparison in the default metrics."""
    settings, given = read_settings({"launches": 8}, {}, {}), iter(launches(8, **changes))
    experiment: Any = SimpleNamespace(
        settings=settings,
        setup=SETUP,
        smoke=False,
        baseline=BaselineMatch(SETUP, BaselineMode.CHECK, entry(), name="2026-01-31"),
    )
    runner: Any = SimpleNamespace(measure=lambda: next(given))
    comparison = BaselineComparison(experiment, SequentialMeasurement(runner, 60 * S, 8))

    def choice(streams: bool) -> Sequence[ComparedMetric]:
        return compared_metrics(
            compared_by_default(settings, streams=streams), Tolerances(), comparison.alpha, requested=False
        )

    return {verdict.metric: verdict.outcome for verdict in comparison.judge(choice)}


def test_unchanged_streams_pass_against_their_baseline() -> None:
    outcomes = against_the_baseline()
    assert {"ttft", "tpot", "output_tokens"} <= set(outcomes)
    assert set(outcomes.values()) == {Outcome.PASS}


@pytest.mark.parametrize(("change", "metric"), [({"ttft_ns": 60 * MS}, "ttft"), ({"gap_ns": 12 * MS}, "tpot")])
def test_slower_tokens_fail_against_the_baseline(change: dict[str, int], metric: str) -> None:
    assert against_the_baseline(**change)[metric] is Outcome.FAIL


def figures(**streams: float) -> VariantFigures:
    return VariantFigures(5e6, 200.0, None, requests=1000, failed=0, streams=streams)


def run_of(ratio: float) -> Any:
    """Paired launches whose second variant has ``ratio`` times the TTFT of the first."""
    value = float(np.log(ratio))
    paired = PairedLaunch(
        LogRatio(0.0, 0.005),
        LogRatio(0.0, 0.005),
        None,
        figures(ttft=50e6),
        figures(ttft=50e6 * ratio),
        pairs=4,
        second_began=False,
        repeated=0,
        streams={"ttft": LogRatio(value, 0.005)},
    )
    run = SimpleNamespace(
        launches=[], first_launches=[], second_launches=[], names=("main", "the present"), in_flight=1, spent_s=1.0
    )

    def decide(judge: Any, _budget_ns: int, *, max_launches: int) -> None:
        outcome = Outcome.INCONCLUSIVE
        while outcome is Outcome.INCONCLUSIVE and len(run.launches) < max_launches:
            run.launches.append(paired)
            run.first_launches.append(stream_launch())
            run.second_launches.append(stream_launch())
            outcome = judge(run.launches) if len(run.launches) >= 3 else outcome

    run.decide = decide
    return run


@pytest.mark.parametrize(("ratio", "outcome"), [(1.0, Outcome.PASS), (1.12, Outcome.FAIL)])
def test_a_revision_is_compared_by_pairs_of_blocks(ratio: float, outcome: Outcome) -> None:
    wanted = compared_metrics([METRICS["ttft"], METRICS["tpot"]], Tolerances(0.05), 0.025, requested=False)
    found, why_not = judge_no_slower(run_of(ratio), wanted, budget_ns=10**12)
    assert [(verdict.metric, verdict.outcome) for verdict in found] == [("ttft", outcome)]
    assert "TTFT 50.0 ms (main) against" in found[0].reason
    assert why_not == {"tpot": "is not known of both sides"}


def test_every_paired_metric_has_a_figure_and_a_ratio() -> None:
    paired = run_of(1.0)
    paired.decide(lambda _found: Outcome.PASS, 0, max_launches=3)
    launch = paired.launches[0]
    assert {name for name in PAIRED_METRICS if launch.ratio(name) is not None} == {"rtm", "throughput", "ttft"}
    assert {name for name in PAIRED_METRICS if launch.first.figure(name) is not None} == {"rtm", "throughput", "ttft"}


def test_the_figures_of_a_block_are_those_of_its_streams() -> None:
    due = [START_NS + number * 100 * MS for number in range(10)]
    block = streamed(due, [[30 * MS, 40 * MS, 50 * MS]] * 10)
    window = Window(START_NS, START_NS + S)
    found = stream_figures(block, window, block.succeeded)
    assert found == {"ttft": 30 * MS, "tpot": 10 * MS, "output_tokens": pytest.approx(30)}


def test_a_block_whose_answers_came_whole_has_none() -> None:
    window = Window(START_NS, START_NS + S)
    whole = samples([START_NS], 5 * MS)
    assert stream_figures(whole, window, whole.succeeded) == {}
    single = streamed([START_NS], [[5 * MS]])
    assert stream_figures(single, window, single.succeeded)["tpot"] == 0.0


def test_a_failed_stream_is_in_no_figure() -> None:
    both = streamed([START_NS, START_NS + MS], [[30 * MS, 40 * MS], [MS, 2 * MS]], outcome=[200, -3])
    window = Window(START_NS, START_NS + S)
    assert stream_figures(both, window, both.succeeded)["ttft"] == 30 * MS
    assert replace(both, stream=None).stream is None
