"""The processor that a deployment is given: whole cores by CPU affinity, a fraction by the quota of a control group.

Processes of a deployment are started in many places: by an engine, a supervisor, for a store. So a share is not handed
down to all of them. It is the current one while a deployment starts, and each child process of this package takes it.
A fraction is worth the control group that it needs: a pod with a limit of ``500m`` stops its processes for the rest of
each period, which shows in the tail and which no affinity shows.

The two sides of a comparison get their cores by :func:`put_on_cores`. The cores of a virtual machine are not equally
fast: a neighbour on the other hardware thread of a physical core can take half of it for seconds, and no counter of
this machine shows that. The scheduler keeps a process on its last core, so one of two equal deployments can stay on the
slow core for a whole launch. Therefore the processes of a block are moved to given cores before the block, and released
at once: the scheduler leaves them there until a better core is idle. An affinity that the user has set is respected.
Systems without CPU affinity skip this.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path

import psutil
from msgspec import Struct

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.cgroups import CpuGroup, cpu_groups
from pytest_mlpatterns.system.environment import available_cores
from pytest_mlpatterns.system.owned_files import remove_empty
from pytest_mlpatterns.wording import count

_PERIOD_US = 100_000  # Period of a quota, as container runtimes set it
_NAME = "pytest-mlpatterns-"  # Beginning of the names of our control groups; the process id of the run follows
_numbers = itertools.count()
_current: ContextVar[CpuShare | None] = ContextVar("cpu_share", default=None)


class ReplicaCores(Struct, frozen=True):
    """Cores of its own for each replica."""

    each: int  # number of cores of a replica
    most: int  # the largest number of replicas of a measurement, which leaves the load generator the same cores for all

    def check(self) -> None:
        """Check that the machine has these cores, and one more for the load generator."""
        needed, available = self.each * self.most, available_cores()
        if needed + 1 > available:
            fitting = int((available - 1) // self.each)
            advice = (
                f"measure at most {count(fitting, 'replica')}, or" if fitting > 1 else "leave cpus_per_replica= out, or"
            )
            raise SettingError(
                f"{count(self.most, 'replica')} of {count(self.each, 'core')} need {count(needed, 'core')} and one for "
                f"the load generator; this machine has {available:g}: {advice} run on a larger machine"
            )


class CpuShare(Struct, frozen=True):
    """What a deployment is given."""

    cpus: float
    cores: frozenset[int] = frozenset()  # the cores on which it runs; empty if it may run on all, up to the quota
    group: Path | None = None  # the control group with its quota; None without one
    # the cores of each replica, in the order of their start, also of those that are not started; empty if they
    # share ``cores``
    replicas: tuple[frozenset[int], ...] = ()

    @property
    def reserved(self) -> frozenset[int]:
        """The cores from which other processes keep off."""
        return self.cores.union(*self.replicas)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Each :class:`~pytest_mlpatterns.system.child.Child` that starts meanwhile gets this share."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    @contextlib.contextmanager
    def inherited(self) -> Iterator[None]:
        """A process that this thread starts meanwhile inherits the cores."""
        if not self.cores:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    def admit(self, pid: int) -> None:
        """Move a process, which has started no other yet, into the control group."""
        if self.group is not None:
            (self.group / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def release(self) -> None:
        """Remove the control group, after its processes have ended. Safe to call twice."""
        if self.group is not None:
            with contextlib.suppress(OSError):  # a process that survived keeps its limit
                remove_empty(self.group)


def current_share() -> CpuShare | None:
    """The share of the deployment that starts now; None if it may use the whole machine."""
    return _current.get()


def give_cpus(cpus: float) -> CpuShare:
    """Set processor aside for one deployment; :meth:`CpuShare.release` ends that.

    ``cpus``: a number of cores; a whole number is given by CPU affinity, a fraction by a quota.
    """
    available = available_cores()
    if cpus > available:
        cores = "1 core" if available == 1 else f"{available:g} cores"
        raise SettingError(
            f"cpus={cpus:g} for a deployment, but {cores} can be used here, of the machine or by the CPU quota of its "
            f"container; give at most {available:g}, or run on a larger machine"
        )
    if not float(cpus).is_integer():
        return CpuShare(cpus, group=_group_with_quota(cpus))
    if not hasattr(os, "sched_setaffinity"):
        raise SettingError(
            f"cpus={cpus:g} needs CPU affinity, which this system does not have; run on Linux, or leave cpus= out"
        )
    return CpuShare(cpus, frozenset(sorted(os.sched_getaffinity(0))[-int(cpus) :]))


def give_replica_cores(wanted: ReplicaCores, replicas: int) -> CpuShare:
    """Set cores aside for each replica of one deployment, by CPU affinity."""
    given = give_cpus(wanted.each * max(wanted.most, replicas))
    last = sorted(given.cores, reverse=True)
    slices = tuple(frozenset(last[at : at + wanted.each]) for at in range(0, len(last), wanted.each))
    return CpuShare(wanted.each * replicas, frozenset().union(*slices[:replicas]), replicas=slices)


@contextlib.contextmanager
def share_of_replica(number: int) -> Iterator[None]:
    """Processes that start meanwhile get the cores of one replica, if the current share has cores for each."""
    share = current_share()
    if share is None or not share.replicas:
        yield
        return
    cores = share.replicas[number % len(share.replicas)]
    with CpuShare(len(cores), cores).current():
        yield


@contextlib.contextmanager
def other_cores(share: CpuShare | None, processes: Iterable[int]) -> Iterator[None]:
    """Keep this thread and the given processes off the cores of a deployment, if there are others."""
    if share is None or not share.reserved or not (others := os.sched_getaffinity(0) - share.reserved):
        yield
        return
    moved: dict[int, set[int]] = {}
    try:
        for pid in (0, *processes):
            with contextlib.suppress(OSError):  # it has ended
                moved[pid] = os.sched_getaffinity(pid)
                os.sched_setaffinity(pid, others)
        yield
    finally:
        for pid, before in moved.items():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(pid, before)


def _group_with_quota(cpus: float) -> Path:
    """A new control group with a quota, beside or below this process's."""
    problems = []
    for group in cpu_groups():
        for parent in _parents(group):
            if group.version == 2 and not _passes_control_on(parent):
                problems.append(f"{parent} passes no control of the CPU on")
                continue
            try:
                return _created(parent, cpus, version=group.version)
            except OSError as error:
                problems.append(f"{parent} takes none ({error.strerror})")
    found = "; ".join(problems) or "this system has no control group that distributes CPU time"
    raise SettingError(
        f"cpus={cpus:g} is a fraction and needs a control group with a CPU quota, but none can be created: {found}. "
        "Give a whole number, which needs none, or run as root or in a control group that systemd delegates"
    )


