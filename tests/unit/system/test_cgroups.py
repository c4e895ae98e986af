"""The CPU quota of a container, in both versions of control groups, at any depth."""

from pathlib import Path

import pytest
from support.each_row import each_row

from pytest_mlpatterns.system import environment
from pytest_mlpatterns.system.cgroups import cpu_groups, memory_limit_bytes, quota_cores

VERSION_2 = "30 29 0:26 {root} {top} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
VERSION_1 = "32 31 0:29 {root} {top} rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
MEMORY = "33 31 0:30 / {top} rw,relatime - cgroup cgroup rw,memory\n"


def own(folder: Path, membership: str, mounts: str, *, root: str = "/") -> Path:
    """A process's folder in /proc."""
    proc = folder / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(membership)
    (proc / "mountinfo").write_text(mounts.format(root=root, top=folder / "sys"))
    return proc


def group(folder: Path, **files: str) -> None:
    """A control group with these files; an underscore in a name stands for the first dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text + "\n")


def test_a_group_of_version_2_limits_those_inside_it(tmp_path: Path) -> None:
    group(tmp_path / "sys", cgroup_procs="")
    group(tmp_path / "sys/pod", cpu_max="200000 100000")
    group(tmp_path / "sys/pod/box", cpu_max="max 100000")
    assert quota_cores(own(tmp_path, "0::/pod/box\n", VERSION_2)) == 2.0


def test_the_smallest_quota_holds(tmp_path: Path) -> None:
    group(tmp_path / "sys/pod", cpu_max="400000 100000")
    group(tmp_path / "sys/pod/box", cpu_max="75000 50000")
    assert quota_cores(own(tmp_path, "0::/pod/box\n", VERSION_2)) == 1.5


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    group(tmp_path / "sys", cpu_max="50000 100000")
    assert quota_cores(own(tmp_path, "0::/\n", VERSION_2)) == 0.5


def test_a_container_of_version_1_names_its_group_as_its_host_does(tmp_path: Path) -> None:
    group(tmp_path / "sys", cpu_cfs_quota_us="300000", cpu_cfs_period_us="100000")
    proc = own(tmp_path, "4:memory:/x\n1:cpu,cpuacct:/docker/abc\n0::/\n", MEMORY + VERSION_1, root="/docker/abc")
    assert quota_cores(proc) == 3.0


def test_a_nested_group_of_version_1(tmp_path: Path) -> None:
    group(tmp_path / "sys/docker", cpu_cfs_quota_us="250000", cpu_cfs_period_us="100000")
    group(tmp_path / "sys/docker/abc", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    assert quota_cores(own(tmp_path, "1:cpu,cpuacct:/docker/abc\n", VERSION_1)) == 2.5


@pytest.mark.parametrize("written", ["max 100000", "0 100000", "", "much of it"])
def test_no_quota(tmp_path: Path, written: str) -> None:
    group(tmp_path / "sys", cpu_max=written)
    proc = own(tmp_path, "0::/../outside\n", VERSION_2)
    assert quota_cores(proc) is None
    assert [found.folder for found in cpu_groups(proc)] == [tmp_path / "sys"]


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert quota_cores(tmp_path / "absent") is None


@each_row(("quota", "cores"), [(None, 4), (64.0, 4), (2.0, 2), (1.5, 1.5), (1 / 3, 0.333)])
def test_the_quota_is_the_number_of_cores(monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: float) -> None:
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(environment, "quota_cores", lambda: quota)
    assert environment.available_cores() == cores
    assert f", {cores} cores, " in environment.environment().machine


def test_the_smallest_memory_limit_holds(tmp_path: Path) -> None:
    group(tmp_path / "sys/pod", memory_max="2147483648")
    group(tmp_path / "sys/pod/box", memory_max="max")
    assert memory_limit_bytes(own(tmp_path, "0::/pod/box\n", VERSION_2)) == 2**31


def test_the_memory_limit_of_version_1(tmp_path: Path) -> None:
    group(tmp_path / "sys", memory_limit_in_bytes="9223372036854771712")
    proc = own(tmp_path, "4:memory:/\n", MEMORY)
    assert memory_limit_bytes(proc) is None
    (tmp_path / "sys/memory.limit_in_bytes").write_text("1048576\n")
    assert memory_limit_bytes(proc) == 2**20
