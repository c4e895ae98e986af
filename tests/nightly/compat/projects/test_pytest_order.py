"""Tests that measure run in the given order."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


ran = []


@QUICK
@pytest.mark.order(2)
def test_second(perf):
    perf.assert_rtm_below("60s")
    assert ran == ["first"]


@pytest.mark.order(1)
def test_first():
    ran.append("first")
