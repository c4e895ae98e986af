"""The pattern under load: alone it would be a number; composed with ``Batched`` it limits how full batches get."""

import pytest
from model import double
from throttled import Throttled

from pytest_mlpatterns import Batched


@pytest.fixture
def perf_model():
    return double


@pytest.fixture
def perf_payload():
    return list(range(100))


def right(numbers, doubles):
    assert doubles == [2 * number for number in numbers]


@pytest.mark.perf(pattern=Throttled(limit=4) | Batched(max_batch_size=16), concurrency=16, check=right)
def test_a_throttle_bounds_the_batches_behind_it(perf):
    perf.assert_error_rate_below("5%")
    if not perf.smoke:  # figures that a single request cannot give
        throttled, batched = (layer for layer in perf.metrics.layers if layer.layer in ("throttled", "batched"))
        assert throttled.counters["waited"] > 0
        assert perf.metrics.figure("throttled_wait").value > 0
        assert max(batched.histograms["size"]) <= 4
