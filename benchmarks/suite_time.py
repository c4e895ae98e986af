"""How long a suite of 20 perf tests of one model takes, beside the same 20 measurements by pytest-benchmark.

The model reads pages of handwritten digits; every test sends another number of digits. pytest-benchmark calls the model
in its own process, without a server, a start or a tail, and compares medians with those that it saved.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import Claim, Table, interleave, run_child
from peers.forest import make_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLAIM = "a suite of 20 perf tests of one model, checked against its baseline, takes at most 2.5 s a test"
TESTS = 20
REPETITIONS = 3
CHECK, REVISION, PEER = "--perf-baseline check", "--perf-against main", "pytest-benchmark, compared"
OURS_TESTS = f"""
import json

import pytest
from model import HERE, Forest

PAGES = json.loads((HERE / "pages.json").read_text())


@pytest.mark.parametrize("digits", range(24, 24 + 2 * {TESTS}, 2))
@pytest.mark.perf(model=Forest, concurrency=1)
def test_digits(perf, digits):
    pass


@pytest.fixture
def perf_payload(digits):
    return [page[:digits] for page in PAGES]
"""
PEER_TESTS = f"""
import json

import pytest
from model import HERE, Forest

PAGES = json.loads((HERE / "pages.json").read_text())


@pytest.mark.parametrize("digits", range(24, 24 + 2 * {TESTS}, 2))
def test_digits(benchmark, digits):
    benchmark(Forest(), [PAGES[0][:digits]])
"""


def measure() -> Iterator[Table]:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name) / "forest"
        make_repository(top)
        (top / "test_ours.py").write_text(OURS_TESTS, encoding="utf-8")
        (top / "test_peer.py").write_text(PEER_TESTS, encoding="utf-8")
        identity = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
        run_child(["git", "add", "."], directory=top)
        run_child(["git", *identity, "commit", "--quiet", "-m", "Twenty tests"], directory=top)

        def run(*arguments: str, expected: tuple[int, ...] = (0,)) -> Callable[[], float]:
            command = [sys.executable, "-m", "pytest", "-q", *arguments]
            environment = {"PYTHONDONTWRITEBYTECODE": "", "CI": ""}
            return lambda: (
                run_child(command, directory=top, timeout_s=900, environment=environment, expected=expected).wall_s
            )

        ours = ("test_ours.py", "-p", "no:benchmark")
        peer = ("test_peer.py", "-p", "no:mlpatterns", "--benchmark-disable-gc")
        update_s = run(*ours, "--perf-baseline=update")()
        run(*peer, "--benchmark-save=first")()
        found = interleave(
            {
                CHECK: run(*ours, expected=(0, 1)),
                REVISION: run(*ours, "--perf-against=main", expected=(0, 1)),
                PEER: run(*peer, "--benchmark-compare", "--benchmark-compare-fail=median:10%", expected=(0, 1)),
            },
            REPETITIONS,
        )
    seconds = {"--perf-baseline update": update_s, **{side: median(walls) for side, walls in found.items()}}
    rows = [
        (side, f"{wall_s:.1f} s", f"{wall_s / TESTS:.2f} s", f"{wall_s / seconds[PEER]:.2f}")
        for side, wall_s in seconds.items()
    ]
    claim = Claim("seconds a test, checked against its baseline", seconds[CHECK] / TESTS, at_most=2.5)
    title = f"{TESTS} tests of one model, median of {REPETITIONS} runs in turn (one update)"
    yield Table(title, ("", "suite", "a test", "against pytest-benchmark"), rows, [claim])
