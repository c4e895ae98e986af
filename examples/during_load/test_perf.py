"""What callers see while the model of a service is loaded again."""

import pytest

from pytest_mlpatterns import App


@pytest.fixture
def perf_target():
    return App("service:app", path="/predict", ready="/version")


@pytest.fixture
def perf_payload():
    return [[1.0, 2.0], [3.0, 4.0]]


def reload(during):
    during.wait_until("1s")  # requests to compare with
    with during.step("reload"):
        answer = during.client.post("/reload")
    assert answer.json() == {"version": 2}


@pytest.mark.perf(rate_rps=200, during=reload)
def test_a_reload_hurts_no_request(perf):
    perf.assert_unhurt(step="reload", p95="100ms", errors=0)
