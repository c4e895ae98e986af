"""``perf_target``: a team's own service measured, judged and compared through the real plugin."""

from pathlib import Path

import pytest
from support.project import QUICK, Project, Run
from support.repository import Repository

pytestmark = pytest.mark.processes

SERVICE = """
import asyncio
import json
import os

DELAY_S = float(os.environ.get("DELAY_S", "{seconds}"))

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await asyncio.sleep(DELAY_S)
    if scope["path"] == "/predict":
        answer = {{"predictions": [sum(row) for row in json.loads(body)["instances"]]}}
    elif scope["path"] == "/length":
        answer = {{"length": len(json.loads(body)["text"]), "how": dict(scope["headers"])[b"host"].decode()}}
    elif scope["path"] == "/echo":
        answer = body.decode()
    else:
        answer = {{"status": "fine"}}
    text = isinstance(answer, str)
    headers = [(b"content-type", b"text/plain" if text else b"application/json")]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": answer.encode() if text else json.dumps(answer).encode()}})
"""
SERVE = """
import sys

import uvicorn
from service import app

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", lifespan="off")
"""
TESTS = f"""
import httpx
import pytest

from pytest_mlpatterns import App, Cached, Command, SettingError, Single

pytestmark = {QUICK}
APP = App("service:app", path="/predict")
TEXTS = ["a", "bc", "def"]

@pytest.fixture
def perf_payload():
    return [[1, 2], [3, 4]]

class TestApp:
    @pytest.fixture
    def perf_target(self):
        return APP

    def test_measured(self, perf):
        perf.assert_rtm_below("10s")
        assert perf.client.get("/health").json() == {{"status": "fine"}}
        assert perf.predict([5, 6]) == 11
        metrics = perf.metrics
        assert metrics.cold_start_ns.value > 0
        assert metrics.peak_rss_bytes.value > 0
        assert metrics.asl_ratio.value > 0

    def test_nmrt(self, perf):
        perf.assert_nmrt_at_least(1)

    @pytest.mark.perf(payload=TEXTS, request=lambda text: {{"path": "/length", "json": {{"text": text}}}})
    @pytest.mark.perf(check=lambda texts, answers: [answer["length"] for answer in answers] == list(map(len, texts)))
    def test_mapping(self, perf):
        answer = perf.predict("four")
        assert answer["length"] == 4
        assert answer["how"].startswith("127.0.0.1:")

    @pytest.mark.perf(payload=TEXTS, request=lambda text: httpx.Request("PUT", "/echo", content=text))
    @pytest.mark.perf(check=lambda texts, answers: list(texts) == list(answers))
    def test_request(self, perf):
        assert perf.predict("echo") == "echo"

    @pytest.mark.perf(payload=[httpx.Request("POST", "/echo", content=text) for text in TEXTS])
    @pytest.mark.perf(check=lambda requests, answers: [request.content for request in requests] == list(answers))
    def test_ready_made(self, perf):
        perf.assert_error_rate_below(0.5)

    @pytest.mark.perf(pattern=[Cached()])
    def test_pattern_beside_it(self, perf):
        pass

    def test_deployed(self, perf_deploy):
        with perf_deploy() as deployment:
            assert deployment.predict([1, 1]) == 2

class TestCommand:
    @pytest.fixture
    def perf_target(self):
        return Command("{{python}} serve.py {{port}}", ready="/health", path="/predict")

    def test_measured(self, perf):
        perf.assert_rtm_below("10s")
        assert perf.client.get("/").json() == {{"status": "fine"}}

class TestModel:
    @pytest.fixture
    def perf_model(self):
        return lambda batch: batch

    @pytest.mark.perf(request=lambda value: {{"json": value}})
    def test_request_without_target(self, perf):
        pass

@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({{"target": "service:app"}}, "perf_deploy\\\\(target=...\\\\) is 'service:app', expected App"),
        ({{"target": APP, "pattern": Single()}}, "expected one of them"),
        ({{"request": lambda value: value}}, "perf_deploy\\\\(request=...\\\\) without a target"),
        ({{"pattern": [Single()]}}, "expected one pattern; start one deployment after the other"),
        ({{"wire": ["rest+json"]}}, "expected one wire; start one deployment after the other"),
        ({{"wire": "rest+yaml"}}, "is 'rest.yaml', .*expected 'rest.json'"),
        ({{"pattern": "microservices"}}, "^perf_deploy.pattern=.*'microservices', did you mean microservice"),
    ],
    ids=["no target", "pattern too", "request alone", "patterns", "wires", "another wire", "another pattern"],
)
def test_refused(perf_deploy, arguments, expected):
    with pytest.raises(SettingError, match=expected), perf_deploy(**arguments):
        pass

def test_deployed_by_name(perf_deploy):
    with perf_deploy(target=APP, request=lambda text: {{"path": "/length", "json": {{"text": text}}}}) as deployment:
        assert deployment.client.get("/health").json() == {{"status": "fine"}}
        assert deployment.predict("four")["length"] == 4
"""
REGRESSION = """
import pytest

from pytest_mlpatterns import App, Command

@pytest.fixture(params=[App("service:app", path="/predict"), Command("{python} serve.py {port}", path="/predict")],
                ids=["app", "command"])
def perf_target(request):
    return request.param

@pytest.mark.perf(
    payload=[[1, 2]], concurrency=8, duration="200ms", warmup="100ms", launches=2, tolerance=1.0, budget="3s",
    compare=("rtm", "throughput"),
)
def test_service(perf):
    perf.assert_rtm_below("10s")
"""
GATEWAY = """
import os
from urllib.request import Request, urlopen

ENDPOINTS = set()
UPSTREAM = os.environ["UPSTREAM"]

def app(environ, start):
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if path == "/endpoints":
        ENDPOINTS.add(body)
    if path != "/bench" or b"bench" not in ENDPOINTS:
        start("204 No Content" if path == "/endpoints" else "404 Not Found", [("content-length", "0")])
        return [b""]
    with urlopen(Request(f"{UPSTREAM}/predict", body)) as answer:
        found = answer.read()
    start("200 OK", [("content-length", str(len(found)))])
    return [found]

if __name__ == "__main__":
    import sys
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    WSGIRequestHandler.log_message = lambda *_: None
    make_server("127.0.0.1", int(sys.argv[1]), app).serve_forever()
"""
SET_UP = f"""
from pathlib import Path

import pytest

from pytest_mlpatterns import App, Command

FAKE = App("service:app", name="fake")
pytestmark = [{QUICK}, pytest.mark.perf(payload=[[1, 2]])]

@pytest.fixture
def perf_target():
    env = {{"UPSTREAM": "http://127.0.0.1:{{port:fake}}"}}
    return Command("{{python}} gateway.py {{port}}", path="/bench", env=env, companions=[FAKE])

@pytest.fixture
def perf_setup():
    def setup(client, ports):
        with Path("set-up.txt").open("a") as file:
            file.write(f"{{ports['fake'] > 1}} ")
        client.post("/endpoints", content="bench").raise_for_status()
    return setup

def test_gateway(perf):
    perf.assert_rtm_below("10s")
    perf.assert_error_rate_below(0.5)
    assert perf.metrics.cold_start_ns.value > 0

class TestSetUpFails:
    @pytest.fixture
    def perf_setup(self):
        return lambda client: client.get("/bench").raise_for_status()

    def test_gateway(self, perf):
        pass
"""
FLAKY = """
import sys
from pathlib import Path

starts = Path(f"starts-{sys.argv[2]}")
starts.write_text(starts.read_text() + "." if starts.exists() else ".")
if str(len(starts.read_text())) in sys.argv[2]:
    sys.exit("the card is in use")
import serve
"""
STARTS_AGAIN = f"""
import pytest

from pytest_mlpatterns import Command

pytestmark = {QUICK}

@pytest.fixture(params=["2", "23"], ids=["once", "twice"])
def perf_target(request):
    return Command(["{{python}}", "flaky.py", "{{port}}", request.param], path="/predict")

@pytest.mark.perf(payload=[[1, 2]], launches=2)
def test_start(perf):
    perf.assert_rtm_below("1us")
"""
PROJECT = (
    Project()
    .with_file("service.py", SERVICE.format(seconds=0.005))
    .with_file("serve.py", SERVE)
    .with_ini(pythonpath=".")
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return PROJECT.with_file("test_perf.py", TESTS).run(
        tmp_path_factory.mktemp("targets"), "-W", "ignore", "--perf-patterns", "single,cached"
    )


def test_a_service_is_measured_checked_and_asked_in_every_way(run: Run) -> None:
    assert run.outcomes == {"passed": 15, "failed": 3}
    assert run.table == {
        "test_measured": "pass",
        "test_nmrt": "pass",
        "test_mapping": "measured",
        "test_request": "measured",
        "test_ready_made": "pass",
    }


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("TestApp.test_pattern_beside_it[cached]", "perf(pattern=cached) beside perf_target App('service:app'"),
        ("TestModel.test_request_without_target[single]", "perf(request=...) without a target"),
    ],
)
def test_what_does_not_go_together_is_told(run: Run, test: str, expected: str) -> None:
    assert expected in run.failure(test)


