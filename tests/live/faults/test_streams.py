"""Servers of OpenAI's protocol whose answers are no streams: the test fails, and says what came instead.

One server answers for all: the prompt of a request names its mode. Every second answer is a good one, so that nothing
but the failed ones can fail the test.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fault_run import run_fault_here
from support.project import Project
from support.services.scripted import Close, Request, ScriptedServer, Send, Silence, Step, answer
from support.stream_modes import GOOD, LEGITIMATE, MODES, NOT_COUNTED, Ending, Mode

from pytest_mlpatterns.records.outcomes import Failure, describe_outcome

pytestmark = pytest.mark.processes

TEST = """
import pytest
from pytest_mlpatterns import Url

NOT_COUNTED, COUNTED = {not_counted!r}, {counted!r}
marked = pytest.mark.perf(wire="openai", duration="150ms", warmup="0s", launches=1, concurrency=4)

@pytest.fixture
def perf_target():
    return Url("http://127.0.0.1:{port}")

@pytest.fixture
def perf_payload(request):
    return [request.node.callspec.params["mode"]]

@marked
@pytest.mark.parametrize("mode", NOT_COUNTED)
def test_not_counted(perf, mode):
    perf.assert_ttft_below("10s")

@marked
@pytest.mark.perf(timeout="50ms", duration="300ms")
@pytest.mark.parametrize("mode", ["no end of HTTP"])
def test_not_ended(perf, mode):
    perf.assert_ttft_below("10s")

@marked
@pytest.mark.parametrize("mode", COUNTED)
def test_counted(perf, mode):
    perf.assert_ttft_below("10s")
    perf.assert_error_rate_below(0.5)
    print(mode, perf.metrics.output_tokens.value)
"""
ENDS: dict[Ending, list[Step]] = {Ending.KEEP: [], Ending.CLOSE: [Close()], Ending.SILENCE: [Silence()]}
BROKEN = [mode.name for mode in NOT_COUNTED if mode.ending is not Ending.SILENCE]
USUAL = ("error as JSON", "no content", "the end only", "empty texts", "an error object", "ends in error", "br")
"""Modes that run with every ``make faults``; one of each kind of failure."""
WELL = [mode.name for mode in MODES if mode not in NOT_COUNTED and mode not in LEGITIMATE] + [
    "stops at once",
    "tool call",
    "gzip",
]


def answers() -> ScriptedServer:
    modes = {mode.name: mode for mode in MODES}
    asked: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)

    def script(request: Request) -> list[Step]:
        if not request.body:
            return [Send(answer(b'{"data": [{"id": "m"}]}'))]
        name = json.loads(request.body)["prompt"]
        mode: Mode = GOOD if next(asked[name]) % 2 == 0 else modes[name]
        return [Send(mode.data), *ENDS[mode.ending]]

    return ScriptedServer(script)


@pytest.mark.parametrize(
    "broken", [USUAL, pytest.param(tuple(set(BROKEN) - set(USUAL)), marks=pytest.mark.nightly)], ids=["usual", "others"]
)
def test_an_answer_that_is_no_stream_fails_and_says_what_it_is(tmp_path: Path, broken: tuple[str, ...]) -> None:
    with answers() as server:
        text = TEST.format(port=server.address[1], not_counted=broken, counted=WELL)
        run = run_fault_here(Project().with_file("test_it.py", text), tmp_path, "-rA")
    run.assert_left_nothing()
    assert run.outcomes == {"failed": len(broken) + 1, "passed": len(WELL)}, run.text
    for mode in NOT_COUNTED:
        if mode.name in broken:
            said = run.run.failure(f"test_not_counted[{mode.name}]")
            assert f"requests failed ({describe_outcome(mode.outcome)}: " in said, mode.name
            assert mode.words in said.replace("\n", " "), mode.name
    assert Failure.NOT_ENDED.label in run.run.failure("test_not_ended[no end of HTTP]")
    assert "usage of too much 10.0" in run.text
