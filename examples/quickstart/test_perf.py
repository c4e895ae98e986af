"""Is the digits classifier, as it is served, as fast as it was?"""

import pytest
from model import Digits
from sklearn.datasets import load_digits

from pytest_mlpatterns import Replicated, Single


@pytest.fixture
def perf_model():
    return Digits


@pytest.fixture
def perf_payload():
    return load_digits().data.tolist()


@pytest.mark.perf(pattern=[Single(), Replicated(replicas=2)], concurrency=4, warmup="500ms")
def test_digits(perf):
    perf.assert_rtm_below("1s")
    perf.assert_error_rate_below("5%")
