"""What an environment came to: it works, it ends with the clear line that was expected, or there is a problem."""

import re
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from environments import Environment

__all__ = ["MIXED", "Outcome", "outcome_of"]

MIXED = {"passed": 8, "skipped": 2}
"""What ``test_mixed.py`` comes to: one of those that are skipped is expected to fail."""
_USAGE_ERROR = 4
_OURS = re.compile(r"pytest_mlpatterns/\S+:\d+: \w*Warning")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one environment.

    Attributes:
        versions: of what is installed, by name in lower case.
        passed: number of tests that passed.
        line: the line with which the run ended, where that was expected.
        absent: why the environment cannot be made on this machine.
        problem: what is wrong; empty if nothing is.
    """

    versions: dict[str, str] = field(default_factory=dict)
    passed: int = 0
    line: str = ""
    absent: str = ""
    problem: str = ""

    def __str__(self) -> str:
        return self.problem or self.absent or self.line or f"{self.passed} tests passed"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def outcome_of(
    environment: Environment, project: Path, runs: list[subprocess.CompletedProcess[str]], versions: dict[str, str]
) -> Outcome:
    """Judge the runs of one environment."""
    if environment.clash:
        lines = [line for run in runs for line in (run.stdout + run.stderr).splitlines() if line.strip()]
        if lines == [f"ERROR: {environment.clash}"] and runs[0].returncode == _USAGE_ERROR:
            return Outcome(versions, line=environment.clash)
        return Outcome(versions, problem=f"expected one line, {environment.clash}; got {lines[-3:]}")
    counts = {"passed": 0, "skipped": 0}
    for number, run in enumerate(runs):
        if problem := _problem_in(run):
            return Outcome(versions, problem=f"{problem}; see {project}/run-{number}.txt")
        for kind, count in _counted(project / f"junit-{number}.xml").items():
            counts[kind] += count
    mixed = MIXED if environment.mixed else dict.fromkeys(MIXED, 0)
    expected = {"passed": mixed["passed"] + environment.passed, "skipped": mixed["skipped"]}
    if counts != expected:
        return Outcome(versions, problem=f"{counts}, expected {expected}; see {project}")
    measured = "".join(file.read_text(encoding="utf-8") for file in project.glob("perf-*.json"))
    if environment.mixed and "test_load" not in measured:
        return Outcome(versions, problem="test_load has no result in the file of --perf-json")
    return Outcome(versions, counts["passed"])


def _problem_in(run: subprocess.CompletedProcess[str]) -> str:
    """What is wrong with a run; empty if nothing is."""
    if run.returncode:
        return f"exit code {run.returncode}"
    found = _OURS.search(run.stdout)
    return f"a warning of ours: {found[0]}" if found else ""


def _counted(junit: Path) -> dict[str, int]:
    """How many tests passed, and how many were skipped or failed as expected."""
    suites = ElementTree.parse(junit).getroot().iter("testsuite")
    found = {"passed": 0, "skipped": 0}
    for suite in suites:
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        found["passed"] += tests - skipped - int(suite.get("failures", 0)) - int(suite.get("errors", 0))
        found["skipped"] += skipped
    return found
