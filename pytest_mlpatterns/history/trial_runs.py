"""Runs of unchanged tests, made to see how much their launches differ: pytest in processes of its own, bounded in time.

A run that records into a baseline file of its own gives several launches of each test. One that compares with the
commit that is checked out gives pairs of launches. Both are repeated while there is time. What pytest prints is kept
for an error. This module must not know what is concluded from the runs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import DeploymentError, ResultFileError, SettingError
from pytest_mlpatterns.reports.files.result_file import read_results
from pytest_mlpatterns.system.files import read_text
from pytest_mlpatterns.system.git import Git
from pytest_mlpatterns.system.owned_files import temporary_directory
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.records.result import TestResult

__all__ = ["Trials", "ended", "has_ratios", "measure_trials", "why_no_pairs"]

_MOST_RUNS = 3
"""Runs of each kind: twenty-four launches know their scatter to a sixth."""
_GRACE_S = 30.0
"""Time that pytest has, after an interrupt, to end the services and to write its results."""
_LONGER = 1.1
"""Factor on the time of a run that the next one is expected to take."""
_SHOWN_LINES = 15
"""Last lines of pytest's output in the message of an error."""
_ALONE = ("--perf-baseline", "update", "-o", "perf_against=")
"""A run that measures each test as an update of the baseline does."""
_INTERLEAVED = ("--perf-against", "HEAD", "--perf-baseline", "off")
"""A run that compares each test with itself."""
_QUIET = (
    *("-q", "-p", "no:cacheprovider", "--perf-profile", "off", "--perf-gate", "warn", "--perf-inconclusive", "pass"),
    *("-o", "perf_html=", "-o", "perf_rank=", "-o", "perf_history=", "-o", "perf_baseline_from="),
    *("--perf-history-fail", "never"),
)
"""Nothing else is written, no profile is made, and no verdict ends the run early."""


@dataclass(frozen=True, slots=True)
class Trials:
    """What was measured.

    Attributes:
        alone: results of each run in which the tests were measured alone.
        interleaved: results of each run in which they were measured beside the commit that is checked out.
        why_no_pairs: why there is none of the latter; empty if there is one.
        is_cut: whether the time was over before the first run had measured all tests.
    """

    alone: tuple[tuple[TestResult, ...], ...]
    interleaved: tuple[tuple[TestResult, ...], ...]
    why_no_pairs: str = ""
    is_cut: bool = False

    @property
    def noise(self) -> str:
        """What disturbed the machine last, in words; empty if nothing did."""
        found = [one.what for run in self.alone for result in run for one in result.conditions.noise]
        return found[-1] if found else ""


def measure_trials(
    tests: Sequence[str], *, at_most_s: float, directory: Path, report: Callable[[str], None] = lambda _text: None
) -> Trials:
    """Measure tests again and again without a change.

    Args:
        tests: what pytest runs, as its command line names it; empty for all.
        at_most_s: seconds that all runs may take together; the last one is interrupted when they are over.
        directory: where pytest is started.
        report: takes a sentence before each run.

    Raises:
        SettingError: pytest ended without measuring a test, or none was measured in the time.
    """
    deadline = time.monotonic() + at_most_s
    why_not = _why_not_interleaved(directory)
    alone, beside = _Repeated(_ALONE, "alone"), _Repeated(_INTERLEAVED, "beside the commit that is checked out")
    with temporary_directory("mlpatterns-plan-") as scratch:
        for number in range(_MOST_RUNS):
            for kind in (alone,) if why_not else (alone, beside):
                left_s = deadline - time.monotonic()
                if not kind.fits(left_s):
                    continue
                report(f"run {number + 1} of up to {_MOST_RUNS}, {kind.name}; {format_duration(left_s * 1e9)} left")
                kind.measure(_TrialRun(tests, kind.options, directory=directory, scratch=scratch), left_s)
                if alone.problem and not alone.found:
                    raise SettingError(f"pytest measured no test: {alone.problem}")
    if not alone.found:
        limit = format_duration(at_most_s * 1e9)
        raise SettingError(f"no test was measured in {limit}; give more time, --at-most 30min, or name fewer tests")
    missing = why_not or why_no_pairs(beside.found, beside.problem)
    return Trials(tuple(alone.found), tuple(beside.found), missing, is_cut=alone.is_cut)


