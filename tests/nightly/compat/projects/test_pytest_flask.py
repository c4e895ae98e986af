"""A client of a Flask application, and its live server as the target."""

import pytest
from flask import Flask, request

from pytest_mlpatterns import Url


@pytest.fixture(scope="session")
def app():
    made = Flask("service")

    @made.post("/predict")
    def predict():
        return {"predictions": [2 * value for value in request.get_json()["instances"]]}

    return made


@pytest.fixture
def perf_target(live_server):
    return Url(live_server.url("/predict"))


@pytest.fixture
def perf_payload():
    return [1, 2]


def test_client(client):
    assert client.post("/predict", json={"instances": [3]}).json == {"predictions": [6]}


@pytest.mark.perf(duration="200ms", warmup="0s", launches=1)
def test_live_server(perf):
    assert perf.predict(4) == 8
    perf.assert_error_rate_below("1%")
