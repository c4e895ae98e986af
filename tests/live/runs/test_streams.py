"""Streams through the whole plugin: assertions, comparisons, settings that are wrong, and what is refused."""

import re
from pathlib import Path

import pytest
from support.project import QUICK, Project, Run
from support.repository import Repository

pytestmark = pytest.mark.processes

MODEL = """
import asyncio

class Model:
    async def __call__(self, batch):
        (request,) = batch
        await asyncio.sleep({first})
        for number in range(4):
            await asyncio.sleep({gap} if number else 0)
            yield f"word{{number}} "

async def brief(batch):
    await asyncio.sleep(0.002)
    yield "two"
    yield "words"

def whole(batch):
    return batch

def one(batch):
    yield "word"

def none(batch):
    return
    yield
"""
HEAD = """
import pytest
from model import Model, brief, none, one, whole
from pytest_mlpatterns import Batched, Prompts

asked = pytest.mark.perf(model=Model, payload=Prompts(input_tokens=8, output_tokens=4))
"""
COMPARED = """
@pytest.mark.perf(wire="openai", concurrency=2, duration="500ms", budget="3s", tolerance=0.5)
def test_compared(perf):
    pass
"""


def project(tests: str, *, first: float = 0.01, gap: float = 0.005) -> Project:
    """A project with a model that takes these seconds to its first token, and between two."""
    text = f"{HEAD}\n\npytestmark = [asked, {QUICK}]\n\n{tests}"
    return Project().with_file("model.py", MODEL.format(first=first, gap=gap)).with_file("test_perf.py", text)


EVERY_ASSERTION = """
@pytest.mark.perf(wire="openai", duration="500ms", concurrency=4)
def test_limits(perf):
    perf.assert_ttft_below("10min")
    perf.assert_itl_below("10min")
    perf.assert_tpot_below("10min")
    perf.assert_output_tokens_at_least(rps=0.001)
    perf.assert_output_tokens_at_least(0.001, per_user=True)
    perf.assert_goodput_at_least(rps=0.001, slo="ttft<10min, tpot<10min, itl<10min, latency<10min")

@pytest.mark.perf(wire="openai", duration="1s", concurrency=4)
def test_figures(perf):
    metrics = perf.metrics
    assert metrics.streams
    assert (metrics.input_tokens.value, metrics.output_tokens.value) == (8, 4)
    assert metrics.ttft_ns().value >= 9e6  # the model rests for 10 ms before
    assert metrics.itl_ns().value > 0
    assert metrics.tpot_ns().value > 0
    assert metrics.slo_attainment_ratio("ttft<10min").value == 1
    assert metrics.slo_attainment_ratio("ttft<1ns").value == 0
    assert metrics.goodput_rps("ttft<1ns").value == 0
    assert metrics.fluidity_ratio("ttft<10min, tpot<10min").value == 1
    assert metrics.fluidity_ratio("ttft<1ns, tpot<1ns").value == 0
    assert perf.predict("a prompt") == [f"word{number} " for number in range(4)]

@pytest.mark.perf(wire="openai", duration="500ms", concurrency=4)
def test_too_slow(perf):
    perf.assert_ttft_below("1ms")

@pytest.mark.perf(model=brief, budget="1s")
def test_nmrt(perf):
    perf.assert_nmrt_at_least(1, slo="ttft:p95<100us, tpot:p95<10min")  # the first token takes 2 ms
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of tests with limits that a machine of any speed keeps, or that none does."""
    return project(EVERY_ASSERTION).run(tmp_path_factory.mktemp("served"))


def test_limits_of_streams_are_kept_and_broken(served: Run) -> None:
    assert (served.outcomes["passed"], served.outcomes["failed"]) == (2, 2)
    assert "LimitFailure: median TTFT" in served.failure("test_too_slow")


def test_an_objective_that_no_stream_keeps_fails_the_search(served: Run) -> None:
    late = "but not known: the load generator "  # on a busy machine
    assert re.search(f"is not at least 1.00 req/s|{late}", served.failure("test_nmrt"))
    assert "capacity (NMRT) with ttft:p95<100µs,tpot:p95<" in served.failure("test_nmrt")


