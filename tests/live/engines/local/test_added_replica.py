"""One more replica of a running deployment: it answers on its own address, counts, and ends with the others."""

import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from support.services.deploy import deployed, make_start_options

from pytest_mlpatterns import Batched, Deployment, DeploymentError, Microservice, ModelLoadError, Replicated, Wire
from pytest_mlpatterns.engines.local.launcher import LocalReplica, LocalScaler, launch
from pytest_mlpatterns.serving.grpc.functional_client import GrpcTransport
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.serving.processes import AddedReplica

HERE = sys.modules[__name__]
PATIENCE_S = 60


def double(batch: list[Any]) -> list[Any]:
    return [2 * value for value in batch]


class LoadsOnce:
    """Fails to load where a file exists."""

    def __init__(self) -> None:
        if Path(sys.path[0], "fails").exists():
            raise OSError("the licence server has no licence left")

    def __call__(self, batch: list[Any]) -> list[Any]:
        return batch


def ready(replica: AddedReplica) -> tuple[str, int]:
    deadline = time.monotonic() + PATIENCE_S
    while (address := replica.address()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return address


def asked(deployment: Deployment, address: tuple[str, int]) -> Any:
    url = f"http://127.0.0.1:{address[1]}"
    return httpx.post(f"{url}{deployment.path}", json={"instances": [21]}, trust_env=False).json()


@pytest.mark.processes
@pytest.mark.usefixtures("no_process_is_left")
class TestProcesses:
    def test_a_replica_is_the_whole_service_on_an_address_of_its_own(self, tmp_path: Path) -> None:
        with deployed(double, tmp_path, Microservice(), by_value=[HERE]) as deployment:
            assert deployment.scaler is not None
            before = len(deployment.pids)
            replica = deployment.scaler.add()
            address = ready(replica)
            assert address not in deployment.addresses
            assert asked(deployment, address) == {"predictions": [42]}
            assert deployment.predict(1) == 2
            assert (replica.requests(), len(deployment.pids)) == (1, before + 2)
            assert deployment.stats().replica_requests == (1, 1)

    def test_a_replica_that_cannot_load_says_why(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        with deployed(LoadsOnce, tmp_path, by_value=[HERE]) as deployment:
            assert deployment.scaler is not None
            (tmp_path / "fails").touch()
            replica = deployment.scaler.add()
            with pytest.raises(ModelLoadError, match="no licence left"):
                ready(replica)

    def test_a_replica_that_is_removed_ends_and_keeps_its_counts(self, tmp_path: Path) -> None:
        with deployed(double, tmp_path, Replicated(2), by_value=[HERE]) as deployment:
            assert deployment.scaler is not None
            first, second = deployment.addresses
            for _ in range(4):
                deployment.predict(1)
            assert not deployment.scaler.has_ended(second)
            deployment.scaler.remove(second)
            assert deployment.scaler.has_ended(second)
            assert not deployment.scaler.has_ended(first)
            assert deployment.stats().replica_requests == (2, 2)
            assert asked(deployment, first) == {"predictions": [42]}

    def test_one_that_the_test_kills_is_no_error(self, tmp_path: Path) -> None:
        with deployed(double, tmp_path, Replicated(2), by_value=[HERE]) as deployment:
            assert deployment.scaler is not None
            killed, _ = deployment.pids
            deployment.processes.excuse(killed)
            os.kill(killed, signal.SIGKILL)
            while not deployment.scaler.has_ended(deployment.addresses[0]):
                time.sleep(0.01)
            assert deployment.stats().replica_requests == (0, 0)
            assert asked(deployment, deployment.addresses[1]) == {"predictions": [42]}

    def test_a_replica_over_grpc_has_a_port_of_its_own(self, tmp_path: Path) -> None:
        options = replace(make_start_options(tmp_path), wire=Wire.parse("grpc", "wire"))
        with closing(launch(service_plan(Batched(), double, [HERE]), options)) as deployment:
            address = ready(deployment.scaler.add())
            assert not deployment.scaler.has_ended(address)
            with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", transport=GrpcTransport()) as client:
                assert client.get("/v2/health/ready", timeout=PATIENCE_S).is_success


class SlowWorker:
    """A process that is still loading."""

    role = "replica"
    child = SimpleNamespace(log_tail=lambda: "loading weights")

    def __init__(self) -> None:
        def receive(_wait_s: float) -> None:
            raise TimeoutError

        self.child = SimpleNamespace(receive=receive, log_tail=lambda: "loading weights")


@pytest.mark.parametrize(("asked_before_s", "message"), [(0, ""), (100, "perf_model m is still loading after 60.0 s")])
def test_a_replica_has_the_start_up_limit_of_the_deployment(tmp_path: Path, asked_before_s: int, message: str) -> None:
    launcher: Any = SimpleNamespace(workers=[SlowWorker()])
    scaler = LocalScaler(launcher, "m", StartOptions(60 * 10**9, None, tmp_path))
    asked_ns = time.perf_counter_ns() - asked_before_s * 10**9
    replica = LocalReplica(scaler, ("127.0.0.1", 1), 0, asked_ns=asked_ns)
    if not message:
        assert replica.address() is None
        return
    with pytest.raises(DeploymentError, match=rf"{message}.*(?s:.)*loading weights"):
        replica.address()
