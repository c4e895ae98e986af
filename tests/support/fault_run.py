"""A run of pytest in which something goes wrong on purpose: how it ended, after how long, and what it left behind.

Each run has a directory for its project and one for temporary files. An environment variable that all its processes
inherit finds those that outlive it, however they hide from their parent.

A run in this process spares a Python that imports pytest and the plugin, which is most of the processor time of a short
run. It is for faults of what pytest starts. A fault of pytest's own process needs a process of its own.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from support.project import Project, Run, clean_environment, command, run_here

LIMIT_S = 120.0
"""Within this a run must end that waits for nothing longer than a second or two, however busy the machine is."""
_GRACE_S = 60.0
"""Time that processes have to end after pytest, which may have been killed; on a busy machine some only begin."""
_AGAIN_S = 10.0
"""Time after which a run that goes on after its interruption is interrupted again."""
_MARK = "MLPATTERNS_FAULT_RUN"
_OF_PYTEST = ("pytest-of-", "pymp-", "pytest-cache-files-")
"""Beginnings of names in the temporary directory that are pytest's or Python's own."""
_OF_THE_PROJECT = (".pytest_cache", ".git")


@dataclass(frozen=True, slots=True)
class FaultRun:
    """How a run ended."""

    run: Run
    seconds: float
    processes: tuple[str, ...]  # command lines of those that outlived it
    files: tuple[str, ...]  # left in its directory for temporary files, and hidden ones beside the project's
    timed_out: bool  # it had to be killed at its limit

    @property
    def exit_code(self) -> int:
        """pytest's exit code; a negative number is the signal that ended it."""
        return self.run.exit_code

    @property
    def text(self) -> str:
        """Standard output and standard error."""
        return self.run.out + self.run.err

    @property
    def outcomes(self) -> dict[str, int]:
        """How many tests passed, failed, …; warnings are left out."""
        return {name: number for name, number in self.run.outcomes.items() if name != "warnings"}

    def assert_left_nothing(self, *, files: bool = True) -> None:
        """It ended by itself, without an error of pytest's own, and no process is left.

        No file either, but for a killed pytest, which leaves its directory to the next run.
        """
        assert not self.timed_out, f"killed after {self.seconds:.0f} s:\n{self.text}"
        assert "INTERNALERROR" not in self.text
        assert self.processes == ()
        assert not files or self.files == ()

    def assert_ended(self, outcomes: Mapping[str, int], *messages: str) -> None:
        """As :meth:`assert_left_nothing`, with these outcomes, and each of these messages in the output."""
        self.assert_left_nothing()
        assert self.outcomes == outcomes, self.text
        for message in messages:
            assert message in self.text, f"no {message!r} in:\n{self.text}"


class RunningFault:
    """A run that goes on; :func:`start_fault` makes it."""

    def __init__(
        self, directory: Path, arguments: tuple[str, ...], environment: Mapping[str, str], terminal: int | None = None
    ) -> None:
        self.project = directory / "project"
        self._temporary = directory / "tmp"
        self._temporary.mkdir(exist_ok=True)
        self._mark = uuid.uuid4().hex
        self._began = time.monotonic()
        with (directory / "out.txt").open("w") as out, (directory / "err.txt").open("w") as err:
            self._process = subprocess.Popen(
                command("-p", "no:cacheprovider", *arguments),
                cwd=self.project,
                env={
                    **clean_environment(),
                    "TMPDIR": str(self._temporary),
                    "PYTHONUNBUFFERED": "1",
                    **environment,
                    _MARK: self._mark,
                },
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=out if terminal is None else terminal,
                stderr=err if terminal is None else terminal,
                start_new_session=True,
                preexec_fn=None if terminal is None else _take_terminal,  # noqa: PLW1509 - two calls without a lock
            )
        self._output = directory / "out.txt", directory / "err.txt"

    @property
    def pid(self) -> int:
        """pytest's process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether pytest has ended."""
        return self._process.poll() is not None

    def text(self) -> str:
        """What it has printed so far."""
        return "".join(file.read_text(encoding="utf-8", errors="replace") for file in self._output)

    def await_file(self, name: str, *, limit_s: float = LIMIT_S) -> None:
        """Wait until a file of the project exists."""
        await_true(lambda: (self.project / name).exists() or self.has_ended, limit_s, f"no file {name}")
        assert (self.project / name).exists(), f"pytest ended with {self._process.poll()}:\n{self.text()}"

    def processes(self) -> list[psutil.Process]:
        """All processes of the run but pytest itself, and wherever they hide."""
        return [process for process in _marked(self._mark) if process.pid != self.pid]

    def send_signal(self, number: signal.Signals) -> None:
        """Send pytest a signal."""
        self._process.send_signal(number)

    def end(self, *, limit_s: float = LIMIT_S, grace_s: float = _GRACE_S) -> FaultRun:
        """Wait until pytest has ended, and its processes too, or kill what has not."""
        try:
            code, timed_out = self._process.wait(max(self._began + limit_s - time.monotonic(), 1.0)), False
        except subprocess.TimeoutExpired:
            self._process.kill()
            code, timed_out = self._process.wait(), True
        seconds = time.monotonic() - self._began
        left = _left_processes(self._mark, grace_s)
        self.kill()
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in self._output]
        sys.stdout.write("".join(texts))  # shown where the test fails
        files = _left_files(self.project, self._temporary)
        return FaultRun(Run(code, *texts, self.project), seconds, left, files, timed_out)

    def kill(self) -> None:
        """Kill pytest and all processes of the run."""
        _kill(self._mark)
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def start_fault(
    project: Project,
    directory: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    terminal: int | None = None,
) -> Iterator[RunningFault]:
    """Write a project, start pytest in it, and kill at the end of the block whatever still runs.

    The project is in a directory ``project``, and ``tmp`` beside it is for temporary files. Without the descriptor of a
    terminal that pytest runs in, its output goes to files.
    """
    project.write(directory / "project")
    running = RunningFault(directory, arguments, environment or {}, terminal)
    try:
        yield running
    finally:
        running.kill()


