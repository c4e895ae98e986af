"""Is the digits classifier, as it is served, as fast as it was?"""

import numpy as np
import pytest
from model import FILE, Digits


@pytest.fixture
def perf_model():
    return Digits


@pytest.fixture
def perf_payload():
    return np.load(FILE)["unseen"].tolist()


@pytest.mark.perf(concurrency=4)
def test_digits(perf):
    perf.assert_rtm_below("1s")
    perf.assert_error_rate_below("5%")
