"""A latency objective reads what it prints, to the nanosecond."""

from __future__ import annotations

import pytest
from hypothesis import given
from support.result_strategies import OBJECTIVES

from pytest_mlpatterns.records.objective import Objective, parse_objective


@pytest.mark.parametrize(
    ("objective", "text"),
    [
        (Objective.of(95.0, 50_000_000), "p95<50.0ms"),
        (Objective.of(50.0, 5_000_000), "rtm<5.00ms"),
        (Objective.of(99.9, 1_234_567_890), "p99.9<1234.56789ms"),
        (Objective.of(99.0, 1_001), "p99<0.001001ms"),
    ],
)
def test_an_objective_prints_three_digits_or_as_many_as_it_has(objective: Objective, text: str) -> None:
    assert str(objective) == text


@given(OBJECTIVES)
def test_an_objective_survives_its_text(objective: Objective) -> None:
    assert parse_objective(str(objective)) == objective
