"""Subtests of a test that measures."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


@pytest.fixture
def perf_model():
    return lambda batch: [2 * value for value in batch]


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


@QUICK
def test_parts(perf, subtests):
    with subtests.test(msg="answer"):
        assert perf.predict(4) == 8
    with subtests.test(msg="time"):
        perf.assert_rtm_below("60s")
