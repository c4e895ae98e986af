"""``perf_client`` through the plugin: a gRPC stub, a session over a socket, a stream, and functions alone."""

from pathlib import Path

import pytest
from support.project import Project

pytestmark = pytest.mark.processes

HEAD = """
import asyncio
import time

import pytest

from pytest_mlpatterns import Command, InOrder

QUICK = dict(duration="300ms", warmup="0s", launches=1)
"""
GRPC = """
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

class Embed(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == "/tei.v1.Embed/Embed":
            return grpc.unary_unary_rpc_method_handler(self.embed)

    def embed(self, text, context):
        time.sleep(0.003)
        if text == b"":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no text")
        return text[::-1]

server = grpc.server(ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((Embed(),))
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
"""
SESSIONS = """
import asyncio
import sys

async def talk(reader, writer):
    token = 0
    while line := await reader.readline():
        await asyncio.sleep(0.002)
        token = token + 1 if int(line) == token else -1
        writer.write(b"%d\\n" % token)
    writer.close()

async def main():
    async with await asyncio.start_server(talk, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()

asyncio.run(main())
"""


def grpc_project(tests: str) -> Project:
    """A project whose ``class Stub`` sends the load of its tests to a server of gRPC."""
    fixtures = """
@pytest.fixture
def perf_client():
    return Stub

@pytest.fixture
def perf_target():
    return Command("{python} server.py {port}")
"""
    return Project().with_file("server.py", GRPC).with_file("test_perf.py", HEAD + fixtures + tests)


def test_a_grpc_stub_sends_the_load(tmp_path: Path) -> None:
    project = grpc_project(
        """
class Stub:
    def open(self, address):
        import grpc

        self.channel = grpc.insecure_channel(address)
        self.embed = self.channel.unary_unary("/tei.v1.Embed/Embed")

    def send(self, text):
        return self.embed(text.encode()).decode()

    def close(self):
        self.channel.close()

@pytest.fixture
def perf_payload(request):
    return getattr(request, "param", ["abc", "xyz"])

def reversed_(inputs, outputs):
    assert inputs
    assert outputs == [text[::-1] for text in inputs]

@pytest.mark.perf(check=reversed_, concurrency=4, **QUICK)
def test_embed(perf):
    assert perf.predict("hello") == "olleh"
    assert perf.metrics.error_ratio.value == 0
    assert perf.metrics.rtm_ns.value > 3_000_000
    assert perf.metrics.cold_start_ns.value > 0
    assert perf.metrics.peak_rss_bytes.value > 0

@pytest.mark.perf(rate_rps=80, **QUICK)
@pytest.mark.parametrize("perf_payload", [InOrder(["abc"] * 23 + [""])], indirect=True)
def test_failures(perf):
    assert perf.metrics.failures == {-14: 1}
    assert "INVALID_ARGUMENT" in perf.metrics.first_failure.error
    assert perf.metrics.first_failure.input == "perf_payload item 23"

@pytest.mark.perf(**QUICK)
@pytest.mark.parametrize("perf_payload", [[""]], indirect=True)
def test_first_failure(perf):
    perf.assert_rtm_below("1s")
"""
    )
    run = project.run(tmp_path)
    assert (run.outcomes["passed"], run.outcomes["failed"]) == (2, 1), run.out
    failure = run.failure("test_first_failure[perf_payload0]")
    assert "perf_client Stub raised" in failure
    assert "test_perf.py" in failure
    assert "self.embed(text.encode())" in failure


def test_figures_are_read_from_what_a_client_returns(tmp_path: Path) -> None:
    project = grpc_project(
        """
from types import SimpleNamespace

from pytest_mlpatterns import Header, Json

class Stub:
    def open(self, address):
        import grpc

        self.embed = grpc.insecure_channel(address).unary_unary("/tei.v1.Embed/Embed")

    def send(self, text):
        answer = self.embed(text.encode())
        return SimpleNamespace(headers={"X-Queue-Time": "2.5"}, content=answer, size=len(answer))

@pytest.fixture
def perf_payload():
    return ["}4 :\\"n\\"{"]

@pytest.fixture
def perf_figures():
    return {
        "queue_time": Header("x-queue-time", unit="ms"), "number": Json("n"), "size": lambda answer: answer.value.size
    }

@pytest.mark.perf(concurrency=2, **QUICK)
def test_figures(perf):
    perf.assert_that("queue_time:p50<5ms, number<5, size<10")

@pytest.fixture
def missing(perf_figures):
    perf_figures["score"] = Json("score")

@pytest.mark.perf(concurrency=2, **QUICK)
def test_missing(missing, perf):
    perf.assert_metric("score", below=1)
"""
    )
    run = project.run(tmp_path, "-W", "ignore")
    assert run.outcomes == {"passed": 1, "failed": 1}
    assert run.table == {"test_figures": "pass"}
    assert "perf_figures: no answer has score; the first one has the headers x-queue-time, and the" in run.failure(
        "test_missing"
    )


def test_a_session_and_a_stream_are_measured_and_a_function_without_a_service(tmp_path: Path) -> None:
    project = (
        Project()
        .with_file("server.py", SESSIONS)
        .with_file(
            "test_perf.py",
            HEAD
            + """
class Session:
    async def open(self, url):
        host, port = url.removeprefix("http://").split(":")
        self.reader, self.writer = await asyncio.open_connection(host, port)
        self.token = 0

    async def send(self, _input):
        self.writer.write(b"%d\\n" % self.token)
        self.token = int(await self.reader.readline())
        if self.token < 0:
            raise RuntimeError("not the token of the last answer")
        return f"turn {self.token}"

    async def close(self):
        self.writer.close()

def count_words(text):
    time.sleep(0.002)
    yield len(text.split())

async def stream(text):
    for word in text.split():
        await asyncio.sleep(0.001)
        yield word

class TestSession:
    @pytest.fixture
    def perf_client(self):
        return Session

    @pytest.fixture
    def perf_target(self):
        return Command("{python} server.py {port}")

    @pytest.mark.perf(payload=["say"], concurrency=3, **QUICK)
    def test_session(self, perf):
        assert perf.metrics.failures == {}
        assert perf.predict("hello") == "turn 1"
        assert perf.metrics.rtm_ns.value > 2_000_000

class TestAlone:
    @pytest.fixture(params=[count_words, stream])
    def perf_client(self, request):
        return request.param

    @pytest.mark.perf(payload=["one two three", "four five six"], concurrency=2, **QUICK)
    def test_alone(self, perf, perf_client):
        assert perf.metrics.failures == {}
        assert perf.metrics.output_tokens_rps.value > 100
        assert perf.metrics.asl_ratio.value > 0
        assert perf.metrics.generator.limited is None
        if perf_client is stream:
            assert perf.metrics.itl_ns(50).value > 1_000_000
            assert perf.predict("a b") == ["a", "b"]
""",
        )
    )
    run = project.run(tmp_path)
    assert run.outcomes["passed"] == 3, run.out
    assert "in-process" in run.section("performance")
