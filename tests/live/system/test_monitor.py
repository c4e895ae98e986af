"""What processes use, as the operating system tells it, and the facts of the machine and the checkout."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import psutil
import pytest
from support.repository import Repository
from support.services.processes import survivors

from pytest_mlpatterns.records.launch import Usage
from pytest_mlpatterns.system.environment import available_cores, environment
from pytest_mlpatterns.system.git import commit
from pytest_mlpatterns.system.process_tree import ResourceMonitor

pytestmark = pytest.mark.processes

BURN = """
import sys, time
began = time.process_time_ns()
for line in sys.stdin:
    until = time.process_time_ns() + int(line)
    while time.process_time_ns() < until:
        pass
    print(time.process_time_ns(), flush=True)
"""
"""Uses so many nanoseconds of CPU for every line, and tells how much it used in all."""
WITH_CHILD = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", {BURN!r}])
print(child.pid, flush=True)
child.wait()
"""
STARTS_SHORT_ONES = """
import subprocess, sys, os
for line in sys.stdin:
    work = "import time\\nwhile time.process_time_ns() < %d: pass" % int(line)
    subprocess.run([sys.executable, "-S", "-c", work])
    times = os.times()
    print(round((times.children_user + times.children_system) * 1e9), flush=True)
"""
"""Starts a process for every line that uses so much CPU, and says how much those used in all."""
WITH_CHILD_THAT_ENDS = f"""
import subprocess, sys, os
child = subprocess.Popen([sys.executable, "-S", "-c", {BURN!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(child.pid, flush=True)
child.communicate(sys.stdin.readline().encode())
times = os.times()
print(round((times.children_user + times.children_system) * 1e9), flush=True)
sys.stdin.readline()
"""
"""Has a child that uses so much CPU as a line says and ends; says how much it used in all."""
THREADS = """
import hashlib, sys, threading, time
worked = threading.Barrier(4)
def work():
    while time.thread_time() < 0.08:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1000)  # without the interpreter's lock, as BLAS does
    worked.wait()
    sys.stdin.readline()
print(0, flush=True)
sys.stdin.readline()
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
worked.wait()
print(1, flush=True)
sys.stdin.readline()
"""
"""Says that it has started; works in three threads after a line, which then wait beside the main thread."""
HOLDS = """
import os, sys, threading
ends = threading.Event()
for line in sys.stdin:
    for _ in range(int(line)):
        os.open(os.devnull, os.O_RDONLY)
        threading.Thread(target=ends.wait, daemon=True).start()
    print(0, flush=True)
"""
"""Opens as many files and starts as many threads as each line says."""
WORK_NS = 200_000_000


class Burner:
    """A process that uses CPU as it is told."""

    def __init__(self, program: str = BURN) -> None:
        command = [sys.executable, "-S", "-c", program]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid

    def read(self) -> int:
        return int(self.process.stdout.readline())

    def burn(self, nanoseconds: int = WORK_NS) -> int:
        """Use CPU; the total that the process saw itself use."""
        self.process.stdin.write(f"{nanoseconds}\n")
        self.process.stdin.flush()
        return self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture
def burner() -> Iterator[Burner]:
    with Burner() as burner:
        yield burner


def usage_of(observer: ResourceMonitor) -> Usage:
    usage = observer.usage()
    assert usage is not None
    return usage


class TestThreads:
    def test_threads_that_worked_are_counted_while_the_process_runs(self) -> None:
        with Burner(THREADS) as worker, Burner() as idle:
            observer = ResourceMonitor(lambda: [worker.pid, idle.pid])
            worker.read()  # an interpreter that still starts is a thread that works
            idle.burn(0)
            observer.sample()
            worker.burn()
            assert usage_of(observer).busy_threads == (3,)


