"""callgrind: the tool of valgrind that counts the instructions of processes, by library and C function.

valgrind runs a program on a processor of its own making, so what it counts depends neither on other programs nor on the
speed of the machine. It follows the processes that a program starts. It counts from when it is asked to, since a start
under it takes five times as long without counting, and fifty times with it. ``vgdb`` asks, through pipes in a private
directory; between two rounds each process writes what it counted into a file there, and begins anew.

This module must not know what is counted, nor how often.
"""

import contextlib
import platform
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from pytest_mlpatterns.errors import CountError
from pytest_mlpatterns.records.count import RunUnder
from pytest_mlpatterns.system.work_counter import Reading, WorkCounter

_OPTIONS = (
    *("--tool=callgrind", "-q", "--trace-children=yes", "--max-threads=2000", "--instr-atstart=no"),
    *("--sigill-diagnostics=yes", "--dump-line=no", "--separate-recs=1"),
)
"""Without lines, what a process writes is a tenth as long."""
_INSTALL = "apt-get install valgrind"  # The package has this name in the distributions of Linux
_PIPE = re.compile(r"pipe-from-vgdb-to-(\d+)-by-")  # Name of the pipe through which a process is asked
_WRITTEN = re.compile(r"out\.(\d+)(?:\.\d+)?")  # Name of a file with what a process counted
_NAMED = re.compile(r"\((\d+)\)(?: (.*))?")  # A name of a file of callgrind: its number, and at first the name
_BUILD = re.compile(r"(?:\.cpython-\w+|\.abi3)?(?:-[\w-]+)?\.so$")  # End of the name of an extension module
_VERSION_S = 10.0  # Time limit for ``valgrind --version``, in seconds
_LONGEST_NAME = 120  # Letters of the name of a function; templates of C++ have thousands
_PROCESSOR = Path("/proc/cpuinfo")
_UNKNOWN_INSTRUCTION = re.compile(r"unhandled instruction bytes|Unrecognised instruction")


class Countable(Struct, frozen=True):
    """Whether this machine can count the instructions of a service that a test starts here."""

    why: str = ""  # half a sentence on why they cannot; empty if they can
    lacks_tool: bool = False  # whether only valgrind is missing, which a package installs


def countable(system: str = sys.platform) -> Countable:
    """Whether there is valgrind, without a start of it."""
    if system == "darwin":
        return Countable("macOS has no valgrind; count on Linux, for instance in a container")
    if not system.startswith("linux"):
        return Countable(f"{system} has no valgrind; count on Linux")
    if shutil.which("valgrind") is None or shutil.which("vgdb") is None:
        return Countable(f"valgrind is not installed ({_INSTALL})", lacks_tool=True)
    return Countable()


