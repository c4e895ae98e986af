"""Each repetition measures."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


@QUICK
def test_repeated(perf):
    perf.assert_rtm_below("60s")
