"""Replicas that run on cores of their own."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.services.deploy import make_start_options

from pytest_mlpatterns.engines.engine import launch
from pytest_mlpatterns.patterns import Microservice, Replicated
from pytest_mlpatterns.serving.model import service_plan
from pytest_mlpatterns.system.cpu_share import ReplicaCores


def cores(batch: list[Any]) -> list[list[int]]:
    return [sorted(os.sched_getaffinity(0)) for _ in batch]


@pytest.mark.processes
@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="two replicas need two cores on which processes can be bound",
)
def test_all_processes_of_a_replica_run_on_its_cores(tmp_path: Path) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    options = replace(make_start_options(tmp_path), cpus=0.01, replica_cores=ReplicaCores(each=1, most=2))
    with closing(
        launch(service_plan(Replicated(2) | Microservice(), "test_cpu_limit:cores", ()), options)
    ) as deployment:
        answers = [deployment.predict(0) for _ in range(2)]
        gateways = [sorted(os.sched_getaffinity(pid)) for pid in deployment.pids]
        assert sorted(answers) == [[allowed[-2]], [allowed[-1]]]
        assert sorted(gateways) == [[allowed[-2]], [allowed[-2]], [allowed[-1]], [allowed[-1]]]
        assert deployment.cpus == 2
        assert os.sched_getaffinity(0) == set(allowed)
