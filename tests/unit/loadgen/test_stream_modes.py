"""Every way in which a server answers a request for a stream: what counts, what fails, and that nothing is lost."""

import numpy as np
import pytest
from msgspec.structs import replace
from support.counted import counted_requests
from support.each_row import each_row
from support.services.jobs import MS, a_job, window_of
from support.services.scripted import Close, Request, ScriptedServer, Send, Silence, Step
from support.stream_modes import MODES, NOT_COUNTED, Ending, Mode, response, whole
from support.synthetic import launch

from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.http1 import Http1Stream
from pytest_mlpatterns.loadgen.messages import LoadJob
from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer, answers_to
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.wire import Wire
from pytest_mlpatterns.workload.schedule import ClosedLoop

OPENAI = Wire.parse("openai")
CALLERS = 4


def request(body: bytes) -> bytes:
    return b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def job(address: tuple[str, int], *bodies: bytes, wire: Wire = OPENAI, stream: bool = True) -> LoadJob:
    made = a_job(
        [address], ClosedLoop(CALLERS), stream=stream, messages=tuple(map(request, bodies)), timeout_ns=2_000 * MS
    )
    return replace(made, endpoint=replace(made.endpoint, wire=wire))


def outcome_of(answer: StreamedAnswer, data: bytes, number: int = 0) -> int:
    protocol = Http1Stream([b""], "host", follow=False, keep=False, answer=answer)
    protocol.ask(0)
    answer.begin(number)
    return protocol.take(data)


@each_row("mode", [mode for mode in MODES if mode.ending is Ending.KEEP])
def test_an_answer_counts_or_says_why_not(mode: Mode) -> None:
    answer = StreamedAnswer(wire=OPENAI)
    assert outcome_of(answer, mode.data) == mode.outcome
    assert len(answer.chunk_ns) == mode.chunks
    assert mode.words in answer.words(mode.outcome)


@each_row(
    ("body", "wire", "data", "outcome"),
    (b'{"stream":true}', "openai", whole(b"{}"), Failure.NO_STREAM),
    (b'{"stream":false}', "openai", whole(b"{}"), 200),
    (b'{"prompt":"a"}', "openai", whole(b"{}"), 200),
    (b'{"stream":true,"max_tokens":0}', "openai", response(b"data: [DONE]\n\n"), 200),
    (b'{"stream":true,"max_tokens":1}', "openai", response(b"data: [DONE]\n\n"), Failure.EMPTY_STREAM),
    (b"[1]", "rest+json", whole(b"{}"), Failure.NO_STREAM),
    (b'{"stream":false}', "rest+json", whole(b"{}"), 200),
    (b'{"instances":[1]}', "rest+json", response(b"data: [DONE]\n\n"), Failure.EMPTY_STREAM),
    (b"\x1f\x8b", "rest+json", whole(b"{}"), Failure.NO_STREAM),
)
def test_the_request_decides_what_its_answer_has_to_be(body: bytes, wire: str, data: bytes, outcome: int) -> None:
    answers = answers_to(job(("127.0.0.1", 1), body, wire=Wire.parse(wire)))
    assert outcome_of(answers(), data) == outcome


def test_a_load_of_rest_may_have_requests_for_whole_answers_too() -> None:
    bodies = b'{"stream":true}', b"{}"
    answers = answers_to(job(("127.0.0.1", 1), *bodies, wire=Wire()))
    assert [outcome_of(answers(), whole(b"{}"), number) for number in range(2)] == [Failure.NO_STREAM, 200]


def test_a_load_of_which_no_stream_is_expected_takes_any_answer() -> None:
    answers = answers_to(job(("127.0.0.1", 1), b"[1]", wire=Wire(), stream=False))
    assert outcome_of(answers(), whole(b"{}")) == 200


@pytest.fixture(scope="module")
def loaded() -> tuple[LoadJob, Metrics, dict[int, str]]:
    """A load of which each request gets another mode, as one launch, and what the failed answers said."""
    bodies = [b'{"stream":true,"prompt":"%d"}' % number for number in range(len(MODES))]

    def script(asked: Request) -> list[Step]:
        mode = MODES[int(asked.body.split(b'"prompt":"')[1].split(b'"')[0])]
        ends: dict[Ending, list[Step]] = {Ending.KEEP: [], Ending.CLOSE: [Close()], Ending.SILENCE: [Silence()]}
        return [Send(mode.data), *ends[mode.ending]]

    with ScriptedServer(script) as server:
        sent = replace(job(server.address, *bodies), window=window_of(len(bodies)))
        result = LoadLoop(sent, lambda _: None).run()
    measured = replace(
        launch(samples_of(result)), window=result.window, request_bytes=np.array([len(one) for one in sent.messages])
    )
    return sent, Metrics((measured,)), {code: answer.words for code, answer in result.failed.items()}


def test_under_load_every_mode_has_its_outcome_and_its_chunks(loaded: tuple[LoadJob, Metrics, dict[int, str]]) -> None:
    samples = loaded[1].launches[0].samples
    for number, mode in enumerate(MODES):
        rows = np.flatnonzero(samples.request == number)
        assert rows.size, mode.name
        assert set(samples.outcome[rows].tolist()) == {mode.outcome}, mode.name
        assert set(samples.stream.chunk_count[rows].tolist()) == {mode.chunks}, mode.name


def test_under_load_each_failure_says_what_came(loaded: tuple[LoadJob, Metrics, dict[int, str]]) -> None:
    said = loaded[2]
    for failure in (Failure.NO_STREAM, Failure.EMPTY_STREAM, Failure.ERROR_EVENT, Failure.COMPRESSED):
        known = [mode.words for mode in NOT_COUNTED if mode.outcome == failure]
        assert any(words and words in said[failure] for words in known), said[failure]


def test_no_request_of_a_load_is_left_out_in_silence(loaded: tuple[LoadJob, Metrics, dict[int, str]]) -> None:
    found = loaded[1]
    assert found.requests >= len(MODES)
    for metric, parts in counted_requests(found).items():
        assert sum(parts) == found.requests, f"{metric}: judged, failed and named are {parts} of {found.requests}"
