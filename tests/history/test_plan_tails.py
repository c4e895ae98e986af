"""What is seen of a percentile, against the verdict itself on launches that the plan does not know."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from pytest_mlpatterns.analysis.verdicts.count_comparison import TAIL_ALPHA, judge_tail
from pytest_mlpatterns.history.plan import TestFacts, is_judged, plan_of, seen_tail
from pytest_mlpatterns.records.latency import RequestCounts
from pytest_mlpatterns.records.plan import Advice, Help
from pytest_mlpatterns.records.verdict import Outcome

MS = 1_000_000


def counted(
    draw: np.random.Generator, requests: int = 200, *, slower: float = 0.0, spread: float = 0.2
) -> RequestCounts:
    """A launch whose times are lognormal, rounded as they are stored."""
    times = 4 * MS * (1 + slower) * np.exp(draw.normal(0, spread, requests) + draw.normal(0, 0.01))
    return RequestCounts(requests, 0, dict(Counter((times / 40_000).round().astype(int) * 40_000).items()))


def launches(seed: int, count: int = 12, **changes: float) -> tuple[RequestCounts, ...]:
    draw = np.random.default_rng(seed)
    return tuple(counted(draw, **changes) for _ in range(count))  # type: ignore[arg-type]


@pytest.mark.simulation
@pytest.mark.parametrize("percentile", [95, 99])
def test_a_promised_change_of_a_percentile_fails(percentile: float) -> None:
    change = seen_tail(launches(1), percentile, launches=6, tolerance=0.2)
    assert change is not None
    assert change > 0.2
    caught = sum(
        judge_tail(
            launches(100 + run, 6),
            launches(200 + run, 6, slower=change),
            percentile=percentile,
            tolerance=0.2,
            alpha=TAIL_ALPHA,
        ).outcome
        is Outcome.FAIL
        for run in range(60)
    )
    assert caught >= 0.85 * 60


def test_a_percentile_with_too_few_requests_is_not_judged() -> None:
    few = launches(1, requests=30)
    assert is_judged(few, 95, launches=6, tolerance=0.2)
    assert not is_judged(few, 99, launches=6, tolerance=0.2)
    assert not is_judged((), 95, launches=6, tolerance=0.2)


def test_a_percentile_among_failed_requests_is_not_seen() -> None:
    half = [RequestCounts(100, 2 if number % 2 else 0, {4 * MS: 98 if number % 2 else 100}) for number in range(12)]
    assert seen_tail(half, 99, launches=6, tolerance=0.2) is None


def test_a_tolerance_beyond_every_change_is_not_seen() -> None:
    assert seen_tail(launches(1), 95, launches=6, tolerance=50.0) is None


def facts(counts: tuple[RequestCounts, ...]) -> TestFacts:
    level = math.log(4 * MS)
    sitting = tuple((level + 0.01 * number, 0.005) for number in range(8))
    return TestFacts(
        test="test_a.py::test_x",
        tolerances={"rtm": 0.1, "p95": 0.2, "p99": 0.2},
        launches={"rtm": (sitting,), "p95": (sitting,)},
        counts=counts,
    )


def test_a_plan_has_the_percentiles_beside_a_revision() -> None:
    plan = plan_of(facts(launches(1, requests=40)))
    assert plan is not None
    assert [one.metric for one in plan.metrics] == ["rtm", "p95"]
    assert plan.left_out == ("p99",)
    tail = plan.metrics[1]
    assert tail.file is None
    assert tail.revision is not None
    assert tail.revision.needed == ()
    assert tail.revision.differs_by > 0
    assert tail.revision.change is not None
    if not tail.revision.sees(0.2):
        assert tail.revision.advice == (Advice(Help.DURATION),)
    assert plan.to_json()["metrics"][1]["file"] is None
