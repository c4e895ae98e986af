"""What callers see when a replica dies, and when one too many ends."""

import asyncio

import pytest

from pytest_mlpatterns import Replicated


class Model:
    async def __call__(self, batch):
        await asyncio.sleep(0.005)
        return [sum(row) for row in batch]


@pytest.fixture
def perf_model():
    return Model


@pytest.fixture
def perf_payload():
    return [[1.0, 2.0], [3.0, 4.0]]


def lose_a_replica(during):
    during.wait_until("1s")
    with during.step("kill"):
        during.kill("replica")
        during.wait("200ms")  # until the load balancer notices
        during.scale(1)


@pytest.mark.perf(pattern=Replicated(2), rate_rps=200, during=lose_a_replica)
def test_a_lost_replica_is_soon_forgotten(perf):
    perf.assert_unhurt(step="kill", p95="500ms", within="2s", errors="50%")


def scale_in(during):
    during.wait_until("1s")
    with during.step("scale-in"):
        during.scale(1)


@pytest.mark.perf(pattern=Replicated(2), rate_rps=200, during=scale_in)
def test_a_scale_in_loses_no_request(perf):
    perf.assert_unhurt(step="scale-in", p95="500ms", errors=0)
