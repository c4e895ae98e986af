"""One test measured at an old commit against another commit, both in trees of their own.

The files of both commits are laid out beside the user's tree, which is not touched. pytest runs in the tree of the
measured commit, in a child process (:mod:`pytest_mlpatterns.plugin.commit_run`), and compares it with the other commit
as ``--perf-against`` does. A project that is installed in place is imported from the user's tree; that process and all
that it starts import it from the trees of the commits instead.

A commit that cannot be measured is no error: the answer has the reason. This module must not know why it is measured.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.config.settings import CountMode, InconclusivePolicy, ProfileMode, Settings
from pytest_mlpatterns.errors import ChildError, DeploymentError, ResultFileError, SettingError
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import Gate
from pytest_mlpatterns.reports.files.result_file import read_results
from pytest_mlpatterns.revision.client import error_line, without_markers
from pytest_mlpatterns.revision.commits import Revision
from pytest_mlpatterns.revision.worktree import Worktree, checkout, remove_stale, unheard
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.files import read_text
from pytest_mlpatterns.system.git import Git
from pytest_mlpatterns.system.installed_copies import require_no_copy
from pytest_mlpatterns.system.scratch_directory import ScratchDirectory
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import count, listed

_SERVER = "pytest_mlpatterns.plugin.commit_run"
_SHOWN = 4  # Most tests that a message names
_TREES_KEPT = 3
"""Trees that are laid out at a time: the good end of a search, the commit that is measured, and the one before it."""
_BESIDE_BUDGET_S = 120.0
"""Time that a run may take beside measuring, in seconds: pytest and its imports, collection, starts of deployments."""
_OVER_BUDGET = 2.0
"""Multiple of the budget that a run may take: the launches before the first look, and one that begins just in time."""


class WhyNotRun(StrEnum):
    """Why a commit cannot be measured; the values stand in files."""

    IMPORT = "import error"
    COLLECTION = "collection error"
    ABSENT = "test absent"
    FAILED = "test error"
    NOT_COMPARED = "not comparable"
    OTHER_CODE = "other code"
    CRASH = "crash"
    TIMEOUT = "time-out"


class NotRun(Struct, frozen=True):
    """A commit that cannot be measured."""

    why: WhyNotRun  # the reason
    text: str  # the error there in one line
    log: str = ""  # last lines that the process printed; empty if they explain nothing

    def __str__(self) -> str:
        return f"{self.why.value}: {self.text}"


class MeasuredAs(Struct, frozen=True):
    """How a test of an old commit is measured, in place of what its marker asks for."""

    budget_ns: int  # time for measuring
    metric: str  # the only one that is compared
    tolerance: float  # change of it, as a share, up to which a measurement goes on until that is shown
    is_profiled: bool = False  # whether both sides are profiled after it


class CommitJob(Struct, frozen=True):
    """What a pytest process measures."""

    test: str  # its id
    measured: Worktree  # the tree of the commit
    reference: Worktree  # the tree of the commit that it is compared with
    measured_as: MeasuredAs  # how
    file: Path  # the result file that it writes
    # ``sys.path`` of the command, with absolute paths, which may lead into the user's tree
    import_path: tuple[str, ...]
    python_path: str  # ``PYTHONPATH`` of the command; empty without one

    @property
    def trees(self) -> tuple[Path, Path]:
        """Top of the user's tree, and of the tree from which code is imported instead."""
        return self.measured.present_root, self.measured.root

    def applied(self, settings: Settings) -> Settings:
        """The settings of the test as they count for this measurement: no verdict of it fails it."""
        asked = self.measured_as
        profile = ProfileMode.ON if asked.is_profiled else ProfileMode.OFF
        settings = replace(
            settings,
            budget_ns=asked.budget_ns,
            planned_ns=asked.budget_ns,
            profile=profile,
            inconclusive=InconclusivePolicy.PASS,
            gate=Gate.WARN,
            count=CountMode.OFF,
            accept=(),
        )
        return replace(settings, compare=(asked.metric,), tolerance=Tolerances({asked.metric: asked.tolerance}))


class CommitRunEnded(Struct, frozen=True):
    """What a pytest process sends at its end."""

    why: WhyNotRun | None = None  # why it measured nothing; None if it wrote its result file
    text: str = ""  # the error at length
    tests: tuple[str, ...] = ()  # those that the id names, if they are several; then nothing was measured


class CommitRun(Struct, frozen=True):
    """A commit that was measured."""

    result: TestResult  # whose reference has the ratios

    def ratios(self, metric: str) -> tuple[LogRatio, ...]:
        """The log ratios of the paired launches, measured commit over reference; empty if the metric has none."""
        reference = self.result.reference
        found = () if reference is None else reference.log_ratios.get(metric, ())
        return tuple(LogRatio(value, error) for value, error in found)


