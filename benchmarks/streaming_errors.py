"""How often a verdict on streams is wrong, live: pytest runs of a model that computes each token, as it is and slower.

    python benchmarks/streaming_errors.py [RESULTS] [--times N] [--seconds S] [--report]

Every run compares with the revision ``main`` at a tolerance of 5 %, and is one line of RESULTS (JSON lines); the
benchmark goes on where it stopped last. The cases take turns, so that each sees the machine in the same moods. The
work to the first token, and for each further one, is a number of rounds of a small layer: 10 % more take 10 % longer.
The rounds are numpy's, as a language model's are native code: a loop in Python whose numbers need two digits took up
to 40 % longer in some processes than in others, for as long as they lived.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import HERE, Claim, Table
from plugin_runs import Records, run_pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLAIM = "at 5 %, none of 40 unchanged runs fails, and of 20 runs each with TTFT or TPOT 10 % longer at least 19 do"
PLACE = HERE / ".environments" / "streaming_errors"
TOLERANCE = 0.05
FIRST_ROUNDS, TOKEN_ROUNDS, TOKENS = 6_000, 600, 16
"""Some 6.5 ms to the first token, and 0.7 ms for each further one."""
FILES = {
    "pytest.ini": "[pytest]\n",
    ".gitignore": "__pycache__/\n.pytest_cache/\n",
    "test_stream.py": """
import numpy as np
import pytest
from rounds import FIRST, NEXT, TOKENS

WEIGHTS = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)


def compute(rounds):
    state = np.ones(64, np.float32)
    for _ in range(rounds):
        state = np.tanh(WEIGHTS @ state)
    return state


def generate(batch):
    compute(FIRST)
    for number in range(TOKENS):
        if number:
            compute(NEXT)
        yield f"word{number} "


@pytest.fixture
def perf_model():
    return generate


@pytest.fixture
def perf_payload():
    return ["one", "two", "three"]


@pytest.mark.perf(concurrency=1, wire="openai")
def test_stream(perf):
    pass
""",
}


@dataclass(frozen=True)
class Case:
    """One kind of run: how much longer the first token and each further one take, as shares."""

    name: str
    wanted: int
    first: float = 0.0
    further: float = 0.0
    metric: str = ""


CASES = (
    Case("no change", 40),
    Case("TTFT +10 %", 20, first=0.10, metric="ttft"),
    Case("TPOT +10 %", 20, further=0.10, metric="tpot"),
)


class Laboratory:
    """Runs pytest on the project, and keeps what it said."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._top = PLACE / "stream"
        if not (self._top / ".git").exists():
            self._make_repository()

    def run(self, case: Case) -> None:
        """One run, and its line."""
        self._write_rounds(case)
        ran = run_pytest(self._top, "--perf-against=main", f"--perf-tolerance={TOLERANCE}")
        (result,) = ran.results
        self._records.add(
            {
                "kind": "run",
                "case": case.name,
                "outcome": _outcome(result),
                "wall_s": ran.wall_s,
                "load": os.getloadavg()[0],
                "verdicts": result["verdicts"],
                "launches": len(result["launches"]),
                "noise": result["noise"],
            }
        )

    def _write_rounds(self, case: Case) -> None:
        first, further = round(FIRST_ROUNDS * (1 + case.first)), round(TOKEN_ROUNDS * (1 + case.further))
        (self._top / "rounds.py").write_text(f"FIRST, NEXT, TOKENS = {first}, {further}, {TOKENS}\n", encoding="utf-8")

    def _make_repository(self) -> None:
        self._top.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            (self._top / name).write_text(text.lstrip(), encoding="utf-8")
        self._write_rounds(CASES[0])
        identity = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
        for command in (
            ("init", "--quiet", "--initial-branch=main"),
            ("add", "."),
            ("commit", "--quiet", "-m", "Model"),
        ):
            subprocess.run(["git", *identity, *command], cwd=self._top, check=True)


