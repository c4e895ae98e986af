"""Times with two modes, whose median jumps from launch to launch: both modes of comparison judge all of the times."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from support.declared_run import DeclaredRun
from support.experiments import beside_the_file, declared_experiment, entry_of
from support.synthetic import MS, START_NS, S, launch, samples

from pytest_mlpatterns.analysis.metrics.definitions import LOCATIONS, METRICS
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import BASELINE_ALPHA
from pytest_mlpatterns.analysis.statistics.distributions import location
from pytest_mlpatterns.analysis.statistics.log_ratio import PairedLaunch, VariantFigures, paired_log_ratio
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.compared_metrics import compared_metrics
from pytest_mlpatterns.judging.revision_comparison import judge_no_slower
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.verdict import Outcome, Verdict

FAST_NS, SLOW_NS = 20 * MS, 40 * MS
TOLERANCE = 0.10


def two_modes(
    seed: int, requests: int, *, fast_ns: float = FAST_NS, slow_ns: float = SLOW_NS, tail: float = 1.0
) -> NDArray[np.int64]:
    """Every second request takes twice as long, and each 1 % more or less; an odd request decides the median.

    Every 14th request, which is 7 % of them, takes ``tail`` times as long.
    """
    rng = np.random.default_rng(seed)
    is_slow = (np.arange(requests) + seed) % 2 == 1
    is_last = np.arange(requests) % 14 == 13
    times = np.where(is_slow, slow_ns, fast_ns) * np.where(is_last, tail, 1.0)
    return (times * np.exp(rng.normal(0, 0.01, requests))).astype(np.int64)


def launched(seed: int, requests: int = 25, **changes: float) -> Launch:
    """A launch of one caller."""
    latency = two_modes(seed, requests, **changes)
    due = START_NS + np.cumsum(latency) - latency
    return launch(samples(due, latency), seconds=float(latency.sum()) / S)


def entry(requests: int = 25, *, knows_means: bool = True) -> Entry:
    """Six launches; an entry of an earlier version knows no means."""
    found = entry_of([launched(100 + number, requests) for number in range(6)])
    return found if knows_means else replace(found, metrics={"rtm": found.metrics["rtm"]})


def against_the_file(
    before: Entry, *names: str, requests: int = 25, tolerance: float = TOLERANCE, **changes: float
) -> dict[str, Verdict]:
    """The verdicts by metric, of up to eight launches."""
    numbers = iter(range(8))
    runner: Any = SimpleNamespace(
        measure=lambda: launched(next(numbers), requests, **changes), want_requests=lambda _enough, **_how: None
    )
    measurement = SequentialMeasurement(runner, Spending(Budget(60 * S)), 8)
    metrics = [METRICS[name] for name in names or ("rtm",)]
    compared = compared_metrics(metrics, Tolerances(tolerance), BASELINE_ALPHA, requested=False)
    return beside_the_file(declared_experiment(before, launches=8), measurement, lambda _streams: compared)[0]


def test_the_medians_of_unchanged_launches_jump_and_their_means_do_not() -> None:
    metrics = Metrics(tuple(launched(number) for number in range(6)))
    medians, means = (
        [one.value for one in metrics.launch_values(metric)] for metric in (METRICS["rtm"], LOCATIONS["rtm"])
    )
    assert max(medians) > 1.9 * min(medians)
    assert max(means) < 1.07 * min(means)


def test_unchanged_launches_pass_by_their_means_and_not_by_their_medians() -> None:
    (verdict,) = against_the_file(entry()).values()
    assert (verdict.metric, verdict.judged_by, verdict.outcome) == ("rtm", "latency_mean", Outcome.PASS)

    (by_medians,) = against_the_file(entry(knows_means=False)).values()
    assert (by_medians.metric, by_medians.judged_by, by_medians.outcome) == ("rtm", "", Outcome.INCONCLUSIVE)


def test_a_verdict_by_means_names_them_and_has_the_medians_beside_them() -> None:
    (verdict,) = against_the_file(entry(), fast_ns=1.5 * FAST_NS, slow_ns=1.5 * SLOW_NS).values()
    assert verdict.reason.startswith("mean latency 27.2 ms → 40.8 ms: 49.9 % worse, 99 % interval ")
    assert "; tolerance 10.0 %; median latency " in verdict.reason
    assert verdict.reference_value == pytest.approx(27.2 * MS, rel=0.03)
    assert verdict.present_value == pytest.approx(40.8 * MS, rel=0.03)


def test_a_slower_tail_alone_fails_by_its_guard() -> None:
    verdicts = against_the_file(entry(210), "rtm", "p95", requests=210, tail=4.0)
    assert {name: one.outcome for name, one in verdicts.items()} == {"rtm": Outcome.PASS, "p95": Outcome.FAIL}


@dataclass
class Declared(DeclaredRun):
    """An interleaved run of eight blocks a side, each with one request more in one of the modes."""

    of_present: Callable[[int], NDArray[np.int64]]
    knows_means: bool = True

    def next_launch(self) -> tuple[PairedLaunch, Launch, Launch]:
        seeds = np.random.default_rng(len(self.launches)).integers(0, 1000, 16).tolist()
        first = [two_modes(seed, 25) for seed in seeds[:8]]
        found = paired(first, [self.of_present(seed) for seed in seeds[8:]])
        return found if self.knows_means else replace(found, latency_mean=None), launched(0), launched(1)


def paired(first: list[NDArray[np.int64]], second: list[NDArray[np.int64]]) -> PairedLaunch:
    """A paired launch of these latencies by block."""
    medians = [[float(np.median(block)) for block in side] for side in (first, second)]
    means = [[location(block) for block in side] for side in (first, second)]
    sides = [
        VariantFigures(float(np.median(median)), 30.0, None, 200, 0, latency_mean_ns=float(np.median(mean)))
        for median, mean in zip(medians, means, strict=True)
    ]
    even = paired_log_ratio([1.0] * 8, [1.0] * 8)
    return PairedLaunch(
        paired_log_ratio(*medians), even, None, *sides, 8, False, 0, latency_mean=paired_log_ratio(*means)
    )


def beside_a_revision(*, knows_means: bool = True, **changes: float) -> Verdict:
    run = Declared(lambda seed: two_modes(seed, 25, **changes), knows_means=knows_means)
    compared = compared_metrics([METRICS["rtm"]], Tolerances(TOLERANCE), 0.025, requested=False)
    (verdict,) = judge_no_slower(run, compared, budget_ns=10**12).verdicts  # type: ignore[arg-type]
    return verdict


def test_an_unchanged_revision_passes_by_its_means_and_needs_more_launches_by_its_medians() -> None:
    verdict = beside_a_revision()
    assert (verdict.metric, verdict.judged_by, verdict.outcome) == ("rtm", "latency_mean", Outcome.PASS)
    assert "; 3 paired launches in " in verdict.reason
    by_medians = beside_a_revision(knows_means=False)
    assert by_medians.judged_by == ""
    assert "; 3 paired launches in " not in by_medians.reason


def test_a_verdict_beside_a_revision_names_means_and_has_the_medians_beside_them() -> None:
    verdict = beside_a_revision(fast_ns=1.5 * FAST_NS, slow_ns=1.5 * SLOW_NS)
    assert verdict.reason.startswith("mean latency 27.")
    assert " ms (main (1a2b3c4)) against " in verdict.reason
    before, now = verdict.reason.rpartition("; median latency ")[2].split(" against ")
    assert before.endswith(" ms")
    assert now.endswith(" ms")
    assert verdict.change.value == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"fast_ns": 1.5 * FAST_NS}, id="fast mode"),
        pytest.param({"slow_ns": 1.5 * SLOW_NS}, id="slow mode"),
        pytest.param({"fast_ns": 1.2 * FAST_NS, "slow_ns": 1.2 * SLOW_NS}, id="both modes"),
    ],
)
def test_a_slower_mode_and_slower_requests_fail_beside_both(changes: dict[str, float]) -> None:
    (of_file,) = against_the_file(entry(), **changes).values()
    assert (of_file.outcome, beside_a_revision(**changes).outcome) == (Outcome.FAIL, Outcome.FAIL)
