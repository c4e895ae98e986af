"""Whole pytest runs with the plugin, and the file in which a benchmark keeps what they came to."""

from __future__ import annotations

import datetime
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["PluginRun", "Records", "kill_processes_of", "marked", "run_pytest", "take_turns"]

_Case = TypeVar("_Case", bound="Case")

_OFF = tuple(f"-pno:{name}" for name in ("perf", "benchmark", "hypothesispytest", "anyio", "pytest_cov", "locust"))
_NOT_PASSED = ("CI", "PYTHONDONTWRITEBYTECODE")
"""Environment variables of the caller that the runs do without; byte code is kept between runs, as by default."""
_TOKEN = "MLPATTERNS_BENCHMARK_RUN"
"""Environment variable by which the processes of a run are known."""
_RUN_S = 900.0
"""Time limit of a run: ten times the longest budget that a benchmark gives, since each comparison has its own."""


@dataclass(frozen=True)
class PluginRun:
    """What a run came to.

    Attributes:
        results: of its tests, as ``--perf-json`` writes them.
        output: what it printed.
        wall_s: seconds that it took.
    """

    results: list[dict[str, Any]]
    output: str
    wall_s: float


def run_pytest(directory: Path, *arguments: str, python: str = sys.executable, timeout_s: float = _RUN_S) -> PluginRun:
    """Run pytest in a directory.

    Args:
        directory: of the project.
        arguments: of pytest.
        python: of the environment that it runs in.
        timeout_s: after it pytest is killed, and the processes that it started end.

    Raises:
        RuntimeError: there is no result, pytest ended otherwise than with passed or failed tests, it took too long, or
            it left processes, which are killed.
    """
    token = token_hex(8)
    with tempfile.TemporaryDirectory() as name, (Path(name) / "output").open("w+b") as output:
        file = Path(name) / "results.json"
        command = [python, "-m", "pytest", *_OFF, "-q", f"--perf-json={file}", *arguments]
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED}
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=marked(environment, token),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code: int | str = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = f"no exit code after {timeout_s:.0f} s"
        finally:
            process.kill()
            process.wait()
        wall_s = time.perf_counter() - started
        left = kill_processes_of(token)
        results = json.loads(file.read_text(encoding="utf-8"))["results"] if file.exists() else []
        output.seek(0)
        text = output.read().decode(errors="replace")
    if not results or code not in (0, 1) or left:
        raise RuntimeError(f"{shlex.join(command)} ended with {code}, and left {left or 'nothing'}:\n{text}")
    return PluginRun(results, text, round(wall_s, 2))


def marked(environment: dict[str, str], token: str) -> dict[str, str]:
    """An environment by which :func:`kill_processes_of` knows the processes of a run."""
    return {**environment, _TOKEN: token}


def kill_processes_of(token: str) -> list[str]:
    """Kill the processes that have the token in their environment, and return them."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_TOKEN) == token and process.status() != psutil.STATUS_ZOMBIE:
                left.append(f"{' '.join(process.cmdline())} ({process.pid})")
                process.kill()
        except psutil.Error:
            continue
    return left


class Records:
    """A file of results, one JSON object a line, each of a ``kind``.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.all: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]

    def add(self, record: dict[str, Any]) -> None:
        """Keep one more, with the time."""
        record["at"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.all.append(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Those of a kind."""
        return [record for record in self.all if record["kind"] == kind]

    def runs(self, case: str) -> list[dict[str, Any]]:
        """The runs of a case, by its name."""
        return [record for record in self.of("run") if record["case"] == case]


class Case(Protocol):
    """One kind of run: its name, and how many runs are wanted."""

    @property
    def name(self) -> str: ...

    @property
    def wanted(self) -> int: ...


def take_turns(
    records: Records, cases: Sequence[_Case], run: Callable[[_Case], None], *, times: float, until: float
) -> Iterator[tuple[_Case, dict[str, Any]]]:
    """Run the case that is furthest behind, until all have what they want or time is up.

    Args:
        records: of the runs so far; each run adds one.
        cases: all of them.
        run: runs a case once.
        times: so many times the wanted number.
        until: of ``time.monotonic``.

    Yields:
        The case that ran, and the record of it.
    """
    while time.monotonic() < until:
        behind = {case: len(records.runs(case.name)) / (times * case.wanted) for case in cases}
        case = min(cases, key=behind.__getitem__)
        if behind[case] >= 1:
            return
        run(case)
        yield case, records.all[-1]