class _Repeated:
    """One kind of run, repeated while there is time.

    Args:
        options: of pytest.
        name: in reports.

    Attributes:
        found: results of each run that measured a test.
        problem: why the last run measured nothing; empty if it did, or if its time was over.
        is_cut: whether the time was over in the first run.
    """

    def __init__(self, options: tuple[str, ...], name: str) -> None:
        self.options = options
        self.name = name
        self.found: list[tuple[TestResult, ...]] = []
        self.problem: str = ""
        self.is_cut: bool = False
        self._took_s = 0.0

    def fits(self, left_s: float) -> bool:
        """Whether there is time for another run."""
        return left_s > 0 and self._took_s * _LONGER <= left_s

    def measure(self, run: _TrialRun, at_most_s: float) -> None:
        """Run it once."""
        started = time.monotonic()
        results = run.measure(at_most_s)
        self._took_s = time.monotonic() - started
        self.is_cut = self.is_cut or (not self.found and self._took_s >= at_most_s)
        self.problem = run.problem
        if results:
            self.found.append(results)


def why_no_pairs(runs: Sequence[Sequence[TestResult]], problem: str) -> str:
    """Why no run compared a test with the commit; empty if one did."""
    if any(map(has_ratios, runs)):
        return ""
    last = problem.strip().rpartition("\n")[2]
    return f"HEAD gave no comparison of these tests{last and f' ({last})'}"


def has_ratios(results: Sequence[TestResult]) -> bool:
    """Whether a run compared a test with a revision."""
    return any(result.reference is not None and result.reference.log_ratios for result in results)


def _why_not_interleaved(directory: Path) -> str:
    """Why the tests cannot be compared with the commit that is checked out; empty if they can."""
    try:
        git = Git(directory)
        git.position()
        has_commit = git.succeeds("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except (SettingError, DeploymentError):
        return "there is no git repository"
    return "" if has_commit else "the git repository has no commit"


class _TrialRun:
    """One pytest.

    Args:
        tests: what it runs.
        kind: options of the kind of run.
        directory: where it is started.
        scratch: a directory for its files, in one of their own.

    Attributes:
        problem: why it measured nothing, in words; empty if it measured, or if its time was over.
    """

    def __init__(self, tests: Sequence[str], kind: Sequence[str], *, directory: Path, scratch: Path) -> None:
        self.problem: str = ""
        own = Path(tempfile.mkdtemp(dir=scratch))
        self._results = own / "results.json"
        self._output = own / "output.txt"
        self._directory = directory
        own_file = ("--perf-baseline-file", str(own / "baseline.json")) if kind == _ALONE else ()
        self._command = [
            *(sys.executable, "-P", "-m", "pytest", *tests, *_QUIET, *kind, *own_file),
            *("--perf-json", str(self._results)),
        ]

    def measure(self, at_most_s: float) -> tuple[TestResult, ...]:
        """The results; those that there are if the time is over."""
        until = time.monotonic() + at_most_s
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                self._command, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            code = ended(process, at_most_s)
        results: tuple[TestResult, ...] = ()
        problem = f"it ended with exit code {code}"
        if self._results.exists():
            try:
                results = read_results(read_text(self._results)).results
            except (ResultFileError, OSError, UnicodeDecodeError) as error:
                problem = f"its results cannot be read: {error}"
        if not results and time.monotonic() < until:
            self.problem = f"{problem}, and printed last:\n{self._tail()}"
        return results

    def _tail(self) -> str:
        """The last lines that pytest printed."""
        lines = self._output.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_SHOWN_LINES:]) or "nothing"


def ended(process: subprocess.Popen[bytes], at_most_s: float) -> int:
    """Wait for pytest, and interrupt it when its time is over or this process is interrupted."""
    try:
        return process.wait(at_most_s)
    except subprocess.TimeoutExpired:
        process.terminate()  # which interrupts it, also in the background of a shell, where SIGINT is ignored
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_GRACE_S)
        process.kill()
        return process.wait()
    except KeyboardInterrupt:  # which the terminal sends to pytest too
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
        process.kill()
        process.wait()
        raise
