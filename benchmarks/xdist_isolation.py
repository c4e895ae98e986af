"""Does a perf test under pytest-xdist give the figures of a serial run, beside tests that burn a core each?

The same suite runs serially and over two workers, in turn. A third side shows what is at stake: the serial suite while
two foreign processes burn, which no lock can keep out.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import Claim, Table, interleave, run_child, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLAIM = "RTM under -n 2, beside tests that burn a core each, is within 10 % of a serial run's"
REPETITIONS = 7
SERIAL, DISTRIBUTED, DISTURBED = "serial", "-n 2", "serial, two processes burn beside it"
SUITE = """\
import time

import pytest


def burn():
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        pass


def model(batch):
    return [sum(range(100_000)) for _ in batch]


def test_burn_first():
    burn()


@pytest.mark.perf(model=model, payload=[1], concurrency=4, duration="1s", warmup="300ms")
def test_model(perf):
    assert perf.metrics.rtm_ns.value > 0


@pytest.mark.parametrize("number", range(2))
def test_burn(number):
    burn()
"""


def measure() -> Iterator[Table]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "test_suite.py").write_text(SUITE, encoding="utf-8")
        (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        sides: dict[str, Callable[[], float]] = {
            SERIAL: partial(run_suite, directory),
            DISTRIBUTED: partial(run_suite, directory, "-n", "2"),
            DISTURBED: partial(run_disturbed, directory),
        }
        found = interleave(sides, REPETITIONS)
    serial = median(found[SERIAL])
    yield Table(
        f"RTM of a model of about a millisecond, 4 requests in flight, median of {REPETITIONS} runs in turn",
        ("", "RTM", "spread", "ratio"),
        [
            (side, f"{median(values) / 1e6:.3f} ms", spread(values), f"{median(values) / serial:.3f}")
            for side, values in found.items()
        ],
        [Claim("RTM under -n 2, against a serial run", median(found[DISTRIBUTED]) / serial, at_least=0.9, at_most=1.1)],
    )


def run_suite(directory: Path, *options: str) -> float:
    """The RTM of the suite's perf test."""
    results = directory / "results.json"
    results.unlink(missing_ok=True)
    plain = ["-q", "-p", "no:cacheprovider", "--perf-baseline", "off", f"--perf-json={results}"]
    done = run_child([sys.executable, "-m", "pytest", *plain, *options], directory=directory)
    if not results.exists():
        raise RuntimeError(f"the suite wrote no results:\n{done.output}")
    (result,) = json.loads(results.read_text(encoding="utf-8"))["results"]
    return float(result["metrics"]["rtm"][0])


def run_disturbed(directory: Path) -> float:
    with contextlib.ExitStack() as burning:
        for _ in range(2):
            process = burning.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            burning.callback(process.kill)
        return run_suite(directory)
