"""Services whose streams are no server-sent events, from the target to the verdict; and answers that are no streams."""

import pytest
from support.project import Project, Run

pytestmark = pytest.mark.processes

APP = """
import asyncio
import json

WORDS = 6

def line(**fields):
    return json.dumps(fields).encode() + b"\\n"

async def generate(send_body, asked):
    for number in range(WORDS):
        await asyncio.sleep(0.02 if number == 0 else 0.005)
        if number == 3 and asked.get("fails"):
            await send_body(line(error="the runner has stopped"), more=False)
            return
        await send_body(line(model="m", response=f"w{number} ", done=False))
    counts = {"eval_count": 2 * WORDS, "prompt_eval_count": 4}
    last = line(model="m", response="", done=True, done_reason="stop", **counts)
    await send_body(last, more=False)

async def words(send_body, asked):
    for number in range(WORDS):
        await asyncio.sleep(0.002)
        await send_body(b"w%d " % number)
    await send_body(b"", more=False)

async def counted(send_body, asked):
    for number in range(WORDS):
        await asyncio.sleep(0.002)
        await send_body(line(word=f"w{number}"))
    await send_body(line(word="", usage={"out": 12}), more=False)

async def large(send_body, asked):
    await send_body(b"[" + b"1, " * 700_000 + b"1]", more=False)

ROUTES = {
    "/api/generate": (generate, b"application/x-ndjson", False),
    "/words": (words, b"text/plain", False),
    "/counted": (counted, b"text/plain", False),
    "/large": (large, b"application/json", True),
    "/large-in-chunks": (large, b"application/json", False),
}

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)

    async def send_body(data, more=True):
        await send({"type": "http.response.body", "body": data, "more_body": more})

    route, media_type, is_sized = ROUTES[scope["path"]]
    headers = [(b"content-type", media_type)] + ([(b"content-length", b"2100003")] if is_sized else [])
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await route(send_body, json.loads(body or b"{}"))
"""
HEAD = """
import pytest
from pytest_mlpatterns import App, JsonLines

pytestmark = pytest.mark.perf(request=lambda asked: {"json": asked}, budget="1s", duration="300ms", concurrency=2)

def payload(**asked):
    return pytest.mark.perf(payload=[asked])

def at(path, **options):
    def decorate(test):
        test.target = App("service:app", path=path, **options)
        return test

    return decorate

@pytest.fixture
def perf_target(request):
    return request.function.target
"""
TESTS = """
@at("/api/generate")
@payload()
def test_ollama(perf):
    perf.assert_ttft_below("10min")
    perf.assert_tpot_below("10min")
    metrics = perf.metrics
    assert metrics.ttft_ns().value >= 19e6
    assert metrics.itl_ns().value >= 4e6
    assert (metrics.output_tokens.value, metrics.input_tokens.value) == (12, 4)

@at("/words", stream="chunks")
@payload()
def test_chunks(perf):
    perf.assert_tpot_below("10min")
    assert perf.metrics.output_tokens.value == 6
    assert perf.predict({}) == "w0 w1 w2 w3 w4 w5 "

@at("/counted", stream=JsonLines(text="word", tokens="usage.out"))
@payload()
def test_named_keys(perf):
    perf.assert_tpot_below("10min")
    assert perf.metrics.output_tokens.value == 12

@at("/words", stream="chunks")
@pytest.mark.perf(payload=[{}], tokens=len)
def test_counted_text(perf):
    assert perf.metrics.output_tokens.value == 18

@at("/large-in-chunks")
@payload()
def test_large_in_chunks(perf):
    assert not perf.metrics.streams

@at("/api/generate", stream="whole")
@payload()
def test_whole(perf):
    assert not perf.metrics.streams

@at("/words")
@payload()
def test_not_said(perf):
    perf.assert_ttft_below("1s")

@at("/large", stream="chunks")
@payload()
def test_said_wrongly(perf):
    perf.assert_ttft_below("1s")

@at("/words", stream="lines")
@payload()
def test_no_json(perf):
    perf.assert_ttft_below("1s")

@at("/api/generate")
@pytest.mark.perf(payload=[{}, {"fails": 1}])
def test_fails(perf):
    perf.assert_ttft_below("1s")

@at("/words", stream="chunks")
@pytest.mark.perf(payload=["x"], wire="openai", request=None)
def test_openai(perf):
    perf.assert_ttft_below("1s")
"""
PASSED = ("test_ollama", "test_chunks", "test_named_keys", "test_counted_text", "test_large_in_chunks", "test_whole")
MESSAGES = {
    "test_not_said": "the first one was text/plain in 6 chunks over #, and may be a stream: give the target stream=",
    "test_said_wrongly": "answered 200 to its first request, POST /large: its answer is no stream: application/json, "
    "expected chunks without a content-length",
    "test_no_json": "the stream is broken: it ends in the middle of line 1",
    "test_fails": "perf_payload item 1 -> the runner has stopped",
    "test_openai": "has stream='chunks', but the wire openai gives the form of the answers; leave stream= out",
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    project = Project().with_file("service.py", APP).with_file("test_perf.py", HEAD + TESTS)
    return project.run(tmp_path_factory.mktemp("streams"))


@pytest.mark.parametrize("test", PASSED)
def test_a_stream_of_any_form_is_measured_and_a_whole_answer_is_none(measured: Run, test: str) -> None:
    assert f"test_perf.py::{test}" not in [line.split()[1] for line in measured.out.splitlines() if "FAILED" in line]
    assert f"::{test} " in measured.section("performance")


@pytest.mark.parametrize("test", MESSAGES)
def test_what_is_wrong_with_a_stream_is_named(measured: Run, test: str) -> None:
    before, _, after = MESSAGES[test].partition("#")
    failure = measured.failure(test)
    assert before in failure
    assert after in failure
