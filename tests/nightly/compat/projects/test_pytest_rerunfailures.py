"""A test that fails at first: its second attempt measures anew and passes."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


attempts = []


@QUICK
def test_second_attempt(perf):
    attempts.append(perf.metrics.rtm_ns.value)
    assert len(attempts) == 2
    assert attempts[0] != attempts[1]
