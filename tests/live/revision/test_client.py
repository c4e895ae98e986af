"""What the client of a revision says when the other side fails, and what it asks of it, without a process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.fake_ray import FakeRay
from support.repository import Repository
from support.synthetic import SETUP

from pytest_mlpatterns.engines.ray.cluster_monitor import ClusterMonitor
from pytest_mlpatterns.engines.ray.engine import SharedRay
from pytest_mlpatterns.engines.ray.messages import RayApplication
from pytest_mlpatterns.engines.ray.processes import RayProcesses
from pytest_mlpatterns.engines.ray.settings import RUN_VARIABLE
from pytest_mlpatterns.errors import ChildError, DeploymentError
from pytest_mlpatterns.records.count import RunUnder
from pytest_mlpatterns.records.setup import LoadDescription, Setup, SystemDescription
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats
from pytest_mlpatterns.revision import client
from pytest_mlpatterns.revision.client import NothingToCompareError, RevisionClient
from pytest_mlpatterns.revision.commits import Revision
from pytest_mlpatterns.revision.messages import (
    DeploymentFailed,
    DeploymentStarted,
    InheritedOptions,
    Question,
    Reason,
    RevisionFailed,
    RevisionSetup,
    StartDeployment,
)
from pytest_mlpatterns.revision.worktree import Worktree
from pytest_mlpatterns.serving.deployment import Traits
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.wire import REST_JSON
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import read_payload

pytestmark = pytest.mark.processes  # git

HINT = "w.json exists here, but git does not track it, so main runs without it; take it along: --perf-against-files"
TRACE = "    open('w.json')\n    ^^^^\nE   FileNotFoundError: [Errno 2] No such file or directory: 'w.json'"


class Process:
    """A process that gives these answers or raises these errors, one for each call, and keeps what it was sent."""

    def __init__(self, *answers: object) -> None:
        self.answers = [*answers]
        self.asked: list[object] = []
        self.limits_s: list[float] = []
        self.options: dict[str, object] = {}

    def __call__(self, _: str, **options: object) -> "Process":
        """It is started with these options."""
        self.options = options
        return self

    def send(self, message: object) -> None:
        self.asked.append(message)

    def receive(self, limit_s: float) -> object:
        self.limits_s.append(limit_s)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def log_tail(self) -> str:
        return ""

    def stop(self) -> None: ...


@pytest.fixture
def client_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Process], RevisionClient]:
    """A client whose process this is."""
    repository = Repository.made(tmp_path / "top")
    repository.write({"w.json": "{}"})
    (tmp_path / "there").mkdir()
    there = tmp_path / "there"
    worktree = Worktree(Revision("0" * 40, "main", "", "0000000"), there, there, repository.top, ())

    def made(process: Process) -> RevisionClient:
        monkeypatch.setattr(client, "Child", process)
        inherited = InheritedOptions((), {}, ())
        return RevisionClient("t.py::test", worktree, tmp_path, startup_timeout_ns=10**9, inherited_options=inherited)

    return made


@pytest.fixture
def setup_after(client_of: Callable[[Process], RevisionClient]) -> Callable[[object], object]:
    """Asks for the set-up of a test at a revision whose process gives this answer, or raises this error."""
    return lambda answer: client_of(Process(answer)).setup()


def test_an_error_there_begins_with_its_last_line_and_names_the_file(setup_after: Callable[[object], object]) -> None:
    with pytest.raises(NothingToCompareError) as caught:
        setup_after(RevisionFailed(Reason.FAILED, TRACE))
    assert str(caught.value).startswith("t.py::test fails at main (0000000): FileNotFoundError: [Errno 2] No such")
    assert HINT in str(caught.value)
    assert caught.value.details.splitlines() == [TRACE.splitlines()[0], TRACE.splitlines()[2]]


def test_an_error_without_a_file_names_the_option_all_the_same(setup_after: Callable[[object], object]) -> None:
    with pytest.raises(NothingToCompareError, match=r"ValueError: no; if it lacks files .* --perf-against-files"):
        setup_after(RevisionFailed(Reason.FAILED, "E   ValueError: no"))


def test_a_process_that_ends_there_names_the_file_too(setup_after: Callable[[object], object]) -> None:
    with pytest.raises(DeploymentError) as caught:
        setup_after(ChildError(f"process 7 ended with exit code 4; it printed last:\n{TRACE}"))
    assert "ended with exit code 4; it printed last:" in str(caught.value)
    assert HINT in str(caught.value).splitlines()[-1]
    assert "^^^" not in str(caught.value)


def test_a_test_that_is_absent_there_is_a_reason_of_its_own(setup_after: Callable[[object], object]) -> None:
    with pytest.raises(NothingToCompareError, match="does not exist at main") as caught:
        setup_after(RevisionFailed(Reason.ABSENT, "pytest ended with exit code 4"))
    assert caught.value.reason is Reason.ABSENT


def test_a_start_and_its_statistics_have_the_limit_asked_for(client_of: Callable[[Process], RevisionClient]) -> None:
    started = DeploymentStarted(Endpoint((("127.0.0.1", 80),), "/v1", REST_JSON, "m", False), (7,), Traits())
    setup, stats = RevisionSetup(SETUP, read_payload([[1]])), PatternStats()
    process = Process(setup, started, stats, Question.STOP, started, stats)
    revision = client_of(process)
    revision.start(traced=True, under=RunUnder(("valgrind",)), timeout_ns=90 * 10**9).stats()
    revision._stop()
    revision.start().stats()
    assert StartDeployment(traced=True, under=RunUnder(("valgrind",)), timeout_ns=90 * 10**9) in process.asked
    assert process.limits_s == [1.0, 90.0, 90.0, 20.0, 1.0, 1.0]


# --- on a Ray cluster ------------------------------------------------------------------------------------------------

APPLICATION = RayApplication(
    "mlpatterns-1764146400-0123abcd-0f0f-1", "mlpatterns-1764146400-0123abcd-0f0f", cores=48.0, replicas=2
)


def client_on(cluster: FakeRay, server: Process, directory: Path, monkeypatch: pytest.MonkeyPatch) -> RevisionClient:
    worktree = Worktree(Revision("0" * 40, "main", "", "0000000"), directory, directory, directory, ())
    monkeypatch.setattr(client, "Child", server)
    return RevisionClient(
        "t.py::test",
        worktree,
        directory,
        startup_timeout_ns=10**9,
        inherited_options=InheritedOptions((), {}, ()),
        session=SharedRay(cluster),  # type: ignore[arg-type]
    )


def test_a_revision_on_a_cluster_is_read_on_the_cluster_and_stopped_by_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeRay({"open_monitors": lambda _: None, "forget": lambda _run, _app: None})
    endpoint = Endpoint((("10.0.0.1", 8000),), "/v1/models/m:predict", prefix=f"/{APPLICATION.app}")
    server = Process(
        RevisionSetup(replace(SETUP, engine="ray"), read_payload([1], REST_JSON)),
        DeploymentStarted(endpoint, (), Traits(cold_start_ns=900_000_000, shared=APPLICATION)),
        Question.STOP,
    )
    deployment = client_on(cluster, server, tmp_path, monkeypatch).start()
    assert isinstance(deployment.processes, RayProcesses)
    assert deployment.processes.application == APPLICATION
    assert deployment.cores == 48.0
    assert isinstance(deployment.monitor(), ClusterMonitor)
    assert server.options["env"] == {RUN_VARIABLE: cluster.facts.run}
    assert cluster.calls == [("open_monitors", (cluster.facts.run,))]
    deployment.close()
    assert server.asked[-1] is Question.STOP
    assert cluster.calls[-1][0] == "forget"


def test_a_revision_served_without_ray_has_own_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeRay()
    endpoint = Endpoint((("127.0.0.1", 8000),), "/v1/models/m:predict")
    server = Process(RevisionSetup(SETUP, read_payload([1], REST_JSON)), DeploymentStarted(endpoint, (4711,), Traits()))
    deployment = client_on(cluster, server, tmp_path, monkeypatch).start()
    assert isinstance(deployment.processes, ForeignProcesses)
    assert (deployment.pids, deployment.cores, cluster.calls) == ((4711,), None, [])


def test_a_silent_cluster_is_an_error_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise ChildError("the Ray driver, process 7, ended")

    server = Process(RevisionSetup(replace(SETUP, engine="ray"), read_payload([1], REST_JSON)))
    with pytest.raises(DeploymentError, match=r"^the Ray cluster at 10\.0\.0\.1:6379 no longer answers: the Ray"):
        client_on(FakeRay({"open_monitors": fail}), server, tmp_path, monkeypatch).start()


REVISION_SETUP = RevisionSetup(
    Setup(SystemDescription("single"), LoadDescription("closed(1)"), "rest", ""), read_payload([1])
)
STARTED = DeploymentStarted(Endpoint((("127.0.0.1", 1),)), (7,), Traits())
STATS = PatternStats(layers=(LayerStats(0, "cached", {"hits": 3}),))


def test_the_deployment_there_is_asked_what_and_where_it_runs(client_of: Callable[[Process], RevisionClient]) -> None:
    process = Process(REVISION_SETUP, STARTED, STATS, {"Python": "3.12.4"}, Question.STOP)
    deployment = client_of(process).start()
    assert deployment.stats() == STATS
    assert deployment.facts() == {"Python": "3.12.4"}
    deployment.close()
    assert process.asked[1:] == [StartDeployment(), Question.STATS, Question.FACTS, Question.STOP]


@pytest.mark.parametrize(
    ("failed", "retry"),
    [
        (RevisionFailed(Reason.FAILED, "it is not ready", True), True),
        (RevisionFailed(Reason.FAILED, "ValueError: no"), None),
        (TimeoutError(), True),
    ],
)
def test_a_start_there_that_failed_is_asked_for_again_of_a_process_of_its_own(
    client_of: Callable[[Process], RevisionClient], failed: object, retry: bool | None
) -> None:
    """The present's rule decides on it: a start that was late is tried once more, and one after a success is."""
    process = Process(REVISION_SETUP, failed, REVISION_SETUP, STARTED)
    revision = client_of(process)
    with pytest.raises(DeploymentError) as caught:
        revision.start()
    assert caught.value.retry is retry
    assert revision.start().endpoint == STARTED.endpoint
    assert [type(one).__name__ for one in process.asked] == ["ReferenceJob", "StartDeployment"] * 2


