"""The same test at another git revision, as a side to compare with: its process, and its deployments.

The parent's end of :mod:`pytest_mlpatterns.plugin.revision_server`. It must not know how sides are measured or judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import ChildError, DeploymentError
from pytest_mlpatterns.revision.messages import (
    DeploymentStarted,
    InheritedOptions,
    Reason,
    ReferenceJob,
    RevisionFailed,
    RevisionSetup,
    StartDeployment,
    StopDeployment,
)
from pytest_mlpatterns.serving.deployment import Deployment, ForeignProcesses
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.revision.worktree import Worktree

__all__ = ["NothingToCompareError", "RevisionClient"]

_STOP_TIMEOUT_S = 20.0


class NothingToCompareError(DeploymentError):
    """The test does not exist at the revision, or fails there; ``reason`` says which."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class RevisionClient:
    """One test at another revision, in a process of its own.

    Args:
        test: the test's id.
        worktree: the revision's files.
        directory: takes what the process prints.
        startup_timeout_ns: how long pytest there may take to collect the test and start a deployment.
        handed_on: what of the command line holds there too.
    """

    def __init__(
        self, test: str, worktree: Worktree, directory: Path, startup_timeout_ns: int, handed_on: InheritedOptions
    ) -> None:
        self._test = test
        self._worktree = worktree
        self._directory = directory
        self._timeout_ns = startup_timeout_ns
        self._handed_on = handed_on
        self._child: Child | None = None
        self._offered: RevisionSetup | DeploymentError | None = None

    @property
    def name(self) -> str:
        """The revision as messages name it."""
        return f"{self._worktree.revision.name} ({self._worktree.revision.short})"

    def begin(self) -> None:
        """Start its process and let it collect the test, while the caller does something else; once is enough.

        Raises:
            DeploymentError: its process ended.
        """
        if self._child is None:
            self._offered = None
            log = self._directory / f"reference-{id(self):x}.log"
            self._child = Child("pytest_mlpatterns.plugin.revision_server", log=log)
            tree = self._worktree
            job = ReferenceJob(self._test, tree.directory, tree.present_root, tree.root, self._handed_on)
            self._send(self._child, job)

    def settle(self) -> None:
        """Wait until the process that :meth:`begin` started has collected the test, and rests; what fails is kept."""
        if self._child is not None and self._offered is None:
            try:
                self._offered = self._answer(self._child, self._timeout_ns / 1e9)
            except DeploymentError as error:
                self._offered = error

    def offer(self) -> RevisionSetup:
        """What the test measures there; starts its process where :meth:`begin` did not.

        Raises:
            NothingToCompareError: the test does not exist there, or cannot be collected or set up there.
            DeploymentError: its process ended, or says nothing in time.
        """
        self.begin()
        self.settle()
        if isinstance(self._offered, DeploymentError):
            raise self._offered
        assert self._offered is not None
        return self._offered

    def start(self) -> Deployment:
        """Start a deployment there; closing it stops it, the process stays for the next.

        Raises:
            NothingToCompareError: as :meth:`offer` raises it, or the model fails there.
            DeploymentError: it loaded code of the present tree, or its process ended.
        """
        self.offer()
        assert self._child is not None
        started = self._ask(self._child, StartDeployment(), self._timeout_ns / 1e9)
        assert isinstance(started, DeploymentStarted)
        return Deployment(started.endpoint, ForeignProcesses(started.pids, self._stop), started.cold_start_ns)

    def close(self) -> None:
        """End the process and everything that it started."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _stop(self) -> None:
        if self._child is not None:
            self._ask(self._child, StopDeployment(), _STOP_TIMEOUT_S)

    def _ask(self, child: Child, question: StartDeployment | StopDeployment, timeout_s: float) -> Any:
        self._send(child, question)
        return self._answer(child, timeout_s)

    def _send(self, child: Child, question: ReferenceJob | StartDeployment | StopDeployment) -> None:
        try:
            child.send(question)
        except ChildError as error:
            raise DeploymentError(f"{self._test} at {self.name}: {error}") from error

    def _answer(self, child: Child, timeout_s: float) -> Any:
        try:
            answer = child.receive(timeout_s)
        except ChildError as error:
            raise DeploymentError(f"{self._test} at {self.name}: {error}") from error
        except TimeoutError:
            raise DeploymentError(
                f"{self._test} at {self.name} said nothing within {format_duration(timeout_s * 1e9)}; raise the "
                f'time limit with perf(startup_timeout="5min")\nIt printed last:\n{child.log_tail()}'
            ) from None
        if isinstance(answer, RevisionFailed):
            text = f"{self._test} {answer.reason.value} at {self.name}: {answer.text}"
            if answer.reason is Reason.WRONG:
                raise DeploymentError(text)
            raise NothingToCompareError(answer.reason, text)
        return answer
