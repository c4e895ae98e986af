"""The energy of the machine is what its packages used, each counted once; without their counters it is not known."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_mlpatterns.system.machine import EnergyCounter
from pytest_mlpatterns.system.monitor import ResourceMonitor

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.records.launch import Usage

RANGE_UJ = 262_143_328_850


def domain(powercap: Path, folder: str, name: str, energy_uj: int | str, range_uj: int | str = RANGE_UJ) -> Path:
    """Write a domain as the kernel shows it; returns the file of its counter."""
    (powercap / folder).mkdir(parents=True, exist_ok=True)
    for file, value in {"name": name, "max_energy_range_uj": range_uj, "energy_uj": energy_uj}.items():
        (powercap / folder / file).write_text(f"{value}\n")
    return powercap / folder / "energy_uj"


def two_sockets(powercap: Path) -> tuple[Path, Path]:
    """A server with two packages, their parts, and the platform around them; returns the packages' counters."""
    (powercap / "intel-rapl").mkdir(parents=True)
    domain(powercap, "intel-rapl:0:0", "core", 1_000)
    domain(powercap, "intel-rapl:0:1", "dram", 1_000)
    domain(powercap, "intel-rapl:2", "psys", 1_000)
    domain(powercap, "intel-rapl-mmio:0", "package-0", 1_000)
    return (
        domain(powercap, "intel-rapl:0", "package-0", 5_000_000),
        domain(powercap, "intel-rapl:1", "package-1", 7_000_000),
    )


def test_packages_are_added_up_without_their_parts_and_the_platform(tmp_path: Path) -> None:
    first, second = two_sockets(tmp_path)
    counter = EnergyCounter(tmp_path)
    assert counter.read_uj() == 0
    for file in tmp_path.glob("intel-rapl*/energy_uj"):
        file.write_text("9000000\n")
    assert counter.read_uj() == 4_000_000 + 2_000_000
    first.write_text("9000001\n")
    second.write_text("9500000\n")
    assert counter.read_uj() == 6_500_001


def test_a_counter_that_begins_again_at_zero_loses_nothing(tmp_path: Path) -> None:
    file = domain(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 300)
    counter = EnergyCounter(tmp_path)
    file.write_text("200\n")
    assert counter.read_uj() == 500
    file.write_text(f"{RANGE_UJ}\n")
    assert counter.read_uj() == RANGE_UJ + 300
    file.write_text("0\n")
    assert counter.read_uj() == RANGE_UJ + 300


@pytest.mark.parametrize(
    ("energy_uj", "range_uj"), [("none", RANGE_UJ), ("", RANGE_UJ), (1, ""), ("\xff", RANGE_UJ)], ids=repr
)
def test_a_counter_that_is_no_number_is_not_known(tmp_path: Path, energy_uj: int | str, range_uj: int | str) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 1)
    domain(tmp_path, "intel-rapl:1", "package-1", energy_uj, range_uj)
    assert EnergyCounter(tmp_path).read_uj() is None


def test_a_counter_that_falls_below_what_its_range_allows_is_not_known_any_more(tmp_path: Path) -> None:
    file = domain(tmp_path, "intel-rapl:0", "package-0", 2_000, 1_000)
    counter = EnergyCounter(tmp_path)
    assert counter.read_uj() == 0
    file.write_text("3000\n")
    assert counter.read_uj() == 1_000
    file.write_text("10\n")
    assert counter.read_uj() is None
    file.write_text("4000\n")
    assert counter.read_uj() is None


def test_a_machine_without_counters_is_not_known(tmp_path: Path) -> None:
    assert EnergyCounter(tmp_path / "absent").read_uj() is None
    assert EnergyCounter(tmp_path).read_uj() is None
    domain(tmp_path, "intel-rapl:0:0", "core", 1)
    assert EnergyCounter(tmp_path).read_uj() is None


def test_a_counter_for_root_only_is_not_known_and_neither_is_the_sum(tmp_path: Path) -> None:
    _, second = two_sockets(tmp_path)
    if os.geteuid():
        second.chmod(0)
    else:  # root reads any file
        second.unlink()
        second.mkdir()
    assert EnergyCounter(tmp_path).read_uj() is None


def test_a_counter_that_vanishes_is_not_known_from_then_on(tmp_path: Path) -> None:
    first, _ = two_sockets(tmp_path)
    counter = EnergyCounter(tmp_path)
    assert counter.read_uj() == 0
    first.unlink()
    assert counter.read_uj() is None
    first.write_text("6000000\n")
    assert counter.read_uj() is None


def monitored(powercap: Path, between: Path | None = None) -> Usage:
    """What a monitor of this process saw in two samples; ``between`` vanishes between them."""
    monitor = ResourceMonitor(lambda: [os.getpid()], energy=EnergyCounter(powercap))
    monitor.sample()
    if between is not None:
        between.unlink()
    monitor.sample()
    usage = monitor.usage()
    assert usage is not None
    return usage


def test_the_monitor_has_the_energy_of_all_of_its_samples_or_none(tmp_path: Path) -> None:
    first, _ = two_sockets(tmp_path)
    whole = monitored(tmp_path)
    assert whole.energy_uj is not None
    assert whole.energy_uj.tolist() == [0, 0]
    assert whole.since(1).energy_uj is not None
    assert monitored(tmp_path / "absent").energy_uj is None
    assert monitored(tmp_path, between=first).energy_uj is None
