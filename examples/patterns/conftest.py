"""What every test here shares: the model, trained when it is not there yet, and the inputs."""

import pytest
import train
from model import FILE, Forest
from sklearn.datasets import load_breast_cancer


@pytest.fixture
def perf_model():
    if not FILE.exists():
        train.main()
    return Forest


@pytest.fixture
def perf_payload():
    return load_breast_cancer().data.tolist()
