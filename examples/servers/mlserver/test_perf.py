"""The server as it is deployed, under 16 callers that speak the Open Inference Protocol (V2), over REST and gRPC."""

import numpy as np
import pytest

from pytest_mlpatterns import Command


@pytest.fixture
def perf_target():
    return Command(
        "mlserver start .",
        ready="/v2/models/sums/ready",
        path="/v2/models/sums/infer",
        metrics="http://127.0.0.1:{metrics_port}/metrics",
        env={
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{grpc_port}",
            "MLSERVER_METRICS_PORT": "{metrics_port}",
        },
    )


@pytest.fixture
def perf_payload():
    return list(np.random.default_rng(0).random((50, 100), dtype=np.float32))


def right(inputs, answers):
    """Every answer from under load belongs to its own input, in any batch."""
    np.testing.assert_allclose(np.ravel(answers), np.sum(inputs, axis=1), rtol=1e-4)


@pytest.mark.perf(wire=["rest+json", "grpc"], concurrency=16, duration="1s", check=right)
def test_sums(perf):
    perf.assert_rtm_below("500ms")
    if not perf.smoke:
        assert perf.metrics.queue_depth is not None
