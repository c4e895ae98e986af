"""Subtests of a test that measures."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


@QUICK
def test_parts(perf, subtests):
    with subtests.test(msg="answer"):
        assert perf.predict(4) == 8
    with subtests.test(msg="time"):
        perf.assert_rtm_below("60s")
