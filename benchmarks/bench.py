"""What the benchmarks share: tables and claims, the machine in words, processes on cores of their own, and our load.

A benchmark module has ``CLAIM``, one sentence, and ``measure()``, which yields tables. Everything is a ratio of medians
from the same minutes, the sides taking turns, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import LoadJob
from pytest_mlpatterns.system.environment import available_cores, environment
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

HERE = Path(__file__).resolve().parent
PACKAGES = (
    "pytest-mlpatterns",
    "pytest",
    "pytest-benchmark",
    "pytest-xdist",
    "numpy",
    "scikit-learn",
    "uvicorn",
    "uvloop",
    "httptools",
    "orjson",
    "fastapi",
    "pydantic",
    "httpx",
    "k6",
    "locust",
)
DEBIAN_TOOLS = ("wrk", "hey")
_T = TypeVar("_T")


# --- what is printed ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A ratio that is promised, and what it came to."""

    text: str
    value: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool:
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def __str__(self) -> str:
        bounds = [
            *([f"at least {self.at_least:g}"] if self.at_least is not None else []),
            *([f"at most {self.at_most:g}"] if self.at_most is not None else []),
        ]
        return f"{'met' if self.met else 'NOT MET'}: {self.text}: {self.value:.3f} ({' and '.join(bounds)} is claimed)"


@dataclass(frozen=True)
class Table:
    """What one measurement came to: rows of text, the claims that rest on it, and what a reader should know."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    claims: Sequence[Claim] = ()
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        cells = [self.headings, *self.rows]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.headings))]
        lines = ["  ".join(_aligned(row, widths)).rstrip() for row in cells]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.title, "", *lines, "", *map(str, self.claims), *self.notes]).rstrip()


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def spread(values: Sequence[float]) -> str:
    """How far apart repetitions are: half their range, in percent of their median."""
    return f"±{50 * (max(values) - min(values)) / median(values):.0f} %"


def machine() -> str:
    """The machine, the packages and the tools, in words."""
    found = environment()
    packages = []
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            packages.append(f"{name} {version(name)}")
    tools = [f"{name} {_debian_version(name)}" if shutil.which(name) else f"{name} absent" for name in DEBIAN_TOOLS]
    return "\n".join(
        (
            f"processor  {found.processor}, {found.cores} cores, {found.architecture}",
            f"system     {_system()}",
            f"Python     {platform.python_version()} ({platform.python_implementation()})",
            f"packages   {', '.join(packages)}",
            f"tools      {', '.join(tools)}",
        )
    )


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, kernel {platform.release()}"


def _debian_version(package: str) -> str:
    if shutil.which("dpkg-query") is None:
        return "of unknown version"
    command = ["dpkg-query", "--show", "--showformat", "${Version}", package]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout or "of unknown version"


# --- how it is measured ---------------------------------------------------------------------------------------------


def interleave(sides: Mapping[str, Callable[[], _T]], repetitions: int) -> dict[str, list[_T]]:
    """Measure every side so many times, taking turns: A B C, C B A, A B C, …"""
    found: dict[str, list[_T]] = {name: [] for name in sides}
    for number in range(repetitions):
        for name in list(sides) if number % 2 == 0 else reversed(list(sides)):
            found[name].append(sides[name]())
            print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return found


@contextlib.contextmanager
def on_core(number: int) -> Iterator[None]:
    """Children that are started here stay on one core; no effect where there are fewer than two, or no such call."""
    if available_cores() < 2 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def on_server_core() -> contextlib.AbstractContextManager[None]:
    return on_core(0)


def on_client_core() -> contextlib.AbstractContextManager[None]:
    return on_core(1)


@dataclass(frozen=True)
class Finished:
    """A child that ended: what it printed, and the time that it and its own children took."""

    output: str
    exit_code: int
    wall_s: float
    cpu_s: float


def run_child(
    command: Sequence[str],
    *,
    directory: Path,
    timeout_s: float = 60.0,
    environment: Mapping[str, str] | None = None,
    expected: Sequence[int] = (0,),
) -> Finished:
    """Run a child to its end.

    Raises:
        RuntimeError: another exit code than expected, or out of time.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=directory,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        deadline = threading.Timer(timeout_s, process.kill)
        deadline.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            deadline.cancel()
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode not in expected:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}:\n{text[-3000:]}")
    return Finished(text, process.returncode, wall, usage.ru_utime + usage.ru_stime)


@contextlib.contextmanager
def serving(service: str) -> Iterator[tuple[str, int]]:
    """A service of :mod:`services` in a process of its own, on the server's core; gives its address."""
    with on_server_core():
        process = subprocess.Popen(
            [sys.executable, HERE / "services.py", service], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the service {service} ended with exit code {process.wait()} before it listened")
        yield "127.0.0.1", int(line)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def our_generator() -> Iterator[Generator]:
    """Our load generator; its process, which its first job starts, stays on the client's core."""
    with tempfile.TemporaryDirectory() as directory:
        generator = Generator(Path(directory) / "generator.log")
        try:
            yield generator
        finally:
            generator.close()


@dataclass(frozen=True)
class Load:
    """What one stretch of load came to."""

    requests: int
    rtm_ns: float
    throughput_rps: float
    cpu_ns_per_request: float


def drive(
    generator: Generator,
    address: tuple[str, int],
    messages: Sequence[bytes],
    *,
    concurrency: int,
    seconds: float,
    warmup_s: float = 0.5,
) -> Load:
    """Drive a closed loop with our generator.

    Raises:
        RuntimeError: a request failed, so that the figures would mean nothing.
    """
    job = LoadJob(
        endpoint=Endpoint((address,)),
        messages=tuple(messages),
        schedule=ClosedLoop(concurrency),
        duration_ns=round(seconds * 1e9),
        warmup_ns=round(warmup_s * 1e9),
        timeout_ns=10_000_000_000,
    )
    with on_client_core():
        recorded = generator.run(job, poll_s=0.5, on_poll=lambda _event: None)
    window, report = recorded.window, recorded.generator
    due, done = (np.frombuffer(recorded.columns[name], dtype=np.int64) for name in ("due_ns", "done_ns"))
    outcome = np.frombuffer(recorded.columns["outcome"], dtype=np.int16)
    inside = (due >= window.start_ns) & (due < window.end_ns)
    if not inside.any() or not (outcome[inside] == 200).all():
        raise RuntimeError(f"{(outcome[inside] != 200).sum()} of {inside.sum()} requests failed: {set(outcome)}")
    answered = (done >= window.start_ns) & (done < window.end_ns)
    return Load(
        requests=int(inside.sum()),
        rtm_ns=float(np.median((done - due)[inside])),
        throughput_rps=float(answered.sum() / window.duration_ns * 1e9),
        cpu_ns_per_request=report.cpu_ns / max(report.completed, 1),
    )
