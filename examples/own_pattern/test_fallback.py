"""The pattern under load: the model fails for a tenth of the inputs and is late for another; no caller notices."""

import pytest
from fallback import Fallback
from model import double, unknown

from pytest_mlpatterns import Microservice


@pytest.fixture
def perf_model():
    return double


@pytest.fixture
def perf_payload():
    return list(range(1, 101))


def right(numbers, doubles):
    assert all(double in (2 * number, "unknown") for number, double in zip(numbers, doubles, strict=True))


@pytest.mark.perf(pattern=Fallback(unknown) | Microservice(), concurrency=4, check=right)
def test_every_caller_has_an_answer(perf):
    perf.assert_error_rate_below("5%")
    if not perf.smoke:  # a figure that a single request cannot give
        assert perf.metrics.figure("fallback_share").value > 0.05