WRONG = """
@pytest.mark.perf(wire="openai", payload=[1])
def test_no_prompt(perf):
    pass

@pytest.mark.perf(pattern=Batched())
def test_batched(perf):
    pass

@pytest.mark.perf(model=whole)
def test_whole(perf):
    perf.assert_ttft_below("300ms")

@pytest.mark.perf(model=one)
def test_one_token(perf):
    perf.assert_tpot_below("300ms")

@pytest.mark.perf(model=none)
def test_no_token(perf):
    perf.assert_ttft_below("300ms")

@pytest.mark.perf(model=none, wire="openai")
def test_no_token_of_openai(perf):
    perf.assert_ttft_below("300ms")
"""
MESSAGES = {
    "test_no_prompt": "it is 1, expected text, or ",
    "test_batched": "the model streams its answers, and Batched() gathers whole ones; write Continuous(max_batch_size=",
    "test_whole": "the answers do not stream, so there is no median TTFT: the first one was application/json with a",
    "test_one_token": "no answer has a second chunk, so there is no median TPOT; ask for longer ones",
    "test_no_token": "the stream is empty: no event has content, expected at least one; the first is [DONE]",
    "test_no_token_of_openai": "the streams have no chunk with content, so there is no median TTFT; yield at least one",
}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return project(WRONG).run(tmp_path_factory.mktemp("wrong"), "--perf-budget", "1s")


@pytest.mark.parametrize("test", MESSAGES)
def test_what_is_wrong_is_named_with_what_to_write(wrong: Run, test: str) -> None:
    assert MESSAGES[test] in wrong.failure(test)


def test_slower_tokens_are_a_regression_of_their_revision(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    repository.commit({"pytest.ini": "[pytest]\n", **project(COMPARED).files})
    run = project(COMPARED, gap=0.03).run(repository.top, "--perf-against=main")
    assert run.exit_code == 1
    assert re.search("RegressionFailure: (mean|median) TPOT ", run.failure("test_compared"))
    assert re.search(r"also +output tokens \S+ tok/s → \S+ tok/s: -", run.failure("test_compared"))


OWN_PROMPTS = """
from pathlib import Path

LINES = Path(__file__).with_name("lines.jsonl")

def generate(batch):
    (request,) = batch
    assert "output_tokens" not in request
    users = [message["content"] for message in request["messages"] if message["role"] == "user"]
    assert users == ["a", "b", "c"][: len(users)], users
    for _ in range(request["max_tokens"]):
        yield "two words "

def words(batch):
    yield from ["two words ", "three words here"]

@pytest.mark.perf(wire="openai", model=generate, payload=LINES, duration="200ms", concurrency=2)
def test_conversations(perf):
    (launch,) = perf.metrics.launches
    samples = launch.samples
    assert samples.succeeded.all(), launch.first_failure
    number_of = samples.request.tolist().count
    assert number_of(0) >= number_of(1) >= number_of(2)  # each waits for the answer to the one before
    assert set(samples.stream.output_tokens.tolist()) <= {2}

@pytest.mark.perf(model=words, payload=["x"], tokens=lambda text: len(text.split()), duration="200ms")
def test_counted(perf):
    (launch,) = perf.metrics.launches
    samples = launch.samples
    assert set(samples.stream.output_tokens[launch.window.covers(samples.due_ns)].tolist()) == {5}

@pytest.mark.perf(model=words, payload=["x"], tokens="gpt-2")
def test_no_function(perf):
    perf.assert_rtm_below("10min")
"""
LINE = '{"turns": ["a", "b", {"content": "c", "think_time": "2ms"}], "output_tokens": 2}'


def test_conversations_and_counted_tokens(tmp_path: Path) -> None:
    run = project(OWN_PROMPTS).with_file("lines.jsonl", LINE).run(tmp_path)
    assert (run.outcomes["passed"], len(run.outcomes)) == (2, 2), run.out
    assert "perf(tokens=...) is 'gpt-2', expected a function; write lambda text: len(tokenizer.encode(text))" in run.out
