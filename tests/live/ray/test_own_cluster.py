"""A Ray of the run's own: one for all tests, on the loopback interface only, and gone with the run."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import threading
from collections import defaultdict
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from conftest import PATIENT_S, begun_run, long_run, wait_until
from support.fault_run import await_true
from support.project import Project

from pytest_mlpatterns.system import orphans
from pytest_mlpatterns.system.sockets import held_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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
    await_true(lambda: not directory.exists(), 30, f"{directory} is left")
    assert [*home.iterdir()] == []  # Ray would put a token there


def test_a_ray_is_closed_to_other_users_holds_its_port_and_ends_with_a_run_that_is_killed(tmp_path: Path) -> None:
    called = tmp_path / "called"
    options = ("--perf-engine=ray", '--perf-ray-runtime-env={"working_dir": "."}')
    with watched_modes() as modes, long_run(tmp_path, called, *options, environment={"RAY_ADDRESS": ""}) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        commands = [*map(_command_of, family)]
        assert sum(command.partition(" ")[0].endswith("/raylet") for command in commands) == 1
        (directory,) = directories(commands)
        assert_closed(directory, family)
        (port,) = {port for name, port in listening(family) if name.startswith("ray::ProxyActor") and is_serve(port)}
        with held_port(wanted=port) as holder:  # what another run would do to get it
            assert holder.getsockname()[1] != port
        process.kill()
        _, left = psutil.wait_procs(family, PATIENT_S)
    assert left == []
    wait_until(lambda: not directory.exists())
    assert modes[directory] == {0o700}  # from its first moment on


@pytest.mark.nightly
@pytest.mark.parametrize("begun", ["ray::ServeController", "gcs_server"])
def test_a_ray_ends_with_a_run_that_is_killed_while_it_starts(tmp_path: Path, begun: str) -> None:
    called = tmp_path / "called"
    with begun_run(tmp_path, called, "--perf-engine=ray", environment={"RAY_ADDRESS": ""}) as process:
        pytest_itself = psutil.Process(process.pid)
        wait_until(lambda: any(begun in _command_of(one) for one in pytest_itself.children(recursive=True)))
        family = pytest_itself.children(recursive=True)
        (directory,) = directories(map(_command_of, family))
        (mark,) = {mark for mark in map(_mark_of, family) if mark.endswith("ray-driver.log")}
        process.kill()
        _, left = psutil.wait_procs(family, PATIENT_S)
    assert left == []
    assert not called.exists()
    wait_until(lambda: not directory.exists() and not orphans.related(mark, ()))


OTHER_USER = 65534
"""The user nobody."""
SOCKET_PATH_BYTES = 107
"""Longest path of a socket (Linux); Ray refuses to start beyond it."""
LONGER_PROCESS_ID = 6
"""Digits that the process id in the path may have beyond the one here: it has 1 to 7."""
ATTACK = """
import json, os, socket, stat, sys


def connect(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)


def create(path):
    open(os.path.join(path, "planted"), "x").close()


def read(path):
    open(path).close()


def move(path):  # what let another user's code run: a package moved away, and another one put in its place
    os.rename(path, path + "-away")
    os.rename(path + "-away", path)


reached = []
for path, kind in json.load(sys.stdin):
    attempts = [move]
    if kind == stat.S_IFDIR:
        attempts += [os.listdir, create]
    elif kind == stat.S_IFSOCK:
        attempts += [connect]
    else:
        attempts += [read]
    for attempt in attempts:
        try:
            attempt(path)
        except PermissionError:
            continue
        reached.append(path)
print(json.dumps(reached))
"""


def assert_closed(directory: Path, family: Iterable[psutil.Process]) -> None:
    """No other user enters the directory of a Ray, which has all its sockets, and all packages of the project.

    Root tries it as another user, who knows every path; a user who cannot become another one relies on the mode.
    """
    paths = [directory, *directory.rglob("*")]
    assert any(path.name.startswith("_ray_pkg_") and (path / "test_perf.py").exists() for path in paths)
    sockets = {one for process in family for one in _unix_sockets(process)}
    assert any(path.endswith("/plasma_store") for path in sockets)
    assert [path for path in sockets if not Path(path).is_relative_to(directory)] == []
    assert max(map(len, sockets)) <= SOCKET_PATH_BYTES - LONGER_PROCESS_ID
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    if os.geteuid() == 0:
        asked = []
        for path in paths:
            with suppress(FileNotFoundError):
                asked.append((str(path), stat.S_IFMT(path.lstat().st_mode)))
        attack = subprocess.run(
            ["/usr/bin/env", "python3", "-c", ATTACK],
            input=json.dumps(asked),
            stdout=subprocess.PIPE,
            encoding="utf-8",
            user=OTHER_USER,
            group=OTHER_USER,
            extra_groups=(),
            cwd="/",
            check=True,
            timeout=PATIENT_S,
        )
        assert json.loads(attack.stdout) == []


@contextmanager
def watched_modes() -> Iterator[Mapping[Path, set[int]]]:
    """The modes that directories of Rays have from now on, which a thread looks at again and again."""
    modes: defaultdict[Path, set[int]] = defaultdict(set)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):  # a mode that changes is no event that Python offers
            for directory in Path("/tmp").glob("mlp-*"):
                with suppress(FileNotFoundError):
                    modes[directory].add(stat.S_IMODE(directory.stat().st_mode))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield modes
    finally:
        over.set()
        watcher.join()


def listening(family: Iterable[psutil.Process]) -> Iterator[tuple[str, int]]:
    """Name and TCP port of each process that listens."""
    for process in family:
        with suppress(psutil.Error):
            for one in process.net_connections("tcp"):
                if one.status == psutil.CONN_LISTEN:
                    yield process.name(), one.laddr.port


def is_serve(port: int) -> bool:
    """Whether Ray Serve answers on a port, and not a service of the process itself."""
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/-/healthz", timeout=PATIENT_S, trust_env=False).text == "success"
    return False


def _unix_sockets(process: psutil.Process) -> list[str]:
    """Paths of the sockets that a process has bound; those without one belong to nobody else anyway."""
    with suppress(psutil.Error):
        return [one.laddr for one in process.net_connections("unix") if one.laddr and not one.laddr.startswith("@")]
    return []


def _mark_of(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return process.environ().get(orphans.MARK, "")
    return ""


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
