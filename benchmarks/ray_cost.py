"""What Ray Serve costs beside the local engine: each pattern on both, in one run of pytest, each on Ray after its like.

The model costs nothing, so that what is measured is the way to it. The load generator stays on this machine on both
sides. Then runs with one and with three tests, on each engine, show what the first test on Ray costs more, and each
further one. ``python benchmarks/ray_cost.py`` prints the tables of the documentation; it needs the extra ``ray`` and
takes five minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import Claim, Table, interleave, run_child

from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CLAIM = "the first test on Ray takes at most 20 s more than on the local engine, each further one at most 6 s more"
FIRST_S, FURTHER_S = 20.0, 6.0
REPETITIONS = 2
TIMEOUT_S = 330.0
CALLERS = 16
ENGINES = ("local", "ray")
RATES_RPS = (10**4, 10**5, 10**6)
CORES = 16
BAR = r"\|"
"""A bar inside a cell."""
LARGEST_SHARE = 0.7
"""Share of a core above which requests wait for it."""

PATTERNS = {
    "Single()": "Single()",
    "Replicated(2)": "Replicated(2)",
    "Microservice()": "Microservice()",
    "Cached()": "Cached()",
    "Batched()": "Batched()",
    "Continuous()": "Continuous()",
    "Queued()": "Queued()",
    "Pipeline": "Pipeline([identity, 'model', identity])",
    "Pipeline(processes=True)": "Pipeline([identity, 'model', identity], processes=True)",
    "Ensemble": "Ensemble(['model', identity])",
    "Batched() | Replicated(2)": "Batched() | Replicated(2)",
}
"""Each pattern as the table shows it, and as it is written in the test file."""

MODELS = """
import pytest
from pytest_mlpatterns import *


def identity(batch):
    return list(batch)


class Steps:
    def start(self, given):
        return [given]

    def step(self, active):
        return [state.pop() if state else None for state in active]


@pytest.fixture
def perf_payload():
    return [[float((row + column) % 17) for column in range(64)] for row in range(200)]

"""
MEASURED = """
@pytest.mark.perf(pattern={pattern}, engine="{engine}", generators_on="local", model={model}, concurrency={callers})
@pytest.mark.perf(launches=1, warmup="500ms", duration="1s")
def test_{number}_{callers}_{engine}(perf):
    pass

"""
STARTED = """
@pytest.mark.perf(model=identity, pattern=[{patterns}], concurrency=1, launches=1, warmup="0s", duration="300ms")
def test_started(perf):
    pass
"""


@dataclass(frozen=True)
class Figures:
    """One pattern on one engine; CPU per request without Serve's own processes, and of these alone, if known."""

    rtm_ns: float
    throughput_rps: float
    cpu_ns: float
    serve_cpu_ns: float | None
    start_ns: float


def measure(patterns: Sequence[str] = tuple(PATTERNS)) -> Iterator[Table]:
    if importlib.util.find_spec("ray") is None:
        yield Table("Ray is not installed", ("", ""), [("install it", "pip install 'pytest-mlpatterns[ray]'")])
        return
    with tempfile.TemporaryDirectory() as name:
        found = measured(Path(name), patterns)
        yield cost_table(found, patterns)
        yield paper_table(found, patterns[0])
        yield start_table(Path(name))


# --- what a request costs -------------------------------------------------------------------------------------------


def measured(directory: Path, patterns: Sequence[str]) -> dict[tuple[str, str], Figures]:
    """Figures of each pattern and engine."""
    tests = MODELS + "".join(
        MEASURED.format(
            pattern=PATTERNS[pattern],
            engine=engine,
            model="Steps" if pattern.startswith("Continuous") else "identity",
            callers=callers,
            number=number,
        )
        for number, pattern in enumerate(patterns)
        for callers in (1, CALLERS)
        for engine in ENGINES
    )
    run_tests(directory, "test_cost.py", tests)
    results = json.loads((directory / "results.json").read_text(encoding="utf-8"))["results"]
    by_test = {re.search(r"::test_(\w+)", result["test"])[1]: result for result in results}  # type: ignore[index]
    return {
        (pattern, engine): figures(by_test[f"{number}_1_{engine}"], by_test[f"{number}_{CALLERS}_{engine}"])
        for number, pattern in enumerate(patterns)
        for engine in ENGINES
    }


def figures(alone: Mapping[str, Any], loaded: Mapping[str, Any]) -> Figures:
    """The figures of a pattern, from one caller and from several.

    Raises:
        RuntimeError: a request failed, so that the figures would mean nothing.
    """
    for result in (alone, loaded):
        if result["failed_requests"]:
            raise RuntimeError(f"{result['test']}: requests failed, by status: {result['failed_requests']}")
    rate = loaded["metrics"]["throughput"][0]
    serve = [node["serve_cpu_share"] * node["cores"] for node in loaded.get("nodes") or ()]
    return Figures(
        rtm_ns=alone["metrics"]["rtm"][0],
        throughput_rps=rate,
        cpu_ns=loaded["metrics"]["cpu_per_request"][0],
        serve_cpu_ns=sum(serve) * 1e9 / rate if serve else None,
        start_ns=alone["metrics"]["cold_start"][0],
    )


