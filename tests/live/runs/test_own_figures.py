"""Figures that a service reports in its answers, whole or in pieces, are limited, recorded, compared and shown."""

from pathlib import Path

import pytest
from support.project import APART, QUICK, RECORD, Project

pytestmark = pytest.mark.processes

SERVICE = """
import asyncio
import json
import os

MS = float(os.environ.get("QUEUE_MS", "2"))

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(0.005)
    kind = b"application/x-ndjson" if scope["path"] == "/stream" else b"application/json"
    headers = [(b"content-type", kind), (b"server-timing", b"db;dur=9, queue;dur=%.2f" % MS)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b'{"response": "a"}\\n', "more_body": True})
    answer = {"done": True, "text": "one two", "eval_duration": MS * 1e6}
    await send({"type": "http.response.body", "body": json.dumps(answer).encode() + b"\\n"})
"""
TESTS = f"""
import pytest

from pytest_mlpatterns import App, Computed, Header, Json

pytestmark = [{QUICK}, pytest.mark.perf(payload=[1, 2, 3])]

def words(answer):
    return len(answer.json()["text"].split())

@pytest.fixture
def perf_figures():
    return {{
        "queue_time": Header("Server-Timing", part="queue", unit="ms"),
        "eval_time": Json("eval_duration", unit="ns"),
        "words": words,
    }}

class TestWhole:
    @pytest.fixture
    def perf_target(self):
        return App("service:app", path="/")

    @pytest.mark.perf(request=lambda value: {{"json": value}}, compare=("error_rate",))
    def test_whole(self, perf):
        perf.assert_metric("queue_time:p50", below="5ms")
        perf.assert_metric("words", at_least=2)
        perf.assert_no_regression(["queue_time"], tolerance=0.9)

    @pytest.mark.perf(
        request=lambda value: {{"json": value}}, compare=("queue_time", "words"), tolerance={{"queue_time": 0.9}}
    )
    def test_compared(self, perf):
        pass

    @pytest.mark.perf(request=lambda value: {{"json": value}}, compare="queue_tim")
    def test_misspelled(self, perf):
        pass

    @pytest.fixture
    def mistyped(self, perf_figures):
        perf_figures["queue_time"] = Header("server-timings", part="queue", unit="ms")

    @pytest.mark.perf(request=lambda value: {{"json": value}})
    def test_mistyped(self, mistyped, perf):
        perf.assert_metric("queue_time", below="5ms")

class TestStream:
    @pytest.fixture
    def perf_target(self):
        return App("service:app", path="/stream")

    @pytest.mark.perf(request=lambda value: {{"json": value}}, concurrency=2)
    def test_stream(self, perf):
        perf.assert_metric("eval_time", below="5ms")
        perf.assert_metric("eval_time:p50", below="1ms")
"""


def test_figures_of_answers_are_metrics_like_the_rest(tmp_path: Path) -> None:
    project = Project().with_file("service.py", SERVICE).with_tests(TESTS)
    options = ("--perf-json", "out.json", "--perf-html", "out.html", "-W", "ignore", *APART)
    run = project.run(tmp_path, *options, *RECORD)
    assert run.outcomes == {"passed": 2, "failed": 3}, run.out
    assert "perf(compare=...) names the metric 'queue_tim', did you mean queue_time?" in run.out
    assert "p50 eval_time 2.00 ms is not below 1.00 ms" in run.out
    assert "no answer has queue_time; the first one has the headers" in run.out
    results = {result["test"].rpartition("::")[2]: result for result in run.json("out.json")["results"]}
    for name in ("test_whole", "test_stream"):
        assert results[name]["metrics"]["queue_time"][0] == 2e6
        assert results[name]["metrics"]["words"][0] == 2
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "Figures of answers" in page
    assert "2.00 ms" in page
    again = ("-k", "test_whole or test_compared", "-W", "ignore")
    slower = project.run(tmp_path, *again, environment={"QUEUE_MS": "3.5"})
    assert slower.outcomes["passed"] == 2, "75 % more is within the tolerance of both tests"
    worse = project.run(tmp_path, *again, environment={"QUEUE_MS": "4.9"})
    assert worse.outcomes["failed"] == 2
    assert worse.out.count("mean queue_time 2.00 ms → 4.90 ms: 145 % worse") >= 2
