"""Processes that hide from the process that started them: they are adopted, found, and ended.

A daemon leaves its parent, its group and its session. Three traces remain: on Linux a process can adopt the orphans
below it; the environment is inherited, so a variable in it names the child of pytest that a process descends from; and
a session has a number. A process is followed by any of them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_mlpatterns.errors import DeploymentError

if TYPE_CHECKING:
    import psutil

MARK = "PYTEST_MLPATTERNS_CHILD"
"""Environment variable that names the log of the child process that a process descends from."""
GRACE_S = 1.0  # Grace period of orphans after SIGTERM, before they are killed
_KILL_S = 3.0  # Time limit for the kill
_SET_DEATH_SIGNAL = 1  # ``PR_SET_PDEATHSIG`` of linux/prctl.h
_SET_SUBREAPER = 36  # ``PR_SET_CHILD_SUBREAPER`` of linux/prctl.h
_FLAGS = 6  # Field of ``/proc/<pid>/stat`` with the flags of the kernel, counted after the name (proc(5))
_EXITING = 0x4  # ``PF_EXITING`` of linux/sched.h
_GUARD = """
(trap "" TERM; read _; {first} kill -9 0) <"/dev/fd/$0" >/dev/null 2>&1 &
"$@"
code=$?; exec 2>/dev/null; kill -9 $!; wait; exit $code
"""
"""Shell program that runs a command, and kills its process group once the pipe of descriptor ``$0`` has a line or no
writer."""


class Stopped(Struct, frozen=True):
    """Processes have ended."""

    killed: tuple[str, ...] = ()  # names of the processes that ignored SIGTERM and were killed
    survivors: tuple[str, ...] = ()  # names and ids of the processes that could not be killed

    def __add__(self, other: Stopped) -> Stopped:
        return Stopped((*self.killed, *other.killed), (*self.survivors, *other.survivors))

    def require_gone(self) -> None:
        """Raise if one could not be killed."""
        if self.survivors:
            raise DeploymentError(f"these processes survived SIGKILL: {', '.join(self.survivors)}; end them by hand")


def adopt_orphans() -> None:
    """Become the parent of orphans (Linux). On other systems they are found by their environment and session only."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SET_SUBREAPER, 1, 0, 0, 0)


def end_with_creator() -> Callable[[], None] | None:
    """What a new process calls so that it gets SIGTERM when the thread that started it ends; None except on Linux.

    So a main thread should start it. The signal comes also if its creator dies of SIGKILL.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)


@contextlib.contextmanager
def guarded(
    command: Sequence[str], *, cleans_up: bool = False, pass_fds: Sequence[int] = (), **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with pipes, in a session of its own, so that Ctrl-C reaches this process only.

    The program and its children end with the context, and with this process, however that ends: only this process holds
    the pipe on which their group depends. ``cleans_up``: they get SIGTERM, and a second, before they are killed. The
    name of the program must be a path. ``options`` go to ``Popen``.
    """
    start: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen  # looked up here, since gevent replaces it
    watched, lifeline = os.pipe()
    options = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
    try:
        guard = _GUARD.format(first="kill 0; sleep 1;" if cleans_up else "")
        words, passed = ["/bin/sh", "-c", guard, str(watched), *command], (*pass_fds, watched)
        process = start(words, pass_fds=passed, start_new_session=True, **options)
    except BaseException:
        os.close(lifeline)
        raise
    finally:
        os.close(watched)
    with process:
        try:
            yield process
        finally:
            try:
                _end_group(process, lifeline)
            finally:
                os.close(lifeline)


def _end_group(process: subprocess.Popen[bytes], lifeline: int) -> None:
    """End a guarded program that still runs, and wait until none of its processes holds the pipe."""
    if process.poll() is None:
        with contextlib.suppress(OSError):  # it has just ended
            os.write(lifeline, b"\n")
        readers = select.poll()
        readers.register(lifeline, 0)
        if not readers.poll(1000 * _KILL_S):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


def has_children() -> bool:
    """Whether this process has children that run. It reaps the others, so only a process that ends may ask."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def is_ending(pid: int) -> bool:
    """Whether a process has ended, or has begun to: it can do nothing any more (Linux; elsewhere always False)."""
    if sys.platform != "linux":
        return False
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            flags = int(file.read().rpartition(")")[2].split()[_FLAGS])
    except OSError:
        return True
    return bool(flags & _EXITING)


def below(pid: int) -> set[psutil.Process]:
    """The processes below one; none if it has ended."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return alive(psutil.Process(pid).children(recursive=True))
    return set()


def with_ids(pids: Iterable[int]) -> set[psutil.Process]:
    """The running processes with these ids."""
    import psutil

    found = set()
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found.add(psutil.Process(pid))
    return alive(found)


def related(mark: str, sessions: Collection[int]) -> set[psutil.Process]:
    """All running processes with this mark in their environment, or of one of these sessions; an empty mark is none."""
    return _matching(lambda process: (mark != "" and _mark_of(process) == mark) or os.getsid(process.pid) in sessions)


def of_runs_in(directory: str) -> set[psutil.Process]:
    """All running processes that descend from a child process whose log is in this directory."""
    real = os.path.realpath(directory)  # a run can know it by another path: /tmp is a link on macOS
    return _matching(lambda process: os.path.realpath(os.path.dirname(_mark_of(process))) == real)


def terminate(processes: Iterable[psutil.Process]) -> None:
    """Send SIGTERM; a process that is stopped goes on, to receive it."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
            process.resume()


def end_remaining(find: Callable[[], set[psutil.Process]], grace_s: float) -> Stopped:
    """Wait for the end of processes that got SIGTERM; kill those that still run afterwards."""
    import psutil

    _, remaining = psutil.wait_procs([*find()], max(0.0, grace_s))
    remaining = [*alive(remaining)]
    killed = [_name(process) for process in remaining]
    deadline = time.monotonic() + _KILL_S
    while remaining and time.monotonic() < deadline:
        for process in remaining:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(remaining, 0.2)
        remaining = [*alive({*remaining, *find()})]
    return Stopped(tuple(killed), tuple(f"{_name(process)} ({process.pid})" for process in remaining))


def alive(processes: Iterable[psutil.Process]) -> set[psutil.Process]:
    """The processes that run; one that has ended and waits for its parent does not."""
    return {process for process in processes if _is_alive(process)}


def describe_killed(killed: Iterable[str]) -> str:
    """Names of the killed processes, such as ``python ×4, worker``."""
    return ", ".join(f"{name} ×{times}" if times > 1 else name for name, times in Counter(killed).items())


def describe_exit(code: int) -> str:
    """How a process ended: ``exit code 3``, ``signal SIGKILL``, or ``signal 40`` for a signal without a name.

    ``code``: its exit code, or the negative number of the signal.
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _matching(fits: Callable[[psutil.Process], bool]) -> set[psutil.Process]:
    """The running processes that fit, except this one; one that this user may not look at does not.

    ``psutil.process_iter`` would keep processes from one call to the next, and take a new one for an old one of its id.
    """
    import psutil

    found = set()
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if pid != os.getpid() and fits(process := psutil.Process(pid)):
                found.add(process)
    return alive(found)


def _mark_of(process: psutil.Process) -> str:
    import psutil

    try:
        return process.environ().get(MARK, "")
    except (psutil.Error, OSError):
        return ""


def _is_alive(process: psutil.Process) -> bool:
    import psutil

    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _name(process: psutil.Process) -> str:
    import psutil

    with contextlib.suppress(psutil.Error):
        return process.name()
    return "a process that has ended"
