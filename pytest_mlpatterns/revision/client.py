"""Client of the pytest process that runs one test at another git revision and starts deployments there.

The server is :mod:`pytest_mlpatterns.plugin.revision_server`. An error of the revision gets a hint if it names a file
that the revision lacks. This module must not know how deployments are measured.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_mlpatterns.errors import ChildError, DeploymentError
from pytest_mlpatterns.records.setup import EnvironmentFacts
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.records.verdict import Acceptance
from pytest_mlpatterns.revision.messages import (
    DeploymentFailed,
    DeploymentStarted,
    InheritedOptions,
    Question,
    Reason,
    ReferenceJob,
    RevisionFailed,
    RevisionSetup,
    StartDeployment,
    Wanted,
)
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.git import Git
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from pytest_mlpatterns.engines.engine import EngineSession
    from pytest_mlpatterns.revision.worktree import Worktree

_STOP_TIMEOUT_S = 20.0
"""Time limit for the end of a deployment, in seconds: the grace periods of its processes, and more."""
_CLUSTER_STOP_TIMEOUT_S = 70.0  # Time limit for the end on a cluster; longer than that process waits for the cluster
_FACTS_TIMEOUT_S = 10.0  # Time limit for the facts of a deployment, in seconds
_Answer = TypeVar("_Answer")
_IF_FILES_ARE_MISSING = "if it lacks files that git does not track there, name them in --perf-against-files"
_ERROR = re.compile(r"(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Failure|Failed|Skipped|Exit|Warning)\b(?:: .*)?")
_BEFORE = re.compile(r"(?:E\s+)?(?:\| )?")
"""What stands before the text of a line: pytest's mark of an error, and ours of what a service printed."""
_MARKERS = re.compile(rf"{_BEFORE.pattern}[\s~^]*\^[\s~^]*")  # A row under a line of a traceback that points into it
_QUOTED = re.compile(r"""(?<!\w)(['"])([^'"\n]{1,300})\1""")
_MODULE = re.compile(r"[A-Za-z_][\w.]*")
_SHOWN = 3  # Most missing files that a hint names


class NothingToCompareError(DeploymentError):
    """The test does not exist at the revision, or fails there; ``details``: the error at length, empty without one."""

    def __init__(
        self, reason: Reason, text: str, details: str = "", *, side: str = "", retry: bool | None = None
    ) -> None:
        super().__init__(text, side=side, retry=retry)
        self.reason = reason
        self.details = details


