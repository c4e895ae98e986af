"""Whether memory and open files stay flat through a long run, in pytest and in each of its processes.

``python benchmarks/long_run.py --minutes 10 --rate 2000 --pattern single()`` runs one perf test and reads each process
once a second under load. It exits with 1 if one of them grows. The generator may grow by what it records, 35 bytes for
each request; and an open loop opens connections whenever the service pauses, up to 1,024, and keeps them.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import psutil
from bench import Claim, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLAIM = "memory and open files of every process stay flat through a long run"
SECONDS = 30.0
RATE_RPS = 2000.0
PATTERN = "single()"

INTERVAL_S = 1.0
START_S = 120.0
"""Time until the load must have begun."""
SETTLED = 0.25
"""Part of the load after which a process has imported and allocated what it needs."""
ROW_BYTES = 50
"""Growth of the generator for each request: a row of 35 bytes, in arrays that grow by an eighth at a time."""
GROWTH_MIB = 4.0
"""Growth that counts as none: allocators keep what was free."""
CONNECTION_KIB = 24
"""Memory of a connection, in the generator or the service."""
OPENED = 8
"""Open files beside connections that count as none: both are not counted at one moment."""
MIB = 2**20
ROLES = {"loadgen.process": "generator", "local.worker": "worker", "embedded_server": "supervisor of Valkey"}

TEST = """
from pathlib import Path

import pytest

begun = Path("begun")


def model(batch):
    if not begun.exists():
        begun.touch()
    return [2 * value for value in batch]


@pytest.fixture
def perf_model():
    return model


@pytest.fixture
def perf_payload():
    return list(range(1000))


@pytest.mark.perf(rate_rps={rate}, duration="{seconds}s", warmup="0s", launches=1, pattern="{pattern}")
def test_long(perf):
    failed = sum(perf.metrics.failures.values())
    assert failed == 0, f"{{failed}} requests failed: {{perf.metrics.failures}}"
"""


@dataclass
class Readings:
    """One process, read again and again: seconds under load, resident bytes, connections, other open files."""

    role: str
    times_s: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def add(self, at_s: float, process: psutil.Process) -> None:
        memory, files, connections = process.memory_info().rss, process.num_fds(), len(process.net_connections("tcp"))
        self.times_s.append(at_s)
        self.memory.append(memory)
        self.connections.append(connections)
        self.files.append(files - connections)

    def ends(self, values: Sequence[int], seconds: float) -> tuple[float, float]:
        """Medians of the values soon after the process has settled, and of the last ones."""
        settled = [value for at_s, value in zip(self.times_s, values, strict=True) if at_s >= SETTLED * seconds]
        part = max(len(settled) // 5, 1)
        return median(settled[:part]), median(settled[-part:])

    def expected_mib(self, requests: float, opened: float) -> float:
        """Growth that is no leak, for so many requests and more connections."""
        rows = ROW_BYTES * requests if self.role == "generator" else 0.0
        return GROWTH_MIB + rows / MIB + CONNECTION_KIB * max(opened, 0.0) / 1024


def measure(seconds: float = SECONDS, rate_rps: float = RATE_RPS, pattern: str = PATTERN) -> Iterator[Table]:
    found, end = _run(seconds, rate_rps, pattern)
    rows, claims = [], []
    requests = rate_rps * seconds * (1 - SETTLED) * 0.8  # between the middles of the first and the last part
    for number, readings in enumerate(found):
        memory, files, connections = (
            readings.ends(values, seconds) for values in (readings.memory, readings.files, readings.connections)
        )
        growth, opened = (memory[1] - memory[0]) / MIB, connections[1] - connections[0]
        rows.append(
            (
                readings.role,
                f"{memory[0] / MIB:.1f} MiB",
                f"{memory[1] / MIB:.1f} MiB",
                f"{growth * MIB / requests:+.1f} B",
                f"{connections[0]:.0f}",
                f"{connections[1]:.0f}",
                f"{files[0]:.0f}",
                f"{files[1]:.0f}",
            )
        )
        name = f"{readings.role} ({number + 1} of {len(found)} processes)"
        claims += [
            Claim(f"growth of the {name}, MiB", growth, at_most=readings.expected_mib(requests, opened)),
            Claim(f"other files more at the end in the {name}", files[1] - files[0], at_most=OPENED),
        ]
    headings = (
        "process",
        "memory",
        "at the end",
        "a request",
        "connections",
        "at the end",
        "other files",
        "at the end",
    )
    yield Table(f"{pattern}, {rate_rps:,.0f} req/s for {seconds:,.0f} s", headings, rows, claims, (end,))


def _run(seconds: float, rate_rps: float, pattern: str) -> tuple[list[Readings], str]:
    """Run the test; the readings of its processes, and the last line of pytest."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        text = TEST.format(rate=rate_rps, seconds=seconds, pattern=pattern)
        (directory / "test_long.py").write_text(text, encoding="utf-8")
        (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        with (directory / "output").open("w") as output:
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_long.py"]
            process = psutil.Popen(command, cwd=directory, stdout=output, stderr=output)
        try:
            found = _read(process, directory / "begun", seconds)
            process.wait(START_S)
        finally:
            if process.is_running():
                process.terminate()
                process.wait()
        lines = (directory / "output").read_text(encoding="utf-8").splitlines()
    if not found:
        raise RuntimeError("the load did not begin:\n" + "\n".join(lines[-30:]))
    return found, "\n".join(lines[-1:])


def _read(root: psutil.Process, begun: Path, seconds: float) -> list[Readings]:
    """Read pytest and its processes once a second while the load lasts."""
    until = time.monotonic() + START_S
    while not begun.exists() and root.is_running() and time.monotonic() < until:
        time.sleep(0.05)
    began = time.monotonic()
    found: defaultdict[psutil.Process, Readings] = defaultdict(lambda: Readings(""))
    while root.is_running() and (at_s := time.monotonic() - began) < seconds:
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                found[process].role = found[process].role or _role(process, root)
                found[process].add(at_s, process)
        time.sleep(max(began + (int(at_s / INTERVAL_S) + 1) * INTERVAL_S - time.monotonic(), 0.0))
    return [readings for readings in found.values() if readings.times_s and readings.times_s[-1] > seconds / 2]


def _role(process: psutil.Process, root: psutil.Process) -> str:
    if process == root:
        return "pytest"
    command = " ".join(process.cmdline())
    return next((role for part, role in ROLES.items() if part in command), process.name())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=SECONDS / 60)
    parser.add_argument("--rate", type=float, default=RATE_RPS, help="requests per second")
    parser.add_argument("--pattern", default=PATTERN, help="as in perf(pattern=...)")
    options = parser.parse_args()
    (table,) = measure(options.minutes * 60, options.rate, options.pattern)
    print(table)
    flat = all(claim.met for claim in table.claims)
    print("flat" if flat else "NOT FLAT")
    sys.exit(not flat)


if __name__ == "__main__":
    main()
