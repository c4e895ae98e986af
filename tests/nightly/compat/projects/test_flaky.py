"""A test that fails at first, as flaky repeats it."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


attempts = []


@QUICK
@pytest.mark.flaky(max_runs=2)
def test_second_attempt(perf):
    attempts.append(perf.metrics.rtm_ns.value)
    assert len(attempts) == 2