class RevisionClient:
    """One test at another revision, in its own process.

    ``session``: of the engine that serves the test, where the revision is served too; None if the engine has none.
    ``accept``: what the marker of the test accepts there; nothing before the process has answered.
    """

    def __init__(
        self,
        test: str,
        worktree: Worktree,
        directory: Path,
        *,
        startup_timeout_ns: int,
        inherited_options: InheritedOptions,
        session: EngineSession | None = None,
    ) -> None:
        self._test = test
        self.worktree: Worktree = worktree
        self._directory = directory
        self._timeout_ns = self._answer_ns = startup_timeout_ns
        self._inherited_options = inherited_options
        self._session = session
        self._child: Child | None = None
        self._setup: RevisionSetup | DeploymentError | None = None
        self.accept: tuple[Acceptance, ...] = ()

    @property
    def name(self) -> str:
        """Name of the revision in messages."""
        return f"{self.worktree.revision.name} ({self.worktree.revision.short})"

    @property
    def commit(self) -> str:
        """Full hash of the revision."""
        return self.worktree.revision.sha

    def start_process(self) -> None:
        """Start the process, which collects the test in the background; a second call does nothing."""
        if self._child is None:
            self._setup = None
            log = self._directory / f"reference-{id(self):x}.log"
            tree = self.worktree
            python = None if tree.environment is None else [str(tree.environment.python)]
            env = None if self._session is None else self._session.access_variables()
            self._child = Child("pytest_mlpatterns.plugin.revision_server", log=log, python=python, env=env)
            job = ReferenceJob(self._test, tree.directory, tree.present_root, tree.root, self._inherited_options)
            self._send(self._child, job)

    def await_setup(self) -> None:
        """Wait until the started process has collected the test and is idle; :meth:`setup` raises the error if any."""
        if self._child is not None and self._setup is None:
            try:
                self._setup = found = self._answer(self._child, self._timeout_ns / 1e9)
                self.accept = found.accept
            except DeploymentError as error:
                self._setup = error

    def setup(self) -> RevisionSetup:
        """What the test measures at the revision; starts the process if it does not run.

        Raises NothingToCompareError: the test does not exist there, or cannot be collected or set up there.
        """
        self.start_process()
        self.await_setup()
        if isinstance(self._setup, DeploymentError):
            raise self._setup
        assert self._setup is not None
        return self._setup

    def start(self, **how: Any) -> Deployment:
        """Start a deployment at the revision. Closing it stops it; the process stays for the next deployment.

        ``how``: fields of :class:`StartDeployment`; its ``timeout_ns`` limits each answer, too. Raises
        NothingToCompareError: as in :meth:`setup`, or the model fails there.
        """
        request = StartDeployment(**how)
        if self.setup().setup.engine and self._session is not None:
            self._session.watch()
        self._answer_ns = self._timeout_ns if request.timeout_ns is None else request.timeout_ns
        try:
            return self._deployment_of(self._ask(request, DeploymentStarted, self._answer_ns / 1e9))
        except DeploymentError:
            self.close()  # it has ended or is still busy; another start has a process of its own
            raise

    def _deployment_of(self, started: DeploymentStarted) -> Deployment:
        """The deployment as this process sees it; one on a cluster is read there, not through that process."""
        shared, session = started.traits.shared, self._session
        if shared is not None and session is not None:
            return session.seen(started.endpoint, shared, traits=started.traits, on_stop=self._stop)
        foreign = ForeignProcesses(
            started.pids,
            self._stop,
            lambda: self._ask(Question.STATS, PatternStats, self._answer_ns / 1e9),
            self.facts,
        )
        return Deployment(started.endpoint, foreign, started.traits)

    def facts(self) -> EnvironmentFacts:
        """The environment of the deployment that runs, else of the process; empty if it does not answer."""
        try:
            return self._ask(Question.FACTS, dict, _FACTS_TIMEOUT_S)
        except DeploymentError:  # the next question reports it
            return {}

    def close(self) -> None:
        """End the process and all processes that it started."""
        child, self._child = self._child, None  # at once: a thread may still start a deployment, which stops itself
        if child is not None:
            child.stop()

    def _stop(self) -> None:
        if self._child is not None:
            timeout_s = _STOP_TIMEOUT_S if self._session is None else _CLUSTER_STOP_TIMEOUT_S
            self._ask(Question.STOP, Question, timeout_s)

    def _ask(self, question: Wanted, of: type[_Answer], timeout_s: float) -> _Answer:
        """The answer to a question; one that came after its time-out, to a question before, is left out."""
        if (child := self._child) is None:
            raise DeploymentError(f"{self._test} at {self.name} has ended", side=self.name)
        self._send(child, question)
        while not isinstance(answer := self._answer(child, timeout_s), of):
            pass
        return answer

    def _send(self, child: Child, question: ReferenceJob | Wanted) -> None:
        try:
            child.send(question)
        except ChildError as error:
            raise DeploymentError(f"{self._test} at {self.name}: {error}", side=self.name) from error

    def _answer(self, child: Child, timeout_s: float) -> Any:
        try:
            answer = child.receive(timeout_s)
        except ChildError as error:
            said = self._with_hint(f"{self._test} at {self.name}: {error}")
            raise DeploymentError(said, side=self.name) from error
        except TimeoutError:
            raise DeploymentError(
                f"{self._test} at {self.name} did not answer within {format_duration(timeout_s * 1e9)}; raise the "
                f'time limit with perf(startup_timeout="5min")\nIt printed last:\n{child.log_tail()}',
                side=self.name,
                retry=True,
            ) from None
        if isinstance(answer, RevisionFailed):
            raise self._error(answer)
        if isinstance(answer, DeploymentFailed):
            raise DeploymentError(answer.text)
        return answer

    def _error(self, answer: RevisionFailed) -> DeploymentError:
        text = f"{self._test} {answer.reason.value} at {self.name}"
        if answer.reason is Reason.WRONG:
            return DeploymentError(f"{text}: {answer.text}", side=self.name)
        if answer.reason is Reason.ABSENT:
            return NothingToCompareError(answer.reason, f"{text}: {answer.text}", side=self.name)
        details = without_markers(answer.text)
        hint = hint_at_files(details, self._test, self.worktree) or _IF_FILES_ARE_MISSING
        said = f"{text}: {error_line(details)}; {hint}"
        return NothingToCompareError(answer.reason, said, details, side=self.name, retry=answer.retry)

    def _with_hint(self, text: str) -> str:
        """An error, with the files that the revision lacks."""
        return "\n".join(filter(None, (without_markers(text), hint_at_files(text, self._test, self.worktree))))


