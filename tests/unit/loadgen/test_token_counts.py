"""Tokens of answers are counted by the user's function after the load, where the server reports no usage."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.services.jobs import MESSAGES, MS, a_job, streams_of
from support.services.scripted import Request, ScriptedServer, Send, Step

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.loadgen import load_run
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.workload.schedule import ClosedLoop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def piece(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def words_of(request: Request) -> list[Step]:
    """As many chunks as the number of the input says, of two words each; after number 3 with the usage."""
    number = int(request.body.split()[-1])
    usage = piece(b'data: {"choices": [], "usage": {"completion_tokens": 77}}\n\n') if number == 3 else b""
    return [Send(HEAD + piece(b'data: "two words "\n\n') * number + usage + b"0\r\n\r\n")]


def words(text: str) -> int:
    return len(text.split())


def job_of(server: ScriptedServer, **changes: Any) -> LoadJob:
    facts: dict[str, Any] = {"stream": True, "keep_texts": True, "duration_ns": 60 * MS}
    return a_job([server.address], ClosedLoop(2), **{**facts, **changes})


def load(**changes: Any) -> LoadResult:
    with ScriptedServer(words_of) as server:
        return LoadLoop(job_of(server, **changes), lambda _: None).run()


EXPECTED = np.array([-1, 2, 4, 77, 8])
"""Tokens by input: none without a chunk, two for each, and the usage where there is one."""


def check_window(result: LoadResult) -> None:
    samples = samples_of(result, words)
    inside = samples.due_in(result.window)  # texts of the warm-up are dropped
    assert streams_of(samples).output_tokens[inside].tolist() == EXPECTED[samples.request[inside]].tolist()


def test_each_answer_without_usage_has_the_tokens_of_its_text() -> None:
    check_window(load())


def test_without_a_function_nothing_is_counted_and_without_texts_neither() -> None:
    result = load()
    assert set(streams_of(samples_of(result)).output_tokens.tolist()) <= {-1, 77}
    assert set(streams_of(samples_of(load(keep_texts=False), words)).output_tokens.tolist()) <= {-1, 77}


def test_each_different_text_is_counted_once() -> None:
    seen: list[str] = []
    samples_of(load(), lambda text: seen.append(text) or 1)  # type: ignore[func-returns-value]
    assert len(seen) == len(set(seen))
    assert set(seen) <= {"two words " * number for number in (1, 2, 4)}


@pytest.mark.processes
def test_generators_that_share_a_load_keep_each_text_with_its_request(tmp_path: Path) -> None:
    with closing(Generator(tmp_path / "generator.log")) as generator, ScriptedServer(words_of) as server:
        result = generator.run(job_of(server), poll_s=0.1, on_poll=lambda _: None, processes=2)
    check_window(result)


def test_texts_beyond_the_limit_are_not_kept_and_that_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_run, "KEPT_BYTES", 25)
    result = load(messages=MESSAGES[1:2])
    output = streams_of(samples_of(result, words)).output_tokens.tolist()[result.warmup.requests :]
    assert output[:2] == [2, 2][: len(output)]
    assert set(output[2:]) <= {-1}
    assert result.generator.texts_cut is (len(output) > 2)


def test_texts_of_the_warm_up_are_dropped() -> None:
    result = load(warmup_ns=60 * MS)
    output = streams_of(samples_of(result, words)).output_tokens
    assert set(output[: result.warmup.requests].tolist()) <= {-1, 77}


@pytest.mark.parametrize("count", [1.5, -1, None, "3"])
def test_a_count_that_is_none_is_named(count: Any) -> None:
    result = load(messages=MESSAGES[1:2])
    with pytest.raises(SettingError, match=r"perf\(tokens=...\) returned .*expected the number of tokens"):
        samples_of(result, lambda _text: count)
