"""Is the digits classifier, as it is served, as fast as it was?"""

import pytest
from model import Digits
from sklearn.datasets import load_digits


@pytest.fixture
def perf_model():
    return Digits


@pytest.fixture
def perf_payload():
    return load_digits().data.tolist()


@pytest.mark.perf(concurrency=4)
def test_digits(perf):
    perf.assert_rtm_below("1s")
    perf.assert_error_rate_below("5%")
