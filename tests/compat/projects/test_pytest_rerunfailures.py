"""A test that fails at first: its second attempt measures anew and passes."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


@pytest.fixture
def perf_model():
    return lambda batch: [2 * value for value in batch]


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


attempts = []


@QUICK
def test_second_attempt(perf):
    attempts.append(perf.metrics.rtm_ns.value)
    assert len(attempts) == 2
    assert attempts[0] != attempts[1]
