"""The pool of connections without a network: connections that fail as soon as they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from support.services.jobs import a_job

from pytest_mlpatterns.loadgen import connection_pool as pool_module
from pytest_mlpatterns.loadgen.recorder import RetryColumns, SampleRecorder
from pytest_mlpatterns.loadgen.retrier import Attempt
from pytest_mlpatterns.workload.schedule import ConstantRate

if TYPE_CHECKING:
    import pytest

    from pytest_mlpatterns.loadgen.event_loop import LoadLoop


class FailingConnection:
    """A connection whose address is unreachable: a request ends, and it is idle again, before ``send`` returns."""

    def __init__(self, loop: Any, _address: tuple[str, int], target: int) -> None:
        self.attempt: Attempt | None = None
        self.target = target
        self._loop = loop

    def send(self, request: int, due_ns: int | None, ready_ns: int | None = None) -> None:
        self._loop.ended.append((request, due_ns, ready_ns))
        self._loop.pool.release(self)


class Loop:
    """What the pool needs of its loop."""

    new_connection: Any = None

    def __init__(self) -> None:
        self.ended: list[tuple[int, int | None, int | None]] = []
        self.recording = SampleRecorder(None, RetryColumns(with_budget=False))
        self.pool = pool_module.ConnectionPool(cast("LoadLoop", self), a_job([("127.0.0.1", 1)], ConstantRate(100)))


def test_many_waiting_requests_that_all_fail_at_once_end_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_OPEN_LOOP_CONNECTIONS", 0)
    loop = Loop()
    for number in range(5_000):
        loop.pool.send(number, 1_000 * number)

    loop.pool.release(FailingConnection(loop, ("127.0.0.1", 1), 0))  # type: ignore[arg-type]

    assert [request for request, _, _ in loop.ended] == list(range(5_000))
    assert not loop.pool.waiting


def test_a_request_that_waited_keeps_when_it_was_due_and_when_it_was_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_OPEN_LOOP_CONNECTIONS", 0)
    monkeypatch.setattr(pool_module, "perf_counter_ns", lambda: 5_000)
    loop = Loop()
    loop.pool.send(3, 4_000)
    loop.pool.release(FailingConnection(loop, ("127.0.0.1", 1), 0))  # type: ignore[arg-type]

    assert loop.ended == [(3, 4_000, 5_000)]


def test_an_attempt_that_found_no_connection_in_time_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_OPEN_LOOP_CONNECTIONS", 0)
    loop = Loop()
    loop.pool.send(1, 4_000)
    loop.pool.send(3, 2_000, Attempt(3, 2_000, 2_500, number=3))

    loop.pool.expire(5_000)

    columns = {name: memoryview(column) for name, column in loop.recording.columns().items()}
    assert columns["request"].tolist() == [1, 3]
    assert columns["attempts"].tolist() == [1, 2]
    assert columns["sent_ns"].tolist()[1] == 2_500


def test_an_attempt_that_waited_goes_with_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_OPEN_LOOP_CONNECTIONS", 0)
    loop = Loop()
    attempt = Attempt(3, 2_000, 2_500, number=2)
    loop.pool.send(3, 2_000, attempt)
    connection = FailingConnection(loop, ("127.0.0.1", 1), 0)
    loop.pool.release(connection)  # type: ignore[arg-type]

    assert connection.attempt == attempt
