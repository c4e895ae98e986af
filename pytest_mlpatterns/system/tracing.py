"""Which processes may read the memory of another, as a profiler from outside does.

Linux decides by the user, and where its security module Yama runs, also by ``kernel.yama.ptrace_scope``: at 1, which
most distributions choose, a process is read by its parents only, unless it permits more itself (prctl(2),
``PR_SET_PTRACER``). At 2 only an administrator reads others, at 3 no one does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["permit_tracer", "tracer_permission", "why_not_traceable"]

_SET_PTRACER = 0x59616D61  # PR_SET_PTRACER of linux/prctl.h
_ANY = 2**64 - 1  # PR_SET_PTRACER_ANY, as an unsigned long
_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
_ADMINISTRATORS_ONLY = 2


def permit_tracer() -> None:
    """Let other processes of the same user read this one (Linux); elsewhere, and without Yama, this does nothing."""
    if (permit := tracer_permission()) is not None:
        permit()


def tracer_permission() -> Callable[[], None] | None:
    """What a new process calls so that other processes of its user may read it, also after ``exec``; None elsewhere."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl, anyone = ctypes.CDLL(None).prctl, ctypes.c_ulong(_ANY)
    return lambda: prctl(_SET_PTRACER, anyone, 0, 0, 0)


def why_not_traceable(scope: Path = _SCOPE) -> str:
    """Why no process of this user may read another one, and what to do; empty if nothing is known to forbid it.

    Args:
        scope: the file in which Linux shows what its security module Yama permits.
    """
    if os.geteuid() == 0:
        return ""
    if sys.platform == "darwin":
        return "macOS lets only root read the memory of another process; run pytest with sudo"
    try:
        permitted = int(scope.read_text())
    except (OSError, ValueError):
        return ""
    if permitted < _ADMINISTRATORS_ONLY:
        return ""
    return (
        f"kernel.yama.ptrace_scope is {permitted}, which lets no process read another one; "
        "set it to 1: sudo sysctl kernel.yama.ptrace_scope=1"
    )
