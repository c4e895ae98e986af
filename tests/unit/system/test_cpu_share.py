"""What a deployment is given: cores by affinity, a fraction by a control group, and the errors where neither is had."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.each_row import each_row
from support.half_core import REFUSAL, VARIANT

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system import cpu_share
from pytest_mlpatterns.system.cgroups import CpuGroup
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.cpu_share import (
    CpuShare,
    ReplicaCores,
    current_share,
    give_cpus,
    give_replica_cores,
    other_cores,
    share_of_replica,
)
from pytest_mlpatterns.system.environment import available_cores

has_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system does not say on which cores a process may run"
)
BURN = "input(); import time\nend = time.process_time() + 0.02\nwhile time.process_time() < end: pass"
"""Works for ten times what a fiftieth of a core gives in a period."""


@has_affinity
def test_whole_cores_are_the_last_of_those_that_pytest_may_use() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    assert give_cpus(1) == CpuShare(1, frozenset(allowed[-1:]))


def test_replicas_have_own_cores_and_those_of_the_largest_number_stay_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_share, "available_cores", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _pid, _cores: None, raising=False)
    wanted = ReplicaCores(each=2, most=3)
    wanted.check()
    share = give_replica_cores(wanted, 2)
    assert (share.cpus, share.cores, share.reserved) == (4, {4, 5, 6, 7}, {2, 3, 4, 5, 6, 7})
    given = []
    with share.current():
        for number in range(4):  # the third is added while two run; a fourth shares with the first
            with share_of_replica(number):
                given.append(current_share())
    assert [one.cores for one in given if one is not None] == [{6, 7}, {4, 5}, {2, 3}, {6, 7}]
    assert {one.cpus for one in given if one is not None} == {2}


def test_replicas_share_what_is_not_given_to_each() -> None:
    with share_of_replica(1):
        assert current_share() is None
    share = CpuShare(1, frozenset({1}))
    with share.current(), share_of_replica(1):
        assert current_share() is share


@each_row(
    ("each", "most", "available", "message"),
    (
        1,
        4,
        2,
        "4 replicas of 1 core need 4 cores and one for the load generator; this machine has 2: "
        "leave cpus_per_replica= out, or run on a larger machine",
    ),
    (
        2,
        4,
        7.5,
        "4 replicas of 2 cores need 8 cores and one for the load generator; this machine has 7.5: "
        "measure at most 3 replicas, or run on a larger machine",
    ),
)
def test_too_few_cores_for_the_replicas_and_the_generator(
    monkeypatch: pytest.MonkeyPatch, each: int, most: int, available: float, message: str
) -> None:
    monkeypatch.setattr(cpu_share, "available_cores", lambda: available)
    with pytest.raises(SettingError) as found:
        ReplicaCores(each, most).check()
    assert str(found.value) == message


def test_more_cores_than_there_are() -> None:
    available = available_cores()
    with pytest.raises(SettingError, match=rf"^cpus={available + 1:g} for a deployment, but {available:g} cores? can"):
        give_cpus(available + 1)


def test_a_system_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(SettingError, match=r"^cpus=1 needs CPU affinity, which this system does not have; run on Linu"):
        give_cpus(1)


def test_a_system_without_control_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_share, "cpu_groups", list)
    with pytest.raises(SettingError, match=r"^cpus=0.5 is a fraction .*: this system has no control group that dist"):
        give_cpus(0.5)


def test_control_groups_that_take_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "pod" / "box"
    own.mkdir(parents=True)
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory")  # and cgroup.procs takes no process: a plain folder
    (tmp_path / "pod" / "cgroup.subtree_control").write_text("memory")
    monkeypatch.setattr(cpu_share, "cpu_groups", lambda: [CpuGroup(own, tmp_path, 2), CpuGroup(own / "gone", own, 1)])
    monkeypatch.setattr(cpu_share, "_created", _refuse)
    with pytest.raises(SettingError) as found:
        give_cpus(0.5)
    assert str(found.value) == (
        "cpus=0.5 is a fraction and needs a control group with a CPU quota, but none can be created: "
        f"{own} passes no control of the CPU on; {tmp_path / 'pod'} passes no control of the CPU on; "
        f"{tmp_path} takes none (Permission denied); {own / 'gone'} takes none (Permission denied). "
        "Give a whole number, which needs none, or run as root or in a control group that systemd delegates"
    )


def _refuse(_parent: Path, _cpus: float, *, version: int) -> Path:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.processes
def test_the_quota_of_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("cpu")
    stale = tmp_path / "pytest-mlpatterns-4194999-0"  # above the largest process id
    stale.mkdir()
    monkeypatch.setattr(cpu_share, "cpu_groups", lambda: [CpuGroup(tmp_path, tmp_path, version)])
    group = give_cpus(1 / 2).group
    written = {file.name: file.read_text() for file in group.iterdir() if file.name != "cgroup.procs"}
    first = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}
    assert written == (first if version == 1 else {"cpu.max": "50000 100000"})
    assert not stale.exists()


@has_affinity
@pytest.mark.processes
def test_a_child_and_what_it_starts_run_on_the_cores_of_the_share(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    with give_cpus(1).current():
        child = Child("pytest_mlpatterns.loadgen.process", log=tmp_path / "child.log")
    try:
        assert current_share() is None
        assert os.sched_getaffinity(child.pid) == set(sorted(before)[-1:])
        assert os.sched_getaffinity(0) == before
    finally:
        child.stop()


@has_affinity
@pytest.mark.processes
def test_the_generator_runs_on_the_other_cores_meanwhile() -> None:
    before = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        share = give_cpus(1)
        others = before - share.cores or before
        with other_cores(share, [process.pid]):
            assert os.sched_getaffinity(process.pid) == os.sched_getaffinity(0) == others
        assert os.sched_getaffinity(process.pid) == os.sched_getaffinity(0) == before
        with other_cores(CpuShare(len(before), frozenset(before)), [process.pid]):
            assert os.sched_getaffinity(process.pid) == before
        process.communicate(b"\n")


@VARIANT
@pytest.mark.processes
def test_a_fraction_stops_a_process_that_wants_more(refused: bool) -> None:
    if refused:
        with pytest.raises(SettingError, match=f"^{re.escape(REFUSAL.replace('0.5', '0.02'))}"):
            give_cpus(0.02)
        return
    share = give_cpus(0.02)
    assert share.group is not None
    with psutil.Popen([sys.executable, "-S", "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        share.admit(process.pid)
        process.communicate(b"\n")
    throttled = dict(line.split() for line in (share.group / "cpu.stat").read_text().splitlines())
    share.release()
    assert int(throttled["nr_throttled"]) > 0
    assert not share.group.exists()
