"""A gateway before a service of its own, really deployed: hop time, errors, balance, and services that die."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.services.deploy import deployed

from pytest_mlpatterns import Deployment, Microservice

pytestmark = [pytest.mark.processes, pytest.mark.covered_processes, pytest.mark.usefixtures("no_process_is_left")]

HERE = sys.modules[__name__]
PATIENCE_S = 15


class Halves:
    """A half of each input, told by whom; fails on text."""

    def __call__(self, batch: list[Any]) -> list[Any]:
        return [[value / 2, os.getpid()] for value in batch]


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
        response = deployment.client.post(deployment.path, json={"instances": [1]})
        assert "server-timing" not in response.headers, "only the service behind says how long it worked"

    def test_an_error_of_the_model_comes_through_with_its_text_and_traceback(self, deployment: Deployment) -> None:
        response = deployment.client.post(deployment.path, json={"instances": ["text"]})
        assert response.status_code == 500
        assert response.json()["error"].startswith("the model raised TypeError: ")
        (traceback,) = deployment.stats().tracebacks
        assert "return [[value / 2, os.getpid()] for value in batch]" in traceback
        assert deployment.predict(1)[0] == 0.5
