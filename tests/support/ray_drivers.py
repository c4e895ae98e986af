"""Ray drivers and clusters for tests without Ray: modules that a child process imports by name."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pytest_mlpatterns.engines.ray.driver import serve_calls
from pytest_mlpatterns.engines.ray.messages import DriverReady, RayJob
from pytest_mlpatterns.errors import DeploymentError, SettingError
from support.fake_ray import cluster_facts


@dataclass
class Connection:
    ready: DriverReady
    left: Path | None

    def leave(self) -> None:
        if self.left is not None:
            self.left.write_text("left", encoding="ascii")


def connect(job: RayJob) -> Connection:
    """What the address asks for."""
    if job.address == "refuse:1":
        raise SettingError("RAY_ADDRESS=refuse:1: no")
    if job.address == "break:1":
        raise OSError("the disk is full")
    if job.address == "end:1":
        os.kill(os.getpid(), signal.SIGKILL)
    if "never" in job.runtime_env:
        start_child(job.runtime_env["never"])
        threading.Event().wait()
    left = job.runtime_env.get("left")
    return Connection(DriverReady(cluster_facts(3), ("a note",)), None if left is None else Path(left))


def start_child(file: object) -> None:
    """If a file is given, start an endless process in a session of its own, and write its id there."""
    if isinstance(file, str):
        endless = [sys.executable, "-c", "import threading; threading.Event().wait()"]
        pid = subprocess.Popen(
            endless, start_new_session=True, env={}
        ).pid  # Ray's processes lose their environment too
        Path(f"{file}.new").write_text(str(pid), encoding="ascii")
        Path(f"{file}.new").rename(file)


def main() -> None:
    serve_calls("support.ray_drivers")


def add(first: int, second: int) -> int:
    return first + second


def refuse() -> None:
    raise DeploymentError("it is full")


def divide(number: int) -> float:
    return number / 0


def unsendable() -> object:
    return lambda: None


def wait_for(file: str) -> str:
    """Wait until a file exists, for a call that ends when the test says so."""
    while not Path(file).exists():
        time.sleep(0.01)
    return file


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
