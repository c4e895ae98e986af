"""What the load generator itself can do on this machine: a short run against a server that does nothing.

A result near that ceiling says more about the generator than about the deployment. A client library, where one drives
the load, adds to every request, and how much is measured here too.
"""

from __future__ import annotations

import selectors
import socket
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.children import Channel, Child
from pytest_mlpatterns.load.job import Balance, Job, Remote
from pytest_mlpatterns.load.samples import samples_of
from pytest_mlpatterns.load.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_mlpatterns.load.generator import Generator

__all__ = ["measure_ceiling", "measure_library_overhead"]

_CONCURRENCY = 32
_WARMUP_NS = 100_000_000
_DURATION_NS = 300_000_000
_BODY = b'{"predictions":[0]}'
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
_REQUEST = b"POST / HTTP/1.1\r\nhost: null\r\ncontent-length: 17\r\n\r\n" + b'{"instances":[0]}'
_START_TIMEOUT_S = 20.0
_BURST_WAIT_S = 0.02


def measure_ceiling(generator: Generator, directory: Path) -> None:
    """Set ``ceiling_rps``: completions per second of the generator's CPU time, as if it used a whole core.

    The null server may be the slower of the two: it is the generator's own CPU time that counts.
    """
    with _null_server(directory) as port:
        report = generator.run(_job(port, _CONCURRENCY), poll_s=_START_TIMEOUT_S, on_poll=_ignore).generator
    generator.ceiling_rps = report.completed * 1e9 / max(report.cpu_ns, 1)


def measure_library_overhead(generator: Generator, directory: Path) -> None:
    """Set ``library_overhead_ns``: by how much a client library's median exceeds ours, one plain request at a time."""
    medians = []
    with _null_server(directory) as port:
        for remote in (None, Remote(f"http://127.0.0.1:{port}", http2=False)):
            job = replace(_job(port, 1), remote=remote)
            samples = samples_of(generator.run(job, poll_s=_START_TIMEOUT_S, on_poll=_ignore))
            medians.append(float(np.median(samples.done_ns - samples.due_ns)))
    generator.library_overhead_ns = medians[1] - medians[0]


@contextmanager
def _null_server(directory: Path) -> Iterator[int]:
    server = Child(__name__, log=directory / "null-server.log")
    try:
        yield server.receive(_START_TIMEOUT_S)
    finally:
        server.stop()


def _job(port: int, concurrency: int) -> Job:
    return Job(
        addresses=(("127.0.0.1", port),),
        messages=(_REQUEST,),
        schedule=ClosedLoop(concurrency),
        balance=Balance.ROUND_ROBIN,
        duration_ns=_DURATION_NS,
        warmup_ns=_WARMUP_NS,
        timeout_ns=_DURATION_NS * 10,
    )


def _ignore(_event: object) -> None:
    """Nobody watches."""


def main() -> None:
    """The null server: one fixed answer to whatever arrives in one piece.

    It answers all its connections together, as a generator that is itself the limit finds them: many at a time.
    """
    channel = Channel()
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(_CONCURRENCY * 2)
    ended, ending = socket.socketpair()
    channel.listen(lambda _message: None, ending.close)
    channel.send(listener.getsockname()[1])
    with selectors.DefaultSelector() as selector, listener, ended:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        connections, asking = 0, list[socket.socket]()
        while True:
            ready = [key.fileobj for key, _ in selector.select(_BURST_WAIT_S)]
            for sock in ready:
                assert isinstance(sock, socket.socket)
                if sock is ended:
                    return
                if sock is listener:
                    connection, _ = listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(connection, selectors.EVENT_READ)
                    connections += 1
                elif sock.recv(65536):
                    asking.append(sock)
                else:
                    selector.unregister(sock)
                    sock.close()
                    connections -= 1
            if len(asking) >= connections or not ready:
                for sock in asking:
                    sock.sendall(_ANSWER)
                asking.clear()
