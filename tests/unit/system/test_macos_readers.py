"""The readers of the machine and of processes where the system has no /proc, no affinity and fewer counters: macOS."""

import os
import platform
import sys
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from pytest_mlpatterns.system import cgroups, cpu_share, environment, environment_facts, machine
from pytest_mlpatterns.system.process_tree import ResourceMonitor, own_cpu_ns

Times = namedtuple("Times", ["user", "nice", "system", "idle"])
NONE = Path("/no/such/folder")


@pytest.fixture(autouse=True)
def _macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this package asks of the system is as macOS has it."""
    monkeypatch.setattr(sys, "platform", "darwin")
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    for module in (cpu_share, machine):
        monkeypatch.setattr(module, "cpu_groups", lambda: cgroups.cpu_groups(NONE))
    monkeypatch.setattr(environment, "quota_cores", lambda: cgroups.quota_cores(NONE))
    monkeypatch.setattr(machine, "_PROCESSORS", NONE)
    monkeypatch.setattr(psutil, "cpu_times", lambda: Times(100.0, 5.0, 20.0, 1000.0))
    machine._throttling_file.cache_clear()
    machine._frequency_files.cache_clear()


@pytest.fixture(autouse=True)
def _afresh() -> object:
    yield
    machine._throttling_file.cache_clear()
    machine._frequency_files.cache_clear()


def test_the_cpu_time_of_a_process_is_what_psutil_knows() -> None:
    process = psutil.Process()
    before = process.cpu_times()
    found = own_cpu_ns(process)
    after = process.cpu_times()
    assert round((before.user + before.system) * 1e9) <= found <= round((after.user + after.system) * 1e9)


def test_the_machine_is_busy_without_the_counters_of_linux() -> None:
    reading = machine.read_machine()
    assert reading == machine.Reading(machine_busy_ns=125_000_000_000, steal_ns=0, throttled_ns=0, frequency_hz=0)


def test_all_cores_can_be_used() -> None:
    assert environment.available_cores() == os.cpu_count()


def test_the_processor_has_the_name_that_python_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    real = open

    def without_proc(file: object, *arguments: object, **more: object) -> object:
        if str(file).startswith("/proc/"):
            raise FileNotFoundError(file)
        return real(file, *arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", without_proc)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert environment.environment().processor == "arm"


def test_a_machine_is_known_by_its_name_and_the_time_of_its_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "boot_time", lambda: 1_700_000_000.4)
    assert machine.machine_identity.__wrapped__(NONE) == f"{platform.node()}-1700000000"


def test_a_process_is_monitored_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: psutil.Process) -> list[object]:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "threads", refused)  # macOS shows them to root only
    monitor = ResourceMonitor(lambda: [os.getpid()])
    monitor.sample()
    monitor.sample()
    usage = monitor.usage()
    assert usage.cpu_ns[-1] >= usage.cpu_ns[0] > 0
    assert usage.rss_bytes.min() > 0
    assert usage.busy_threads == ()
    assert usage.steal_ns.max() == 0


def test_counts_that_the_system_refuses_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: psutil.Process) -> int:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "num_fds", refused)
    monitor = ResourceMonitor(lambda: [os.getpid()])
    monitor.sample()
    usage = monitor.usage()
    assert (usage.descriptors, usage.threads) == (None, None)


def test_the_facts_are_those_that_need_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_facts, "Path", lambda *_: NONE)
    facts = environment_facts.process_facts(os.getpid())
    assert (facts["CPU quota"], facts["memory limit"]) == ("none", "none")
    assert facts["kernel"] == f"{platform.system()} {platform.release()}"
    assert not [name for name in facts if name.startswith(environment_facts.PACKAGE)]
    assert "allowed cores" not in facts
