"""How many threads onnxruntime may use is a setting that a model's owner chooses: here one, and it is held to that."""

import numpy as np
import pytest
from model import WIDTH, Dense


@pytest.fixture
def perf_model():
    return Dense


@pytest.fixture
def perf_payload():
    return list(np.random.default_rng(1).standard_normal((20, WIDTH), dtype=np.float32))


def right(rows, answers):
    """Answers from under load are those of the model itself."""
    np.testing.assert_allclose(answers, Dense()(rows), rtol=1e-3, atol=1e-5)


@pytest.mark.perf(wire="rest+binary", concurrency=2, duration="1s", check=right)
def test_threads(perf):
    perf.assert_rtm_below("1s")
    perf.assert_no_regression(("cpu_per_request",), "25%")
