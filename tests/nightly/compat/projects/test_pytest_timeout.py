"""Time limits by signal and by thread, around tests that measure."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


@QUICK
@pytest.mark.timeout(200, method="signal")
def test_signal(perf):
    perf.assert_rtm_below("60s")


@QUICK
@pytest.mark.timeout(200, method="thread")
def test_thread(perf):
    perf.assert_rtm_below("60s")
