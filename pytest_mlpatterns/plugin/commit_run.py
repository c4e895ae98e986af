"""pytest in the tree of an old commit: it measures one test there and compares it with another commit.

A child process of :mod:`pytest_mlpatterns.history.commit_runs`. The test and its fixtures are the commit's. Its
body does not run: it asserts what held then. This module must not know which commits are measured, nor why.
"""

import os
import sys
import tempfile
from collections.abc import Generator, Sequence

import pytest

from pytest_mlpatterns.history.commit_runs import CommitJob, CommitRunEnded, WhyNotRun
from pytest_mlpatterns.plugin.collection import MEASURED_COMMIT, PERF_ITEM
from pytest_mlpatterns.plugin.revision_server import ABSENT, arguments_for
from pytest_mlpatterns.system.child import Channel, interrupt
from pytest_mlpatterns.system.import_redirect import install, modules_from, wrong_tree


def main() -> None:
    """The child process."""
    channel = Channel()
    job: CommitJob = channel.receive()
    channel.listen(lambda _: None, interrupt)
    tempfile.tempdir = str(job.file.parent)  # what a killed process leaves goes with the parent's files
    os.chdir(job.measured.directory)
    sys.path[:] = job.import_path
    install(*job.trees)
    watcher = Watcher(job)
    options = (f"--perf-against={job.reference.revision.sha}", f"--perf-json={job.file}")
    code = pytest.main(arguments_for(job.test, options), plugins=[watcher])
    channel.send(watcher.ended(int(code)))


class Watcher:
    """The pytest plugin of the child: it gives the job to the session, and notes why nothing is measured."""

    def __init__(self, job: CommitJob) -> None:
        self.why: WhyNotRun | None = None
        self.failures: list[str] = []
        self._job = job
        self._has_started = False
        self._several: tuple[str, ...] = ()

    def ended(self, code: int) -> CommitRunEnded:
        """What came of the run."""
        if self._several:
            return CommitRunEnded(tests=self._several)
        failed = None if self.why is None else CommitRunEnded(self.why, "\n".join(self.failures))
        if failed is not None and self.why in (WhyNotRun.IMPORT, WhyNotRun.COLLECTION):
            return failed
        if strays := modules_from(*self._job.trees):
            return CommitRunEnded(WhyNotRun.OTHER_CODE, str(wrong_tree(strays, *self._job.trees)))
        if self._job.file.exists():
            return CommitRunEnded()
        why = WhyNotRun.ABSENT if self._has_started and code in ABSENT else WhyNotRun.COLLECTION
        return failed or CommitRunEnded(why, f"pytest ended with exit code {code}")

    def _note(self, why: WhyNotRun, text: str) -> None:
        self.why = why
        self.failures.append(text)

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Pass the job to the session."""
        config.stash[MEASURED_COMMIT] = self._job

    def pytest_sessionstart(self) -> None:
        """Note that pytest has started: a later error is the test's."""
        self._has_started = True

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Note why a file cannot be collected."""
        report = yield
        call: pytest.CallInfo[object] | None = getattr(report, "call", None)
        if report.failed and call is not None and call.excinfo is not None:
            is_import = _is_import_error(call.excinfo.value)
            self._note(WhyNotRun.IMPORT if is_import else WhyNotRun.COLLECTION, str(report.longrepr))
        elif report.skipped:
            self._note(WhyNotRun.FAILED, _reason(report))
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Measure nothing if the id names several tests."""
        if len(items) > 1:
            self._several = tuple(item.nodeid for item in items)
            items.clear()

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note that the test exists but is not to run."""
        self._note(WhyNotRun.ABSENT, "\n".join(f"{item.nodeid} is deselected there" for item in items))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note why the test cannot be set up, or is skipped."""
        report = yield
        if report.skipped:
            self._note(WhyNotRun.FAILED, _reason(report))
        elif report.failed and call.when == "setup":
            self._note(WhyNotRun.FAILED, report.longreprtext or str(report.longrepr))
        elif call.when == "call" and PERF_ITEM not in item.stash:
            self._note(WhyNotRun.FAILED, f"{item.nodeid} does not use the fixture perf")
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Leave the body out, unless it is what asks for the measurement; the comparison follows it in any case."""
        state = pyfuncitem.stash.get(PERF_ITEM, None)
        return None if state is None or state.perf is None else True


def _reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    """Why a test or file is skipped."""
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def _is_import_error(error: BaseException | None) -> bool:
    """Whether an import that failed is behind the error of a file."""
    while error is not None:
        if isinstance(error, ImportError):
            return True
        error = error.__cause__
    return False
