"""Replicas behind a gateway that are killed or stuck: another one answers, an error is counted, nothing hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.scenarios import PATIENCE_S
from support.services.deploy import deployed
from support.services.processes import our_children, survivors

from pytest_mlpatterns import DeploymentError, Replicated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_mlpatterns import Deployment

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = our_children()
    yield
    assert our_children() <= before


class Halves:
    """A half of each input, and the process that answers."""

    def __call__(self, batch: list[Any]) -> list[Any]:
        return [[value / 2, os.getpid()] for value in batch]


class Stuck:
    """The first request of all is never answered, and a file says that it was cancelled; the others are at once."""

    def __init__(self) -> None:
        self.directory = Path(os.environ["NOTES"])

    async def __call__(self, batch: list[Any]) -> list[Any]:
        try:
            (self.directory / "asked").touch(exist_ok=False)
        except FileExistsError:
            return [2 * value for value in batch]
        try:
            await asyncio.Event().wait()
        finally:
            (self.directory / "cancelled").touch()
        return []


class StuckStream(Stuck):
    """The same with answers in chunks."""

    async def __call__(self, batch: list[Any]) -> Any:  # type: ignore[override]
        for chunk in await super().__call__(batch * 3):
            yield chunk


def ask(deployment: Deployment, value: object) -> httpx.Response:
    return httpx.post(deployment.url + deployment.path, json={"instances": [value]}, timeout=PATIENCE_S)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert survivors([pid], PATIENCE_S) == set()


@pytest.mark.parametrize(("model", "answers"), [(Stuck, [6, 8]), (StuckStream, [[6, 6, 6], [8, 8, 8]])])
def test_a_late_request_is_answered_by_another_replica_and_cancelled_at_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: type, answers: list[Any]
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path))
    with deployed(model, tmp_path, Replicated(2, hedge="20ms"), by_value=[HERE]) as deployment:
        assert [deployment.predict(value) for value in (3, 4)] == answers
        deadline = time.monotonic() + PATIENCE_S
        while not (tmp_path / "cancelled").exists():
            assert time.monotonic() < deadline
            threading.Event().wait(0.005)
        (layer,) = deployment.stats().layers_named("replicated")
        assert layer.counters["hedged"] >= 1
        while sum(deployment.stats().replica_requests) != sum(layer.histograms["ahead"].values()):
            assert time.monotonic() < deadline  # a replica may count a request late that was cancelled there
            threading.Event().wait(0.005)


@pytest.mark.parametrize("balance", ["round-robin", "two-choices", "least-latency", "prefix"])
def test_another_replica_answers_for_one_that_was_killed(tmp_path: Path, balance: str) -> None:
    with deployed(Halves, tmp_path, Replicated(2, balance, hedge="5s"), by_value=[HERE]) as deployment:
        assert deployment.predict(1)[0] == 0.5
        dead, alive, _ = deployment.pids
        kill(dead)
        assert [deployment.predict(value) for value in range(8)] == [[value / 2, alive] for value in range(8)]


def test_without_a_hedge_one_request_fails_at_most_and_the_next_ones_have_their_answers(tmp_path: Path) -> None:
    with deployed(Halves, tmp_path, Replicated(3, "least-latency"), by_value=[HERE]) as deployment:
        dead, *alive = deployment.pids[:3]
        kill(dead)
        answers = [ask(deployment, value) for value in range(6)]
        assert [answer.status_code for answer in answers].count(502) <= 1
        for value, answer in enumerate(answers):
            if answer.status_code != 502:
                assert answer.json()["predictions"][0] in [[value / 2, pid] for pid in alive]
        with pytest.raises(DeploymentError, match=f"replica: process {dead} ended with signal SIGKILL"):
            deployment.stats()


def test_if_all_are_killed_requests_fail_at_once(tmp_path: Path) -> None:
    with deployed(Halves, tmp_path, Replicated(2, "prefix", hedge="5s"), by_value=[HERE]) as deployment:
        for pid in deployment.pids[:2]:
            kill(pid)
        assert [ask(deployment, value).status_code for value in range(3)] == [502] * 3