def test_a_process_that_died_there_is_an_error_and_the_deployment_can_be_stopped(
    client_of: Callable[[Process], RevisionClient],
) -> None:
    died = DeploymentFailed("worker of digits: process 7 ended with SIGKILL")
    deployment = client_of(Process(REVISION_SETUP, STARTED, died, Question.STOP)).start()
    with pytest.raises(DeploymentError, match=r"^worker of digits: process 7 ended with SIGKILL$"):
        deployment.stats()
    deployment.close()


def test_an_environment_that_nobody_answers_in_time_is_not_known_and_its_late_answer_is_left_out(
    client_of: Callable[[Process], RevisionClient],
) -> None:
    late = {"Python": "3.12.4"}
    process = Process(REVISION_SETUP, STARTED, TimeoutError(), late, STATS, Question.STOP)
    deployment = client_of(process).start()
    assert deployment.facts() == {}
    assert deployment.stats() == STATS
    deployment.close()
    assert process.answers == []


def test_a_client_that_is_closed_answers_nothing(client_of: Callable[[Process], RevisionClient]) -> None:
    revision = client_of(Process(REVISION_SETUP, STARTED))
    deployment = revision.start()
    revision.close()
    assert deployment.facts() == {}
    with pytest.raises(DeploymentError, match=r"t\.py::test at main \(0000000\) has ended"):
        deployment.stats()


def test_a_deployment_that_outlives_the_process_of_its_revision_stops_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = Endpoint((("127.0.0.1", 8000),), "/v1/models/m:predict")
    server = Process(RevisionSetup(SETUP, read_payload([1], REST_JSON)), DeploymentStarted(endpoint, (4711,), Traits()))
    revision = client_on(FakeRay(), server, tmp_path, monkeypatch)
    deployment = revision.start()
    heard: list[object] = []
    monkeypatch.setattr(server, "stop", lambda: heard.append(deployment.close()), raising=False)
    revision.close()
    assert heard == [None]
    assert Question.STOP not in server.asked