def _outcome(result: dict[str, Any]) -> str:
    if not result["passed"]:
        return "fail"  # also a result that is invalid
    found = {one["outcome"] for one in result["verdicts"] if one["against"] == "revision"}
    return next((outcome for outcome in ("inconclusive", "pass") if outcome in found), "not judged")


def measure() -> Iterator[Table]:
    """What is recorded already, or a tenth of the runs where nothing is."""
    records = _records()
    if not records.of("run"):
        go_on(records, times=0.1)
    yield table(records)


def go_on(records: Records, times: float = 1.0, until: float = float("inf")) -> None:
    """Run the case that is furthest behind, until all have what they want or time is up (of ``time.monotonic``)."""
    laboratory = Laboratory(records)
    while time.monotonic() < until:
        behind = {case: len(_runs(records, case)) / (times * case.wanted) for case in CASES}
        case = min(CASES, key=behind.__getitem__)
        if behind[case] >= 1:
            return
        laboratory.run(case)
        last = records.all[-1]
        print(f"{last['at'][11:19]} {case.name}: {last['outcome']} in {last['wall_s']:.1f} s", flush=True)


def table(records: Records) -> Table:
    """How often each case failed, and what TTFT and TPOT came to."""
    rows: list[Sequence[str]] = []
    claims: list[Claim] = []
    for case in CASES:
        runs = _runs(records, case)
        if not runs:
            continue
        outcomes = [run["outcome"] for run in runs]
        seconds = sorted(run["wall_s"] for run in runs)
        rows.append(
            (
                case.name,
                *(_change(runs, metric) for metric in ("ttft", "tpot", "output_tokens")),
                str(len(runs)),
                *(str(outcomes.count(name)) for name in ("fail", "pass", "inconclusive")),
                f"{median(seconds):.1f} s",
                f"{seconds[int(0.95 * len(seconds))]:.1f} s",
            )
        )
        failed = outcomes.count("fail") / len(runs)
        limits = {"at_least": 0.95} if case.metric else {"at_most": 0.0}
        claims.append(Claim(f"{case.name}: FAIL", failed, **limits))
        if case.metric:
            named = sum(_is_failed(run, case.metric) for run in runs) / len(runs)
            claims.append(Claim(f"{case.name}: FAIL of {case.metric} itself", named, at_least=0.95))
    headings = ("change", "TTFT", "TPOT", "tokens/s", "runs", "FAIL", "PASS", "no verdict", "time, median", "p95")
    return Table(f"live verdicts on streams against a revision, tolerance {TOLERANCE:.0%}", headings, rows, claims)


def _change(runs: Sequence[dict[str, Any]], metric: str) -> str:
    """The median change of a metric that the runs measured; worse is positive."""
    changes = [
        one["change"]["value"] for run in runs for one in run["verdicts"] if one["metric"] == metric and one["change"]
    ]
    return f"{median(changes):+.1%}" if changes else "–"


def _is_failed(run: dict[str, Any], metric: str) -> bool:
    return any(one["metric"] == metric and one["outcome"] == "fail" for one in run["verdicts"])


def _runs(records: Records, case: Case) -> list[dict[str, Any]]:
    return [record for record in records.of("run") if record["case"] == case.name]


def _records(path: Path | None = None) -> Records:
    PLACE.mkdir(parents=True, exist_ok=True)
    return Records(path or PLACE / "results.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, help="the file of results")
    parser.add_argument("--times", type=float, default=1.0, help="so many times the usual number of runs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--report", action="store_true", help="run nothing, show what is recorded")
    arguments = parser.parse_args()
    records = _records(arguments.results)
    if not arguments.report:
        go_on(records, arguments.times, time.monotonic() + arguments.seconds)
    if arguments.report or arguments.seconds == float("inf"):
        print(f"\n{table(records)}")


if __name__ == "__main__":
    main()
