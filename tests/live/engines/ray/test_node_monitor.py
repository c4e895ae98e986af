"""The monitor of a node: what it reads of real processes, and which of them it takes for what."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.each_row import each_row
from support.nodes import RUN, counted

from pytest_mlpatterns.engines.ray.link import Hello, LinkClient
from pytest_mlpatterns.engines.ray.messages import ReplicaState, ReplicaStats
from pytest_mlpatterns.engines.ray.node_monitor import NodeMonitor, NodeProcesses, ProcessKind, kind_of, monitor_name
from pytest_mlpatterns.records.launch import NodeUsage, Source, columns_of
from pytest_mlpatterns.system.machine import machine_identity

PATIENCE_S = 60.0
_BUSY = "import sys; sys.stdin.readline(); sum(range(3_000_000)); print(flush=True); sys.stdin.read()"
"""A process that works for a moment after a line, says so and waits."""


@pytest.fixture
def monitor() -> Iterator[NodeMonitor]:
    made = NodeMonitor("abc", "10.0.0.1", raylet=os.getpid())
    yield made
    made.close()


@contextlib.contextmanager
def linked(monitor: NodeMonitor, *output: Path, pid: int) -> Iterator[None]:
    """A replica that is ready meanwhile."""
    client = LinkClient(monitor.link(), Hello("app", ReplicaStats("d0", "replica", 0, "a", pid), output))
    client.ready(lambda: counted(5))
    deadline = time.monotonic() + PATIENCE_S
    while not (found := monitor.read("app", ask=False).replicas) or found[0].state is not ReplicaState.READY:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield
    client.close()


@contextlib.contextmanager
def waiting(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that :func:`let_work` has work."""
    command = [sys.executable, "-c", _BUSY, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process


def let_work(process: subprocess.Popen[bytes]) -> None:
    """Have it work, and wait until it has: whoever looked at it before sees the work, however late this process is."""
    process.stdin.write(b"\n")
    process.stdin.flush()
    process.stdout.readline()


def test_the_name_is_the_same_for_all_drivers_of_a_run() -> None:
    assert monitor_name(RUN, "abc") == monitor_name(f"{RUN}-0a1b", "abc") == f"mlpatterns-monitor-{RUN}-abc"


def test_a_node_without_a_replica_uses_nothing(monitor: NodeMonitor) -> None:
    found = monitor.read("app")
    assert (found.columns["cpu_ns"], found.columns["rss_bytes"], found.replicas, found.threads) == (0, 0, (), ())
    assert (found.node, found.ip, found.machine) == ("abc", "10.0.0.1", machine_identity())
    assert found.machine_cores >= 1
    assert found.cores > 0
    machine, now_ns = monitor.clock()
    assert (machine, now_ns >= found.clock_ns) == (machine_identity(), True)


@pytest.mark.processes
def test_replicas_are_read_with_their_children_and_their_threads(monitor: NodeMonitor) -> None:
    with waiting() as process:
        let_work(process)
        with linked(monitor, pid=process.pid):
            found = monitor.read("app", threads=True)
            assert monitor.read("app", ask=False).replicas[0].stats is None
        used = [column.name for column in columns_of(NodeUsage) if column.source is Source.TREE]
        assert all(found.columns[name] for name in used)
        assert {pid for pid, _, _ in found.threads} == {process.pid}
        assert found.replicas[0].stats.predict_requests == 5
        assert monitor.read("another").columns["cpu_ns"] == 0
        process.communicate()
    assert (monitor.read("app").columns["cpu_ns"] or 0) >= (found.columns["cpu_ns"] or 0)
    monitor.forget("app")
    assert monitor.read("app").replicas == ()


def test_the_end_of_what_replicas_printed_is_read(monitor: NodeMonitor, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("".join(f"line {number}\n" for number in range(1000)))
    (tmp_path / "err").write_text(":job_id:01000000\n:actor_name:ServeReplica\nan error\n")
    (tmp_path / "empty").write_text("")
    with linked(monitor, *(tmp_path / name for name in ("out", "err", "empty", "absent")), pid=os.getpid()):
        tail = monitor.log_tail("app")
    assert "line 999" in tail
    assert "| line 1\n" not in tail
    assert tail.endswith("10.0.0.1):\n| an error")
    assert tail.startswith(f"replica (process {os.getpid()} on node 10.0.0.1):\n| line ")
    assert monitor.log_tail("another") == ""


@each_row(
    ("command", "kind"),
    (["/site-packages/ray/core/src/ray/raylet/raylet", "--session-name=x"], ProcessKind.RAY),
    (["/site-packages/ray/core/src/ray/gcs/gcs_server", "--log_dir=x"], ProcessKind.RAY),
    (["ray::ProxyActor"], ProcessKind.RAY),
    (["ray::ServeController.listen_for_change"], ProcessKind.RAY),
    (["ray::NodeMonitor.read"], ProcessKind.RAY),
    (["ray::GeneratorHost"], ProcessKind.RAY),
    (["ray::IDLE"], ProcessKind.RAY),
    (["python", "-u", "/site-packages/ray/dashboard/agent.py"], ProcessKind.RAY),
    (["python", "-P", "-c", "from pytest_mlpatterns.engines.ray.driver import main; main()"], ProcessKind.RUN),
    (["python", "-P", "-c", "from pytest_mlpatterns.loadgen.process import main; main()"], ProcessKind.RUN),
    (["ray::ServeReplica:mlpatterns-1-2:d0"], ProcessKind.OTHER),
    (["ray::train_epoch"], ProcessKind.OTHER),
    (["python", "train.py"], ProcessKind.OTHER),
    ([], ProcessKind.OTHER),
)
def test_a_process_is_known_by_its_command_line(command: Sequence[str], kind: ProcessKind) -> None:
    assert kind_of(command) is kind


@pytest.mark.processes
def test_processes_are_counted_by_what_they_do_also_when_they_have_ended() -> None:
    """This process stands for a raylet; its child has the name of a generator, and works."""
    node = NodeProcesses(os.getpid())
    with waiting("from pytest_mlpatterns.loadgen.process") as process:
        node.look()
        let_work(process)
        node.look()
        used_ns = node.used_ns(ProcessKind.RUN)
        assert used_ns > 0
        process.communicate()
    node.look()
    node.look()
    assert node.used_ns(ProcessKind.RUN) >= used_ns


@pytest.mark.processes
def test_pytest_and_the_generators_that_it_started_are_counted_where_they_run() -> None:
    node = NodeProcesses(1 << 22)  # no such process
    node.look()
    with waiting("from pytest_mlpatterns.loadgen.process") as process:
        node.watch(os.getpid())
        let_work(process)
        node.look()
        assert node.used_ns(ProcessKind.RUN) > 0
        process.communicate()
        before_ns = node.used_ns(ProcessKind.RUN)
        sum(range(300_000))
        node.look()
        assert node.used_ns(ProcessKind.RUN) > before_ns
        assert node.used_ns(ProcessKind.RAY) == 0


@pytest.mark.processes
def test_the_store_of_the_head_is_found_by_the_name_of_its_session() -> None:
    with waiting("/ray/dashboard/dashboard.py", "--session-name=session_of_this_test") as process:
        node, other = (NodeProcesses(1 << 22, name) for name in ("session_of_this_test", "session_of_another"))
        for one in (node, other):
            one.look()
        let_work(process)
        for one in (node, other):
            one.look()
        assert node.used_ns(ProcessKind.RAY) > 0
        assert other.used_ns(ProcessKind.RAY) == 0
        process.communicate()
