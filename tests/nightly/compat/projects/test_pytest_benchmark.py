"""The time of a function, and the same function served."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


def test_function(benchmark, perf_model):
    assert benchmark(perf_model, [1]) == [2]


@QUICK
def test_served(perf):
    perf.assert_rtm_below("60s")
