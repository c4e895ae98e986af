"""The server of another revision: pytest in that revision's tree, which starts and stops one test's deployment.

A child process runs that one test with this plugin, and with the code, the test file and the fixtures of the other
revision. In place of the test's body it starts and stops deployments on request, and answers what is asked of them
(:mod:`pytest_mlpatterns.revision.messages`). This module must not know load, nor what is compared.
"""

import importlib.util
import os
import queue
import sys
import tempfile
from collections.abc import Generator, Sequence

import pytest
from msgspec.structs import asdict

from pytest_mlpatterns.errors import DeploymentError, MlpatternsError
from pytest_mlpatterns.judging.experiment import Experiment
from pytest_mlpatterns.plugin.collection import PERF_ITEM, REFERENCE_TREES
from pytest_mlpatterns.plugin.session import SERVE_REVISION
from pytest_mlpatterns.records.telemetry import PatternStats
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
from pytest_mlpatterns.serving.deployment import Deployment, Traits
from pytest_mlpatterns.system.child import Channel
from pytest_mlpatterns.system.environment_facts import environment_facts
from pytest_mlpatterns.system.import_redirect import install, modules_from, wrong_tree
from pytest_mlpatterns.system.orphans import MARK, adopt_orphans

ABSENT = (pytest.ExitCode.OK, pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED)
"""Exit codes of a pytest that started but does not have the test; an unknown test id is a usage error."""

_EVERY_TEST = ("-m", "", "-k", "")
"""The ini file may deselect performance tests, and only the command line of the user's run select them."""


def main() -> None:
    """The child process."""
    channel = Channel()
    adopt_orphans()
    job: ReferenceJob = channel.receive()
    requests: queue.SimpleQueue[Wanted | None] = queue.SimpleQueue()
    channel.listen(requests.put, lambda: requests.put(None))
    tempfile.tempdir = os.path.dirname(os.environ[MARK])  # what a killed process leaves goes with the parent's files
    os.chdir(job.directory)
    if (python_path := job.inherited_options.python_path) is not None:
        os.environ["PYTHONPATH"] = python_path
    sys.path[:] = _import_path(job.inherited_options)
    install(job.present_top, job.reference_top)
    server = _Server(channel, requests, job)
    code = pytest.main(arguments_for(job.test, job.inherited_options.options), plugins=[server])
    if server.reached_test:
        return
    if server.failures:
        channel.send(RevisionFailed(Reason.FAILED, "\n".join(server.failures)))
    elif server.has_started and code in ABSENT:
        channel.send(RevisionFailed(Reason.ABSENT, f"pytest ended with exit code {int(code)}"))
    else:
        raise SystemExit(int(code))  # the parent shows the log


def arguments_for(test: str, options: Sequence[str]) -> list[str]:
    """The arguments of pytest for one test, whatever the ini file selects, in one process and without coverage."""
    arguments = [test, "-q", "--tb=short", "-W", "default", *_EVERY_TEST, *options]
    if importlib.util.find_spec("xdist"):
        arguments.append("-n0")
    if importlib.util.find_spec("pytest_cov"):
        arguments.append("--no-cov")
    return arguments


def _import_path(inherited: InheritedOptions) -> list[str]:
    """The ``sys.path`` of the user's run; in an environment of its own followed by the path of that environment."""
    if inherited.project_paths is None:
        return list(inherited.import_path)
    given = [*inherited.project_paths, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(given)  # for programs that a test starts
    return list(dict.fromkeys([*inherited.project_paths, *inherited.import_path, *sys.path]))


class _Server:
    """The pytest plugin of the child."""

    def __init__(self, channel: Channel, requests: queue.SimpleQueue[Wanted | None], job: ReferenceJob) -> None:
        self.failures: list[str] = []
        self.has_started = False
        self.reached_test = False
        self.trees = (job.present_top, job.reference_top)
        self._channel = channel
        self._requests = requests
        self._values = job.inherited_options.values

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Pass the trees to the session, and the option values to conftest files."""
        config.stash[REFERENCE_TREES] = self.trees
        config.stash[SERVE_REVISION] = self.serve
        for destination, value in self._values.items():
            setattr(config.option, destination, value)

    def pytest_sessionstart(self) -> None:
        """Note that pytest has started: a later error is the test's."""
        self.has_started = True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note why a file cannot be collected."""
        if report.failed:
            self.failures.append(str(report.longrepr))

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note that the test exists but is not to run."""
        self.failures += [f"{item.nodeid} is deselected there" for item in items]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note why the test cannot be set up, or is skipped."""
        report = yield
        if report.skipped and isinstance(report.longrepr, tuple):
            self.failures.append(report.longrepr[2])
        elif report.failed or report.skipped:
            self.failures.append(report.longreprtext or str(report.longrepr))
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """In place of the body, serve; a body that asks for the fixture by name does so when it asks."""
        state = pyfuncitem.stash.get(PERF_ITEM, None)
        if state is None or state.experiment is None:
            return None
        self.serve(state.experiment)
        return True

    def serve(self, experiment: Experiment) -> None:
        """Start and stop deployments on request, and answer what is asked, until the parent closes the channel."""
        self.reached_test = True
        served = _Served(experiment)
        try:
            if (session := experiment.system.options.session) is not None:
                session.join()  # before the other side measures
            payload, accept = experiment.plan.payload.bare(), experiment.settings.accept
            self._channel.send(RevisionSetup(experiment.setup, payload, accept))
            while (request := self._requests.get()) is not None:
                answer = served.answer(request)
                if isinstance(request, StartDeployment) and (strays := modules_from(*self.trees)):
                    self._channel.send(RevisionFailed(Reason.WRONG, str(wrong_tree(strays, *self.trees))))
                    return
                self._channel.send(answer)
        except MlpatternsError as error:
            retry = error.retry if isinstance(error, DeploymentError) else None
            self._channel.send(RevisionFailed(Reason.FAILED, str(error), retry))
        finally:
            served.stop()


class _Served:
    """The deployment of the experiment, which runs or not."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._deployment: Deployment | None = None

    def answer(self, request: Wanted) -> object:
        """Do what the client asks for, and return the answer to it."""
        match request:
            case StartDeployment():
                return self._start(request)
            case Question.STOP:
                self.stop()
                return request
            case Question.STATS:
                return self._stats()
            case Question.FACTS:
                return dict(environment_facts() if self._deployment is None else self._deployment.facts())

    def stop(self) -> None:
        """End the deployment if one runs."""
        deployment, self._deployment = self._deployment, None
        if deployment is not None:
            deployment.close()

    def _start(self, request: StartDeployment) -> DeploymentStarted:
        how = {name: value for name, value in asdict(request).items() if value is not None}
        self._deployment = deployment = self._experiment.system.start(**how)
        traits = Traits(
            deployment.cpu_share,
            roles=deployment.roles,
            cold_start_ns=deployment.cold_start_ns,
            streams=deployment.streams,
            shared=deployment.shared,
        )
        return DeploymentStarted(deployment.endpoint, deployment.pids, traits)

    def _stats(self) -> PatternStats | DeploymentFailed:
        """The statistics; without the metrics of a server that no longer gives them, if its processes still run."""
        if self._deployment is None:
            return DeploymentFailed("no deployment runs")
        try:
            return self._deployment.stats()
        except DeploymentError:
            try:
                return self._deployment.processes.stats()
            except DeploymentError as error:
                return DeploymentFailed(str(error))
