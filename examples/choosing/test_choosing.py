"""One test under five patterns: which one serves this forest best?

A call costs some milliseconds, almost independent of the size of the batch, and some patients are requested more often
than
others. The weights and requirements stand in pytest.ini.
"""

import joblib
import pytest
import train
from model import FILE, Forest
from sklearn.datasets import load_diabetes

from pytest_mlpatterns import Batched, Cached, Replicated, Single, Zipf

REMEMBERED = Cached(max_entries=150)


@pytest.fixture
def perf_model():
    if not FILE.exists():
        train.main()
    return Forest


@pytest.fixture
def perf_payload():
    return Zipf(load_diabetes().data.tolist(), exponent=1.1)


def right(rows, progressions):
    """Answers from under load are those of the model itself: a pattern that mixes them up cannot be chosen."""
    assert progressions == pytest.approx(joblib.load(FILE).predict(rows))


@pytest.mark.perf(
    pattern=[Single(), Replicated(2), Batched(max_batch_size=16), REMEMBERED, REMEMBERED | Batched(max_batch_size=16)],
    concurrency=16,
    check=right,
)
def test_forest(perf):
    perf.assert_error_rate_below("5%")
