"""The machine and the software that shape a result: stable facts only."""

from __future__ import annotations

import contextlib
import os
import platform
import sys

from pytest_mlpatterns.records.setup import Environment
from pytest_mlpatterns.system.cgroups import quota_cores
from pytest_mlpatterns.system.gpu import gpu_name

__all__ = ["available_cores", "environment", "machine_cores"]


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


def environment() -> Environment:
    """The machine, and the versions of the packages that shape a result."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("pytest-mlpatterns", "numpy", "uvicorn", "uvloop", "httptools", "ray"):
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
