"""Plain calls of a model: rounds by time and by calls, order, errors, and what a call may return."""

import threading
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from support.each_row import each_row

from pytest_mlpatterns.engines.local.plain_caller import Called, PlainCaller
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.wire import REST_JSON, codec_of
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.schedule import ClosedLoop
from pytest_mlpatterns.workload.window_plan import RequestWindow

SECOND = 10**9
LONG = 600 * SECOND
"""No round of a test ends by it."""


def caller(model: Callable[[list[Any]], Any]) -> PlainCaller:
    return PlainCaller(model, ["a", "b", "c"], "echo")


def order(*indices: int) -> bytes:
    return array("I", indices).tobytes()


def asked(requests: int | None = None, *, callers: int = 1, length_ns: int = LONG, indices: bytes = b"") -> LoadJob:
    window = None if requests is None else RequestWindow(requests, 0, length_ns)
    return LoadJob(
        Endpoint(()),
        (b"",) * 3,
        ClosedLoop(callers),
        length_ns,
        0,
        SECOND,
        order=indices or order(0, 1, 2),
        window=window,
    )


def column(result: LoadResult, name: str, kind: str) -> list[int]:
    return memoryview(result.columns[name]).cast(kind).tolist()


def echo(batch: list[Any]) -> list[Any]:
    return batch


def test_a_round_of_calls_repeats_its_order_with_one_input_for_each_call() -> None:
    seen: list[list[str]] = []

    def model(batch: list[str]) -> list[str]:
        seen.append(batch)
        return batch

    record = caller(model).loop(asked(5, indices=order(2, 0)))
    assert seen == [["c"], ["a"], ["c"], ["a"], ["c"]]
    assert column(record, "request", "I") == [2, 0, 2, 0, 2]
    assert column(record, "outcome", "h") == [200] * 5
    assert column(record, "sent_ns", "q") == column(record, "due_ns", "q")
    assert {name: len(record.columns[name]) for name in ("target", "received_bytes")} == {
        "target": 5,
        "received_bytes": 20,
    }
    assert (record.generator.completed, record.generator.cpu_ns, record.planned) == (5, 0, RequestWindow(5, 0, LONG))


def test_every_call_lies_in_its_round_and_takes_its_time() -> None:
    record = caller(echo).loop(asked(4))
    began, done = column(record, "due_ns", "q"), column(record, "done_ns", "q")
    assert record.window.start_ns <= began[0]
    assert max(began) < record.window.end_ns
    assert done == sorted(done)
    assert all(begin <= end for begin, end in zip(began, done, strict=True))


def test_a_round_by_time_ends_at_its_time() -> None:
    record = caller(echo).loop(asked(length_ns=2_000_000))
    assert record.window.end_ns == record.window.start_ns + 2_000_000
    late = [began for began in column(record, "due_ns", "q") if began >= record.window.end_ns]
    assert len(late) <= 1  # the caller may lose its processor between its look at the clock and its call


def test_callers_call_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=60)

    def model(batch: list[str]) -> list[str]:
        together.wait()  # returns only if three calls wait
        return batch

    record = caller(model).loop(asked(6, callers=3))
    assert column(record, "outcome", "h") == [200] * 6


def test_a_failing_input_is_counted_and_named() -> None:
    def model(batch: list[str]) -> list[str]:
        if batch == ["b"]:
            raise LookupError("no such word")
        return batch

    plain = caller(model)
    record = plain.loop(asked(6))
    assert column(record, "outcome", "h") == [200, 500, 200] * 2
    assert record.failed == {500: (1, "LookupError: no such word")}
    assert len(plain.tracebacks) == 1
    assert plain.loop(asked(1)).failed == {}


def test_no_call_begins_after_the_end() -> None:
    plain = caller(echo)
    plain.end()
    assert column(plain.loop(asked(6)), "request", "I") == []


def test_one_call_gives_the_output_as_a_server_would_answer_it() -> None:
    called = caller(lambda batch: np.ones((len(batch), 2))).one(0)
    assert codec_of(REST_JSON).decode_outputs(called.output, {}) == [[1.0, 1.0]]


def test_an_output_that_no_server_could_answer_is_only_not_compared() -> None:
    called = caller(lambda batch: [object()]).answer(0)
    assert called == Called(None)


async def waits(batch: list[Any]) -> list[Any]:
    return batch


@each_row(
    ("model", "words"),
    (waits, "echo returned an unfinished coroutine, expected a function that does its work when it is called"),
    (lambda batch: (item for item in batch), "echo returned an unfinished generator, expected a function"),
    (lambda batch: [*batch, 1], "echo returned 2 outputs for 1 input"),
    (lambda batch: batch[3], "IndexError"),
)
def test_what_is_no_list_of_outputs_is_refused_at_the_first_call(model: Callable[[list[Any]], Any], words: str) -> None:
    assert words in caller(model).one(0).traceback
