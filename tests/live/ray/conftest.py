"""The tests that need Ray; without it they are left out, and ``make ray`` runs them in an environment that has it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, Queue
from typing import IO, TYPE_CHECKING

import pytest
from support import HAS_RAY, ROOT
from support.project import Project, clean_environment, command

from pytest_mlpatterns.engines.ray.messages import RayJob
from pytest_mlpatterns.engines.ray.session import RaySession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from support.project import Run

collect_ignore_glob = [] if HAS_RAY else ["test_*.py"]
PATIENT_S = 180.0
"""Longest wait for anything, however busy this machine is."""


def pytest_report_header() -> str | None:
    """Say that these tests are left out."""
    return None if HAS_RAY else "tests/live/ray: left out, Ray is not installed (make ray runs them)"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them start processes, and the file that kills nodes comes last."""
    items.sort(key=lambda item: item.path.name == "test_failures.py")
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.processes)


class ThreeNodes:
    """A cluster of three nodes in a process of its own.

    Attributes:
        address: of the cluster.
    """

    def __init__(self, log: Path) -> None:
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("three_nodes.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                encoding="utf-8",
            )
        self._log = log
        self._lines: Queue[str] = Queue()
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        try:
            self.address = self._await("address ")
        except BaseException:
            self.end()
            raise

    def kill(self, last: int) -> None:
        """Kill all processes of the node with this last number of its address."""
        self._do(f"kill {last}")

    def add(self, last: int) -> None:
        """Add a node."""
        self._do(f"add {last}")

    def end(self) -> None:
        """End the cluster."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait(PATIENT_S)

    def _do(self, command: str) -> None:
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        self._await(f"{command} done")

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._lines.put(line.rstrip("\n"))
        self._lines.put("")

    def _await(self, beginning: str) -> str:
        deadline = time.monotonic() + PATIENT_S
        line = "…"
        while line and not line.startswith(beginning):
            try:
                line = self._lines.get(timeout=max(0.1, deadline - time.monotonic()))
            except Empty:
                line = ""
        assert line, self._log.read_text(encoding="utf-8", errors="replace")
        return line.removeprefix(beginning)


@pytest.fixture(scope="session")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeNodes]:
    """A cluster of three nodes with 4 CPUs each, on 127.0.0.2, .3 and .4; the same for all tests."""
    cluster = ThreeNodes(tmp_path_factory.mktemp("cluster") / "three_nodes.log")
    yield cluster
    cluster.end()


@pytest.fixture
def run_on(three_nodes: ThreeNodes, on_cluster: RaySession, tmp_path: Path) -> Callable[..., Run]:
    """Runs a project, in a process of its own, on the three nodes, where the tests' own driver has started Serve."""
    assert on_cluster.cluster.http[0] == ""

    def run(project: Project, *arguments: str) -> Run:
        options = ("--perf-engine=ray", f"--perf-ray-address={three_nodes.address}")
        environment = {"RAY_AUTH_MODE": "disabled"}
        return project.run_apart(tmp_path, *options, *arguments, environment=environment)

    return run


@pytest.fixture(scope="session")
def on_cluster(three_nodes: ThreeNodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RaySession]:
    """A driver of the tests' own on the three nodes, which calls functions of :mod:`support.on_cluster`."""
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    job = RayJob(three_nodes.address, "the tests", environment={"RAY_AUTH_MODE": "disabled", "PYTHONPATH": paths})
    session = RaySession(job, tmp_path_factory.mktemp("driver") / "driver.log")
    yield session
    session.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for what a cluster does in its own time."""
    deadline = time.monotonic() + PATIENT_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


@contextlib.contextmanager
def long_run(
    directory: Path, called: Path, *options: str, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """As :func:`begun_run`, from the first call of its model on."""
    with begun_run(directory, called, *options, environment=environment) as process:
        wait_until(lambda: called.exists() or process.poll() is not None)
        assert process.poll() is None, (directory / "out").read_text(encoding="utf-8")
        yield process


@contextlib.contextmanager
def begun_run(
    directory: Path, called: Path, *options: str, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A run whose load takes longer than a test may, from its start on.

    Its temporary files are its own: the next run on this machine would otherwise end what a killed one left, before the
    processes have done so themselves.

    Args:
        directory: of its project.
        called: file that the model makes when it is called.
        options: of its command line.
        environment: beside this process's.
    """
    body = f"""
        from pathlib import Path


        def note(batch):
            Path({str(called)!r}).touch()
            return batch


        @pytest.mark.perf(model=note, duration="10min", warmup="0s", budget="10min", launches=1)
        def test_long(perf):
            perf.assert_rtm_below("60s")
    """
    Project().with_tests(body, marker=None).write(directory)
    temporary = directory.with_name(f"{directory.name}-tmp")
    temporary.mkdir()
    with (directory / "out").open("wb") as out:
        process = subprocess.Popen(
            command(*options),
            cwd=directory,
            env={**clean_environment(), "TMPDIR": str(temporary), **environment},
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        process.kill()  # its children end with it
        process.wait()