def cost_table(found: Mapping[tuple[str, str], Figures], patterns: Sequence[str]) -> Table:
    rows = []
    for pattern in patterns:
        local, ray = (found[pattern, engine] for engine in ENGINES)
        serve = "–" if ray.serve_cpu_ns is None else format_duration(ray.serve_cpu_ns)
        rows.append(
            (
                f"`{pattern}`",
                format_duration(local.rtm_ns),
                format_duration(ray.rtm_ns),
                f"{local.throughput_rps:,.0f}",
                f"{ray.throughput_rps:,.0f}",
                format_duration(local.cpu_ns),
                f"{format_duration(ray.cpu_ns)} + {serve}",
                format_duration(local.start_ns),
                format_duration(ray.start_ns),
            )
        )
    return Table(
        f"RTM with one caller; requests/s and CPU per request with {CALLERS}; start to the first response",
        ("pattern", "RTM", "on Ray", "req/s", "on Ray", "CPU", "on Ray: replicas + Serve", "start", "on Ray"),
        rows,
    )


def paper_table(found: Mapping[tuple[str, str], Figures], pattern: str) -> Table:
    """Cores and nodes that carry each rate, from the CPU time of a request; a node has one proxy, one process."""
    local, ray = (found[pattern, engine] for engine in ENGINES)
    serve_ns = ray.serve_cpu_ns or 0.0
    rows = []
    for rate in RATES_RPS:
        cores = [rate * ns / 1e9 / LARGEST_SHARE for ns in (local.cpu_ns, ray.cpu_ns + serve_ns)]
        proxies = rate * serve_ns / 1e9 / LARGEST_SHARE
        rows.append((f"{rate:,}/s", *(f"{math.ceil(count):,}" for count in (*cores, max(cores[1] / CORES, proxies)))))
    return Table(
        f"on paper: what carries {pattern}, with nodes of {CORES} cores",
        ("load", "cores", "cores on Ray", "nodes on Ray"),
        rows,
        [],
        [f"at most {LARGEST_SHARE:.0%} of a core is used, and of a proxy, to which all CPU time of Ray is counted"],
    )


# --- what a test costs ----------------------------------------------------------------------------------------------


def start_table(directory: Path) -> Table:
    """Seconds of whole runs with one and with three tests."""
    sides = {
        f"{engine}, {len(patterns)}": lambda engine=engine, patterns=patterns: run_tests(
            directory, "test_started.py", MODELS + STARTED.format(patterns=", ".join(patterns)), "--perf-engine", engine
        )
        for engine in ENGINES
        for patterns in (("Single()",), ("Single()", "Microservice()", "Replicated(2)"))
    }
    walls = {side: median(seconds) for side, seconds in interleave(sides, REPETITIONS).items()}
    first = walls["ray, 1"] - walls["local, 1"]
    further = ((walls["ray, 3"] - walls["ray, 1"]) - (walls["local, 3"] - walls["local, 1"])) / 2
    return Table(
        f"seconds of a whole run of pytest, median of {REPETITIONS} in turn",
        ("tests", "local", "Ray"),
        [(f"{tests}", f"{walls[f'local, {tests}']:.1f} s", f"{walls[f'ray, {tests}']:.1f} s") for tests in (1, 3)],
        [
            Claim("seconds that the first test on Ray takes more", first, at_most=FIRST_S),
            Claim("seconds that each further one takes more", further, at_most=FURTHER_S),
        ],
    )


def run_tests(directory: Path, file: str, text: str, *options: str) -> float:
    """Run the tests of one file, with results in ``results.json``; seconds that it took."""
    (directory / file).write_text(text, encoding="utf-8")
    (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", file, "-p", "no:cacheprovider", "--perf-json=results.json"]
    environment = {"RAY_ADDRESS": "", "CI": ""}
    return run_child([*command, *options], directory=directory, timeout_s=TIMEOUT_S, environment=environment).wall_s


def markdown(table: Table) -> str:
    """A table as the documentation has it."""
    rows = [table.headings, ["---" for _ in table.headings], *table.rows]
    lines = [f"| {' | '.join(cell.replace('|', BAR) for cell in row)} |" for row in rows]
    return "\n".join([f"{table.title}:", "", *lines, "", *map(str, table.claims), *table.notes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("patterns", nargs="*", help=f"some of {', '.join(PATTERNS)}; all if none is named")
    options = parser.parse_args()
    if unknown := [pattern for pattern in options.patterns if pattern not in PATTERNS]:
        parser.error(f"no pattern {', '.join(unknown)}; there are {', '.join(PATTERNS)}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}", file=sys.stderr)
    for table in measure(options.patterns or tuple(PATTERNS)):
        print(f"{markdown(table)}\n", flush=True)


if __name__ == "__main__":
    main()
