"""Performance tests with types: mypy --strict test_perf.py."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import pytest

from pytest_mlpatterns import (
    Batched,
    Cached,
    Deployment,
    Estimate,
    Metrics,
    Pattern,
    Perf,
    PoissonRate,
    Single,
    Uniform,
    measure,
)

Row = list[float]
Model = Callable[[Sequence[Row]], list[float]]

PATTERNS: list[Pattern] = [Single(), Cached(ttl="1min") | Batched(max_batch_size=8)]


class Sum:
    """A model: a batch of rows in, as many numbers out."""

    perf_version = "1"

    def __call__(self, batch: Sequence[Row]) -> list[float]:
        return [sum(row) for row in batch]


@pytest.fixture
def perf_model() -> type[Sum]:
    return Sum


@pytest.fixture
def perf_payload() -> Uniform:
    return Uniform([[1.0, 2.0], [3.0, 4.0]])


def right(inputs: Sequence[Row], outputs: Sequence[float]) -> None:
    assert list(outputs) == Sum()(inputs)


@pytest.mark.perf(pattern=PATTERNS, concurrency=4, check=right)
def test_limits(perf: Perf) -> None:
    perf.assert_rtm_below("1s")
    perf.assert_error_rate_below("10%")
    if not perf.smoke:
        metrics: Metrics = perf.metrics
        rtm: Estimate = metrics.rtm_ns
        assert rtm.low <= rtm.value <= rtm.high


@pytest.mark.perf(load=PoissonRate(50, seed=1), duration="1s")
def test_answers(perf: Perf) -> None:
    assert perf.client.get("/v2/health/ready").status_code == 200
    assert perf.predict([1.0, 2.0]) == 3.0


def test_deployment(perf_deploy: Callable[..., AbstractContextManager[Deployment]]) -> None:
    with perf_deploy(Single()) as deployment:
        assert deployment.predict([2.0, 2.0]) == 4.0


def throughput(model: Model, inputs: Sequence[Row]) -> float:
    """For a notebook: the requests per second of one caller."""
    return measure(model, inputs, launches=1).throughput_rps.value
