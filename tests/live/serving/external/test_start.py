"""Servers of users' own, started for a test: ready or told why not, measured whole, and gone at the end."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
from msgspec import structs
from support import SERVICES
from support.services.deploy import make_start_options
from support.services.processes import our_children, survivors
from support.synthetic import S

from pytest_mlpatterns import (
    App,
    Command,
    Deployment,
    DeploymentError,
    LeftoverWarning,
    OpenPortWarning,
    Prometheus,
    Url,
    Wire,
)
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.serving.bounded_client import get_page
from pytest_mlpatterns.serving.external.start import deploy_target
from pytest_mlpatterns.serving.failed_request import error_of
from pytest_mlpatterns.serving.targets import Target
from pytest_mlpatterns.system.sockets import free_port
from pytest_mlpatterns.workload.payload import read_payload

pytestmark = pytest.mark.processes

SERVER = SERVICES / "behaving.py"
APP = """
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"predictions": [%d]}' % os.getpid()})

def make():
    return app

pings = 0

async def pinged(scope, receive, send):
    global pings
    if scope["type"] == "lifespan":
        return await app(scope, receive, send)
    message = await receive()
    path, status, answer = scope["path"], 200, message.get("body", b"")
    if path == "/ping":
        pings += 1
        status = 503 if pings < 3 else 200
    elif path != "/invocations" or pings < 3:
        status = 500
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b'{"predictions": [%s]}' % answer})

