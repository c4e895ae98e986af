"""Which machine this is, since it was booted: processes of one machine share its clock and its counters.

Containers of one machine have the same identity.
"""

from __future__ import annotations

import contextlib
import platform
from functools import cache
from pathlib import Path

import psutil

__all__ = ["machine_identity"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def machine_identity(boot_id: Path = _BOOT_ID) -> str:
    """The identity of this boot of this machine; on a system without one, its name and the time at which it booted.

    Args:
        boot_id: file that has the identity on Linux.
    """
    with contextlib.suppress(OSError):
        if found := boot_id.read_text(encoding="ascii").strip():
            return found
    return f"{platform.node()}-{psutil.boot_time():.0f}"