def shown_architecture(machine: str | None = None, processor: Path = _PROCESSOR) -> str:
    """The architecture of the processor that a program sees under valgrind, such as ``x86_64``.

    valgrind shows each x86-64 processor with AVX2 as the same one, a Core i7-4910MQ with its caches. One without it is
    shown as an older one, for which libraries choose other code: ``x86_64 without AVX2``.
    """
    name = machine or platform.machine()
    with contextlib.suppress(OSError):
        flags = re.search(r"^flags\s*:(.*)$", processor.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if name in ("x86_64", "AMD64") and flags is not None and "avx2" not in flags[1].split():
            return f"{name} without AVX2"
    return name


class Callgrind(WorkCounter):
    """Counts the processes that are started under it. ``directory``: private and empty, for its pipes and files."""

    def __init__(self, directory: Path) -> None:
        if why := countable().why:
            raise CountError(why)
        valgrind, vgdb = shutil.which("valgrind") or "valgrind", shutil.which("vgdb") or "vgdb"
        pipes, out, log = (directory / name for name in ("pipe", "out.%p", "log.%p"))
        files = (f"--vgdb-prefix={pipes}", f"--callgrind-out-file={out}", f"--log-file={log}")
        self.under: RunUnder = RunUnder((valgrind, *_OPTIONS, *files), {"VALGRIND_OPTS": ""})
        self.tool: str = _version_of(valgrind)
        self._vgdb = (vgdb, files[0], "--max-invoke-ms=1")
        self._directory = directory
        self._counted: tuple[int, ...] = ()
        self._read: set[str] = set()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that run under it."""
        found = (_PIPE.match(entry.name) for entry in self._directory.iterdir())
        return tuple(sorted(int(match[1]) for match in found if match is not None))

    def begin(self, deadline: float) -> None:
        """Count all that run under it from now on."""
        self._counted = self.pids
        self._read = {file.name for file in self._directory.iterdir()}
        self._ask("instrumentation on", deadline)

    def read(self, deadline: float) -> Reading:
        """What was executed since the last look.

        A forked process has the counts of its parent too, and one that was started anew has none, so both end a count.
        """
        self._ask("dump", deadline)
        at = time.monotonic()
        functions = Counter[tuple[str, str]]()
        for file in self._directory.iterdir():
            if file.name not in self._read and (of := _WRITTEN.fullmatch(file.name)) is not None:
                if int(of[1]) not in self._counted:
                    raise CountError(f"requests start processes, which {self.tool} cannot count beside the service")
                self._read.add(file.name)
                functions += read_profile(file.read_text(encoding="utf-8", errors="replace").splitlines())
        return Reading(functions.total(), functions, at)

    def refusal(self) -> str:
        """Why a process cannot run under valgrind; empty if it printed no reason."""
        for file in self._directory.glob("log.*"):
            text = file.read_text(encoding="utf-8", errors="replace")
            if _UNKNOWN_INSTRUCTION.search(text):
                return f"{self.tool} does not know an instruction of the service, such as one of AVX-512"
        return ""

    def _ask(self, command: str, deadline: float) -> None:
        """Give all processes a command, and wait until they have followed it."""
        words, quiet = [*self._vgdb, *command.split()], subprocess.DEVNULL
        asked = [
            subprocess.Popen([*words[:1], f"--pid={pid}", *words[1:]], stdin=quiet, stdout=quiet, stderr=quiet)
            for pid in self.pids
        ]
        try:
            for process in asked:
                process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            raise CountError(f"a process of the service did not answer {self.tool} in time") from None
        finally:
            for process in asked:
                process.kill()
                process.wait()


def read_profile(lines: Iterable[str]) -> Counter[tuple[str, str]]:
    """A file of callgrind: what each function of a library itself executed, without those that it called.

    The format follows the manual of valgrind, "Callgrind Format Specification". A cost stands in a line of its own
    after its function; the line after ``calls=`` has the cost of the call, which the called functions have, too.
    """
    functions = Counter[tuple[str, str]]()
    names: dict[str, dict[str, str]] = {"ob": {}, "fn": {}}
    now = {"ob": "", "fn": ""}
    is_call = False
    for line in lines:
        key, _, value = line.partition("=")
        if (kind := key[-2:]) in names and key in ("ob", "cob", "fn", "cfn"):
            name = _named(value, names[kind])
            if key == kind:
                now[kind] = library_name(name) if kind == "ob" else name[:_LONGEST_NAME]
        elif key == "calls":
            is_call = True
        elif line and line[0] in "0123456789+-*":
            if not is_call:
                functions[now["ob"], now["fn"]] += int(line.rpartition(" ")[2])
            is_call = False
    return functions


def _named(value: str, names: dict[str, str]) -> str:
    """The name that a number stands for, which is given with it where it occurs for the first time."""
    match = _NAMED.fullmatch(value)
    if match is None:
        return value
    if match[2] is not None:
        names[match[1]] = match[2]
    return names.get(match[1], "")


def library_name(path: str) -> str:
    """The name of a library as reports have it: its file's name, for an extension module without what its build added.

    Code that a program makes while it runs has no file.
    """
    name = path.rpartition("/")[2]
    return "code made at run time" if name in ("", "???") else _BUILD.sub("", name)


def _version_of(valgrind: str) -> str:
    """Name and version, such as ``valgrind-3.24.0``."""
    try:
        done = subprocess.run([valgrind, "--version"], capture_output=True, text=True, timeout=_VERSION_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise CountError(f"valgrind cannot be started: {error}") from error
    return done.stdout.strip()
