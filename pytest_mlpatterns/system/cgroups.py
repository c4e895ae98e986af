"""What the system permits a process: the cores of its control groups (versions 1 and 2), files, and reading memory.

The limits on files are those of the module ``resource``, which Windows lacks. It is imported inside the functions,
since tests are collected there too.

Linux decides by the user which processes may read memory, and with its security module Yama also by
``kernel.yama.ptrace_scope``: at 1, which most distributions choose, a process is read by its parents only, unless it
permits more itself (prctl(2), ``PR_SET_PTRACER``). At 2 only an administrator reads others, at 3 no process does.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FILE_LIMITS = (1_048_576, 65_536, 10_240)
"""Soft limits to try where the hard limit is refused; the last is macOS's OPEN_MAX."""
_OTHER_FILES = 200  # Open files of a process beside its connections: libraries, logs, pipes, and what a model opens
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
    return None if hard == resource.RLIM_INFINITY else max(hard - _OTHER_FILES, 0)


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


_OWN = Path("/proc/self")
_NO_LIMIT_BYTES = 2**60  # Version 1 states the largest number of pages if there is no limit


class CpuGroup(Struct, frozen=True):
    """The innermost control group of this process that distributes CPU time."""

    folder: Path
    top: Path  # the folder of the outermost group that is visible here
    version: int

    def quotas(self) -> Iterator[float]:
        """The quota of this group and of each one around it that has one, in cores."""
        for folder in _upwards(self.folder, self.top):
            if (quota := _quota_of(folder, self.version)) is not None:
                yield quota


def quota_cores(own: Path = _OWN) -> float | None:
    """The smallest CPU quota that holds for this process, in cores; None if there is none."""
    return min((quota for group in cpu_groups(own) for quota in group.quotas()), default=None)


def memory_limit_bytes(own: Path = _OWN) -> int | None:
    """The smallest memory limit that holds for this process; None if there is none."""
    limits = (
        _memory_limit_of(folder, version)
        for version, group, top in _groups(own, "memory")
        for folder in _upwards(group, top)
    )
    return min((limit for limit in limits if limit is not None), default=None)


def cpu_groups(own: Path = _OWN) -> list[CpuGroup]:
    """The control groups of this process that distribute CPU time, one for each version that is mounted."""
    return [CpuGroup(folder, top, version) for version, folder, top in _groups(own, "cpu")]


def _groups(own: Path, controller: str) -> Iterator[tuple[int, Path, Path]]:
    """Version, folder and outermost visible folder of each group of a process that may have this controller."""
    try:
        memberships = (own / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
        mounts = (own / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return
    for version, root, top in _mounts_of(controller, mounts):
        for membership in memberships:
            _, controllers, group = membership.split(":", 2)
            if (controller in controllers.split(",")) if version == 1 else not controllers:
                yield version, _folder_of(group, root, top), top


def _upwards(folder: Path, top: Path) -> Iterator[Path]:
    """A folder and those around it, up to and with the top."""
    for one in (folder, *folder.parents):
        yield one
        if one == top:
            return


def _mounts_of(controller: str, mounts: list[str]) -> Iterator[tuple[int, PurePosixPath, Path]]:
    """Version, root and mount point of each mounted hierarchy that may have this controller."""
    for mount in mounts:
        front, _, back = mount.partition(" - ")
        kind, *rest = back.split(" ")
        if kind == "cgroup2" or (kind == "cgroup" and controller in rest[-1].split(",")):
            root, point = front.split(" ")[3:5]
            yield (2 if kind == "cgroup2" else 1), PurePosixPath(root), Path(point.replace("\\040", " "))


def _folder_of(group: str, root: PurePosixPath, top: Path) -> Path:
    """The folder of a group; a container may see its own group only, under the mount point itself."""
    inside = PurePosixPath(group)
    folder = top / (inside.relative_to(root) if inside.is_relative_to(root) else inside.relative_to("/"))
    return folder if ".." not in inside.parts and folder.is_dir() else top


def _quota_of(folder: Path, version: int) -> float | None:
    """The quota of one group in cores; None if it has none."""
    with contextlib.suppress(OSError, ValueError):
        if version == 2:
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = (
                (folder / name).read_text(encoding="ascii") for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        if int(quota) > 0 and int(period) > 0:  # "max" in version 2 and -1 in version 1 are no quota
            return int(quota) / int(period)
    return None


def _memory_limit_of(folder: Path, version: int) -> int | None:
    """The memory limit of one group in bytes; None if it has none."""
    name = "memory.max" if version == 2 else "memory.limit_in_bytes"
    with contextlib.suppress(OSError, ValueError):
        limit = int((folder / name).read_text(encoding="ascii"))  # "max" in version 2
        return limit if limit < _NO_LIMIT_BYTES else None
    return None
