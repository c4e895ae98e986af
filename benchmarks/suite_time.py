"""How long one perf test takes until its answer, and a suite of 20 of one model.

The model reads pages of handwritten digits. One test is timed in each way in which it can be compared, with the
launches and pairs that it took. Every test of the suite sends another number of digits; pytest-benchmark makes the same
20 measurements: it calls the model in its own process, without a server, a start or a tail, and compares medians with
those that it saved.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import Claim, Table, interleave, run_child
from peers.forest import WALKS, Added, make_repository, set_added
from plugin_runs import PluginRun, run_pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLAIM = (
    "one test answers in a median of 4 s if it is unchanged by the file, 8 s against a revision, 12 s if the recorded "
    "code settles +20 %, and 15 s for an update, each with pytest and all starts; a suite of 20 tests of one model, "
    "checked against its baseline, takes at most 2.5 s a test"
)
TESTS = 20
REPETITIONS = 3
SLOWER = round(0.23 * WALKS)
"""Trees that are walked once more, which make an answer 20 % slower: a fifth of the time is no walk."""
UPDATE, FILE, OTHER, SETTLED = "--perf-baseline update", "unchanged, by the file", "unchanged, --perf-against", "+20 %"
LONGEST_S = {UPDATE: 15.0, FILE: 4.0, OTHER: 8.0, SETTLED: 12.0}
"""Median seconds that a test may take."""
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
    yield answers()
    yield suite()


def answers() -> Table:
    """One test in each way, several times in turn."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name) / "forest"
        make_repository(top)

        def run(added: Added, *arguments: str) -> Callable[[], PluginRun]:
            def once() -> PluginRun:
                set_added(top, added)
                return run_pytest(
                    top, "--perf-profile=off", "--perf-count=off", *arguments, "test_digits.py::test_digits"
                )

            return once

        cases = {
            UPDATE: run(Added(), "--perf-baseline=update"),
            FILE: run(Added(number=1)),
            OTHER: run(Added(number=1), "--perf-against=main"),
            SETTLED: run(Added(walks=SLOWER)),
        }
        found = interleave(cases, REPETITIONS)
    seconds = {case: median(one.wall_s for one in runs) for case, runs in found.items()}
    rows = [(case, f"{seconds[case]:.1f} s", *_measured(found[case][-1])) for case in cases]
    claims = [Claim(f"{case}: seconds, median", seconds[case], at_most=most) for case, most in LONGEST_S.items()]
    title = f"one test, median of {REPETITIONS} runs in turn"
    return Table(title, ("", "seconds", "measuring", "launches", "outcomes"), rows, claims)


def _measured(ran: PluginRun) -> tuple[str, ...]:
    """The seconds of measuring, the launches or pairs, and what came of it."""
    (result, *_) = ran.results
    ratios = (result["reference"] or {}).get("log_ratios", {}).get("rtm", ())
    pairs = f" and {len(ratios)} pairs" if ratios else ""
    outcomes = sorted({one["outcome"] for one in result["verdicts"]})
    return f"{result['seconds_spent']:.1f} s", f"{len(result['launches']['rtm'])}{pairs}", ", ".join(outcomes)


def suite() -> Table:
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
    return Table(title, ("", "suite", "a test", "against pytest-benchmark"), rows, [claim])
