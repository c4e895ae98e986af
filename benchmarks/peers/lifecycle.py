"""How a peer is installed, started and stopped; not what is measured of it.

Each has a file ``serve_NAME.py`` beside this one, called with the model, the port and the form in which to serve, and
requirements in ``NAME.txt``. It is installed into an environment of its own, which git ignores, when first needed.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import run_child
from environments import python_of

from pytest_mlpatterns import Command
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.serving.external.start import deploy_target
from pytest_mlpatterns.serving.model import StartOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.payload import Payload

FILES = Path(__file__).resolve().parent
STARTUP_S = 60.0
ANSWER_S = 5.0


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
            own = peer.requirements.exists()
            pythons[peer.name] = python_of(peer.name, peer.requirements) if own else sys.executable
        except RuntimeError as error:
            absent.append(f"{peer.name} could not be installed, so it is not compared: {str(error).splitlines()[-1]}")
    return pythons, absent


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
def serving_peer(python: str, peer: Peer, model: str, *, payload: Payload) -> Iterator[Deployment]:
    """A peer, once it has answered a request; what it writes to its home is gone with it.

    Raises:
        DeploymentError: it ended, or did not answer in time; with what it printed.
    """
    with tempfile.TemporaryDirectory() as directory:
        words = [python, str(FILES / f"serve_{peer.name}.py"), model, "{port}", peer.form]
        target = Command(words, path=peer.path, env={"HOME": directory, "TMPDIR": directory}, stop="3s")
        startup = StartOptions(round(STARTUP_S * 1e9), None, Path(directory), root=Path(directory))
        deployment = deploy_target(target, startup)
        try:
            _await_answer(deployment, payload)
            yield deployment
        finally:
            deployment.close()


def _await_answer(deployment: Deployment, payload: Payload) -> None:
    """Ask until it answers well: some listen before they know where a request belongs."""
    deadline = time.monotonic() + STARTUP_S
    while True:
        deployment.stats()  # raises where it has ended
        response = deployment.ask(deployment.client, payload.request(deployment.path, 0), ANSWER_S)
        if response.is_success:
            return
        if time.monotonic() > deadline:
            raise DeploymentError(f"{response.url} answers {response.status_code}: {response.text[:500]}")
        time.sleep(0.05)
