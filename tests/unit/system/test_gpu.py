"""The names of GPUs: from the driver, from nvidia-smi, and of a machine without one."""

import os
from pathlib import Path

import pytest

from pytest_mlpatterns.records.setup import Environment
from pytest_mlpatterns.system.environment import gpu_name


def test_a_machine_without_a_gpu_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("no process is needed"))
    assert gpu_name(tmp_path / "gpus", tmp_path / "dev") == ""


def test_the_driver_names_its_gpus(tmp_path: Path) -> None:
    for number, name in enumerate(["NVIDIA L4", "NVIDIA L4", "NVIDIA H100 80GB HBM3"]):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
        (tmp_path / f"0000:0{number}:00.0/information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 35\n")
    assert gpu_name(tmp_path, tmp_path) == "NVIDIA H100 80GB HBM3, 2 x NVIDIA L4"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("script", "name"), [("echo 'NVIDIA A10G'", "NVIDIA A10G"), ("echo broken; exit 9", "")], ids=["works", "fails"]
)
def test_nvidia_smi_names_what_the_driver_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, name: str
) -> None:
    (tmp_path / "nvidia0").touch()
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpu_name(tmp_path / "gpus", tmp_path) == name


def test_the_gpu_is_part_of_the_machines_identity() -> None:
    with_gpu = Environment("Abacus", 2, "wood", "3.12", gpu="NVIDIA L4")
    assert with_gpu.machine == "Abacus, 2 cores, wood, Python 3.12, NVIDIA L4"
    assert Environment("Abacus", 1.5, "wood", "3.12").machine == "Abacus, 1.5 cores, wood, Python 3.12"
