"""py-spy: a program that reads the stacks of a Python process from outside, without its lock and without a pause.

It is started for each recording, ends by SIGINT, and then writes what it saw. Chosen by ``benchmarks/profilers.py``.

A line of its file is a stack and its count: ``thread (17): MainThread;main (/srv/app.py:3);work (/srv/a.py:9) 42``.
Frames of native code have no file. From version 0.4.3 on names are qualified, ``Digits.predict``. This module must not
know how stacks are named or compared.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from pytest_mlpatterns.errors import MissingExtraError, ProfilerError
from pytest_mlpatterns.system.orphans import MARK, end_with_creator
from pytest_mlpatterns.system.owned_files import remove_file
from pytest_mlpatterns.system.process_limits import why_not_traceable
from pytest_mlpatterns.system.thread_times import ThreadTimes, thread_times


class RawFrame(Struct, frozen=True):
    """One level of a stack as the profiler prints it."""

    name: str  # ``co_name`` of the code, such as ``predict`` or ``<listcomp>``
    file: str  # full path, or a name such as ``<string>``; empty for native code
    line: int  # line that runs, from 1; 0 if unknown
    # ``co_qualname`` of the code, such as ``Digits.predict``; empty if the profiler does not read it
    qualified: str = ""


class RawStack(Struct, frozen=True):
    """A stack of one thread."""

    thread: int  # id of the thread, as the system knows it; 0 if unknown
    name: str
    frames: tuple[RawFrame, ...]


class RawStacks(Struct, frozen=True):
    """What a profiler saw of one process."""

    pid: int
    duration_ns: int
    counts: Mapping[RawStack, int]  # how often it saw each stack, idle threads included
    lost: int = 0
    # times of each thread meanwhile, by its id; empty if the system does not show them
    threads: Mapping[int, ThreadTimes] = {}


_START_S = 10.0  # Time limit for the start: it takes 0.1 s, and longer on a busy machine
_STOP_S = 5.0  # Time limit for py-spy to write what it saw, in seconds; it takes 0.1 s
_OPTIONS = ("--format", "raw", "--nonblocking", "--idle", "--threads", "--full-filenames", "--hideprogress")
"""Without ``--idle``, a thread that sleeps or waits for a lock would not be seen."""
_LOOKS = "Sampling process"  # What it prints when it has read the process for the first time
_ERRORS = re.compile(r"Errors: (\d+)")
_FORBIDDEN = re.compile(r"permission denied|operation not permitted", re.IGNORECASE)
_PERMIT = "a container permits it with docker run --cap-add SYS_PTRACE, or capabilities.add of Kubernetes"
_MOST_WORDS = 3  # Last lines of its output that are its reason
_QUIET = {"RUST_BACKTRACE": "0", "RUST_LIB_BACKTRACE": "0"}
"""Without these it prints its own stack after the reason, if the variables are set for another program."""
_LONGEST_NAME = 80  # Letters of its name and version in reports; it is a word and a number
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_THREAD_OF_STACK = re.compile(r"thread \((0[xX][0-9a-fA-F]+|\d+)\)(?:: (.*))?", re.DOTALL)
_FRAME = re.compile(r"(.*?) \((.*?)(?::(\d+))?\)", re.DOTALL)


def find_py_spy(what: str, directory: Path) -> PySpy:
    """The installed py-spy."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.is_file() else shutil.which("py-spy")
    if found is None:
        raise MissingExtraError(
            f"{what} needs the package py-spy, which is not installed; install it: pip install py-spy"
        )
    if why := why_not_traceable():
        raise ProfilerError(f"py-spy cannot read other processes: {why}")
    return PySpy(found, directory)


class PySpy:
    """Reads processes of the same user from outside, without changing them."""

    def __init__(
        self,
        executable: str,
        directory: Path,
        *,
        start_s: float = _START_S,
        stop_s: float = _STOP_S,
        version_s: float = _START_S,
    ) -> None:
        self._executable = executable
        self._directory = directory
        self._start_s = start_s
        self._stop_s = stop_s
        self._numbers = itertools.count()
        self.name: str = _version_of(executable, directory, version_s)

    def start(self, pid: int, rate_hz: int) -> PySpyRecording:
        """Begin to look at a process, without waiting until it does."""
        words = [self._executable, "record", "--pid", str(pid), "--rate", str(rate_hz), *_OPTIONS]
        file = self._directory / f"py-spy-{id(self):x}-{next(self._numbers)}.txt"
        return PySpyRecording(words, pid, file, start_s=self._start_s, stop_s=self._stop_s)


