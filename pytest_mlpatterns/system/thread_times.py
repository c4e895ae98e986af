"""CPU time of the threads of another process, and how long they were ready and did not run, in nanoseconds (Linux).

Which library started a thread of another process, such as onnxruntime or OpenBLAS (Linux).

A thread that waits has an address of the code that started it at the base of its stack: after the C library's, the
outermost address that lies in a library names it. This works without symbols, and for stripped libraries. It needs the
same permission as a profiler, and reads some kilobytes of the stack.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Sequence

from msgspec import Struct

_KNOWN = {
    "openblas": "OpenBLAS",
    "mkl_": "MKL",
    "libblis": "BLIS",
    "libgomp": "OpenMP",
    "libiomp": "OpenMP",
    "libomp": "OpenMP",
    "libtbb": "TBB",
    "libuv": "libuv",
    "libtorch": "torch",
    "onnxruntime": "onnxruntime",
}
"""Libraries that several packages bring, by a part of the name of their file."""
_PACKAGE = re.compile(r"/(?:site|dist)-packages/([^/]+?)(?:\.libs)?/")
_OF_THE_SYSTEM = re.compile(
    r"(?:ld-|ld\.|ld64|libc[.-]|libpthread|libstdc\+\+|libgcc_s|libm[.-]|libdl[.-]|libpython|python\d)"
)
"""Files that start threads for others."""
_MOST_BYTES = 64 * 1024  # Of a stack: a thread that waits for work uses less than 10 KB
_WORD = 8  # Bytes of an address on a stack; all systems with ``/proc`` that we support have 64 bits
_TRIES, _PAUSE_S = 60, 0.01
"""Looks at a thread that runs: a pool waits actively after its last work, OpenBLAS for 0.1 to 0.3 s on an idle core."""


class MemoryMap(Struct, frozen=True):
    """A range of addresses of a process."""

    start: int
    end: int
    file: str = ""  # that is mapped there as code; empty for anything else


def thread_owners(pid: int, threads: Iterable[int]) -> dict[int, str]:
    """The name of the library that started each thread; those that cannot be read are left out.

    ``threads``: ids of threads that wait most of the time, since the stack of one that runs cannot be read.
    """
    if sys.platform != "linux":
        return {}
    found: dict[int, str] = {}
    for thread in threads:
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
                maps = [*map(_map_of, file)]
            if owner := owner_of_stack(_words(pid, _stack_of(pid, thread, maps)), maps):
                found[thread] = owner
        except OSError:  # it has ended, or may not be read
            continue
    return found


def owner_of_stack(words: Sequence[int], maps: Sequence[MemoryMap]) -> str:
    """The library whose code is the outermost one on a stack; empty if there is only code of the system."""
    code = [one for one in maps if one.file and not _OF_THE_SYSTEM.match(one.file.rpartition("/")[2])]
    for word in reversed(words):
        for one in code:
            if one.start <= word < one.end:
                return _name(one.file)
    return ""


def _words(pid: int, stack: MemoryMap | None) -> Sequence[int]:
    if stack is None:
        return ()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        read = os.pread(memory.fileno(), stack.end - stack.start, stack.start)
    return memoryview(read[: len(read) // _WORD * _WORD]).cast("Q")


def _name(path: str) -> str:
    """``onnxruntime`` for its files: the name of what is known, else of the package, else of the file."""
    file = path.rpartition("/")[2]
    known = (name for part, name in _KNOWN.items() if part in file.lower())
    if (name := next(known, None)) is not None:
        return name
    package = _PACKAGE.search(path)
    return package[1] if package else file.partition(".")[0]


def _map_of(line: str) -> MemoryMap:
    """A line of ``/proc/PID/maps``; see proc(5)."""
    fields = line.split(maxsplit=5)
    start, _, end = fields[0].partition("-")
    file = fields[5].strip() if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/") else ""
    return MemoryMap(int(start, 16), int(end, 16), file)


def _stack_of(pid: int, thread: int, maps: Sequence[MemoryMap]) -> MemoryMap | None:
    """The part of its stack that a thread uses; None while it runs."""
    pointer = _stack_pointer(pid, thread)
    base = next((one.end for one in maps if one.start <= pointer < one.end), 0)
    return MemoryMap(pointer, min(base, pointer + _MOST_BYTES)) if base else None


def _stack_pointer(pid: int, thread: int) -> int:
    """The stack pointer of a thread that waits in a system call; 0 if it ran at all looks."""
    for _ in range(_TRIES):
        with open(f"/proc/{pid}/task/{thread}/syscall", encoding="ascii") as file:
            fields = file.read().split()
        if len(fields) > 2:  # the call, its arguments, the stack pointer, and the program counter
            return int(fields[-2], 16)
        time.sleep(_PAUSE_S)
    return 0


_SCHEDSTAT = "/proc/thread-self/schedstat"
_LONGEST = 100  # Bytes that are read of the file; its three numbers of 64 bits take at most 63


class ThreadTimes(Struct, frozen=True):
    """Times of a thread: on a core, and ready for one (proc(5), ``schedstat``)."""

    cpu_ns: int = 0
    ready_ns: int = 0

    def since(self, before: ThreadTimes) -> ThreadTimes:
        """The times since an earlier reading."""
        return ThreadTimes(self.cpu_ns - before.cpu_ns, self.ready_ns - before.ready_ns)


def thread_times(pid: int) -> dict[int, ThreadTimes]:
    """The times of each thread so far, by its id; empty if the system does not show it, or the process has ended."""
    found: dict[int, ThreadTimes] = {}
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:
                cpu, ready, *_ = file.read().split()
        except (OSError, ValueError):  # the thread has ended, or the kernel keeps no such statistics
            continue
        found[int(thread)] = ThreadTimes(int(cpu), int(ready))
    return found


class RunQueueClock:
    """Reads how long the calling thread has waited for a processor: the second number of its ``schedstat``.

    ``path``: the file, which each thread opens once; on other systems than Linux and in some sandboxes there is none.
    """

    def __init__(self, path: str = _SCHEDSTAT) -> None:
        self._path = path
        self._of_thread = threading.local()

    def waited_ns(self) -> int | None:
        """Nanoseconds since the thread began; None if that is not known. About 1.5 µs."""
        try:
            file: _File | None = self._of_thread.file
        except AttributeError:
            file = self._of_thread.file = _opened(self._path)
        if file is None:
            return None
        try:
            return int(os.pread(file.descriptor, _LONGEST, 0).split()[1])
        except (OSError, ValueError, IndexError):
            self._of_thread.file = None
            return None

    def ignore(self) -> None:
        """Know of no wait from now on: charging one is work, which a busy machine would add to every request."""
        self._path = ""

    def claim(self, waited_ns: int) -> None:
        """Part of what this thread has waited is charged already."""
        self._of_thread.claimed_ns = getattr(self._of_thread, "claimed_ns", 0) + waited_ns

    def unclaimed_ns(self) -> int | None:
        """What this thread has waited and is not claimed, in nanoseconds; None if that is not known."""
        waited_ns = self.waited_ns()
        return None if waited_ns is None else waited_ns - getattr(self._of_thread, "claimed_ns", 0)


class _File:
    """An open file, which is closed with its thread."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


def _opened(path: str) -> _File | None:
    try:
        return _File(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return None
