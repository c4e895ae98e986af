"""The names of this machine's NVIDIA GPUs, where they can be read at no cost."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

__all__ = ["gpu_name"]

_DRIVER = Path("/proc/driver/nvidia/gpus")
_DEVICES = Path("/dev")
_TIMEOUT_S = 5.0
"""nvidia-smi loads the driver if no process holds it, which takes a second or two."""


@cache
def gpu_name(driver: Path = _DRIVER, devices: Path = _DEVICES) -> str:
    """The GPUs of this machine, ``NVIDIA L4`` or ``2 x NVIDIA L4``; empty without one, or if it has no driver.

    Args:
        driver: where the driver describes its GPUs.
        devices: where a GPU has its device file.
    """
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