def error_line(text: str) -> str:
    """The line of a traceback or message that names the error: its last one, or else its last line with text."""
    lines = [_BEFORE.sub("", line, count=1).strip() for line in without_markers(text).splitlines()]
    lines = [line for line in lines if line]
    return next((line for line in reversed(lines) if _ERROR.fullmatch(line)), lines[-1] if lines else "")


def without_markers(text: str) -> str:
    """The text without the rows of ``^^^^`` that point into the line above."""
    return "\n".join(line for line in text.splitlines() if not _MARKERS.fullmatch(line))


def hint_at_files(text: str, test: str, worktree: Worktree) -> str:
    """What to do about files that an error names and only the working tree has; empty if it names no such file."""
    found = list(dict.fromkeys(_absent(text, test, worktree)))[:_SHOWN]
    if not found:
        return ""
    below = os.path.relpath(worktree.directory, worktree.root)
    git = Git(worktree.present_root)
    tracked = all(git.succeeds("ls-files", "--error-unmatch", "--", str(file)) for file in found)
    names = [os.path.relpath(file, below) for file in found]
    option = shlex.quote(",".join(names)) if len(names) > 1 else f'"{names[0]}"'
    why = "exists here" if tracked else "exists here, but git does not track it"
    return (
        f"{', '.join(names)} {why}, so {worktree.revision.name} runs without it; take it along: "
        f"--perf-against-files {option}"
    )


def _absent(text: str, test: str, worktree: Worktree) -> Iterator[Path]:
    """Paths relative to the top, of files that are only in the working tree."""
    named = [match[2] for match in _QUOTED.finditer(text)]
    named += re.findall(re.escape(str(worktree.root)) + r"[^\s'\",;:)]*", text)
    for name in named:
        for place in _places(name, test, worktree):
            if place.is_relative_to(worktree.root) and place != worktree.root:
                inside = place.relative_to(worktree.root)
                # unlike Path.exists, this takes what is no path at all
                if os.path.exists(worktree.present_root / inside) and not os.path.exists(place):
                    yield inside


def _places(name: str, test: str, worktree: Worktree) -> Iterator[Path]:
    """Where in the worktree a path, or a module of that name, would be."""
    yield Path(os.path.normpath(worktree.directory / name))
    if _MODULE.fullmatch(name):
        module = name.replace(".", os.sep)
        for folder in (worktree.directory, worktree.directory / "src", (worktree.directory / test).parent):
            yield folder / f"{module}.py"
            yield folder / module
