"""What is patched in the process of pytest stays there, while a test measures."""

import pytest

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


@pytest.fixture
def perf_model():
    return lambda batch: [2 * value for value in batch]


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


@QUICK
def test_patched(perf, mocker):
    patched = mocker.patch("random.random", return_value=2)
    perf.assert_rtm_below("60s")
    patched.assert_not_called()
