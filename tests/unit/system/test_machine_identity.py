"""The identity of a machine: the same for all its processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_mlpatterns.system.machine import machine_identity

_PRINT = "from pytest_mlpatterns.system.machine import machine_identity; print(machine_identity())"


@pytest.mark.processes
def test_two_processes_of_a_machine_agree() -> None:
    other = subprocess.run([sys.executable, "-c", _PRINT], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == machine_identity()


def test_the_identity_is_the_boot_id_if_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("1f6c\n")
    assert machine_identity(tmp_path / "boot_id") == "1f6c"


def test_a_system_without_one_has_another_that_does_not_change(tmp_path: Path) -> None:
    machine_identity.cache_clear()
    first = machine_identity(tmp_path / "absent")
    machine_identity.cache_clear()
    assert first == machine_identity(tmp_path / "absent") != ""
