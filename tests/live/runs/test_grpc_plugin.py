"""``wire="grpc"`` through the plugin: as users write it, serially and under pytest-xdist."""

from pathlib import Path

import pytest
from support.project import Project

pytestmark = pytest.mark.processes


TESTS = """
import time

import httpx
import numpy as np
import pytest

from pytest_mlpatterns import Batched, Single, Wire

class Model:
    def __call__(self, batch):
        assert all(isinstance(one, np.ndarray) for one in batch)
        time.sleep(0.001)  # so that the generator is not the limit
        if batch[0][0] == 13:
            raise ValueError("thirteen")
        return [one * 2 for one in batch]

@pytest.fixture
def perf_model():
    return Model

@pytest.fixture
def perf_payload():
    return [np.full(16, number, "f4") for number in range(5)]
"""
QUICK = 'duration="300ms", warmup="0s", launches=1'


MEASURED = f"""

def check(inputs, outputs):
    assert inputs
    for one, other in zip(inputs, outputs, strict=True):
        np.testing.assert_array_equal(one * 2, other, strict=True)

@pytest.mark.perf(pattern=[Single(), Batched()], wire="grpc", check=check, concurrency=4, {QUICK})
def test_echo(perf):
    assert perf.metrics.error_ratio.value == 0
    assert 64 < perf.metrics.request_bytes.value < 300
    np.testing.assert_array_equal(perf.predict(np.ones(16, "f4")), np.full(16, 2, "f4"))

@pytest.mark.perf(wire=["rest+binary", Wire("grpc", "protobuf")], concurrency=2, {QUICK})
def test_wires(perf):
    assert perf.metrics.error_ratio.value == 0

def test_deployed(perf_deploy):
    with perf_deploy(Single(), wire="grpc") as deployment:
        assert deployment.predict(np.ones(16, "f4"))[0] == 2
        assert deployment.client.get("/v2/health/ready").is_success

@pytest.mark.perf(wire="grpc", payload=[np.full(16, number, "f4") for number in (1, 13)], {QUICK})
def test_half(perf):
    perf.assert_error_rate_below(0.1)

@pytest.mark.perf(wire="grpc", payload=[httpx.Request("GET", "http://x/")])
def test_ready_made(perf):
    pass
"""


def test_a_model_is_measured_checked_and_predicted_over_grpc_and_its_failures_are_told(tmp_path: Path) -> None:
    run = Project().with_file("test_perf.py", TESTS + MEASURED).run(tmp_path)
    assert (run.outcomes["passed"], run.outcomes["failed"]) == (5, 2)
    assert "INTERNAL: " in run.failure("test_half")
    assert "ValueError: thirteen" in run.failure("test_half")
    words = "perf_payload contains httpx.Request objects, which cannot be sent over gRPC"
    assert words in run.failure("test_ready_made")
