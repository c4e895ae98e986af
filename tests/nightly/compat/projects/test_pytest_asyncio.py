"""Coroutines that pytest-asyncio runs, one of which measures; and a model that is one."""

import asyncio

import pytest
import pytest_asyncio

QUICK = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


async def doubled(batch):
    await asyncio.sleep(0)
    return [2 * value for value in batch]


@pytest.fixture
def perf_model():
    return doubled


@pytest_asyncio.fixture
async def perf_payload():
    await asyncio.sleep(0)
    return [1, 2, 3]


@pytest.mark.asyncio
async def test_coroutine():
    assert await doubled([1]) == [2]


@QUICK
@pytest.mark.asyncio
async def test_coroutine_that_measures(perf):
    await asyncio.sleep(0)
    assert perf.predict(4) == 8
    perf.assert_rtm_below("60s")


@QUICK
@pytest.mark.asyncio
async def test_coroutine_beside_a_load(perf):
    await asyncio.to_thread(perf.assert_rtm_below, "60s")
