"""Coroutines on the backends of anyio, one of which measures."""

import anyio
import pytest

pytestmark = pytest.mark.anyio
QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


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
