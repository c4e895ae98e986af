"""A replica, a queue worker or a node that dies in a test: the test fails with its name, or goes on with a new one."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import pytest
from conftest import wait_until
from support.project import Project, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import ThreeNodes

LOCAL = "--perf-generators-on=local"
MORTAL = """
import os, signal
import pytest
from pytest_mlpatterns import Queued, Replicated

DIED = {died!r}


class Mortal:
    \"\"\"The first process that is called for the third time dies, and no other.\"\"\"

    def __init__(self):
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        if self.calls == 3:
            try:
                os.close(os.open(DIED, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return [2 * value for value in batch]


{test}
"""
UNDER_LOAD = """
@pytest.mark.perf(model=Mortal, payload=[1, 2], pattern=Replicated(2), concurrency=2, launches=1)
@pytest.mark.perf(duration="1s", warmup="0s")
def test_load(perf):
    perf.assert_rtm_below("60s")
"""
QUEUED = """
@pytest.mark.perf(model=Mortal, payload=[1, 2])
def test_worker(perf_deploy):
    with perf_deploy(Queued(capacity=8, workers=2)) as deployment:
        answers = []
        while not os.path.exists(DIED):
            answers.append(deployment.predict(4))
        answers += [deployment.predict(4) for _ in range(20)]
        assert set(answers) == {8}
        stats = deployment.stats()
        assert stats.replaced == 1
        (queue,) = stats.layers_named("queued")
        assert queue.counters["redelivered"] == 1
        assert queue.counters["answered"] == len(answers) + 1  # the first one showed that it is ready
"""


def mortal(directory: Path, test: str) -> Project:
    """A test of a service one process of which dies."""
    return Project().with_file("test_perf.py", MORTAL.format(died=str(directory / "died"), test=test))


def test_a_replica_that_is_killed_fails_the_test_with_its_process_and_node(
    run_on: Callable[..., Run], tmp_path: Path
) -> None:
    run = run_on(mortal(tmp_path, UNDER_LOAD), LOCAL)

    assert "passed" not in run.outcomes
    assert re.search(
        r"replica [12] of 2 \(process \d+ on node 127\.0\.0\.[234]\) ended; Ray Serve starts another", run.out
    )


def test_a_queue_worker_that_is_killed_is_replaced_and_its_request_answered(
    run_on: Callable[..., Run], tmp_path: Path
) -> None:
    run = run_on(mortal(tmp_path, QUEUED))

    assert run.outcomes == {"passed": 1}


ON_NODES = """
import os, pathlib, time
import pytest
from pytest_mlpatterns import DeploymentError, Replicated

HERE = pathlib.Path({here!r})


class Where:
    def __init__(self):
        import ray

        self.node = ray.util.get_node_ip_address()

    def __call__(self, batch):
        (HERE / self.node).touch()
        return batch


@pytest.mark.perf(model=Where, payload=[1, 2], pattern=Replicated(6), concurrency=6, launches=1)
@pytest.mark.perf(duration="8s", warmup="0s", timeout="1s")
def test_load(perf):
    perf.assert_rtm_below("60s")
"""


@pytest.fixture
def last_node(three_nodes: ThreeNodes) -> Iterator[int]:
    """A node that a test kills, which is there again after it."""
    yield 4
    three_nodes.add(4)


def test_a_node_that_is_killed_fails_the_test_with_its_replicas(
    three_nodes: ThreeNodes, last_node: int, *, run_on: Callable[..., Run], tmp_path: Path
) -> None:
    project = Project().with_file("test_perf.py", ON_NODES.format(here=str(tmp_path)))
    runs: list[Run] = []
    runner = threading.Thread(target=lambda: runs.append(run_on(project, LOCAL)))
    runner.start()
    called = tmp_path / f"127.0.0.{last_node}"
    wait_until(lambda: called.exists() or not runner.is_alive())
    three_nodes.kill(last_node)
    runner.join()

    (run,) = runs
    assert "passed" not in run.outcomes
    assert re.search(r"node 127\.0\.0\.4 of the Ray cluster is gone, with \d replicas? of this service", run.out)