def _parents(group: CpuGroup) -> list[Path]:
    """Places for a new group, the innermost first: in version 2 a group with processes cannot limit groups in it."""
    if group.version == 1:
        return [group.folder]
    around = [folder for folder in group.folder.parents if folder.is_relative_to(group.top)]
    return [group.folder, *around]


def _passes_control_on(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return "cpu" in (folder / "cgroup.subtree_control").read_text(encoding="ascii").split()
    return False


def _created(parent: Path, cpus: float, *, version: int) -> Path:
    """Create a group below another one, and check that it takes a process."""
    _remove_stale(parent)
    folder = parent / f"{_NAME}{os.getpid()}-{next(_numbers)}"
    folder.mkdir()
    try:
        quota_us = round(cpus * _PERIOD_US)
        if version == 2:
            (folder / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}", encoding="ascii")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_US), encoding="ascii")
            (folder / "cpu.cfs_quota_us").write_text(str(quota_us), encoding="ascii")
        with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as probe:
            try:
                (folder / "cgroup.procs").write_text(str(probe.pid), encoding="ascii")
            finally:
                probe.kill()
    except OSError:
        with contextlib.suppress(OSError):
            remove_empty(folder)
        raise
    return folder


def _remove_stale(parent: Path) -> None:
    """Remove the groups of runs that were killed."""
    for folder in parent.glob(f"{_NAME}*"):
        pid = folder.name.removeprefix(_NAME).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            with contextlib.suppress(OSError):
                remove_empty(folder)


def put_on_cores(processes: Iterable[int], first: int) -> None:
    """Move the main thread of each process to a core of its own, as far as the cores suffice, and release it again.

    ``first``: index of the first process's core, modulo the number of allowed cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    for number, process in enumerate(processes, first):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            allowed = os.sched_getaffinity(process)
            if len(allowed) > 1:
                os.sched_setaffinity(process, {sorted(allowed)[number % len(allowed)]})
                os.sched_setaffinity(process, allowed)
