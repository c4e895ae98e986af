"""What is patched in the process of pytest stays there, while a test measures."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


@QUICK
def test_patched(perf, mocker):
    patched = mocker.patch("random.random", return_value=2)
    perf.assert_rtm_below("60s")
    patched.assert_not_called()
