"""LitServe beside FastAPI, in the same minutes: at least as many answers per second, and the same answers."""

import pytest

from pytest_mlpatterns import App, Command


@pytest.fixture
def perf_target():
    return Command("{python} serve.py {port}", ready="/health", path="/predict")


@pytest.fixture
def perf_payload():
    return [1.0, 2.0, 3.0]


@pytest.mark.perf(concurrency=16, duration="1s", request=lambda number: {"json": {"input": number}})
def test_parity(perf):
    perf.assert_not_slower_than(App("plain_service:app", path="/predict"), on="throughput")
