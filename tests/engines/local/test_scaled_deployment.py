"""A deployment whose replicas follow the load: what it knows of processes that come later, and one more of it."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.fault_run import await_true
from support.services.deploy import deployed
from support.services.processes import our_children

from pytest_mlpatterns import Autoscaled, Queued
from pytest_mlpatterns.engines.local.processes import MAX_REPLACEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
PATIENCE_S = 60


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = our_children()
    yield
    assert our_children() <= before


def double(batch: list[Any]) -> list[Any]:
    return [2 * value for value in batch]


def test_a_replica_that_starts_later_has_a_role_and_an_environment(tmp_path: Path) -> None:
    with deployed(double, tmp_path, Autoscaled(min=0, max=1), by_value=[HERE]) as deployment:
        (gateway,) = deployment.pids
        assert deployment.scales
        assert deployment.predict(4) == 8
        assert deployment.pids[0] == gateway
        assert [deployment.roles[pid] for pid in deployment.pids] == ["gateway", "replica"]
        assert deployment.facts()
        stats = deployment.stats()
        assert stats.replica_requests == (1,)
        assert stats.layers_named("autoscaled")[0].counters["waited"] == 1


def test_one_more_of_the_whole_service_scales_by_itself(tmp_path: Path) -> None:
    with deployed(double, tmp_path, Autoscaled(min=0, max=1), by_value=[HERE]) as deployment:
        assert deployment.scaler is not None
        added = deployment.scaler.add()
        await_true(added.address, PATIENCE_S, "it is not ready")
        address = added.address()
        assert address is not None
        host, port = address
        url = f"http://{host}:{port}{deployment.path}"
        answer = httpx.post(url, json={"instances": [3]}, timeout=PATIENCE_S, trust_env=False)
        assert answer.json() == {"predictions": [6]}
        assert added.requests() == 1
        assert len(deployment.pids) == 3


def test_a_replica_whose_worker_is_given_up_is_replaced(tmp_path: Path) -> None:
    with deployed(double, tmp_path, Autoscaled(min=1, max=1) | Queued(), by_value=[HERE]) as deployment:
        worker = next(one for one in deployment.processes.workers if one.role == "worker")
        for number in range(MAX_REPLACEMENTS + 1):
            assert deployment.predict(number) == 2 * number
            dead = worker.child
            os.kill(dead.pid, signal.SIGKILL)
            await_true(lambda dead=dead: worker.child is not dead or worker.has_retired, PATIENCE_S, "it stays")  # type: ignore[misc]
        await_true(
            lambda: deployment.stats().layers_named("autoscaled")[0].counters.get("died_replicas") == 1,
            PATIENCE_S,
            "its gateway does not know that it died",
        )
        assert deployment.predict(7) == 14
