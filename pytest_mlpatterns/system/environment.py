"""The machine and the software that shape a result: cores, processor, GPU and versions, all of which are stable."""

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pytest_mlpatterns.records.setup import Environment
from pytest_mlpatterns.system.cgroups import quota_cores

_DRIVER = Path("/proc/driver/nvidia/gpus")
_DEVICES = Path("/dev")
_TIMEOUT_S = 5.0  # nvidia-smi loads the driver if no process holds it, which takes a second or two


def machine_cores() -> int:
    """Number of cores of the whole machine, as the system counts their busy time."""
    return os.cpu_count() or 1


def available_cores() -> float:
    """Number of cores that this process may use: those that it may run on, or the CPU quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine_cores()
    quota = quota_cores()
    if quota is None or quota >= cores:
        return cores
    return int(quota) if quota.is_integer() else round(quota, 3)


def environment(engines: Iterable[str] = ()) -> Environment:
    """The machine, and the versions of the packages that shape a result."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("pytest-mlpatterns", "numpy", "uvicorn", "uvloop", "httptools", *engines):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return Environment(
        processor=_processor(),
        cores=available_cores(),
        architecture=platform.machine(),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        versions=versions,
        gpu=gpu_name(),
    )


def _processor() -> str:
    """The processor's model name from ``/proc/cpuinfo``, or what ``platform`` knows."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
        for line in info:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "cpu model"):
                return " ".join(value.split())
    return platform.processor() or platform.machine()


@cache
def gpu_name(driver: Path = _DRIVER, devices: Path = _DEVICES) -> str:
    """The GPUs of this machine, ``NVIDIA L4`` or ``2 x NVIDIA L4``; empty without one, or if it has no driver."""
    names = _described(driver) or (_listed() if any(devices.glob("nvidia[0-9]*")) else [])
    counted = Counter(names)
    return ", ".join(name if times == 1 else f"{times} x {name}" for name, times in sorted(counted.items()))


def _described(driver: Path) -> list[str]:
    """The models in the driver's own files."""
    names = []
    for file in driver.glob("*/information"):
        with contextlib.suppress(OSError):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                key, _, value = line.partition(":")
                if key.strip() == "Model":
                    names.append(" ".join(value.split()))
    return names


def _listed() -> list[str]:
    """The names that nvidia-smi prints; nothing if it is absent, slow or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        question = [program, "--query-gpu=name", "--format=csv,noheader"]
        answer = subprocess.run(question, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        return [" ".join(line.split()) for line in answer.stdout.splitlines() if line.strip()]
    return []
