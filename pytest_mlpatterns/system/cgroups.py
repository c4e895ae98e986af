"""The limits of a process's control groups, versions 1 and 2: what a container may use of the machine."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

from msgspec import Struct

_OWN = Path("/proc/self")
_NO_LIMIT_BYTES = 2**60  # Version 1 states the largest number of pages if there is no limit
_Limit = TypeVar("_Limit", int, float)


class CpuGroup(Struct, frozen=True):
    """The innermost control group of this process that distributes CPU time."""

    folder: Path
    top: Path  # the folder of the outermost group that is visible here
    version: int


def quota_cores(own: Path = _OWN) -> float | None:
    """The smallest CPU quota that holds for this process, in cores; None if there is none."""
    return _smallest(own, "cpu", _quota_of)


def memory_limit_bytes(own: Path = _OWN) -> int | None:
    """The smallest memory limit that holds for this process; None if there is none."""
    return _smallest(own, "memory", _memory_limit_of)


def cpu_groups(own: Path = _OWN) -> list[CpuGroup]:
    """The control groups of this process that distribute CPU time, one for each version that is mounted."""
    return [CpuGroup(folder, top, version) for version, folder, top in _groups(own, "cpu")]


def _smallest(own: Path, controller: str, limit_of: Callable[[Path, int], _Limit | None]) -> _Limit | None:
    """The smallest limit of the groups of a process and of those around them; None if there is none."""
    groups = _groups(own, controller)
    limits = (limit_of(folder, version) for version, group, top in groups for folder in _upwards(group, top))
    return min((limit for limit in limits if limit is not None), default=None)


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
