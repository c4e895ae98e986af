"""A gateway before a service of its own, really deployed: hop time, errors, balance, and services that die."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.services.deploy import deployed

from pytest_mlpatterns import Deployment, Microservice, Queued

pytestmark = [pytest.mark.processes, pytest.mark.covered_processes, pytest.mark.usefixtures("no_process_is_left")]

HERE = sys.modules[__name__]
PATH = "/v1/models/m:predict"
PATIENCE_S = 15


class Halves:
    """A half of each input, told by whom; fails on text."""

    def __call__(self, batch: list[Any]) -> list[Any]:
        return [[value / 2, os.getpid()] for value in batch]


class Waits:
    """Answers once a file is there."""

    def __init__(self) -> None:
        self.path = Path(os.environ["GATE"])

    def __call__(self, batch: list[Any]) -> list[Any]:
        while not self.path.exists():
            threading.Event().wait(0.005)
        return batch


class TestDeployed:
    @pytest.fixture
    def deployment(self, tmp_path: Path) -> Iterator[Deployment]:
        with deployed(Halves, tmp_path, Microservice(), by_value=[HERE]) as deployment:
            yield deployment

    def test_the_gateway_answers_what_the_service_behind_it_answered(self, deployment: Deployment) -> None:
        service, gateway = deployment.pids  # those further in start first
        before = deployment.stats()
        assert [deployment.predict(value)[0] for value in (3, 4)] == [1.5, 2.0]
        assert deployment.predict(5)[1] == service != gateway
        gained = deployment.stats().since(before)
        assert gained.replica_requests == (3,)
        (layer,) = gained.layers_named("hop")
        assert (layer.position, layer.layer, layer.counters["calls"]) == (0, "hop", 3)
        assert sum(layer.histograms["hop_ns"].values()) == 3

    def test_only_the_service_behind_says_how_long_it_worked(self, deployment: Deployment) -> None:
        response = deployment.client.post(deployment.path, json={"instances": [1]})
        assert response.status_code == 200
        assert "server-timing" not in response.headers

    def test_an_error_of_the_model_comes_through_with_its_text_and_traceback(self, deployment: Deployment) -> None:
        response = deployment.client.post(deployment.path, json={"instances": ["text"]})
        assert response.status_code == 500
        assert response.json()["error"].startswith("the model raised TypeError: ")
        (traceback,) = deployment.stats().tracebacks
        assert "return [[value / 2, os.getpid()] for value in batch]" in traceback
        assert deployment.predict(1)[0] == 0.5

    def test_replicas_behind_the_gateway_take_turns(self, tmp_path: Path) -> None:
        with deployed(Halves, tmp_path, Microservice(2), by_value=[HERE]) as deployment:
            before = deployment.stats()
            pids = [deployment.predict(1)[1] for _ in range(6)]
            assert deployment.stats().since(before).replica_requests == (3, 3)
            assert pids[:2] * 3 == pids
            assert set(pids) == set(deployment.pids[:2])

    def test_when_to_try_again_comes_through(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gate = tmp_path / "gate"
        monkeypatch.setenv("GATE", str(gate))
        with (
            deployed(Waits, tmp_path, Microservice() | Queued(capacity=1), by_value=[HERE]) as deployment,
            ThreadPoolExecutor(2) as callers,
        ):
            taken = [callers.submit(ask, deployment, value) for value in (1, 2)]
            try:
                until_accepted(deployment, 2)
                refused = ask(deployment, 3)
            finally:
                gate.touch()
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "the queue is full: 1 requests wait" in refused.json()["error"]
            assert sorted(task.result(PATIENCE_S).json()["predictions"][0] for task in taken) == [1, 2]


def ask(deployment: Deployment, value: object) -> httpx.Response:
    return httpx.post(deployment.url + deployment.path, json={"instances": [value]}, timeout=PATIENCE_S)


def until_accepted(deployment: Deployment, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while deployment.stats().layers_named("queued")[0].counters.get("accepted", 0) < count:
        assert time.monotonic() < deadline
