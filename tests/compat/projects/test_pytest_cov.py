"""Coverage is measured in the process of pytest; the processes that serve are not disturbed by it."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


@pytest.fixture
def perf_model():
    return lambda batch: [2 * value for value in batch]


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


@QUICK
def test_load(perf, pytestconfig):
    assert pytestconfig.pluginmanager.hasplugin("_cov")
    perf.assert_rtm_below("60s")