async def unstarted(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no model file"})

def fails():
    raise RuntimeError("no licence")

async def broken(scope, receive, send):
    if scope["type"] == "lifespan":
        return await app(scope, receive, send)
    raise KeyError("no_such_feature")
"""

Starting = Callable[..., Any]


def command(*habits: str, **settings: Any) -> Command:
    """The server with these habits."""
    return Command(
        ["{python}", str(SERVER), "{port}", *habits],
        **{"ready": "/health", "path": "/predict", "stop": "2s", **settings},
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starting]:
    """Starts a target; at the end everything that it started is gone."""
    before = our_children()
    running: list[Deployment] = []

    def go(target: Target, payload: list[Any] | None = None, timeout: str = "60s") -> Deployment:
        startup = structs.replace(make_start_options(tmp_path, payload, timeout), root=tmp_path)
        running.append(deploy_target(target, startup))
        return running[-1]

    yield go
    for deployment in running:
        deployment.close()
    assert survivors(our_children() - before, 10) == set()


class TestCommand:
    def test_a_command_runs_with_its_process_tree_until_the_deployment_closes(self, start: Starting) -> None:
        deployment = start(command(), [[1, 2]])
        assert deployment.client.post("/predict", json={"instances": [[1, 2]]}).json()["pid"] in deployment.pids
        assert deployment.predict([3, 4]) == 7
        assert deployment.cold_start_ns > 0
        assert deployment.addresses[0][0] == "127.0.0.1"
        assert deployment.stats().layers == ()
        address = deployment.addresses[0]
        deployment.close()
        assert deployment.pids == ()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 5)

    def test_ports_fill_the_environment_too_and_no_two_are_one(self, start: Starting, tmp_path: Path) -> None:
        (tmp_path / "run.sh").write_text(f'echo "$A $B $2"; exec {sys.executable} {SERVER} "$1"')
        target = Command("sh run.sh {port} {grpc_port}", env={"A": "{port}", "B": "{grpc_port} {metrics_port}"})
        deployment = start(target)
        first, *others = map(int, deployment.log_tail().removeprefix("| ").split())
        assert first == deployment.addresses[0][1]
        assert others[0] == others[2]
        assert len({first, *others}) == 3

    def test_a_command_runs_in_its_working_directory(self, start: Starting, tmp_path: Path) -> None:
        (tmp_path / "service").mkdir()
        (tmp_path / "service" / "here.py").write_text(SERVER.read_text())
        (tmp_path / "service" / "late.py").write_text("import msgspec\n")
        deployment = start(Command("{python} here.py {port}", cwd="service"))
        assert psutil.Process(deployment.pids[0]).cwd() == str(tmp_path / "service")
        assert deployment.facts()["packages"] == "imported"
        assert "package msgspec" in deployment.facts()
        assert "package pytest" not in deployment.facts()

    def test_without_a_path_to_ask_any_answer_tells_that_it_is_ready(self, start: Starting) -> None:
        assert start(command(ready=None), [[1]]).predict([1]) == 1

    def test_the_ready_path_is_polled_until_it_succeeds(self, start: Starting, tmp_path: Path) -> None:
        ready = tmp_path / "ready"
        timer = threading.Timer(0.3, ready.touch)  # not a wait for an event: a model that takes so long to load
        timer.start()
        deployment = start(command(f"healthy-once={ready}"), [[1]])
        assert ready.exists()
        timer.join()
        assert deployment.predict([1]) == 1

    def test_the_ready_path_is_asked_once_and_waited_for(
        self, start: Starting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server of one thread works on a request that was given up, and the next one waits behind it."""
        waits_s: list[float] = []

        def ask(client: httpx.Client, path: str, timeout_s: float, **how: Any) -> httpx.Response:
            page = get_page(client, path, timeout_s, **how)
            waits_s.append(timeout_s)
            return page

        monkeypatch.setattr("pytest_mlpatterns.serving.bounded_client.get_page", ask)
        start(command(), [[1]], timeout="10min")
        assert len(waits_s) == 1
        assert waits_s[0] > 60

    def test_a_server_that_is_busy_at_first_is_asked_again(self, start: Starting) -> None:
        assert start(command("busy=2"), [[1]]).predict([5]) == 5

    def test_companions_run_beside_it_uncounted_and_their_end_is_named(self, start: Starting) -> None:
        env = {"UPSTREAM": "{port:first}"}
        show = Command(["sh", "-c", f'echo "$0"; exec {sys.executable} {SERVER} "$1"', "{port:first}", "{port}"])
        companions = [command(name="first"), replace(show, name="second", stop="2s")]
        deployment = start(command("{port:second}", env=env, companions=companions), [[1]])
        first = int(deployment.log_tail().rpartition("| ")[2])
        owners = {one.laddr.port: one.pid for one in psutil.net_connections("tcp") if one.status == "LISTEN"}
        assert owners[first] not in {*deployment.pids, *psutil.Process(deployment.pids[0]).children()}
        assert str(first) in psutil.Process(deployment.pids[0]).environ()["UPSTREAM"]
        deployment.stats()
        os.kill(owners[first], 9)
        while not (reason := deployment.reason_of_failure()):
            pass  # its supervisor has not reported it yet
        assert ": its companion Command(" in reason
        assert "name='first'): python ended with signal SIGKILL" in reason

    @pytest.mark.parametrize(
        ("target", "expected"),
        [
            (Command("no-such-server --port {port}"), "no-such-server cannot be started: No such file or directory"),
            (Command([str(SERVER), "{port}"]), "cannot be started: Permission denied"),
            (command(cwd="nowhere"), "nowhere does not exist, expected the working directory; correct cwd="),
            (command("dies-loading"), "ended with exit code 1; it printed last:\n| there is no such model"),
            (Command(["{python}", "-c", "", "{port}"]), "ended with exit code 0; it printed nothing"),
            (
                Command(["sh", "-c", "sleep 60 &", "{port}"]),
                "code 0 and went on in the background, expected",
            ),
            (command("status=422"), "answered 422 to its first request, POST /predict"),
            (command("status=404", path="/"), 'name the path that takes inputs: Command(..., path="/predict")'),
            (command("dies-at=1"), "ended with exit code 4; it printed last:\n| out of memory"),
            (
                command(companions=[command(name="a"), command("dies-loading")]),
                ": its companion Command('{python} behaving.py {port} dies-loading', path='/predict'): python ended",
            ),
        ],
        ids=[
            "unknown command",
            "no program",
            "no directory",
            "dies",
            "ends",
            "daemon",
            "422",
            "no path",
            "dies of a request",
            "companion",
        ],
    )
    def test_what_does_not_start_is_told_and_leaves_nothing(
        self, start: Starting, target: Command, expected: str
    ) -> None:
        with pytest.raises(DeploymentError) as caught:
            start(target, [[1]])
        assert expected in str(caught.value)

    @pytest.mark.parametrize(
        ("target", "heard"),
        [
            (command("never-ready"), "/health the answer is 503; raise the limit"),
            (command(ready="/helth"), "/helth the answer is 404; name a path that it has with ready="),
            (command("deaf"), "/health there is no answer (ConnectError"),
        ],
        ids=["never ready", "no such path", "deaf"],
    )
    def test_what_is_not_ready_in_time_is_told(
        self, start: Starting, target: Command, heard: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The time limit passes at once when the server was asked, however late it started."""
        past_ns = [0]

        def ask(*arguments: Any, **how: Any) -> httpx.Response:
            try:
                page = get_page(*arguments, **how)
            except httpx.ConnectError:
                past_ns[0] = 60 * S if "ConnectError" in heard else 0
                raise
            past_ns[0] = 60 * S
            return page

        clock = SimpleNamespace(perf_counter_ns=lambda: time.perf_counter_ns() + past_ns[0])
        monkeypatch.setattr("pytest_mlpatterns.serving.bounded_client.get_page", ask)
        monkeypatch.setattr("pytest_mlpatterns.serving.external.start.time", clock)
        with pytest.raises(DeploymentError) as caught:
            start(target, timeout="60s")
        assert f"is not ready after 60.0 s, the start-up time limit: to GET {heard}" in str(caught.value)
        assert "--perf-startup-timeout" in str(caught.value)

    def test_a_server_that_listens_elsewhere_is_told_where(
        self, start: Starting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listens = tmp_path / "listens"
        code = "import pathlib, signal, socket, sys; server = socket.create_server(('127.0.0.2', int(sys.argv[1])))"
        code += "; pathlib.Path('listens').touch(); signal.pause()"
        late_ns = 60 * S
        clock = SimpleNamespace(perf_counter_ns=lambda: time.perf_counter_ns() + late_ns * listens.exists())
        monkeypatch.setattr("pytest_mlpatterns.serving.external.start.time", clock)
        with pytest.raises(DeploymentError, match=r"it listens on 127\.0\.0\.2:(\d+), expected 127\.0\.0\.1:\1; give"):
            start(Command(["{python}", "-c", code, "{port}"]), timeout="60s")

    def test_a_death_after_the_start_is_told_with_its_last_output(self, start: Starting) -> None:
        deployment = start(command("dies-at=3"), [[1]])
        deployment.predict([1])
        with pytest.raises(DeploymentError, match=r"(RemoteProtocol|Connect)Error.*ended with exit code 4"):
            deployment.predict([1])
        with pytest.raises(DeploymentError, match=r"(?s)^Command\(.*ended with exit code 4; .*out of memory"):
            deployment.stats()

    def test_a_server_that_ignores_sigterm_is_killed_and_told(self, start: Starting) -> None:
        deployment = start(command("ignore-term", stop="200ms"))
        pids = deployment.pids
        with pytest.warns(LeftoverWarning, match=r"processes that did not end after SIGTERM were killed: python"):
            deployment.close()
        assert survivors(pids, 0) == set()

    def test_those_that_a_dead_server_left_behind_are_followed_and_ended(self, start: Starting, tmp_path: Path) -> None:
        deployment = start(command(f"orphans={tmp_path / 'pids'}", "dies-at=1"))
        orphans = {int(word) for word in (tmp_path / "pids").read_text().split()}
        with pytest.raises(DeploymentError):
            deployment.predict([1])
        with pytest.raises(DeploymentError):
            deployment.stats()
        assert orphans <= set(deployment.pids)
        with pytest.warns(LeftoverWarning):
            deployment.close()
        assert survivors(orphans, 0) == set()

    def test_a_server_that_listens_to_everybody_is_told(self, start: Starting) -> None:
        with pytest.warns(OpenPortWarning, match=r"listens on all interfaces \(0\.0\.0\.0\), expected 127\.0\.0\.1"):
            start(command("everywhere"))

    def test_a_fixed_port_is_served_again_and_refused_while_another_process_has_it(self, start: Starting) -> None:
        port = free_port()
        target = Command(["{python}", str(SERVER), str(port)], ready="/health", path="/predict", port=port)
        for _ in range(2):
            deployment = start(target, [[1]])
            assert deployment.addresses == (("127.0.0.1", port),)
            with pytest.raises(DeploymentError) as caught:
                start(target)
            expected = f": process {deployment.pids[0]} on port {port} has it already; end that process, or write"
            assert expected in str(caught.value)
            deployment.close()

    def test_figures_of_a_service_are_read_from_its_metrics_path(self, start: Starting) -> None:
        figures = Prometheus("/metrics", batch_size="rows", queue_depth="waiting")
        deployment = start(command(metrics=figures), [[1]])
        before = deployment.stats()
        deployment.predict([1])
        batched, queued = deployment.stats().since(before).layers
        assert (batched.layer, batched.counters["calls"], batched.histograms["size"]) == ("batched", 1, {1: 1})
        assert queued.counters["depth_ns"] == 3 * queued.counters["observed_ns"] > 0

    @pytest.mark.parametrize(
        ("metrics", "expected"),
        [
            ("/metrics", "has none of the known metrics; it has rows, waiting; name your own"),
            ("/nowhere", "/nowhere answered 404, expected 200 and the text format of Prometheus"),
            ("http://127.0.0.1:{port}/nowhere", "/nowhere answered 404"),
        ],
    )
    def test_figures_that_are_not_there_are_told(self, start: Starting, metrics: str, expected: str) -> None:
        with pytest.raises(DeploymentError) as caught:
            start(command(metrics=metrics), [[1]])
        assert expected in str(caught.value)


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
class TestApp:
    @pytest.fixture(autouse=True)
    def _app(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)
        (tmp_path / "service.py").write_text(APP)

    @pytest.mark.parametrize(("balance", "ports"), [("round-robin", 2), ("least-outstanding", 2), ("shared-socket", 1)])
    def test_workers_are_processes_with_a_port_each_or_with_one_for_all(
        self, start: Starting, server: str, balance: str, ports: int
    ) -> None:
        deployment = start(App("service:app", server=server, workers=2, balance=balance), [1])
        assert len(deployment.addresses) == ports
        assert deployment.endpoint.balance is Balance(balance)
        answered = {deployment.predict(1) for _ in range(4)}
        assert len(answered) == 2 if ports == 2 else len(answered) >= 1
        tree = {member.pid for pid in deployment.pids for member in psutil.Process(pid).children(recursive=True)}
        assert answered <= {*deployment.pids, *tree}

    def test_a_worker_that_still_loads_its_model_ends_too(self, start: Starting, server: str, tmp_path: Path) -> None:
        """Between its fork and its first step such a worker of granian drops SIGTERM; a leftover is an error here."""
        slow = "\nimport pathlib, time\ntry: pathlib.Path(__file__).with_name('one').touch(exist_ok=False)\n"
        (tmp_path / "slow.py").write_text(APP + slow + "except FileExistsError: time.sleep(0.5)\n")
        deployment = start(App("slow:app", server=server, workers=2, balance="shared-socket", stop="3s"), [1])
        assert deployment.predict(1) > 0
        deployment.close()
        assert deployment.pids == ()

    @pytest.mark.covered_processes
    def test_a_function_makes_the_application(self, start: Starting, server: str) -> None:
        deployment = start(App("service:make", server=server, factory=True), [1])
        assert deployment.predict(1) > 0
        late = "httptools" if server == "uvicorn" else server
        assert deployment.facts()["packages"] == "loaded"
        assert {f"package {server}", f"package {late}"} <= deployment.facts().keys()
        assert "package pytest" not in deployment.facts()

    @pytest.mark.parametrize(
        ("target", "expected"),
        [
            (App("nowhere:app"), "No module named 'nowhere'"),
            (App("servce:app"), "No module named 'servce'; did you mean service?"),
            (App("service:mkae", factory=True), "has no attribute 'mkae'; did you mean make?"),
            (App("service:absent"), "has no attribute 'absent'"),
            (App("service:fails", factory=True), "RuntimeError: no licence"),
        ],
    )
    def test_why_it_cannot_be_imported_is_told(self, start: Starting, server: str, target: App, expected: str) -> None:
        with pytest.raises(DeploymentError) as caught:
            start(replace(target, server=server))
        assert expected in str(caught.value)
        assert "importlib" not in str(caught.value)
        assert "pytest_mlpatterns/" not in str(caught.value)


def test_over_invocations_an_application_is_ready_when_its_ping_is_and_is_asked_at_its_path(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(APP)
    wire = Wire.parse("invocations")
    options = structs.replace(
        make_start_options(tmp_path), root=tmp_path, wire=wire, payload=read_payload([{"a": 1}], wire)
    )
    with closing(deploy_target(App("service:pinged"), options)) as deployment:
        assert deployment.path == "/invocations"
        assert deployment.predict({"a": 2}) == {"dataframe_split": {"columns": ["a"], "data": [[2]]}}


def test_a_service_whose_first_answers_fail_is_measured_if_one_of_three_succeeds(
    start: Starting, tmp_path: Path
) -> None:
    assert start(command("fails=2"), [[1]]).predict([1]) == 1
    with pytest.raises(DeploymentError, match="answered 500 to its first request, POST /predict"):
        start(command("fails=3"), [[1]])
    running = start(command("fails=2"), None)
    found = Url(f"http://127.0.0.1:{running.addresses[0][1]}/predict")
    options = structs.replace(make_start_options(tmp_path), payload=read_payload([[1]]))
    with closing(deploy_target(found, options)) as deployment:
        assert deployment.predict([1]) == 1


def test_a_500_of_an_application_shows_its_traceback(start: Starting, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(APP)
    with pytest.raises(
        DeploymentError, match=r"(?s)answered 500 to its first request, POST /.*It printed last:"
    ) as caught:
        start(App("service:broken"), [[1]])
    assert "KeyError: 'no_such_feature'" in str(caught.value)


def test_a_500_after_the_start_shows_its_traceback_and_names_the_error(start: Starting, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(APP)
    deployment = start(App("service:broken"))
    with pytest.raises(DeploymentError, match=r"(?s)answered 500: .*\nThe service printed:\n\| Traceback .*KeyError"):
        deployment.predict([1])
    request = read_payload([[1]]).request("/", 0)
    assert error_of(deployment, request, 5.0) == "KeyError: 'no_such_feature'"


@pytest.mark.covered_processes
def test_an_application_whose_start_up_fails_is_told(start: Starting, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(APP)
    with pytest.raises(DeploymentError, match=r"(?s)ended with exit code 3; it printed last:.*no model file"):
        start(App("service:unstarted"))


def test_an_application_is_not_asked_over_grpc(tmp_path: Path) -> None:
    startup = structs.replace(make_start_options(tmp_path), wire=Wire.parse("grpc"))
    with pytest.raises(
        DeploymentError, match=r"takes requests over HTTP, but the wire is grpc; choose a wire over REST"
    ):
        deploy_target(App("service:app"), startup)


def test_a_command_with_a_port_for_grpc_is_asked_there_and_ready_over_http(tmp_path: Path) -> None:
    startup = structs.replace(make_start_options(tmp_path), wire=Wire.parse("grpc"), root=tmp_path)
    target = Command(["{python}", str(SERVER), "{port}", "{grpc_port}"], ready="/health", path="/v2/models/m/infer")
    deployment = deploy_target(target, startup)
    listening = {one.laddr.port for pid in deployment.pids for one in psutil.Process(pid).net_connections("tcp")}
    assert deployment.addresses[0][1] not in listening  # the server that is used here opens the other one only
    assert deployment.model_name == "m"
    deployment.close()


def test_without_granian_it_is_told_how_to_get_it(start: Starting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(DeploymentError, match=r"needs the package granian.*pip install 'pytest-mlpatterns\[granian\]'"):
        start(App("service:app", server="granian"))
