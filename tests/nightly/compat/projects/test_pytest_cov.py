"""Coverage is measured in the process of pytest; the processes that serve are not disturbed by it."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


@QUICK
def test_load(perf, pytestconfig):
    assert pytestconfig.pluginmanager.hasplugin("_cov")
    perf.assert_rtm_below("60s")
