"""Train a model, record its performance, make it four times as slow, and see both tests fail.

Exits 0 when and only when the first run passed and the second failed with a regression in every test. Nothing but
digits.joblib is written to this folder: the baseline of the demo lives in a temporary one.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHORT = ("--perf-duration", "1s", "--perf-budget", "12s", "--perf-tolerance", "rtm=60%", "--perf-settle", "off")
"""Options that keep the demo short; by default a test measures longer and detects smaller changes.

Two busy processes leave a machine of two cores no room, so that their response time scatters. Throughput does not. The
slowdown is a variable that the recorded code would obey too, so the baseline file decides alone.
"""
TRIES = 3
"""Runs of the slower model at most: a busy machine can leave a test undecided."""
FAILED = 1
"""The exit code by which pytest says that tests failed; others are errors of the run."""


@dataclass(frozen=True)
class Run:
    """One run of pytest: its exit code, and what ``--perf-json`` says, by test."""

    exit_code: int
    results: dict[str, dict[str, Any]]

    @property
    def undecided(self) -> list[str]:
        """Tests that passed because nothing could be decided."""
        return [
            test
            for test, result in self.results.items()
            if result["passed"] and any(item["outcome"] == "inconclusive" for item in result["verdicts"])
        ]


def main() -> int:
    say("1. Train a classifier of handwritten digits.")
    show("python train.py")
    subprocess.run([sys.executable, HERE / "train.py"], check=True)
    with tempfile.TemporaryDirectory(prefix="mlpatterns-demo-") as directory:
        say("2. Measure it in one process and in two, and record that as the baseline.")
        recorded = run_pytest(Path(directory), "--perf-baseline", "update")
        if recorded.exit_code:
            return judge(recorded, recorded)
        say("3. A change makes the model four times as slow. Every answer is still right, but the same tests fail now.")
        slowed = run_until_decided(Path(directory), DIGITS_SLOWDOWN="4")
    return judge(recorded, slowed)


def run_until_decided(directory: Path, **environment: str) -> Run:
    """Run the tests, and again if this machine was too busy, as the plugin advises."""
    tries = 1
    while (run := run_pytest(directory, **environment)).undecided and tries < TRIES:
        say("The speed of this machine varied too much for a clear answer. Once more:")
        tries += 1
    return run


def run_pytest(directory: Path, *options: str, **environment: str) -> Run:
    """Run the tests of this folder, their output as it comes, with baseline and results in another directory."""
    shown = [*(f"{name}={value}" for name, value in environment.items()), "pytest", *options, *SHORT]
    show(shlex.join(shown))
    results = directory / "results.json"
    results.unlink(missing_ok=True)
    # joined by "=": a path of its own would be taken for a hint at the root directory
    files = [f"--perf-baseline-file={directory / 'perf-baseline.json'}", f"--perf-json={results}"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, *SHORT, *files]
    done = subprocess.run(command, cwd=HERE, env={**os.environ, **environment}, check=False)
    return Run(done.returncode, read_results(results))


def read_results(file: Path) -> dict[str, dict[str, Any]]:
    """What ``--perf-json`` wrote, by test; nothing where the run did not get so far."""
    if not file.exists():
        return {}
    return {result["test"]: result for result in json.loads(file.read_text(encoding="utf-8"))["results"]}


def judge(recorded: Run, slowed: Run) -> int:
    """Say what was seen, and return the exit code of the demo."""
    problems = find_problems(recorded, slowed)
    if problems:
        say("The demo did not go as it should:\n" + "\n".join(f"- {problem}" for problem in problems))
        return 1
    figures = "\n".join(f"  {test.rpartition('::')[2]}: {regressions(slowed, test)[0]}" for test in slowed.results)
    say(
        f"What was seen: {len(recorded.results)} tests passed and became the baseline. With the model made slower, "
        f"each of them failed:\n{figures}\n"
        f"Where to go next: {HERE.name}/test_perf.py is all that this took. Put your own model in place of Digits,\n"
        "run pytest --perf-baseline update, and commit the perf-baseline.json that it writes; from then on pytest "
        f"compares.\n{HERE.name}/README.md has the steps."
    )
    return 0


def find_problems(recorded: Run, slowed: Run) -> list[str]:
    """What is not as the demo promises; empty where the regression was caught in every test."""
    if recorded.exit_code:
        return [f"recording the baseline ended with exit code {recorded.exit_code}, expected 0; its output is above"]
    if not recorded.results:
        return ["recording the baseline measured no test, expected at least one; its output is above"]
    problems = []
    if slowed.exit_code != FAILED:
        problems.append(
            f"the run of the slower model ended with exit code {slowed.exit_code}, expected {FAILED}; "
            "a machine that is busy with other things can hide even this, so try again"
        )
    unseen = [test for test in recorded.results if test not in slowed.results]
    missed = [test for test, result in slowed.results.items() if result["passed"] or not regressions(slowed, test)]
    problems += [f"{test} was not measured with the slower model" for test in unseen]
    problems += [f"{test} {why_missed(slowed, test)}" for test in missed]
    return problems


def why_missed(run: Run, test: str) -> str:
    """Why a test of the slower model did not fail by a regression."""
    if test in run.undecided:
        return "stayed undecided: the speed of this machine varied too much; try again in a quieter moment"
    return "did not fail by a regression"


def regressions(run: Run, test: str) -> list[str]:
    """The comparisons with the baseline that failed this test, in words with their figures."""
    found = run.results[test]["verdicts"]
    return [item["reason"] for item in found if item["against"] == "baseline" and item["outcome"] == "fail"]


def say(text: str) -> None:
    print(f"\n{text}\n", flush=True)


def show(command: str) -> None:
    print(f"$ {command}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
