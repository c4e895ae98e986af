"""Train a model, record its baseline, make it a third slower, and see its test fail with the function named.

All of it happens in a copy of this folder, in a git repository of its own that is removed at the end, with the default
settings. Exits 0 if and only if the first run passed and both comparisons failed with a regression.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

HERE = Path(__file__).resolve().parent
COPIED = ("model.py", "train.py", "test_perf.py", "pytest.ini")
"""The files of a project that the demo copies."""
SLOWER = HERE / "slower.patch"
"""The change that makes the model slower; its unit tests, if it had any, would still pass."""
AUTHOR = ("-c", "user.name=demo", "-c", "user.email=demo@example.com", "-c", "commit.gpgsign=false")
"""Settings of git that do not depend on the user's own."""
TRIES = 3
"""Most runs of one comparison: a machine that is very busy can leave one undecided."""
FAILED = 1
"""The exit code by which pytest reports failed tests; others are errors of the run."""


@dataclass(frozen=True)
class Run:
    """One run of pytest: its exit code, and the results of ``--perf-json``, by test."""

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
    if shutil.which("git") is None:
        say("The demo needs git, which is not on the PATH. Install it and start the demo again.")
        return 1
    started = monotonic()
    with tempfile.TemporaryDirectory(prefix="mlpatterns-demo-") as directory:
        exit_code = play(Path(directory))
    say(f"The demo took {monotonic() - started:.0f} s.")
    return exit_code


def play(project: Path) -> int:
    """Walk through the story in an empty directory, and return the exit code of the demo."""
    say("1. Train a classifier of handwritten digits, in a new git repository.")
    for name in COPIED:
        shutil.copy(HERE / name, project)
    (project / ".gitignore").write_text("__pycache__/\n.pytest_cache/\nresults.json\n", encoding="utf-8")
    show("python train.py")
    subprocess.run([sys.executable, "train.py"], cwd=project, check=True)
    git(project, "init", "--quiet")
    commit(project, "A model and its performance test")

    say("2. Measure it, and record that as the baseline, a file that is committed.")
    recorded = run_pytest(project, "--perf-baseline", "update")
    if recorded.exit_code:
        return judge(recorded, ())
    commit(project, "Record the baseline")

    say("3. A change of the model: a tie is decided by how rare a digit is. The answers are as good as before.")
    git(project, "apply", str(SLOWER))
    git(project, "--no-pager", "diff", "--unified=0")
    say("4. The same test again. The baseline file is a fast screen, and the recorded commit settles what it suspects.")
    screened = run_until_decided(project)

    say("5. Without a file: the same comparison with any commit, branch or tag.")
    compared = run_until_decided(project, "--perf-against", "HEAD")
    return judge(recorded, (screened, compared))


def commit(project: Path, message: str) -> None:
    """Commit all files of the project."""
    git(project, "add", "--all")
    git(project, *AUTHOR, "commit", "--quiet", "--no-verify", "--message", message)


def git(project: Path, *arguments: str) -> None:
    """Run git in the project, also if the demo is started by a hook of another repository."""
    show(shlex.join(["git", *(word for word in arguments if word not in (*AUTHOR, "--no-pager", "--no-verify"))]))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(["git", *arguments], cwd=project, env=environment, check=True)


def run_until_decided(project: Path, *options: str) -> Run:
    """Run the tests, and again if this machine was too busy, as the plugin advises."""
    tries = 1
    while (run := run_pytest(project, *options)).undecided and tries < TRIES:
        say("The speed of this machine varied too much for a clear answer. Once more:")
        tries += 1
    return run


def run_pytest(project: Path, *options: str) -> Run:
    """Run the tests of the project, their output as it comes."""
    shown = ["pytest", *options, "--perf-json=results.json"]
    show(shlex.join(shown))
    results = project / "results.json"
    results.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-m", *shown], cwd=project, check=False)
    return Run(done.returncode, read_results(results))


def read_results(file: Path) -> dict[str, dict[str, Any]]:
    """The results that ``--perf-json`` wrote, by test; empty if the run did not get that far."""
    if not file.exists():
        return {}
    return {result["test"]: result for result in json.loads(file.read_text(encoding="utf-8"))["results"]}


def judge(recorded: Run, slowed: tuple[Run, ...]) -> int:
    """Print what was seen, and return the exit code of the demo."""
    problems = find_problems(recorded, slowed)
    if problems:
        say("The demo did not go as it should:\n" + "\n".join(f"- {problem}" for problem in problems))
        return 1
    figures = "\n".join(
        f"  {regressions(run, test)[0]}\n  {cause(run, test)}" for run in slowed for test in run.results
    )
    say(
        f"What was seen: the model was recorded, and made slower. Both comparisons failed its test:\n{figures}\n"
        f"Where to go next: {HERE.name}/test_perf.py is all that this took. Put your own model in place of Digits,\n"
        "run pytest --perf-baseline update, and commit the perf-baseline.json that it writes; from then on pytest "
        f"compares.\n{HERE.name}/README.md has the steps."
    )
    return 0


def find_problems(recorded: Run, slowed: tuple[Run, ...]) -> list[str]:
    """What is not as the demo promises; empty if the regression was caught in every test by every comparison."""
    if recorded.exit_code:
        return [f"recording the baseline ended with exit code {recorded.exit_code}, expected 0; its output is above"]
    if not recorded.results:
        return ["recording the baseline measured no test, expected at least one; its output is above"]
    return [problem for run in slowed for problem in find_missed(recorded, run)]


def find_missed(recorded: Run, run: Run) -> list[str]:
    """What one comparison of the slower model missed."""
    problems = []
    if run.exit_code != FAILED:
        problems.append(
            f"the run of the slower model ended with exit code {run.exit_code}, expected {FAILED}; "
            "a machine that is busy with other things can hide it, so try again"
        )
    unseen = [test for test in recorded.results if test not in run.results]
    missed = [test for test, result in run.results.items() if result["passed"] or not regressions(run, test)]
    problems += [f"{test} was not measured with the slower model" for test in unseen]
    problems += [f"{test} {why_missed(run, test)}" for test in missed]
    return problems


def why_missed(run: Run, test: str) -> str:
    """Why a test of the slower model did not fail by a regression."""
    if test in run.undecided:
        return "stayed undecided: the speed of this machine varied too much; try again in a quieter moment"
    return "did not fail by a regression"


def regressions(run: Run, test: str) -> list[str]:
    """The comparisons that failed this test, in words with their figures."""
    found = run.results[test]["verdicts"]
    return [item["reason"] for item in found if item["against"] != "limit" and item["outcome"] == "fail"]


def cause(run: Run, test: str) -> str:
    """The function of the project that the failure names, with its line."""
    profile = run.results[test].get("profile")
    for change in profile["changes"] if profile else ():
        function, file, line, _ = profile["frames"][change["chain"][-1]]
        if change["source"]:  # a part of the server has none
            return f"cause: {function} ({file}:{line}), line {change['line']}: {change['source']}"
    return "no function stood out this time: the machine was too busy"


def say(text: str) -> None:
    print(f"\n{text}\n", flush=True)


def show(command: str) -> None:
    print(f"$ {command}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
