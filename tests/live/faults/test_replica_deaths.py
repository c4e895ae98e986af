"""Replicas behind a gateway that are killed: the next requests are answered, an error is counted, nothing hangs."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.nightly import rarer
from support.scenarios import PATIENCE_S
from support.services.deploy import deployed
from support.services.processes import our_children, survivors

from pytest_mlpatterns import Deployment, DeploymentError, Replicated

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


def ask(deployment: Deployment, value: object) -> httpx.Response:
    return httpx.post(deployment.url + deployment.path, json={"instances": [value]}, timeout=PATIENCE_S)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert survivors([pid], PATIENCE_S) == set()


@pytest.mark.parametrize("balance", ["two-choices", *rarer("least-latency", "prefix")])
def test_one_request_fails_at_most_and_the_next_ones_have_their_answers(tmp_path: Path, balance: str) -> None:
    with deployed(Halves, tmp_path, Replicated(3, balance), by_value=[HERE]) as deployment:
        dead, *alive = deployment.pids[:3]
        kill(dead)
        answers = [ask(deployment, value) for value in range(6)]
        assert [answer.status_code for answer in answers].count(502) <= 1
        for value, answer in enumerate(answers):
            if answer.status_code != 502:
                assert answer.json()["predictions"][0] in [[value / 2, pid] for pid in alive]
        with pytest.raises(DeploymentError, match=f"replica: process {dead} ended with signal SIGKILL"):
            deployment.stats()
