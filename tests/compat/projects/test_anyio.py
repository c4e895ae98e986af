"""Coroutines on the backends of anyio, one of which measures."""

import anyio
import pytest

pytestmark = pytest.mark.anyio
QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


@pytest.fixture
def perf_model():
    return lambda batch: [2 * value for value in batch]


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


async def test_coroutine():
    await anyio.sleep(0)


@QUICK
async def test_coroutine_that_measures(perf):
    await anyio.sleep(0)
    assert perf.predict(4) == 8
    perf.assert_rtm_below("60s")
