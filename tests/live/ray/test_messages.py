"""What a user reads who asks for a cluster that cannot be used."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from support.project import Project

from pytest_mlpatterns import Replicated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.project import Run

TEST = "def test_rtm(perf):\n    perf.assert_rtm_below('60s')"


def test_an_address_where_nothing_listens(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        run = Project().with_tests(TEST).run_apart(tmp_path, "--perf-engine=ray", f"--perf-ray-address={address}")
    assert run.outcomes == {"failed": 1}
    assert f"SettingError: --perf-ray-address={address}: nothing answers there within 5s (" in run.failure("test_rtm")
    assert "start Ray there (ray start --head), or leave it out for a Ray of this run's own" in run.out


def test_more_replicas_than_the_cluster_has_cpus_for(run_on: Callable[..., Run]) -> None:
    marker = f'pytest.mark.perf(pattern="{Replicated(40)}", duration="200ms", warmup="0s", launches=1)'
    run = run_on(Project().with_tests(TEST, marker=marker))
    assert run.outcomes == {"failed": 1}
    assert "this service needs 40 CPUs on the Ray cluster" in run.failure("test_rtm")
