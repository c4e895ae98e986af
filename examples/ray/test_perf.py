"""The same tests on one machine and on a Ray cluster: ``pytest``, and ``pytest --perf-engine ray``."""

import pytest
from model import Nearest

from pytest_mlpatterns import Batched, Replicated, Single


@pytest.fixture
def perf_model():
    return Nearest


@pytest.fixture
def perf_payload():
    return Nearest().vectors[:100].tolist()


def found(vectors, documents):
    """Every answer from under load is the one that the model gives to that vector."""
    assert documents == Nearest()(vectors)


@pytest.mark.perf(
    pattern=[Single(), Replicated(3), Replicated(3) | Batched(max_batch_size=16)], concurrency=16, check=found
)
def test_nearest(perf):
    perf.assert_error_rate_below("5%")
    perf.assert_rtm_below("1s")


@pytest.mark.perf(pattern=Replicated(3), rate_rps=50, generators=3, duration="3s", check=found)
def test_nearest_from_three_generators(perf):
    perf.assert_error_rate_below("5%")
    perf.assert_latency_below("1s", percentile=95)
