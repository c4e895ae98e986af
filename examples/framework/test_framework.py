"""System A, the forest under Single, and the target pattern: measured in the same way, so that they can be compared.

Prices, weights and requirements stand in pytest.ini.
"""

import joblib
import pytest
import train
from model import FILE, Forest
from sklearn.datasets import load_diabetes

from pytest_mlpatterns import Batched, Queued, Single

SYSTEM_A = Single()
TARGET = Queued(capacity=32) | Batched(max_batch_size=16)


@pytest.fixture
def perf_model():
    if not FILE.exists():
        train.main()
    return Forest


@pytest.fixture
def perf_payload():
    return load_diabetes().data.tolist()


def right(rows, progressions):
    """Answers from under load are those of the model itself: a pattern that mixes them up cannot be chosen."""
    assert progressions == pytest.approx(joblib.load(FILE).predict(rows))


@pytest.mark.perf(pattern=[SYSTEM_A, TARGET], concurrency=8, check=right)
def test_forest(perf):
    perf.measure_overload(slo="p95<250ms")  # half to twice the NMRT, and back
    perf.measure_scaling(replicas=(1, 2))
    perf.assert_error_rate_below("5%")