def limit_s(budget_ns: int) -> float:
    """The time after which a run with this budget is ended, in seconds."""
    return _BESIDE_BUDGET_S + _OVER_BUDGET * budget_ns / 1e9


class CommitRuns:
    """Measures commits of one repository; a context, at whose end nothing is left of the trees and processes."""

    def __init__(self, project: Path, *, extra: Sequence[str] = (), show: Callable[[str], None] = unheard) -> None:
        self._project = project
        self._extra = tuple(extra)
        self._show = show
        self._trees: OrderedDict[str, tuple[Worktree, contextlib.ExitStack]] = OrderedDict()
        self._resources = contextlib.ExitStack()
        self._scratch: ScratchDirectory | None = None
        self._runs = 0

    def __enter__(self) -> CommitRuns:
        require_no_copy(self._project, Git(self._project).position().top)
        remove_stale(self._project, self._show)
        self._scratch = ScratchDirectory()
        self._resources.callback(self._scratch.remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._resources:
            while self._trees:
                self._trees.popitem()[1][1].close()

    def of(self, test: str) -> Callable[..., CommitRun | NotRun]:
        """What measures a commit against another one by one test; the trees are shared."""
        return lambda commit, reference, *how, **most: self.measure(test, (commit, reference), *how, **most)

    def measure(
        self, test: str, commits: tuple[Revision, Revision], measured_as: MeasuredAs, *, most_s: float | None = None
    ) -> CommitRun | NotRun:
        """Measure a commit against another one.

        ``commits``: the one that is measured, and the one below the line of its ratios. ``most_s``: time after which
        the run is ended, in seconds; None for :func:`limit_s`.
        """
        assert self._scratch is not None
        commit, reference = commits
        self._runs += 1
        file = self._scratch.path / f"result-{self._runs}.json"
        try:
            trees = self._tree_of(reference, commit), self._tree_of(commit, reference)
        except DirectoryAbsentError as error:
            return NotRun(WhyNotRun.ABSENT, str(error))
        path = tuple(map(os.path.abspath, sys.path))
        python_path = os.environ.get("PYTHONPATH", "")
        job = CommitJob(test, trees[1], trees[0], measured_as, file, path, python_path)
        ended = self._run(job, limit_s(measured_as.budget_ns) if most_s is None else most_s)
        return ended if isinstance(ended, NotRun) else self._read(job)

    def _run(self, job: CommitJob, seconds: float) -> NotRun | None:
        """Run pytest until it ends; None if it wrote its results."""
        child = Child(_SERVER, log=job.file.with_suffix(".log"))
        try:
            child.send(job)
            ended: CommitRunEnded = child.receive(seconds)
        except ChildError as error:
            return NotRun(WhyNotRun.CRASH, error_line(str(error)), child.log_tail())
        except TimeoutError:
            took = f"took longer than {format_duration(seconds * 1e9)}"
            return NotRun(WhyNotRun.TIMEOUT, took, child.log_tail())
        finally:
            child.stop()
        if ended.tests:
            raise SettingError(
                f"{job.test} names {count(len(ended.tests), 'test')}: {listed(ended.tests[:_SHOWN])}, expected one; "
                "give its whole id"
            )
        return None if ended.why is None else NotRun(ended.why, error_line(ended.text), without_markers(ended.text))

    def _read(self, job: CommitJob) -> CommitRun | NotRun:
        try:
            results = read_results(read_text(job.file))
        except (OSError, ValueError, ResultFileError) as error:
            return NotRun(WhyNotRun.CRASH, f"the result file {error}")
        if not results.results:
            text = "\n".join(one.reason for one in results.unmeasured)
            return NotRun(WhyNotRun.FAILED, error_line(text), text)
        result = results.results[0]
        if result.reference is None or not result.reference.log_ratios:
            unjudged = result.judged.unjudged
            text = unjudged.reason if unjudged is not None else "; ".join(result.judged.notes)
            return NotRun(WhyNotRun.NOT_COMPARED, error_line(text), text)
        return CommitRun(result)

    def _tree_of(self, commit: Revision, beside: Revision) -> Worktree:
        """The tree of a commit, laid out unless it still is; older ones are removed."""
        if commit.sha not in self._trees:
            git = Git(self._project)
            below = git.position().below
            if below.parts and not git.succeeds("cat-file", "-e", f"{commit.sha}:{below.as_posix()}"):
                raise DirectoryAbsentError(f"{below.as_posix()} does not exist at {commit.short}")
            opened = contextlib.ExitStack()
            tree = opened.enter_context(checkout(self._project, commit, self._extra, say=self._show))
            self._trees[commit.sha] = tree, opened
        self._trees.move_to_end(commit.sha)
        for sha in [one for one in self._trees if one not in (commit.sha, beside.sha)]:
            if len(self._trees) > _TREES_KEPT:
                self._trees.pop(sha)[1].close()
        return self._trees[commit.sha][0]


class DirectoryAbsentError(DeploymentError):
    """A commit does not have the project's directory."""
