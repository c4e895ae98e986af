"""Failed requests beside a stored baseline: some by chance, and those of a load beyond the capacity."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.experiments import declared_experiment, entry_of
from support.synthetic import MS, START_NS, S, launch, make_setup, samples, usage
from test_baseline_comparison import BEFORE, make_launch

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import BASELINE_ALPHA
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.judging.basis import Basis
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.compared_metrics import ComparedMetric, compared_by_default, compared_metrics
from pytest_mlpatterns.judging.metric_rules import judge_guarded
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.judging.settled_comparison import SettledComparison
from pytest_mlpatterns.judging.settling_rules import Seen, settle
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.revision.commits import UnknownRevisionError

(ERRORS,) = compared_metrics([METRICS["error_rate"]], Tolerances(), 0.01, requested=False)


def failing(seed: int, count: int) -> Launch:
    """A launch whose first requests failed."""
    made = make_launch(seed)
    outcome = made.samples.outcome.copy()
    outcome[:count] = 500
    return replace(made, samples=replace(made.samples, outcome=outcome))


@pytest.mark.parametrize(("still_failing", "expected"), [(0, Outcome.PASS), (5, Outcome.INCONCLUSIVE)])
def test_failures_that_the_recorded_code_does_not_have_today_have_passed(still_failing: int, expected: Outcome) -> None:
    present = [failing(seed, seed) for seed in range(3)]
    recorded, beside = ([failing(seed, still_failing) for seed in seeds] for seeds in (range(20, 32), range(40, 52)))
    file, now = BEFORE, Metrics(tuple(present))
    screened = judge_guarded(ERRORS, file, now, against="baseline", in_flight=1)
    sides = (Metrics(tuple(side)) for side in (recorded, beside))
    judged = judge_guarded(ERRORS, *sides, against="revision", in_flight=1)
    today = judge_guarded(ERRORS, file, Metrics(tuple(recorded)), against="baseline", in_flight=1)
    assert screened.suspected
    assert judged.outcome is Outcome.PASS
    seen = Seen(file=screened, recorded=judged, name="the baseline's commit", is_standing=True, today=today)
    assert settle(seen).verdict.outcome is expected


OFFERED_RPS, CAPACITY_RPS = 400, 250
"""Load, and what the service of the baseline's machine can answer of it."""


def overloaded(seed: int, slower: float = 1.0, share: float = 1.0) -> Launch:
    """A service that refuses at once what exceeds its capacity, on a machine that is slower, or with less capacity."""
    rng, count = np.random.default_rng(seed), int(2.5 * OFFERED_RPS)
    due = START_NS - S // 2 + np.arange(count) * (S // OFFERED_RPS)
    served = rng.random(count) < share * CAPACITY_RPS / slower / OFFERED_RPS
    latency_ns = np.where(served, 20 * MS * slower * np.exp(rng.normal(0, 0.05, count)), 0.5 * MS)
    rows = samples(due, latency_ns.astype(np.int64), outcome=np.where(served, 200, 503))
    made = launch(rows, seconds=2.0, used=usage(0.9, 1.1, seconds=2.0), open_loop=True)
    return replace(made, sorting_ns=(0.7 * MS * slower * float(np.exp(rng.normal(0, 0.02))),))


@pytest.mark.parametrize(
    ("slower", "share", "expected"),
    [(1.0, 1.0, Outcome.PASS), (1.3, 1.0, Outcome.INCONCLUSIVE), (1.0, 0.75, Outcome.FAIL), (1.3, 0.6, Outcome.FAIL)],
)
def test_a_slower_machine_that_refuses_more_of_an_overload_is_asked_about(
    monkeypatch: pytest.MonkeyPatch, slower: float, share: float, expected: Outcome
) -> None:
    made = iter([overloaded(seed, slower, share) for seed in range(8)])

    def settle() -> None:
        raise UnknownRevisionError("this clone is shallow")

    experiment = declared_experiment(
        entry_of([overloaded(seed) for seed in range(100, 108)]), rate_rps=OFFERED_RPS, overload=True
    )
    settings = experiment.settings
    plan = SimpleNamespace(schedule=settings.schedule)
    experiment = replace(experiment, setup=make_setup(load="constant(400/s)"), plan=plan, settle=settle)
    runner: Any = SimpleNamespace(measure=lambda: next(made), want_requests=lambda _enough, **_how: None)
    measurement = SequentialMeasurement(runner, Spending(Budget(60 * S)), 8, overload=True)
    comparison = SettledComparison(Basis(experiment, measurement))

    def choice(streams: bool) -> Sequence[ComparedMetric]:
        wanted = compared_by_default(settings, streams=streams)
        return compared_metrics(wanted, settings.tolerance, BASELINE_ALPHA, requested=False)

    asked: list[str] = []
    by_the_recorded_code = comparison._by_the_recorded_code

    def seen(rest: Any) -> Sequence[Verdict]:
        asked.extend(one.metric.name for one in rest(False))
        return by_the_recorded_code(rest)

    monkeypatch.setattr(comparison, "_by_the_recorded_code", seen)
    found = {verdict.metric: verdict for verdict in comparison.judge(choice)}
    assert found["error_rate"].outcome is expected, found["error_rate"].reason
    assert ("error_rate" in asked) is (expected is not Outcome.PASS)
