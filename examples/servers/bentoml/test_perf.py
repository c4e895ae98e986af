"""The server as it is deployed, under 16 callers."""

import pytest

from pytest_mlpatterns import Command


@pytest.fixture
def perf_target():
    command = "bentoml serve service:Sums --host 127.0.0.1 --port {port} --quiet"
    return Command(command, ready="/readyz", path="/predict", metrics="/metrics", env={"BENTOML_DO_NOT_TRACK": "1"})


@pytest.fixture
def perf_payload():
    return [[1.0, 2.0], [3.0, 4.0, 5.0], [6.0]]


def right(inputs, answers):
    """Every answer from under load belongs to its own input, in any batch."""
    assert [answer[0] for answer in answers] == [sum(numbers) for numbers in inputs]


@pytest.mark.perf(concurrency=16, duration="1s", request=lambda numbers: {"json": {"numbers": [numbers]}}, check=right)
def test_sums(perf):
    perf.assert_rtm_below("200ms")
    if not perf.smoke:  # one request makes no batch
        assert perf.metrics.batch_size.value > 2
