"""Small test projects as values: what stands in their files, how they are run, and what a run said.

A project is immutable; every method returns another. Runs are kept short here, once, so that tests need not.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from support.inprocess import run_pytest

QUICK = 'pytest.mark.perf(duration="200ms", warmup="0s", launches=1)'
"""A marker that keeps a test as short as it can be."""
READ_ONLY = "def pytest_runtestloop():\n    return True\n"
"""A conftest file with which the settings of every test are read, and no test runs."""
APART = ("-n", "1")
"""Arguments that run the tests of a project in another process than the one that writes and prints. What comes through
it complete is complete without it."""
_ANY_WIDTH = {
    **dict.fromkeys(("rtm", "cpu_per_request", "p90", "p95", "p99"), "1000000%"),
    **dict.fromkeys(("throughput", "nmrt"), "100%"),
}
RECORD = ("--perf-baseline", "update", "--perf-tolerance", ",".join("=".join(one) for one in _ANY_WIDTH.items()))
"""Options that record a baseline however busy this machine is: an entry wider than its tolerance is refused."""

MODEL = """
import time

import pytest

def double(batch):
    time.sleep(0.005)
    return [2 * value for value in batch]

@pytest.fixture
def perf_model():
    return double

@pytest.fixture
def perf_payload():
    return [1, 2, 3]