def test_a_gateway_is_set_up_after_each_start_and_has_what_it_calls_beside_it(tmp_path: Path) -> None:
    project = PROJECT.with_file("gateway.py", GATEWAY).with_file("test_perf.py", SET_UP)
    run = project.run(tmp_path, "-W", "ignore", "-k", "TestSetUpFails or test_gateway")
    assert run.table == {"test_gateway": "pass"}
    failure = run.failure("TestSetUpFails.test_gateway")
    assert "perf_setup failed:" in failure
    assert 'return lambda client: client.get("/bench").raise_for_status()' in failure
    assert "HTTPStatusError: Client error '404 Not Found'" in failure
    assert set((tmp_path / "set-up.txt").read_text().split()) == {"True"}


def test_a_start_that_fails_is_tried_once_more_and_does_not_take_the_launches_before_it(tmp_path: Path) -> None:
    project = PROJECT.with_file("flaky.py", FLAKY).with_file("test_perf.py", STARTS_AGAIN)
    run = project.run(tmp_path, "-W", "ignore")
    assert run.table == {"test_start[once]": "FAIL", "test_start[twice]": "FAIL"}
    assert "measured  2 launches" in run.failure("test_start[once]")
    assert "measured  1 launch" in run.failure("test_start[twice]")
    said = " ".join(run.section("performance").split())
    ended = "path='/predict'): python ended with exit code 1; it printed last: the card is in use"
    assert f"a start failed and was tried once more: Command('{{python}} flaky.py {{port}} 2', {ended}" in said
    kept = "a further start failed twice, and what was measured before it counts"
    assert f"{kept}: Command('{{python}} flaky.py {{port}} 23', {ended}" in said


def test_the_service_of_another_revision_is_started_from_its_own_tree(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    files = {"pytest.ini": "[pytest]\npythonpath = .\n", "serve.py": SERVE, "test_perf.py": REGRESSION}
    repository.commit({**files, "service.py": SERVICE.format(seconds=0.005)})
    repository.write({"service.py": SERVICE.format(seconds=0.06)})
    run = Project({}).run(repository.top, "--perf-against", "main")
    assert run.outcomes == {"failed": 2}
    for test in ("test_service[app]", "test_service[command]"):
        assert "(the working tree)" in run.failure(test)
    assert repository.worktrees() == [repository.top]
