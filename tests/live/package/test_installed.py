"""What a user's first tests do, with nothing installed but the package and what it needs."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mlpatterns import Batched, Cached, Microservice, Queued, Replicated, Single

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns import Perf

pytestmark = pytest.mark.processes


@pytest.fixture
def perf_model() -> Callable[[list[Any]], list[Any]]:
    return lambda batch: [sum(numbers) for numbers in batch]


@pytest.fixture
def perf_payload() -> list[list[int]]:
    return [[1, 2, 3], [4, 5]]


def check(inputs: list[list[int]], outputs: list[int]) -> None:
    assert outputs == [sum(numbers) for numbers in inputs]


def test_the_profiler_comes_with_the_package() -> None:
    assert importlib.metadata.version("py-spy")


@pytest.mark.perf(
    pattern=[Single(), Replicated(2), Cached(), Batched(4), Queued(), Microservice()],
    concurrency=2,
    duration="0.3s",
    check=check,
)
def test_every_pattern_answers_rightly(perf: Perf) -> None:
    assert perf.metrics.failures == {}
    perf.assert_rtm_below("60s")
