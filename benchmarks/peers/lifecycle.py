"""How a peer is installed, started and stopped; not what is measured of it.

Each has a file ``serve_NAME.py`` beside this one, called with the model, the port and the form in which to serve, and
requirements in ``NAME.txt``. It is installed into an environment of its own, which git ignores, when first needed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from bench import run_child

from pytest_mlpatterns import Url
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.serve.attached import attach
from pytest_mlpatterns.serve.local import Startup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_mlpatterns.load.payload import Payload
    from pytest_mlpatterns.serve.deployment import Deployment

FILES = Path(__file__).resolve().parent
ENVIRONMENTS = FILES.parent / ".environments"
INSTALL_S = 900.0
STARTUP_S = 60.0
ANSWER_S = 5.0
GRACE_S = 3.0


@dataclass(frozen=True)
class Peer:
    """A public server: the name of its files, and how it serves. Without requirements it runs in our environment."""

    name: str
    form: str
    path: str = "/predict"

    @property
    def requirements(self) -> Path:
        return FILES / f"{self.name}.txt"


# --- where it is installed ------------------------------------------------------------------------------------------


def install(peers: Iterable[Peer]) -> tuple[dict[str, str], list[str]]:
    """The Python of each peer by its name, and a sentence for each that could not be installed."""
    pythons: dict[str, str] = {}
    absent = []
    for peer in {peer.name: peer for peer in peers}.values():
        try:
            pythons[peer.name] = _python(peer) if peer.requirements.exists() else sys.executable
        except RuntimeError as error:
            absent.append(f"{peer.name} could not be installed, so it is not compared: {str(error).splitlines()[-1]}")
    return pythons, absent


def _python(peer: Peer) -> str:
    """The Python of its environment, which is made where it is missing or the requirements changed."""
    directory = ENVIRONMENTS / peer.name
    python, done = directory / "bin" / "python", directory / peer.requirements.name
    if not (python.exists() and done.exists() and done.read_bytes() == peer.requirements.read_bytes()):
        print(f"installing {peer.name} …", file=sys.stderr)
        directory.mkdir(parents=True, exist_ok=True)
        run_child([sys.executable, "-m", "venv", "--clear", str(directory)], directory=directory)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        run_child([*pip, "--requirement", str(peer.requirements)], directory=directory, timeout_s=INSTALL_S)
        shutil.copyfile(peer.requirements, done)  # the last step: what was cut off is made again
    return str(python)


def versions(pythons: Mapping[str, str]) -> str:
    """What was installed, in words."""
    found = []
    for name, python in pythons.items():
        if python != sys.executable:
            code = f"from importlib.metadata import version; print(version({name!r}))"
            found.append(f"{name} {run_child([python, '-c', code], directory=FILES).output.strip()}")
    return f"peers: {', '.join(found) or 'none'}"


# --- how it runs ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving_peer(python: str, peer: Peer, model: str, payload: Payload) -> Iterator[Deployment]:
    """A peer in a session of its own, once it has answered a request; what it writes to its home is gone with it.

    Raises:
        RuntimeError: it ended, or did not answer in time; with what it printed.
    """
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "peer.log"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [python, str(FILES / f"serve_{peer.name}.py"), model, str(port), peer.form],
                cwd=directory,
                env={**os.environ, "HOME": directory, "TMPDIR": directory},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            url = Url(f"http://127.0.0.1:{port}{peer.path}", pid=process.pid)
            deployment = _attached(process, url, Startup(round(ANSWER_S * 1e9), payload, Path(directory)))
            try:
                yield deployment
            finally:
                deployment.close()
        except DeploymentError as error:
            printed = log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{peer} does not serve: {error}; it printed last:\n{printed}") from error
        finally:
            _stop(process)


def _attached(process: subprocess.Popen[bytes], url: Url, startup: Startup) -> Deployment:
    deadline = time.monotonic() + STARTUP_S
    while True:
        try:
            return attach(url, startup)
        except DeploymentError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it started: TERM to its group, then KILL to whoever is left."""
    family: set[psutil.Process] = set()
    with contextlib.suppress(psutil.NoSuchProcess):  # before it ends: BentoML's worker has a session of its own
        root = psutil.Process(process.pid)
        family = {root, *root.children(recursive=True)}
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        _await_end(process, family)
    finally:  # also where Ctrl-C ends the waiting
        for survivor in _living(process, family):
            with contextlib.suppress(psutil.NoSuchProcess):
                survivor.kill()
        _await_end(process, family)
    if survivors := _living(process, family):
        raise RuntimeError(f"these live on after SIGKILL: {survivors}")


def _await_end(process: subprocess.Popen[bytes], family: set[psutil.Process]) -> None:
    deadline = time.monotonic() + GRACE_S
    while _living(process, family) and time.monotonic() < deadline:
        time.sleep(0.05)


def _living(process: subprocess.Popen[bytes], family: set[psutil.Process]) -> list[psutil.Process]:
    """Who of the family or of the server's session still lives."""
    process.poll()  # else it stays as a zombie
    return [member for member in {*family, *psutil.process_iter()} if _lives(member, family, process.pid)]


def _lives(member: psutil.Process, family: set[psutil.Process], session: int) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        if member in family or os.getsid(member.pid) == session:
            return member.is_running() and member.status() != psutil.STATUS_ZOMBIE
    return False
