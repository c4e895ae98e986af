"""A Ray of the run's own: one for all tests, on the loopback interface only, and gone with the run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from conftest import PATIENT_S, long_run, wait_until
from support.project import Project

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

BODY = """
    import json
    from pathlib import Path

    import psutil


    def test_first(perf):
        perf.assert_rtm_below("60s")


    def test_second(perf):
        perf.assert_rtm_below("60s")
        family = psutil.Process().children(recursive=True)
        listening = [
            (process.name(), one.laddr.ip)
            for process in family
            for one in process.net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        ]
        found = {"raylets": sum(process.name() == "raylet" for process in family), "listening": listening}
        Path("found.json").write_text(json.dumps({**found, "pids": [process.pid for process in family]}))
"""


def directories() -> AbstractSet[Path]:
    return set(Path("/tmp").glob("mlp-*"))


def test_all_tests_share_one_ray_which_only_this_machine_reaches_and_which_ends_with_them(tmp_path: Path) -> None:
    before = directories()
    project = Project().with_tests(BODY)
    home = tmp_path / "home"
    home.mkdir()

    run = project.run_apart(
        tmp_path, "--perf-engine=ray", "--durations=0", environment={"HOME": str(home), "RAY_ADDRESS": ""}
    )

    assert run.outcomes == {"passed": 2}
    found = run.json("found.json")
    assert found["raylets"] == 1
    elsewhere = {name for name, ip in found["listening"] if ip.removeprefix("::ffff:") != "127.0.0.1"}
    assert all(name.startswith("ray::ServeReplica:") for name in elsewhere)  # their gRPC asks for the run's token
    assert not any(map(_runs, found["pids"]))
    assert directories() <= before
    assert [*home.iterdir()] == []  # Ray would put a token there


def test_a_ray_of_a_run_that_is_killed_ends_with_it(tmp_path: Path) -> None:
    before, called = directories(), tmp_path / "called"
    with long_run(tmp_path, called, "--perf-engine=ray", environment={"RAY_ADDRESS": ""}) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        assert sum(member.name() == "raylet" for member in family) == 1

        process.kill()

        _, left = psutil.wait_procs(family, PATIENT_S)
    assert left == []
    wait_until(lambda: directories() <= before)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and os.getpgid(pid) != 0
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
