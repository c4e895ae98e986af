"""Shadows and models loaded on demand that are killed or stuck: other requests are answered, and nothing hangs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.scenarios import PATIENCE_S
from support.services.deploy import deployed
from support.services.processes import our_children, survivors

from pytest_mlpatterns import DeploymentError, MultiModel, Shadowed
from pytest_mlpatterns.engines.local.processes import MAX_REPLACEMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_mlpatterns import Deployment

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = our_children()
    yield
    assert our_children() <= before


class Doubled:
    def __call__(self, batch: list[Any]) -> list[Any]:
        return [2 * one for one in batch]


class Stuck:
    def __call__(self, batch: list[Any]) -> list[Any]:
        threading.Event().wait()
        return batch


class Named:
    """Answers with the name of its model."""

    def __call__(self, batch: list[Any]) -> list[Any]:
        return [one["model"] for one in batch]


class NeverLoaded(Named):
    def __init__(self) -> None:
        threading.Event().wait()


class Kills(Named):
    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def ask(deployment: Deployment, value: object) -> httpx.Response:
    return httpx.post(deployment.url + deployment.path, json={"instances": [value]}, timeout=PATIENCE_S)


def shadow_pid(deployment: Deployment) -> int:
    workers = deployment.processes.workers  # type: ignore[attr-defined]  # of the local engine
    return next(one.child.pid for one in workers if one.role.startswith("shadow"))  # type: ignore[no-any-return]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert survivors([pid], PATIENCE_S) == set()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def counted(deployment: Deployment, name: str) -> int:
    (layer,) = deployment.stats().layers_named("shadowed")
    return layer.counters.get(name, 0)


def test_the_live_path_answers_while_a_shadow_is_dead_and_its_replacement_compares_again(tmp_path: Path) -> None:
    with deployed(Doubled, tmp_path, Shadowed(Doubled, processes=True), by_value=[HERE]) as deployment:
        assert deployment.predict(1) == 2
        wait_for(lambda: counted(deployment, "same") == 1)
        dead = shadow_pid(deployment)
        kill(dead)
        assert [ask(deployment, value).json()["predictions"] for value in range(20)] == [[2 * at] for at in range(20)]
        wait_for(lambda: shadow_pid(deployment) != dead)
        wait_for(lambda: counted(deployment, "same") + counted(deployment, "failed") == 21)
        assert deployment.predict(3) == 6
        wait_for(lambda: counted(deployment, "same") + counted(deployment, "failed") == 22)
        assert counted(deployment, "same") > 1
        assert deployment.stats().replaced == 1


def test_a_shadow_that_keeps_dying_is_named_and_the_live_path_answers_on(tmp_path: Path) -> None:
    with deployed(Doubled, tmp_path, Shadowed(Doubled, processes=True), by_value=[HERE]) as deployment:
        for _ in range(MAX_REPLACEMENTS):
            dead = shadow_pid(deployment)
            kill(dead)
            wait_for(lambda dead=dead: shadow_pid(deployment) != dead)  # type: ignore[misc]
        kill(shadow_pid(deployment))
        assert [ask(deployment, value).json()["predictions"] for value in range(9)] == [[2 * at] for at in range(9)]
        with pytest.raises(DeploymentError, match=rf"shadow Doubled \(replacement {MAX_REPLACEMENTS} of"):
            deployment.stats()


@pytest.mark.parametrize("processes", [False, True])
def test_a_stuck_shadow_costs_no_answer_and_ends_with_the_service(tmp_path: Path, processes: bool) -> None:
    pattern = Shadowed(Stuck, max_waiting=2, processes=processes)
    with deployed(Doubled, tmp_path, pattern, by_value=[HERE]) as deployment:
        assert [deployment.predict(value) for value in range(10)] == [2 * value for value in range(10)]
        assert (counted(deployment, "copied"), counted(deployment, "dropped")) == (2, 8)


def test_a_load_that_never_ends_keeps_its_own_requests_only(tmp_path: Path) -> None:
    pattern = MultiModel({"good": Named, "stuck": NeverLoaded})
    with ThreadPoolExecutor() as pool:
        with deployed(None, tmp_path, pattern, by_value=[HERE]) as deployment:
            assert deployment.predict({"model": "good"}) == "good"
            stuck = pool.submit(ask, deployment, {"model": "stuck"})
            assert [deployment.predict({"model": "good"}) for _ in range(5)] == ["good"] * 5
            assert not stuck.done()
        error = stuck.exception(PATIENCE_S)
        assert isinstance(error, httpx.HTTPError) or stuck.result().status_code >= 500


def test_a_load_that_kills_the_process_is_an_error_that_names_it(tmp_path: Path) -> None:
    pattern = MultiModel({"good": Named, "kills": Kills})
    with deployed(None, tmp_path, pattern, by_value=[HERE]) as deployment:
        assert deployment.predict({"model": "good"}) == "good"
        with pytest.raises(httpx.HTTPError):
            ask(deployment, {"model": "kills"})
        with pytest.raises(DeploymentError, match=r"service: process \d+ ended with signal SIGKILL"):
            deployment.stats()
