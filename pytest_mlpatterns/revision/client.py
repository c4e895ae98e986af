"""Client of the pytest process that runs one test at another git revision and starts deployments there.

The server is :mod:`pytest_mlpatterns.plugin.revision_server`. This module does not know how deployments are measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pytest_mlpatterns.errors import ChildError, DeploymentError
from pytest_mlpatterns.revision.cluster_access import access_variables
from pytest_mlpatterns.revision.failure_text import error_line, hint_at_files, without_markers
from pytest_mlpatterns.revision.messages import (
    DeploymentFailed,
    DeploymentStarted,
    DeploymentStopped,
    FactsFound,
    FactsWanted,
    InheritedOptions,
    Reason,
    ReferenceJob,
    RevisionFailed,
    RevisionSetup,
    StartDeployment,
    StatsFound,
    StatsWanted,
    StopDeployment,
)
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.records.environment_facts import EnvironmentFacts
    from pytest_mlpatterns.records.telemetry import PatternStats
    from pytest_mlpatterns.revision.messages import Wanted
    from pytest_mlpatterns.revision.worktree import Worktree
    from pytest_mlpatterns.system.ray.session import RaySession

__all__ = ["NothingToCompareError", "RevisionClient"]

_STOP_TIMEOUT_S = 20.0
_DELETE_TIMEOUT_S = 70.0
"""The same on a Ray cluster; longer than that process waits for Ray Serve."""
_MONITORS = "pytest_mlpatterns.serving.ray.remote.node_monitor"
_FACTS_TIMEOUT_S = 10.0
_Answer = TypeVar("_Answer")
_IF_FILES_ARE_MISSING = "if it lacks files that git does not track there, name them in --perf-against-files"


class NothingToCompareError(DeploymentError):
    """The test does not exist at the revision, or fails there.

    Attributes:
        reason: which of them.
        details: the error there at length; empty without one.
    """

    def __init__(self, reason: Reason, text: str, details: str = "") -> None:
        super().__init__(text)
        self.reason = reason
        self.details = details


class RevisionClient:
    """One test at another revision, in its own process.

    Args:
        test: id of the test.
        worktree: the revision's files.
        directory: directory for the log of the process.
        startup_timeout_ns: time limit for the collection of the test, and for the start of a deployment.
        inherited_options: options of this run that the process uses too.
        cluster: the Ray cluster of this run, on which the revision is served too; None if it is served without Ray.
    """

    def __init__(
        self,
        test: str,
        worktree: Worktree,
        directory: Path,
        *,
        startup_timeout_ns: int,
        inherited_options: InheritedOptions,
        cluster: RaySession | None = None,
    ) -> None:
        self._test = test
        self._worktree = worktree
        self._directory = directory
        self._timeout_ns = self._answer_ns = startup_timeout_ns
        self._inherited_options = inherited_options
        self._cluster = cluster
        self._child: Child | None = None
        self._setup: RevisionSetup | DeploymentError | None = None

    @property
    def name(self) -> str:
        """Name of the revision in messages."""
        return f"{self._worktree.revision.name} ({self._worktree.revision.short})"

    @property
    def worktree(self) -> Worktree:
        """The files of the revision."""
        return self._worktree

    def start_process(self) -> None:
        """Start the process, which collects the test in the background; a second call does nothing.

        Raises:
            DeploymentError: the process ended.
        """
        if self._child is None:
            self._setup = None
            log = self._directory / f"reference-{id(self):x}.log"
            tree = self._worktree
            python = None if tree.environment is None else tree.environment.python
            env = None if self._cluster is None else access_variables(self._cluster.cluster)
            self._child = Child("pytest_mlpatterns.plugin.revision_server", log=log, python=python, env=env)
            job = ReferenceJob(self._test, tree.directory, tree.present_root, tree.root, self._inherited_options)
            self._send(self._child, job)

    def await_setup(self) -> None:
        """Wait until the started process has collected the test and is idle; :meth:`setup` raises the error if any."""
        if self._child is not None and self._setup is None:
            try:
                self._setup = self._answer(self._child, self._timeout_ns / 1e9)
            except DeploymentError as error:
                self._setup = error

    def setup(self) -> RevisionSetup:
        """What the test measures at the revision; starts the process if it does not run.

        Raises:
            NothingToCompareError: the test does not exist there, or cannot be collected or set up there.
            DeploymentError: the process ended, or did not answer in time.
        """
        self.start_process()
        self.await_setup()
        if isinstance(self._setup, DeploymentError):
            raise self._setup
        assert self._setup is not None
        return self._setup

    def start(self, *, profiled: bool = False, traced: bool = False, timeout_ns: int | None = None) -> Deployment:
        """Start a deployment at the revision. Closing it stops it; the process stays for the next deployment.

        Args:
            profiled: its processes permit a profiler of the same user to read them.
            traced: its processes follow their allocations.
            timeout_ns: time limit for the start and for each of its statistics; None for that of the test.

        Raises:
            NothingToCompareError: as in :meth:`setup`, or the model fails there.
            DeploymentError: the process loaded code of the working tree, or ended.
        """
        if self.setup().setup.engine == "ray" and self._cluster is not None:
            self._open_monitors(self._cluster)
        self._answer_ns = self._timeout_ns if timeout_ns is None else timeout_ns
        request = StartDeployment(profiled, traced, timeout_ns)
        started = self._ask(request, DeploymentStarted, self._answer_ns / 1e9)
        deployment = self._deployment_of(started)
        deployment.cpu_share, deployment.streams, deployment.roles = started.cpu_share, started.streams, started.roles
        return deployment

    def _deployment_of(self, started: DeploymentStarted) -> Deployment:
        """The deployment as this process sees it; one on Ray is read on the cluster, not through that process."""
        if started.application is None or self._cluster is None:
            foreign = ForeignProcesses(started.pids, self._stop, self._stats, self.facts)
            return Deployment(started.endpoint, foreign, started.cold_start_ns)
        from pytest_mlpatterns.serving.ray.processes import RayProcesses  # most runs have no cluster

        processes = RayProcesses(self._cluster, started.application, on_stop=self._stop)
        deployment = Deployment(started.endpoint, processes, started.cold_start_ns)
        deployment.make_monitor, deployment.cores = processes.make_monitor, started.application.cores
        return deployment

    def _open_monitors(self, cluster: RaySession) -> None:
        """Start the monitors of the nodes, which would end with that process if it started them."""
        try:
            cluster.call(f"{_MONITORS}:open_monitors", cluster.cluster.run)
        except (ChildError, TimeoutError) as error:
            at = cluster.cluster.address
            raise DeploymentError(f"the Ray cluster at {at} no longer answers: {error}") from error

    def facts(self) -> EnvironmentFacts:
        """The environment of the deployment that runs, else of the process; empty if it does not answer."""
        try:
            return self._ask(FactsWanted(), FactsFound, _FACTS_TIMEOUT_S).facts
        except DeploymentError:  # the next question reports it
            return {}

    def close(self) -> None:
        """End the process and all processes that it started."""
        child, self._child = self._child, None  # at once: a thread may still start a deployment, which stops itself
        if child is not None:
            child.stop()

    def _stop(self) -> None:
        if self._child is not None:
            timeout_s = _STOP_TIMEOUT_S if self._cluster is None else _DELETE_TIMEOUT_S
            self._ask(StopDeployment(), DeploymentStopped, timeout_s)

    def _stats(self) -> PatternStats:
        """The statistics of the deployment that runs.

        Raises:
            DeploymentError: one of its processes has ended, or does not answer.
        """
        return self._ask(StatsWanted(), StatsFound, self._answer_ns / 1e9).stats

    def _ask(self, question: Wanted, of: type[_Answer], timeout_s: float) -> _Answer:
        """The answer to a question; one that came after its time-out, to a question before, is left out.

        Raises:
            NothingToCompareError, DeploymentError: as in :meth:`start`.
        """
        if (child := self._child) is None:
            raise DeploymentError(f"{self._test} at {self.name} has ended")
        self._send(child, question)
        while not isinstance(answer := self._answer(child, timeout_s), of):
            pass
        return answer

    def _send(self, child: Child, question: ReferenceJob | Wanted) -> None:
        try:
            child.send(question)
        except ChildError as error:
            raise DeploymentError(f"{self._test} at {self.name}: {error}") from error

    def _answer(self, child: Child, timeout_s: float) -> Any:
        try:
            answer = child.receive(timeout_s)
        except ChildError as error:
            raise DeploymentError(self._with_hint(f"{self._test} at {self.name}: {error}")) from error
        except TimeoutError:
            raise DeploymentError(
                f"{self._test} at {self.name} did not answer within {format_duration(timeout_s * 1e9)}; raise the "
                f'time limit with perf(startup_timeout="5min")\nIt printed last:\n{child.log_tail()}'
            ) from None
        if isinstance(answer, RevisionFailed):
            raise self._error(answer)
        if isinstance(answer, DeploymentFailed):
            raise DeploymentError(answer.text)
        return answer

    def _error(self, answer: RevisionFailed) -> DeploymentError:
        text = f"{self._test} {answer.reason.value} at {self.name}"
        if answer.reason is Reason.WRONG:
            return DeploymentError(f"{text}: {answer.text}")
        if answer.reason is Reason.ABSENT:
            return NothingToCompareError(answer.reason, f"{text}: {answer.text}")
        details = without_markers(answer.text)
        hint = hint_at_files(details, self._test, self._worktree) or _IF_FILES_ARE_MISSING
        return NothingToCompareError(answer.reason, f"{text}: {error_line(details)}; {hint}", details)

    def _with_hint(self, text: str) -> str:
        """An error, with the files that the revision lacks."""
        return "\n".join(filter(None, (without_markers(text), hint_at_files(text, self._test, self._worktree))))