class PySpyRecording:
    """One run of py-spy, which looks at one process. Its methods raise ProfilerError if it cannot, or ended early."""

    def __init__(self, words: Sequence[str], pid: int, file: Path, *, start_s: float, stop_s: float) -> None:
        self._pid = pid
        self._file = file
        self._start_s = start_s
        self._stop_s = stop_s
        self._started_ns = self._ended_ns = 0
        self._threads: Mapping[int, ThreadTimes] = {}
        self._is_gone = False
        self._printed: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process = _started([*words, "--output", str(file)], file)
        threading.Thread(target=self._read, name=f"output of py-spy {pid}", daemon=True).start()

    def await_start(self) -> None:
        """Wait until it looks."""
        deadline = time.monotonic() + self._start_s
        while (line := self._next_line(deadline, f"did not begin within {self._start_s:g} s")) is not None:
            if _LOOKS in line:
                self._threads = thread_times(self._pid)
                self._started_ns = time.perf_counter_ns()
                return
        raise ProfilerError(self._refusal())

    def request_stop(self) -> None:
        """Ask it to end, without waiting."""
        self._ended_ns = time.perf_counter_ns()
        before, now = self._threads, thread_times(self._pid)
        self._threads = {thread: times.since(before.get(thread, ThreadTimes())) for thread, times in now.items()}
        _signal_group(self._process, signal.SIGINT)

    def stop(self) -> RawStacks:
        """What it saw, after it has ended."""
        if not self._ended_ns:
            self.request_stop()
        deadline = time.monotonic() + self._stop_s
        try:
            while self._next_line(deadline, f"did not end within {self._stop_s:g} s") is not None:
                pass
            counts, lost = self._counts(), self._lost()
        finally:
            self.abandon()
        return RawStacks(self._pid, self._ended_ns - self._started_ns, counts, lost, self._threads)

    def abandon(self) -> None:
        """End it and what it started at once. Safe to call at any time, and twice."""
        if not self._is_gone:  # else the system may have given its id to another process
            self._is_gone = True
            _signal_group(self._process, signal.SIGKILL)
            self._process.wait()
        with contextlib.suppress(OSError):
            remove_file(self._file)

    def _counts(self) -> Mapping[RawStack, int]:
        """How often it saw each stack, from its file."""
        try:
            return read_collapsed(self._file.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            raise ProfilerError(f"py-spy ended early: {self._last_words()}") from None
        except (OSError, ValueError) as error:
            raise ProfilerError(f"py-spy wrote what cannot be read: {error}") from error

    def _lost(self) -> int:
        """Looks that failed, from its last line."""
        found = [match for line in self._printed if (match := _ERRORS.search(line))]
        return int(found[-1][1]) if found else 0

    def _next_line(self, deadline: float, late: str) -> str | None:
        """The next line that it prints; None at its end."""
        try:
            line = self._lines.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            raise ProfilerError(f"py-spy {late}: {self._last_words()}") from None
        if line:
            self._printed.append(line)
        return line

    def _refusal(self) -> str:
        said = self._last_words()
        permit = f"; {_PERMIT}" if _FORBIDDEN.search(said) else ""
        return f"py-spy cannot read process {self._pid}: {said}{permit}"

    def _last_words(self) -> str:
        """What it printed as its reason: its last lines."""
        return "; ".join(self._printed[-_MOST_WORDS:]) or "it printed nothing"

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.put(_COLOUR.sub("", line.decode(errors="replace")).strip())
        self._lines.put(None)


def _started(words: Sequence[str], file: Path) -> subprocess.Popen[bytes]:
    """Start py-spy in a session of its own, so that it ends with this process, and a later run finds what is left."""
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_QUIET, MARK: str(file)},
            start_new_session=True,  # Ctrl-C is for pytest, which then ends it
            preexec_fn=end_with_creator(),  # noqa: PLW1509 - it makes one system call and takes no lock
        )
    except OSError as error:
        raise ProfilerError(f"{words[0]} cannot be started: {error.strerror}") from error


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and all that it started: a wrapper script, for instance, has children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _version_of(executable: str, directory: Path, limit_s: float) -> str:
    """Name and version, such as ``py-spy 0.4.2``; ``directory`` marks its process."""
    process = _started([executable, "--version"], directory)
    try:
        said, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise ProfilerError(f"{executable} --version did not answer within {limit_s:g} s") from None
    finally:
        _signal_group(process, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    return said.decode(errors="replace").strip().rpartition("\n")[2][:_LONGEST_NAME] or "py-spy"


def read_collapsed(text: str) -> Mapping[RawStack, int]:
    """How often each stack was seen. Raises ValueError: a line is no collapsed stack."""
    counts: Counter[RawStack] = Counter()
    for line in text.splitlines():
        if line:
            stack, _, seen = line.rpartition(" ")
            counts[_read_stack(stack)] += int(seen)
    return counts


def _read_stack(text: str) -> RawStack:
    first, *rest = text.split(";")
    if (found := _THREAD_OF_STACK.fullmatch(first)) is None:
        raise ValueError(f"a stack that does not begin with its thread: {text[:80]!r}")
    identity = found[1]
    thread = (
        0 if identity[:2].lower() == "0x" else int(identity)
    )  # else an address, which names no thread of the system
    return RawStack(thread, found[2] or "", tuple(map(_read_frame, rest)))


@lru_cache(maxsize=4096)
def _read_frame(text: str) -> RawFrame:
    if (found := _FRAME.fullmatch(text)) is None:
        return RawFrame(text, "", 0)
    qualified = found[1] if "." in found[1] else ""
    return RawFrame(found[1].rpartition(".")[2] or found[1], found[2], int(found[3] or 0), qualified)