"""
"""The smallest model and its inputs, as the head of a test file; it rests, so that the generator is not the limit,
and so long that its times are known well enough to be recorded however busy this machine is."""

OPTIONS = (
    *(
        f"-pno:{name}"
        for name in (
            *("perf", "benchmark", "hypothesispytest", "anyio", "pytest_cov", "locust", "valkey", "pyreqwest"),
            *("rerunfailures", "timeout"),
        )
    ),
    "--perf-noise=trust",
    "--perf-profile=off",
    "--perf-count=off",
)
"""Without plugins that may be installed beside ours and clash with it, warn under pytest-xdist, or cost time; and since
the suite itself keeps the machine busy, a failure does not stay open because of that. A profile takes seconds."""

_TIMEOUT_S = 300
"""What takes longer hangs, however busy the machine is."""
_WIDTH = "240"
_HEADING = re.compile(r"^_{3,} (?P<test>.+?) _{3,}$")
_END = re.compile(r"^(=+ .+ =+|-+ performance -+)$")
_RULE = re.compile(r"^(=|-){3,} .* \1{3,}$")


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of pytest came to."""

    exit_code: int
    out: str
    err: str
    directory: Path

    @property
    def outcomes(self) -> dict[str, int]:
        """How many tests passed, failed, …, as the last line counts them; warnings are counted too."""
        return pytest.RunResult.parse_summary_nouns(self.out.splitlines())

    @property
    def errors(self) -> list[str]:
        """The lines on standard error."""
        return self.err.splitlines()

    @property
    def table(self) -> dict[str, str]:
        """The last column, the verdict, of every row of the performance table, by test name without its file."""
        rows = [row.split() for row in self.section("performance").split("\n\n")[0].splitlines()[1:]]
        known = [row for row in rows if "::" in row[0] and not row[0].endswith(":")]  # notes have a colon
        return {row[0].rpartition("::")[2]: row[-1] for row in known}

    def section(self, title: str) -> str:
        """What stands under a rule with this title, up to the next rule."""
        lines = self.out.splitlines()
        starts = [number for number, line in enumerate(lines) if re.fullmatch(rf"(=|-)+ {re.escape(title)} \1+", line)]
        assert starts, f"there is no section {title!r} in:\n{self.out}"
        end = next((n for n in range(starts[0] + 1, len(lines)) if _RULE.match(lines[n])), len(lines))
        return "\n".join(lines[starts[0] + 1 : end])

    def failure(self, test: str) -> str:
        """What pytest prints of one failed test: traceback, message and report sections."""
        lines = self.out.splitlines()
        for number, line in enumerate(lines):
            if (found := _HEADING.match(line)) and found["test"] == test:
                rest = lines[number + 1 :]
                end = next((n for n, text in enumerate(rest) if _HEADING.match(text) or _END.match(text)), None)
                return "\n".join(rest[:end])
        raise AssertionError(f"test {test!r} did not fail in:\n{self.out}")

    def facts(self, test: str) -> dict[str, str]:
        """What stands under the first line of a failure, by its label; lines that go on are joined."""
        found: dict[str, str] = {}
        lines = [line for line in self.failure(test).splitlines() if line.startswith("E ")]
        (start,) = (match.end() for line in lines if (match := re.match(r"E +(?=next {2,}\S)", line)))
        label = ""
        for line in lines:
            if not line[1:start].strip() and (text := line[start + 10 :].strip()):
                label = line[start : start + 10].strip() or label
                found[label] = f"{found[label]} {text}" if label in found else text
        return found

    def json(self, name: str) -> Any:
        """A JSON file of the project, as it is after the run."""
        return json.loads((self.directory / name).read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Project:
    """The files of a project, by name, and its settings in ``pytest.ini``."""

    files: Mapping[str, str] = field(default_factory=dict)
    ini: Mapping[str, str] = field(default_factory=dict)

    def with_file(self, name: str, text: str) -> "Project":
        """The project with one file more, or another text in it."""
        return replace(self, files={**self.files, name: dedent(text)})

    def with_tests(self, body: str, *, marker: str | None = QUICK, name: str = "test_perf.py") -> "Project":
        """The project with a test file that has the smallest model, and all of whose tests carry a marker."""
        mark = f"\n\npytestmark = {marker}\n" if marker else ""
        return replace(self, files={**self.files, name: f"{MODEL}{mark}\n\n{dedent(body)}"})

    def with_ini(self, **settings: str) -> "Project":
        """The project with more settings."""
        return replace(self, ini={**self.ini, **settings})

    def write(self, directory: Path) -> None:
        """Put the files into a directory."""
        settings = "".join(f"{key} = {value}\n" for key, value in self.ini.items())
        for name, text in {"pytest.ini": f"[pytest]\n{settings}", **self.files}.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def run(self, directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Run:
        """Write the files and run pytest there, in this process."""
        self.write(directory)
        return run_here(directory, *arguments, environment=environment)

    def run_apart(self, directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Run:
        """Write the files and run pytest there, in a process of its own."""
        self.write(directory)
        return run_apart(directory, *arguments, environment=environment)


def run_here(directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Run:
    """Run pytest in this process, which saves most of what a short run takes."""
    variables = {**clean_environment(), **(environment or {})}
    off = "no:mlpatterns" in arguments or "PYTEST_DISABLE_PLUGIN_AUTOLOAD" in variables
    options = [one for one in OPTIONS if not (off and one.startswith("--perf-"))]
    return _shown(Run(*run_pytest(directory, [*options, *arguments], variables), directory))


def run_apart(directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Run:
    """Run pytest in a process of its own: for what depends on the state in which a Python begins."""
    done = subprocess.run(
        command(*arguments),
        cwd=directory,
        env={**clean_environment(), **(environment or {})},
        capture_output=True,
        encoding="utf-8",
        timeout=_TIMEOUT_S,
        check=False,
    )
    return _shown(Run(done.returncode, done.stdout, done.stderr, directory))


def command(*arguments: str) -> list[str]:
    """The command line of a run."""
    return [sys.executable, "-m", "pytest", *OPTIONS, *arguments]


def clean_environment() -> dict[str, str]:
    """This process's environment without what the outer run of pytest, or CI, put there."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "CI" and not name.startswith(("PYTEST_", "GITHUB_"))
    }
    return {**kept, "COLUMNS": _WIDTH, "PYTHONDONTWRITEBYTECODE": "1"}


def _shown(run: Run) -> Run:
    """Show what the run printed where the test that made it fails."""
    sys.stdout.write(run.out)
    sys.stderr.write(run.err)
    return run
