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
from typing import Any

__all__ = ["PluginRun", "Records", "run_pytest"]

_OFF = tuple(f"-pno:{name}" for name in ("perf", "benchmark", "hypothesispytest", "anyio", "pytest_cov", "locust"))
_NOT_PASSED = ("CI", "PYTHONDONTWRITEBYTECODE")
"""Environment variables of the caller that the runs do without; byte code is kept between runs, as by default."""


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


def run_pytest(directory: Path, *arguments: str) -> PluginRun:
    """Run pytest in a directory.

    Raises:
        RuntimeError: there is no result, or pytest ended otherwise than with passed or failed tests.
    """
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "results.json"
        command = [sys.executable, "-m", "pytest", *_OFF, "-q", f"--perf-json={file}", *arguments]
        started = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=directory,
            env={name: value for name, value in os.environ.items() if name not in _NOT_PASSED},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        wall_s = time.perf_counter() - started
        results = json.loads(file.read_text(encoding="utf-8"))["results"] if file.exists() else []
    if not results or done.returncode not in (0, 1):
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return PluginRun(results, done.stdout, round(wall_s, 2))


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
