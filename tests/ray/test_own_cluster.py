"""A Ray of the run's own: one for all tests, on the loopback interface only, and gone with the run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from conftest import PATIENT_S, long_run, wait_until
from support.project import Project

if TYPE_CHECKING:
    from collections.abc import Iterable

BODY = """
    import json
    from pathlib import Path

    import psutil


    def seen(process):
        try:
            listening = [one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            return [process.pid, process.name(), " ".join(process.cmdline()), listening]
        except psutil.Error:  # a worker that was idle, which Ray has ended
            return None


    def test_first(perf):
        perf.assert_rtm_below("60s")


    def test_second(perf):
        perf.assert_rtm_below("60s")
        found = [*filter(None, map(seen, psutil.Process().children(recursive=True)))]
        Path("found.json").write_text(json.dumps(found))
"""


def directories(commands: Iterable[str]) -> set[Path]:
    """The temporary directories that these processes of a Ray name; other runs on this machine have others."""
    return {Path(found) for command in commands for found in re.findall(r"/tmp/mlp-\w+", command)}


def test_all_tests_share_one_ray_which_only_this_machine_reaches_and_which_ends_with_them(tmp_path: Path) -> None:
    project = Project().with_tests(BODY)
    home = tmp_path / "home"
    home.mkdir()

    run = project.run_apart(
        tmp_path, "--perf-engine=ray", "--durations=0", environment={"HOME": str(home), "RAY_ADDRESS": ""}
    )

    assert run.outcomes == {"passed": 2}
    found = run.json("found.json")
    assert sum(name == "raylet" for _, name, _, _ in found) == 1
    elsewhere = {name for _, name, _, ips in found if {ip.removeprefix("::ffff:") for ip in ips} - {"127.0.0.1"}}
    assert all(name.startswith("ray::ServeReplica:") for name in elsewhere)  # their gRPC asks for the run's token
    assert not any(_runs(pid) for pid, _, _, _ in found)
    (directory,) = directories(command for _, _, command, _ in found)
    assert not directory.exists()
    assert [*home.iterdir()] == []  # Ray would put a token there


def test_a_ray_of_a_run_that_is_killed_ends_with_it(tmp_path: Path) -> None:
    called = tmp_path / "called"
    with long_run(tmp_path, called, "--perf-engine=ray", environment={"RAY_ADDRESS": ""}) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        commands = [*map(_command_of, family)]
        assert sum(command.partition(" ")[0].endswith("/raylet") for command in commands) == 1
        (directory,) = directories(commands)

        process.kill()

        _, left = psutil.wait_procs(family, PATIENT_S)
    assert left == []
    wait_until(lambda: not directory.exists())


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and os.getpgid(pid) != 0
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
