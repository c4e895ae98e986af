"""What the system permits a process: how many files it opens, and which processes read its memory.

The limits on files come from the module ``resource``, which Windows lacks, where tests are collected too: functions
import it.

Linux decides by the user which processes may read memory, and with its security module Yama also by
``kernel.yama.ptrace_scope``: at 1, which most distributions choose, a process is read by its parents only, unless it
permits more itself (prctl(2), ``PR_SET_PTRACER``). At 2 only an administrator reads others, at 3 no process does.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

_FILE_LIMITS = (1_048_576, 65_536, 10_240)
"""Soft limits to try where the hard limit is refused; the last is macOS's OPEN_MAX."""
OTHER_FILES = 200  # Open files of a process beside its connections: libraries, logs, pipes, and what a model opens
_SET_PTRACER = 0x59616D61  # ``PR_SET_PTRACER`` of linux/prctl.h
_ANY = 2**64 - 1  # ``PR_SET_PTRACER_ANY``, as an unsigned long
_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
_ADMINISTRATORS_ONLY = 2  # Value of ``ptrace_scope`` from which processes of the same user may not read each other


def raise_file_limit() -> None:
    """Raise the soft limit of this process to the highest that the system takes.

    macOS has no hard limit by default, and refuses a soft limit without end.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, *_FILE_LIMITS):
        if _above(wanted, soft):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                return


def allowed_connections() -> int | None:
    """Largest number of connections of a child process that raises its limit; None without a hard limit."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else max(hard - OTHER_FILES, 0)


def _above(wanted: int, soft: int) -> bool:
    """Whether a limit is higher than the present one."""
    import resource

    infinity = resource.RLIM_INFINITY
    return soft != infinity and (wanted == infinity or wanted > soft)


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
    """Why no process of this user may read another one, and what to do; empty if nothing is known to forbid it."""
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
