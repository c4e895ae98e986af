"""Twice the load that the model can answer, in four ways: which one still serves its callers?"""

import joblib
import pytest
import train
from model import FILE, Forest, Linear, unsure
from sklearn.datasets import load_breast_cancer

from pytest_mlpatterns import Batched, Cascade, Limited, Queued

ROWS = load_breast_cancer().data.tolist()


@pytest.fixture
def perf_model():
    if not FILE.exists():
        train.main()
    return Forest


@pytest.fixture
def perf_payload():
    return ROWS


def by_either(rows, probabilities):
    """An answer is that of one of the two models for its own input, however the pattern was hurried."""
    answers = [model.predict_proba(rows)[:, 1] for model in joblib.load(FILE).values()]
    for probability, *expected in zip(probabilities, *answers, strict=True):
        assert any(probability == pytest.approx(one) for one in expected)


@pytest.mark.perf(
    pattern=[
        Queued(capacity=8),
        Limited(2, max_waiting=4),
        Cascade(Linear, "model", when=unsure) | Limited(2, max_waiting=4),
        Batched(max_batch_size=16),
    ],
    rate_rps=120,
    overload=True,
    check=by_either,
)
def test_twice_the_load(perf):
    perf.assert_goodput_at_least(rps=0.01, slo="latency<60s")
