"""The host of generators on a node, without Ray: it starts processes, passes messages on, and reports their ends."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.services.jobs import MESSAGES, MS, a_job
from support.services.processes import our_children, survivors
from support.services.scripted import ScriptedServer

from pytest_mlpatterns.engines.ray import generator_host as host_module
from pytest_mlpatterns.engines.ray.generator_host import GeneratorHost
from pytest_mlpatterns.engines.ray.messages import Ended, Started
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, Transport, WindowOpened
from pytest_mlpatterns.loadgen.process import STOP
from pytest_mlpatterns.system.machine import machine_identity
from pytest_mlpatterns.workload.schedule import ClosedLoop

pytestmark = [pytest.mark.processes]

KEY = 7
PATIENCE_S = 60.0


@pytest.fixture
def host() -> Iterator[GeneratorHost]:
    before = our_children()
    host = GeneratorHost()
    yield host
    host.stop(KEY)
    assert our_children() <= before
    assert host._scratch is None


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def job_of(server: ScriptedServer, *, duration_ns: int = 90 * MS) -> LoadJob:
    return replace(a_job([server.address], ClosedLoop(2), duration_ns=duration_ns), messages=())


def heard_until(host: GeneratorHost, kind: type) -> list[object]:
    """What comes of the process, up to the first message of this kind."""
    heard: list[object] = []
    while not any(isinstance(message, kind) for message in heard):
        found = host.receive(PATIENCE_S)
        assert found, f"nothing came for {PATIENCE_S} s"
        assert {key for key, _ in found} == {KEY}
        heard += [message for _, message in found]
    return heard


def pid_in(heard: list[object]) -> int:
    (started,) = (message for message in heard if isinstance(message, Started))
    return started.pid


def test_a_job_starts_a_process_and_its_recording_comes_back(host: GeneratorHost, server: ScriptedServer) -> None:
    host.load(KEY, job_of(server), MESSAGES)
    heard = heard_until(host, LoadResult)
    assert pid_in(heard) in our_children()
    result = heard[-1]
    assert isinstance(result, LoadResult)
    assert set(samples_of(result).outcome.tolist()) == {200}
    assert len(samples_of(result).done_ns) == len(server.requests)
    host.load(KEY, job_of(server), MESSAGES)
    assert not any(isinstance(message, Started) for message in heard_until(host, LoadResult))


def test_a_process_that_was_killed_is_reported_and_the_next_job_starts_another(
    host: GeneratorHost, server: ScriptedServer
) -> None:
    host.load(KEY, job_of(server, duration_ns=600_000 * MS), MESSAGES)
    first = pid_in(heard := heard_until(host, WindowOpened))
    assert not any(isinstance(message, Ended) for message in heard)
    os.kill(first, signal.SIGKILL)
    (ended,) = (message for message in heard_until(host, Ended) if isinstance(message, Ended))
    assert ended.why.startswith(f"process {first} ended with signal SIGKILL")
    survivors([first], 30)
    host.load(KEY, job_of(server), MESSAGES)
    assert pid_in(heard_until(host, LoadResult)) != first


def test_a_message_ends_a_load_early(host: GeneratorHost, server: ScriptedServer) -> None:
    host.load(KEY, job_of(server, duration_ns=600_000 * MS), MESSAGES)
    heard_until(host, WindowOpened)
    host.send(KEY, STOP)
    result = heard_until(host, LoadResult)[-1]
    assert isinstance(result, LoadResult)
    assert result.stopped_early


def test_a_stopped_process_is_described(host: GeneratorHost, server: ScriptedServer) -> None:
    host.load(KEY, job_of(server, duration_ns=600_000 * MS), MESSAGES)
    pid = pid_in(heard_until(host, WindowOpened))
    assert host.why_stopped(KEY) == ""
    os.kill(pid, signal.SIGSTOP)
    while not (said := host.why_stopped(KEY)):
        pass
    assert said.startswith(f"process {pid} ")
    assert said.endswith(" is stopped (SIGSTOP)")


def test_a_process_that_is_ended_on_purpose_is_not_reported(host: GeneratorHost, server: ScriptedServer) -> None:
    host.load(KEY, job_of(server), MESSAGES)
    heard_until(host, LoadResult)
    (listening,) = (one for one in threading.enumerate() if one.name == f"generator {KEY}")
    host.close_channel(KEY)
    listening.join()  # it has ended before it is stopped
    directory = host._directory
    assert directory.exists()
    host.stop(KEY)
    assert host.receive(0.0) == []
    assert not directory.exists()


def test_a_key_without_a_process_is_no_error(host: GeneratorHost) -> None:
    host.send(KEY, STOP)
    host.close_channel(KEY)
    host.stop(KEY)
    assert host.why_stopped(KEY) == ""
    assert host.receive(0.0) == []


def test_the_facts_are_those_of_this_machine(host: GeneratorHost) -> None:
    machine, allowed = host.facts()
    assert machine == machine_identity()
    assert allowed is None or allowed > 0
    assert host.now_ns() <= host.now_ns()


def test_what_a_generator_reaches_here_is_measured_here(host: GeneratorHost) -> None:
    before = our_children()
    assert host.ceiling_rps(Transport.HTTP1) > 0
    assert our_children() <= before


def test_what_a_client_library_adds_here_is_measured_here(host: GeneratorHost) -> None:
    assert host.library_overhead_ns() != 0


def test_a_process_that_cannot_start_is_reported(
    host: GeneratorHost, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(log: Path) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable", str(log))

    monkeypatch.setattr(host_module, "LocalProcess", refuse)
    host.load(KEY, job_of(server), MESSAGES)
    (ended,) = heard_until(host, Ended)
    assert isinstance(ended, Ended)
    assert ended.why.startswith(f"it did not start: [Errno {errno.EAGAIN}] Resource temporarily unavailable")


def test_a_host_and_its_generators_end_when_the_raylet_was_killed() -> None:
    host = (
        "import os, threading\n"
        "from pytest_mlpatterns.engines.ray.generator_host import GeneratorHost\n"
        "print(os.getpid(), GeneratorHost(ends_with_parent=True)._start(1).pid, flush=True)\n"
        "threading.Event().wait()\n"
    )
    raylet = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {host!r}])"
    with subprocess.Popen([sys.executable, "-c", raylet], stdout=subprocess.PIPE, text=True) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    assert len(pids) == 2
    assert not survivors(pids, 60)
