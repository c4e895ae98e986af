"""A replica, a queue worker or a node that dies: the test fails with its name, or goes on with a new one."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from conftest import wait_until
from support.project import Project, Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import ThreeNodes

LOCAL = "--perf-generators-on=local"
MORTAL = """
import os, signal
import pytest
from pytest_mlpatterns import Queued, Replicated


class Mortal:
    \"\"\"The first process that is called for the third time dies, and no other.\"\"\"

    died = {replica!r}

    def __init__(self):
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        if self.calls == 3:
            try:
                os.close(os.open(self.died, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return [2 * value for value in batch]


class MortalWorker(Mortal):
    died = {worker!r}


@pytest.mark.perf(model=Mortal, payload=[1, 2], pattern=Replicated(2), concurrency=2, launches=1)
@pytest.mark.perf(duration="1s", warmup="0s")
def test_replica(perf):
    perf.assert_rtm_below("60s")


@pytest.mark.perf(model=MortalWorker, payload=[1, 2])
def test_worker(perf_deploy):
    with perf_deploy(Queued(capacity=8, workers=2)) as deployment:
        answers = []
        while not os.path.exists(MortalWorker.died):
            answers.append(deployment.predict(4))
        answers += [deployment.predict(4) for _ in range(20)]
        assert set(answers) == {{8}}
        stats = deployment.stats()
        assert stats.replaced == 1
        (queue,) = stats.layers_named("queued")
        assert queue.counters["redelivered"] == 1
        assert queue.counters["answered"] == len(answers) + 1  # the first one showed that it is ready


@pytest.mark.perf(model=MortalWorker, payload=[1], pattern=Replicated(40), launches=1)
@pytest.mark.perf(duration="200ms", warmup="0s")
def test_too_many(perf):
    perf.assert_rtm_below("60s")
"""


def test_a_killed_replica_fails_its_test_a_killed_queue_worker_is_replaced_and_too_many_replicas_are_refused(
    run_on: Callable[..., Run], tmp_path: Path
) -> None:
    died = {name: str(tmp_path / name) for name in ("replica", "worker")}
    run = run_on(Project().with_file("test_perf.py", MORTAL.format(**died)), LOCAL)
    assert "test_worker" not in run.section("short test summary info")
    assert re.search(
        r"replica [12] of 2 \(process \d+ on node 127\.0\.0\.[234]\) ended; Ray Serve starts another",
        run.failure("test_replica"),
    )
    assert "this service needs 40 CPUs on the Ray cluster" in run.failure("test_too_many")


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


@pytest.mark.perf(model=Where, payload=[1, 2], pattern=Replicated(3), concurrency=3, launches=1)
@pytest.mark.perf(duration="30s", warmup="0s", timeout="1s")
def test_load(perf):
    perf.assert_rtm_below("60s")
"""


def test_a_node_that_is_killed_fails_the_test_with_its_replicas(
    three_nodes: ThreeNodes, run_on: Callable[..., Run], tmp_path: Path
) -> None:
    project = Project().with_file("test_perf.py", ON_NODES.format(here=str(tmp_path)))
    runs: list[Run] = []
    runner = threading.Thread(target=lambda: runs.append(run_on(project, LOCAL)))
    runner.start()
    wait_until(lambda: bool(called(tmp_path)) or not runner.is_alive())
    last = called(tmp_path)[0]
    three_nodes.kill(last)
    runner.join()
    three_nodes.add(last)
    (run,) = runs
    assert "passed" not in run.outcomes
    assert re.search(rf"node 127\.0\.0\.{last} of the Ray cluster is gone, with \d replicas? of this service", run.out)


def called(directory: Path) -> list[int]:
    """The last numbers of the nodes whose model was called, without the head, where pytest runs."""
    return [last for last in (3, 4) if (directory / f"127.0.0.{last}").exists()]
