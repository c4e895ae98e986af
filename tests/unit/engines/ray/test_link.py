"""The link between a replica and its node's monitor, over a real connection in this process."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.nodes import counted

from pytest_mlpatterns.engines.ray.link import SILENT, Hello, LinkAddress, LinkClient, LinkServer, own_output
from pytest_mlpatterns.engines.ray.messages import ReplicaState, ReplicaStats
from pytest_mlpatterns.serving.processes import Unusable
from pytest_mlpatterns.system.sockets import held_port

Connect = Callable[..., LinkClient]
PATIENCE_S = 60.0


@pytest.fixture
def server() -> Iterator[LinkServer]:
    made = LinkServer()
    yield made
    made.close()


@pytest.fixture
def connect(server: LinkServer) -> Iterator[Connect]:
    """Links a replica, and ends it after the test."""
    with contextlib.ExitStack() as stack:

        def made(greeting: Hello | None = None, address: LinkAddress | None = None) -> LinkClient:
            client = LinkClient(address or server.address, greeting or hello())
            stack.callback(client.close)
            return client

        yield made


def hello(replica: str = "a", **changes: Any) -> Hello:
    known = ReplicaStats("d0", "replica", 1, replica, 4711)
    return Hello(**{"app": "app", "known": known, **changes})


def awaited(server: LinkServer, holds: Callable[[tuple[ReplicaStats, ...]], bool]) -> tuple[ReplicaStats, ...]:
    """What the server knows as soon as this holds."""
    waiting = threading.Event()
    for _ in range(round(PATIENCE_S / 0.01)):
        if holds(found := server.replicas("app", ask=False)):
            return found
        waiting.wait(0.01)
    raise AssertionError(f"still {found}")


def test_a_replica_is_known_by_what_it_says_of_itself(server: LinkServer, connect: Connect) -> None:
    connect()
    (found,) = awaited(server, bool)
    assert found == ReplicaStats("d0", "replica", 1, "a", 4711, ReplicaState.LOADING)
    assert server.pids("app") == [4711]
    assert server.pids("another") == []


def test_a_replica_that_is_ready_answers_questions(server: LinkServer, connect: Connect) -> None:
    client = connect()
    requests = [3]
    client.ready(lambda: counted(requests[0]))
    awaited(server, lambda found: bool(found) and found[0].state is ReplicaState.READY)
    (first,) = server.replicas("app", ask=True, timeout_s=PATIENCE_S)
    assert first.stats.predict_requests == 3
    requests[0] = 5
    (unasked,) = server.replicas("app", ask=False)
    assert unasked == first
    (second,) = server.replicas("app", ask=True, timeout_s=PATIENCE_S)
    assert (second.stats.predict_requests, second.text) == (5, "")


def test_a_replica_that_does_not_answer_is_told(server: LinkServer, connect: Connect) -> None:
    client = connect()
    held, asked = threading.Event(), threading.Event()

    def statistics() -> Any:
        asked.set()
        held.wait(PATIENCE_S)
        return counted(1)

    client.ready(statistics)
    awaited(server, lambda found: bool(found) and found[0].state is ReplicaState.READY)
    (found,) = server.replicas("app", ask=True, timeout_s=0.01)
    assert (found.state, found.text) == (ReplicaState.READY, SILENT)
    assert asked.wait(PATIENCE_S)
    held.set()
    (found,) = server.replicas("app", ask=True, timeout_s=PATIENCE_S)
    assert (found.text, found.stats is not None) == ("", True)


@pytest.mark.parametrize(("traceback", "reason"), [("Traceback of the user", None), ("", Unusable("is no model"))])
def test_a_model_that_cannot_be_built_is_told_with_its_reason(
    server: LinkServer, connect: Connect, traceback: str, reason: Unusable | None
) -> None:
    client = connect()
    client.failed(traceback, reason)
    (found,) = awaited(server, lambda found: bool(found) and found[0].state is ReplicaState.FAILED)
    assert (found.text, found.reason) == (traceback, reason)
    client.close()
    assert server.pids("app") == [4711]


def test_the_end_of_a_process_is_seen_at_once_and_its_counts_stay(server: LinkServer, connect: Connect) -> None:
    client = connect()
    client.ready(lambda: counted(3))
    awaited(server, lambda found: bool(found) and found[0].state is ReplicaState.READY)
    server.replicas("app", ask=True, timeout_s=PATIENCE_S)
    client.close()
    (found,) = awaited(server, lambda found: found[0].state is ReplicaState.ENDED)
    assert found.stats.predict_requests == 3
    assert server.pids("app") == []
    assert server.replicas("app", ask=True)[0].state is ReplicaState.ENDED


def test_a_replica_that_ends_while_it_is_asked_holds_up_nothing(server: LinkServer, connect: Connect) -> None:
    client = connect()

    def statistics() -> Any:
        client.close()
        return counted(1)

    client.ready(statistics)
    awaited(server, lambda found: bool(found) and found[0].state is ReplicaState.READY)
    (found,) = server.replicas("app", ask=True, timeout_s=PATIENCE_S)
    assert found.state is ReplicaState.ENDED


def test_an_application_that_is_deleted_is_forgotten(server: LinkServer, connect: Connect) -> None:
    connect()
    connect(hello("b", app="another"))
    awaited(server, bool)
    server.forget("app")
    assert server.replicas("app", ask=False) == ()


def test_who_does_not_know_the_key_is_not_listened_to(server: LinkServer, connect: Connect) -> None:
    port = server.address.port
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"x" * 32)
        assert stranger.recv(1) == b""
    connect(hello("stranger"), LinkAddress(port, b"y" * 32))
    with socket.create_connection(("127.0.0.1", port)):  # and leaves again
        pass
    connect(hello("a"))
    assert [one.replica for one in awaited(server, bool)] == ["a"]


def test_a_monitor_that_is_gone_does_not_disturb_its_replicas(server: LinkServer, connect: Connect) -> None:
    client = connect()
    awaited(server, bool)
    client.close()
    client.failed("late", None)
    server.close()
    with held_port() as holder, pytest.raises(OSError, match="refused"):  # nothing listens there
        connect(hello(), LinkAddress(holder.getsockname()[1], b""))


def test_the_files_to_which_a_process_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out"
    file.write_text("")
    targets = {"/proc/self/fd/1": str(file), "/proc/self/fd/2": "pipe:[12]"}
    monkeypatch.setattr(os, "readlink", lambda path: targets[str(path)])
    assert own_output() == (file,)
