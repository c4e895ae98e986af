"""The server of the fixture httpserver is the target."""

import pytest

from pytest_mlpatterns import Url


@pytest.fixture
def perf_target(httpserver):
    httpserver.expect_request("/predict", method="POST").respond_with_json({"predictions": [7]})
    return Url(httpserver.url_for("/predict"))


@pytest.fixture
def perf_payload():
    return [1]


@pytest.mark.perf(duration="200ms", warmup="0s", launches=1)
def test_server(perf):
    assert perf.predict(1) == 7
    perf.assert_error_rate_below("1%")
