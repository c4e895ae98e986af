"""``assert_faster_than`` and ``assert_not_slower_than`` between services, models and plain calls, in one run."""

import re
from pathlib import Path

import pytest
from support.project import QUICK, Project, Run

pytestmark = pytest.mark.processes

SERVICE = """
import asyncio
import json

def application(delay_s, times):
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await asyncio.sleep(delay_s)
        number = json.loads(body)["number"] if body else 0
        answer = json.dumps({"product": number * times}).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app

async def stream(scope, receive, send):
    if scope["type"] != "http":
        return
    number = json.loads((await receive())["body"])["number"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for delay_s in (number / 100, 0.01):
        await asyncio.sleep(delay_s)
        await send({"type": "http.response.body", "body": b"data: {}\\n\\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\\n\\n"})

ours = application(0.02, 2)
slow = application(0.06, 2)
wrong = application(0.02, 3)
"""
TESTS = f"""
import time

import pytest

from pytest_mlpatterns import App, ClosedLoop

pytestmark = {QUICK.replace("launches=1", 'launches=1, budget="3s", payload=[1, 2, 3]')}

def served(batch):
    time.sleep(0.03)
    return batch

def instant(batch):
    return batch

def raises(batch):
    raise LookupError("no weights")

def right(numbers, answers):
    assert [answer["product"] for answer in answers] == [2 * number for number in numbers]

@pytest.mark.perf(request=lambda number: {{"json": {{"number": number}}}})
class TestServices:
    @pytest.fixture
    def perf_target(self):
        return App("service:ours", path="/ours")

    def test_faster(self, perf):
        perf.assert_faster_than(App("service:slow", path="/theirs"), by=1.5)

    def test_slower(self, perf):
        perf.assert_faster_than(App("service:slow"), by=30.0, on="throughput")

    def test_unequal(self, perf):
        perf.assert_not_slower_than(App("service:wrong"), by=5.0)

    @pytest.mark.perf(check=right)
    def test_check(self, perf):
        perf.assert_not_slower_than(App("service:wrong"), by=5.0)

    @pytest.mark.perf(concurrency=4)
    def test_load(self, perf):
        perf.assert_faster_than(load=ClosedLoop(1), by="100%", on="throughput")

    def test_absent(self, perf):
        perf.assert_not_slower_than(App("servce:ours"))

    def test_model(self, perf):
        perf.assert_not_slower_than(served, by=5.0)

class TestStreams:
    @pytest.fixture
    def perf_target(self):
        return App("service:stream")

    @pytest.mark.perf(payload=[1], request=lambda number: {{"json": {{"number": number}}}})
    def test_payload(self, perf):
        perf.assert_faster_than(payload=[9], by=2.0, on="ttft")

class TestModels:
    @pytest.fixture
    def perf_model(self):
        return served

    @pytest.mark.perf(pattern=["single", "cached"])
    def test_list(self, perf):
        perf.assert_not_slower_than(lambda batch: served(batch), by=9.0)

    def test_plain(self, perf):
        perf.assert_not_slower_than(reference=served, by=4.0)

    def test_instant(self, perf):
        perf.assert_faster_than(reference=instant, on="throughput")

    def test_broken(self, perf):
        perf.assert_faster_than(reference=raises)
"""
PROJECT = Project().with_file("service.py", SERVICE).with_file("test_it.py", TESTS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return PROJECT.run(tmp_path_factory.mktemp("compared"), "-n", "2", "--perf-json=results.json")


@pytest.fixture(scope="module")
def reasons(run: Run) -> dict[str, tuple[str, str, str]]:
    """Of each test that has a verdict: against what, the outcome, and the reason."""
    return {
        result["test"].rpartition("::")[2]: tuple(
            result["verdicts"][0][name] for name in ("against", "outcome", "reason")
        )
        for result in run.json("results.json")["results"]
        if result["verdicts"]
    }


def test_a_run_ends_with_the_outcome_of_each_comparison(run: Run) -> None:
    assert {name: run.outcomes[name] for name in ("passed", "failed")} == {"passed": 8, "failed": 5}


def test_a_service_that_is_faster_passes_with_both_named(reasons: dict[str, tuple[str, str, str]]) -> None:
    against, outcome, reason = reasons["test_faster"]
    assert (against, outcome) == ("service", "pass")
    assert re.match(
        r"median latency [^(]+\(App\('service:ours', path='/ours'\)\) against [^(]+\(App\('service:slow', path=", reason
    )
    assert "answers differ" not in reason


def test_two_loads_and_two_payloads_of_one_service_are_compared(reasons: dict[str, tuple[str, str, str]]) -> None:
    assert reasons["test_load"][:2] == ("service", "pass")
    of_load = r"^throughput [^(]+\(closed\(4\)\) against [^(]+\(closed\(1\)\): .* at least 2;"
    assert re.search(of_load, reasons["test_load"][2])
    assert reasons["test_payload"][:2] == ("service", "pass")
    assert re.search(
        r"^median TTFT .*\(the test's payload\) against .*\(the other payload\): ", reasons["test_payload"][2]
    )


def test_a_service_that_is_too_slow_fails_with_both_named(run: Run) -> None:
    failure = run.failure("TestServices.test_slower")
    assert "LimitFailure: throughput" in failure
    assert "against" in failure
    assert "(App('service:slow'))" in failure
    assert "which is not at least 30;" in failure


def test_answers_that_differ_are_reported(run: Run, reasons: dict[str, tuple[str, str, str]]) -> None:
    said = (
        "the answers differ: to perf_payload item 0 App('service:ours', path='/ours') gave {'product': 2}, "
        "App('service:wrong') {'product': 3}"
    )
    assert said in reasons["test_unequal"][2]
    assert "UnequalAnswersWarning" in run.out


def test_a_check_fails_for_the_other_side_and_says_so(run: Run) -> None:
    failure = run.failure("TestServices.test_check")
    assert "AssertionError" in failure
    assert "these are answers of App('service:wrong')" in failure
    assert "answer_check.py" not in failure


def test_another_side_that_does_not_start_is_named_as_that(run: Run) -> None:
    assert "the other side: App('servce:ours')" in run.failure("TestServices.test_absent")
    assert "the other side: plain calls of raises: the call with perf_payload item 0 failed:" in run.failure(
        "TestModels.test_broken"
    )
    assert "LookupError: no weights" in run.failure("TestModels.test_broken")


def test_a_model_is_compared_with_a_service_and_another_by_pattern(reasons: dict[str, tuple[str, str, str]]) -> None:
    assert "(served): " in reasons["test_model"][2]
    assert "(served) against" in reasons["test_list[single]"][2]
    assert "(served, cached) against" in reasons["test_list[cached]"][2]
    assert "(<lambda>): " in reasons["test_list[cached]"][2]


def test_a_served_model_is_compared_with_plain_calls_of_it(run: Run, reasons: dict[str, tuple[str, str, str]]) -> None:
    assert reasons["test_plain"][:2] == ("service", "pass")
    assert "(plain calls of served): " in reasons["test_plain"][2]
    assert "(plain calls of instant): " in run.failure("TestModels.test_instant")


def test_a_smoke_run_starts_the_other_side_too(tmp_path: Path) -> None:
    run = PROJECT.run(tmp_path, "--perf-smoke", "-k", "absent or unequal or broken or plain")
    assert run.outcomes == {"passed": 2, "failed": 2, "deselected": 9, "warnings": 1}
    assert "the other side: App('servce:ours')" in run.failure("TestServices.test_absent")
    assert "UnequalAnswersWarning" in run.out
