"""The machine as the operating system tells it: readings that only grow, and what a control group says."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_mlpatterns.system import machine
from pytest_mlpatterns.system.cgroups import CpuGroup
from pytest_mlpatterns.system.machine import read_machine, reports_throttling, throttled_ns

VERSION_2 = "usage_usec 5\nnr_periods 10\nnr_throttled 3\nthrottled_usec 1234\n"
VERSION_1 = "nr_periods 10\nnr_throttled 3\nthrottled_time 5678\n"
BARE = "usage_usec 5\nuser_usec 3\n"


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """What is found once is remembered; not from one test to the next."""
    yield
    machine._throttling_file.cache_clear()
    machine._frequency_files.cache_clear()


def test_readings_only_grow() -> None:
    before = read_machine()
    until = time.process_time_ns() + 60_000_000
    while time.process_time_ns() < until:
        pass
    after = read_machine()
    assert after.machine_busy_ns > before.machine_busy_ns  # we ourselves were
    assert after.steal_ns >= before.steal_ns
    assert after.throttled_ns >= before.throttled_ns
    assert after.frequency_hz >= 0


@pytest.mark.parametrize(("text", "expected"), [(VERSION_2, 1_234_000), (VERSION_1, 5678), (BARE, 0)])
def test_throttling_of_either_version(tmp_path: Path, text: str, expected: int) -> None:
    stat = tmp_path / "cpu.stat"
    stat.write_text(text)
    assert throttled_ns(stat) == expected
    assert reports_throttling(stat) is (expected > 0)


def test_a_file_that_is_gone_tells_nothing(tmp_path: Path) -> None:
    assert throttled_ns(tmp_path / "cpu.stat") == 0
    assert not reports_throttling(tmp_path / "cpu.stat")


@pytest.mark.parametrize("folder", ["", "jobs/one"])
def test_the_own_control_group_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """A group that reports nothing, such as one without a limit, is passed over for the outermost one."""
    (tmp_path / "jobs" / "one").mkdir(parents=True)
    (tmp_path / folder / "cpu.stat").write_text(VERSION_2)
    monkeypatch.setattr(machine, "cpu_groups", lambda: [CpuGroup(tmp_path / "jobs" / "one", tmp_path, 2)])
    assert read_machine().throttled_ns == 1_234_000


def test_the_frequency_is_the_mean_of_the_first_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, text in enumerate(["2000000\n", "3000000\n", "unknown\n"]):
        file = tmp_path / f"cpu{number}" / "cpufreq" / "scaling_cur_freq"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    monkeypatch.setattr(machine, "_PROCESSORS", tmp_path)
    assert read_machine().frequency_hz == 2_500_000_000