def run_fault(
    project: Project,
    directory: Path,
    *arguments: str,
    limit_s: float = LIMIT_S,
    grace_s: float = _GRACE_S,
    environment: Mapping[str, str] | None = None,
) -> FaultRun:
    """Write a project, run pytest in it, at most ``limit_s``, and look for what it left ``grace_s`` after its end."""
    with start_fault(project, directory, *arguments, environment=environment) as running:
        return running.end(limit_s=limit_s, grace_s=grace_s)


def run_fault_here(
    project: Project,
    directory: Path,
    *arguments: str,
    limit_s: float = LIMIT_S,
    grace_s: float = _GRACE_S,
    environment: Mapping[str, str] | None = None,
) -> FaultRun:
    """As :func:`run_fault`, in this process, which is interrupted after ``limit_s``."""
    place, temporary, mark = directory / "project", directory / "tmp", uuid.uuid4().hex
    project.write(place)
    temporary.mkdir(exist_ok=True)
    variables = {**(environment or {}), "TMPDIR": str(temporary), _MARK: mark}
    began = time.monotonic()
    try:
        with _temporary_files_anew(), _interrupted_after(limit_s) as interruptions:
            run = run_here(place, "-p", "no:cacheprovider", *arguments, environment=variables)
        seconds = time.monotonic() - began
        left = _left_processes(mark, grace_s)
    finally:
        _kill(mark)
    return FaultRun(run, seconds, left, _left_files(place, temporary), bool(interruptions))


@contextlib.contextmanager
def _temporary_files_anew() -> Iterator[None]:
    """Python looks for the directory for temporary files again, then as before."""
    before, tempfile.tempdir = tempfile.tempdir, None
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _interrupted_after(limit_s: float) -> Iterator[list[float]]:
    """Interrupt this thread, as Ctrl-C does, after this time and again until it ends; the times of that."""
    times: list[float] = []

    def interrupt(*_: object) -> None:
        times.append(time.monotonic())
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, limit_s, _AGAIN_S)
    try:
        yield times
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def await_true(condition: Callable[[], object], limit_s: float, otherwise: str) -> None:
    """Ask every 20 ms until a condition holds, for what gives no event, as a process of another parent."""
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, f"{otherwise} within {limit_s:.0f} s"
        time.sleep(0.02)


def _take_terminal() -> None:
    """Make standard input, a terminal, the one that controls this new session, and whose end SIGHUP reports to it."""
    os.close(os.open(os.ttyname(0), os.O_RDWR))


def _marked(mark: str) -> list[psutil.Process]:
    """Processes that run with this mark in their environment; one that has ended and waits for its parent does not."""
    found = []
    for pid in psutil.pids():  # process_iter would take a new process for an old one of its id
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _left_processes(mark: str, grace_s: float) -> tuple[str, ...]:
    """What runs with this mark after a grace period."""
    with contextlib.suppress(AssertionError):
        await_true(lambda: not _marked(mark), grace_s, "processes are left")
    return tuple(sorted(_described(process) for process in _marked(mark)))


def _left_files(project: Path, temporary: Path) -> tuple[str, ...]:
    """What a run left in its directory for temporary files, and hidden files beside the project's."""
    ours = [entry.name for entry in temporary.iterdir() if not entry.name.startswith(_OF_PYTEST)]
    hidden = [entry.name for entry in project.glob(".*") if entry.name not in _OF_THE_PROJECT]
    return tuple(sorted(ours + hidden))


def _kill(mark: str) -> None:
    for process in _marked(mark):
        with contextlib.suppress(psutil.Error):
            process.kill()


def _described(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{' '.join(process.cmdline())[:200]} ({process.status()}, {sum(process.cpu_times()[:2]):.2f} s of CPU)"
    return f"process {process.pid}"