class TestUsage:
    def test_cpu_grows_by_what_the_process_used(self, burner: Burner) -> None:
        observer = ResourceMonitor(lambda: [burner.pid])
        before = burner.burn(1)
        observer.sample()
        used = burner.burn() - before
        observer.sample()
        gained = int(np.diff(usage_of(observer).cpu_ns)[0])
        assert used >= WORK_NS
        assert 0.8 * used < gained < 1.2 * used + 50_000_000

    def test_what_other_processes_use_is_not_counted(self, burner: Burner) -> None:
        observer = ResourceMonitor(lambda: [burner.pid])
        burner.burn(1)
        with Burner() as other:
            observer.sample()
            other.burn()
            observer.sample()
        assert 0 <= np.diff(usage_of(observer).cpu_ns)[0] < 0.5 * WORK_NS

    def test_what_a_process_started_is_counted(self) -> None:
        with Burner(WITH_CHILD) as parent:
            child = parent.read()
            observer = ResourceMonitor(lambda: [parent.pid])
            observer.sample()
            parent.burn()
            observer.sample()
            usage = usage_of(observer)
            assert np.diff(usage.cpu_ns)[0] > 0.8 * WORK_NS
            assert usage.rss_bytes[-1] > psutil.Process(child).memory_info().rss
        assert survivors([child], 30) == set()

    def test_processes_that_live_between_two_samples_are_counted(self) -> None:
        with Burner(STARTS_SHORT_ONES) as parent:
            observer = ResourceMonitor(lambda: [parent.pid])
            parent.burn(1)
            observer.sample()
            used = parent.burn()
            observer.sample()
        assert used > 0.8 * WORK_NS  # the system counts user and system time in whole ticks of 10 ms
        assert 0.8 * used < np.diff(usage_of(observer).cpu_ns)[0]

    def test_a_child_that_was_seen_is_not_counted_twice_after_its_end(self) -> None:
        work_ns = 5 * WORK_NS  # much more than the start of two interpreters takes
        with Burner(WITH_CHILD_THAT_ENDS) as parent:
            observer = ResourceMonitor(lambda: [parent.pid])
            parent.read()
            observer.sample()  # sees the child
            used = parent.burn(work_ns)
            observer.sample()
        usage = usage_of(observer)
        assert usage.cpu_ns[0] < work_ns
        assert 0.8 * used < usage.cpu_ns[1] - usage.cpu_ns[0] < 1.5 * used

    def test_a_process_that_is_started_later_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_mlpatterns.system.process_tree._TREE_REFRESH_NS", 0)
        observer = ResourceMonitor(lambda: [os.getpid()])
        observer.sample()
        before = time.process_time_ns()
        with Burner() as late:
            observer.sample()
            late.burn()
            observer.sample()
        gained = int(np.diff(usage_of(observer).cpu_ns).sum())
        assert gained > 0.8 * WORK_NS
        assert gained > time.process_time_ns() - before - 50_000_000

    def test_a_process_that_ended_keeps_what_it_used(self) -> None:
        burner = Burner()
        observer = ResourceMonitor(lambda: [burner.pid])
        try:
            burner.burn()
            observer.sample()
        finally:
            burner.end()
        observer.sample()
        observer.sample()
        usage = usage_of(observer)
        assert usage.cpu_ns[0] >= WORK_NS
        assert usage.cpu_ns.tolist()[1:] == [usage.cpu_ns[0]] * 2
        assert usage.rss_bytes[0] > 0
        assert usage.rss_bytes.tolist()[1:] == [0, 0]

    def test_cumulative_figures_never_fall_and_times_are_of_our_clock(self, burner: Burner) -> None:
        observer = ResourceMonitor(lambda: [burner.pid])
        begin = time.perf_counter_ns()
        for _ in range(5):
            observer.sample()
            burner.burn(5_000_000)
        usage = usage_of(observer)
        for column in (usage.time_ns, usage.cpu_ns, usage.machine_busy_ns):
            assert (np.diff(column) >= 0).all()
        assert begin <= usage.time_ns[0] < usage.time_ns[-1] <= time.perf_counter_ns()
        assert {len(column) for column in (usage.time_ns, usage.cpu_ns, usage.rss_bytes, usage.machine_busy_ns)} == {5}

    def test_without_roots_or_samples_there_is_nothing_to_tell(self, burner: Burner) -> None:
        nobody = ResourceMonitor(list)
        nobody.sample()
        assert nobody.usage() is None
        assert ResourceMonitor(lambda: [burner.pid]).usage() is None

    def test_of_a_root_that_never_ran_there_is_nothing_to_tell(self) -> None:
        burner = Burner()
        burner.end()
        observer = ResourceMonitor(lambda: [burner.pid])
        observer.sample()
        assert observer.usage() is None

    def test_a_root_that_takes_the_place_of_another_is_followed_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As a replaced worker does; what the one before it used still counts."""
        monkeypatch.setattr("pytest_mlpatterns.system.process_tree._TREE_REFRESH_NS", 0)
        first, second = Burner(), Burner()
        roots = [first.pid]
        try:
            observer = ResourceMonitor(lambda: roots)
            first.burn()
            observer.sample()
            first.end()
            roots[:] = [second.pid]
            second.burn()
            observer.sample()
        finally:
            first.end()
            second.end()
        cpu_ns = usage_of(observer).cpu_ns
        assert cpu_ns[1] > 1.6 * WORK_NS
        assert cpu_ns[1] - cpu_ns[0] > 0.8 * WORK_NS


@pytest.fixture
def counted_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_mlpatterns.system.process_tree._COUNT_NS", 0)


@pytest.mark.usefixtures("counted_always")
class TestCounts:
    def test_open_descriptors_and_threads_are_counted(self) -> None:
        holder, other = Burner(HOLDS), Burner(HOLDS)
        try:
            observer = ResourceMonitor(lambda: [holder.pid, other.pid])
            for process in (holder, other):
                process.burn(0)
            observer.sample()
            holder.burn(3)
            other.burn(2)
            observer.sample()
        finally:
            holder.end()
            other.end()
        usage = usage_of(observer)
        assert usage.descriptors is not None
        assert usage.threads is not None
        assert np.diff(usage.descriptors).tolist() == [5]
        assert np.diff(usage.threads).tolist() == [5]
        assert usage.since(1).threads == usage.threads[1:]

    @pytest.mark.parametrize("error", [psutil.AccessDenied, AttributeError])
    def test_what_the_system_does_not_tell_is_unknown(
        self, burner: Burner, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
    ) -> None:
        def refuse(_process: psutil.Process) -> int:
            raise error

        monkeypatch.setattr(psutil.Process, "num_fds", refuse)
        observer = ResourceMonitor(lambda: [burner.pid])
        observer.sample()
        usage = usage_of(observer)
        assert usage.descriptors is None
        assert usage.threads is None
        assert usage.since(0).descriptors is None


class TestFacts:
    def test_cores_are_those_that_this_process_may_use(self) -> None:
        cores = available_cores()
        assert 1 <= cores <= (os.cpu_count() or 1)
        observer = ResourceMonitor(lambda: [os.getpid()])
        observer.sample()
        assert usage_of(observer).cores == cores

    def test_the_environment_has_stable_facts_only_and_is_the_same_each_time(self) -> None:
        found = environment()
        assert found == environment()
        assert found.processor
        assert found.architecture
        assert found.cores == available_cores()
        assert found.python == f"{sys.version_info.major}.{sys.version_info.minor}"
        assert found.versions["numpy"] == np.__version__
        assert "MHz" not in found.processor

    def test_the_commit_is_that_of_the_checkout_with_a_plus_where_files_differ(self, tmp_path: Path) -> None:
        repository = Repository.made(tmp_path / "project")
        full = repository.commit({"file": "one"})
        repository.git("tag", "-a", "-m", "v1", "v1")
        assert commit(repository.top) == full[:12]
        repository.write({"file": "two"})
        assert commit(repository.top) == f"{full[:12]}+"

    def test_outside_of_git_there_is_no_commit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert commit(tmp_path) is None
        assert commit(tmp_path / "missing") is None

    def test_without_git_there_is_no_commit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert commit(tmp_path) is None
