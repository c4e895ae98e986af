"""How often a verdict is wrong or missing, live: pytest runs on a real model, with and without a known slow-down.

    python benchmarks/verdict_error_rates.py [RESULTS] [--times N] [--seconds S] [--report]

Every run is one line of RESULTS (JSON lines); the benchmark goes on where it stopped last. All cases take
turns, so that each sees the machine in the same moods. A slow-down is trees of a forest that are walked once more: RTM
with a quarter of them says how many make 10 %, and the table says what the slow-down came to in the runs themselves.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import verdict_rules
from bench import HERE, Claim, Table
from peers.forest import WALKS, make_repository, set_added_walks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLAIM = (
    "interleaved with a git revision, at 5 % tolerance, at most 0.5 % of unchanged runs fail and 5 % stay open, 99 % "
    "of +10 % fail, in 12 s; against a stored baseline, at 10 %, at most 2 % fail, and 98 % of +25 %"
)
PLACE = HERE / ".environments" / "verdict_error_rates"
TEST = "test_digits.py::test_digits"
OFF = tuple(f"-pno:{name}" for name in ("perf", "benchmark", "hypothesispytest", "anyio", "pytest_cov", "locust"))
RUNS_PER_BASELINE = 8
BASELINE_AGE_S = 1800
CALIBRATIONS = 3


@dataclass(frozen=True)
class Case:
    """One kind of run: against what, at which tolerance, how much slower, and how many of them are wanted."""

    mode: str
    tolerance: float
    slower: float
    wanted: int

    @property
    def name(self) -> str:
        return f"{self.mode} {self.tolerance:g} {self.slower:g}"


CASES = (
    Case("against", 0.05, 0.0, 200),
    Case("against", 0.05, 0.10, 100),
    Case("against", 0.025, 0.05, 40),
    Case("check", 0.10, 0.0, 60),
    Case("check", 0.10, 0.25, 50),
    Case("against", 0.05, 0.25, 20),
    Case("against", 0.05, 0.05, 20),
    Case("check", 0.10, 0.10, 20),
    Case("check", 0.10, 0.05, 20),
    Case("against", 0.025, 0.0, 20),
)


class Records:
    """The file of results: one JSON object a line, of kind ``calibration``, ``baseline`` or ``run``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.all: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]

    def add(self, record: dict[str, Any]) -> None:
        record["at"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.all.append(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.all if record["kind"] == kind]

    def runs(self, case: Case) -> list[dict[str, Any]]:
        return [record for record in self.of("run") if record["case"] == case.name]


class Laboratory:
    """Runs pytest on the project, and keeps what it said."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._top = PLACE / "forest"
        if not self._top.exists():
            make_repository(self._top)

    def calibrate(self) -> None:
        """How much longer an answer takes with a quarter of the trees walked once more."""
        ran = self._pytest(WALKS // 4, "--perf-against=main", "--perf-tolerance=0.25", "--perf-budget=15s")
        self._records.add({"kind": "calibration", "ratio_of_quarter": math.exp(_log_ratio(ran)), **ran})

    def run(self, case: Case) -> None:
        """One run of a case, on a baseline that is young."""
        if case.mode == "check":
            self._record_baseline_where_old()
        how = "--perf-against=main" if case.mode == "against" else "--perf-baseline=check"
        ran = self._pytest(self.walks(case.slower), how, f"--perf-tolerance={case.tolerance}")
        self._records.add({"kind": "run", "case": case.name, "outcome": _outcome(ran, case), **ran})

    def walks(self, slower: float) -> int:
        """How many trees walked once more make the answer take so much longer."""
        ratio = median(float(one["ratio_of_quarter"]) for one in self._records.of("calibration"))
        return round(slower * WALKS / 4 / (ratio - 1))

    def _record_baseline_where_old(self) -> None:
        since = [number for number, one in enumerate(self._records.all) if one["kind"] == "baseline"]
        if since:
            last = self._records.all[since[-1]]
            used = sum(one.get("case", "").startswith("check") for one in self._records.all[since[-1] :])
            age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(last["at"])
            if used < RUNS_PER_BASELINE and age.total_seconds() < BASELINE_AGE_S:
                return
        self._records.add({"kind": "baseline", **self._pytest(0, "--perf-baseline=update")})

    def _pytest(self, walks: int, *arguments: str) -> dict[str, Any]:
        set_added_walks(self._top, walks)
        with tempfile.TemporaryDirectory() as name:
            results_file = Path(name) / "results.json"
            command = [sys.executable, "-m", "pytest", *OFF, "-q", f"--perf-json={results_file}", *arguments, TEST]
            started = time.perf_counter()
            done = subprocess.run(
                command,
                cwd=self._top,
                env={name: value for name, value in os.environ.items() if name != "CI"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                check=False,
            )
            wall_s = time.perf_counter() - started
            results = json.loads(results_file.read_text(encoding="utf-8"))["results"] if results_file.exists() else []
            if not results or done.returncode not in (0, 1):
                raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
            result = results[0]
            kept = ("launches", "verdicts", "noise", "seconds_spent", "notes", "baseline_note")
            return {
                "walks": walks,
                "wall_s": round(wall_s, 2),
                "load": os.getloadavg()[0],
                "result": {name: result[name] for name in kept},
                "log_ratios": (result["reference"] or {}).get("log_ratios", {}),
            }


def _log_ratio(ran: dict[str, Any]) -> float:
    """Of RTM, over all paired launches."""
    return float(median(value for value, _ in ran["log_ratios"]["rtm"]))


def _outcome(ran: dict[str, Any], case: Case) -> str:
    against = "revision" if case.mode == "against" else "baseline"
    found = {one["outcome"] for one in ran["result"]["verdicts"] if one["against"] == against}
    return next((outcome for outcome in ("fail", "inconclusive", "pass") if outcome in found), "not judged")


def measure() -> Iterator[Table]:
    """What is recorded already, or a tenth of the runs where nothing is."""
    records = Records(PLACE / "results.jsonl")
    if not records.of("run"):
        go_on(records, times=0.1)
    yield from tables(records)


def go_on(records: Records, times: float = 1.0, until: float = float("inf")) -> None:
    """Run the case that is furthest behind, until all have what they want or time is up (of ``time.monotonic``)."""
    laboratory = Laboratory(records)
    while time.monotonic() < until and len(records.of("calibration")) < CALIBRATIONS:
        laboratory.calibrate()
    while time.monotonic() < until:
        behind = {case: len(records.runs(case)) / (times * case.wanted) for case in CASES}
        case = min(CASES, key=behind.__getitem__)
        if behind[case] >= 1:
            return
        laboratory.run(case)
        last = records.all[-1]
        print(f"{last['at'][11:19]} {case.name}: {last['outcome']} in {last['wall_s']:.1f} s", flush=True)


def tables(records: Records) -> Iterator[Table]:
    rows: list[Sequence[str]] = []
    claims: list[Claim] = []
    for case in CASES:
        runs = records.runs(case)
        if not runs:
            continue
        outcomes = [run["outcome"] for run in runs]
        share = {name: outcomes.count(name) / len(runs) for name in ("fail", "pass", "inconclusive")}
        seconds = sorted(run["wall_s"] for run in runs)
        rows.append(
            (
                f"{'--perf-against' if case.mode == 'against' else 'stored baseline'}, tolerance {case.tolerance:.1%}",
                "no change" if case.slower == 0 else f"{case.slower:+.0%}",
                f"{median(map(_rtm_change, runs)):+.1%}",
                str(len(runs)),
                *(f"{outcomes.count(name)} ({share[name]:.1%})" for name in share),
                f"{median(seconds):.1f} s",
                f"{seconds[int(0.95 * len(seconds))]:.1f} s",
            )
        )
        claims += _claims(case, share, median(seconds))
    headings = ("judged by", "slowed by", "measured", "runs", "FAIL", "PASS", "no verdict", "time, median", "p95")
    yield Table("live verdicts", headings, rows, claims)
    base = [run for case in CASES if case.mode == "check" and case.slower == 0 for run in records.runs(case)]
    slowed = {case.slower: records.runs(case) for case in CASES if case.mode == "check" and case.slower > 0}
    yield verdict_rules.table(base, slowed, records.of("baseline"))


def _rtm_change(run: dict[str, Any]) -> float:
    changes = [one["change"]["value"] for one in run["result"]["verdicts"] if one["metric"] == "rtm"]
    return changes[0] if changes else float("nan")


def _claims(case: Case, share: dict[str, float], seconds: float) -> Iterator[Claim]:
    kind = (case.mode, case.tolerance, case.slower)
    if kind == ("against", 0.05, 0.0):
        yield Claim("--perf-against, 5 %, no change: FAIL", share["fail"], at_most=0.005)
        yield Claim("--perf-against, 5 %, no change: no verdict", share["inconclusive"], at_most=0.05)
        yield Claim("--perf-against, 5 %: seconds, median", seconds, at_most=12.0)
    if kind == ("against", 0.05, 0.10):
        yield Claim("--perf-against, 5 %, +10 %: FAIL", share["fail"], at_least=0.99)
    if kind == ("against", 0.025, 0.05):
        yield Claim("--perf-against, 2.5 %, +5 %: FAIL", share["fail"], at_least=0.95)
        yield Claim("--perf-against, 2.5 %, +5 %: seconds, median", seconds, at_most=30.0)
    if kind == ("check", 0.10, 0.0):
        yield Claim("stored baseline, 10 %, no change: FAIL", share["fail"], at_most=0.02)
    if kind == ("check", 0.10, 0.25):
        yield Claim("stored baseline, 10 %, +25 %: FAIL", share["fail"], at_least=0.98)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, default=PLACE / "results.jsonl", help="the file of results")
    parser.add_argument("--times", type=float, default=1.0, help="so many times the usual number of runs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--report", action="store_true", help="run nothing, show what is recorded")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    PLACE.mkdir(parents=True, exist_ok=True)
    records = Records(arguments.results)
    if not arguments.report:
        go_on(records, arguments.times, time.monotonic() + arguments.seconds)
    if arguments.report or arguments.seconds == float("inf"):
        for table in tables(records):
            print(f"\n{table}")


if __name__ == "__main__":
    main()
