"""The pool of connections without a network: connections that fail as soon as they are used."""

from functools import partial
from typing import Any, cast

import pytest
from msgspec.structs import replace
from support.services.jobs import a_job

from pytest_mlpatterns.loadgen import event_loop as pool_module
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.recorder import SampleRecorder
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, Schedule


class FailingConnection:
    """A connection whose address is unreachable: a request ends, and it is idle again, before ``send`` returns."""

    def __init__(self, loop: Any, _address: tuple[str, int], target: int) -> None:
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
        self.expirations: list[tuple[int, int]] = []
        self.recording = SampleRecorder()
        self.pool = pool_module.ConnectionPool(cast("LoadLoop", self), a_job([("127.0.0.1", 1)], ConstantRate(100)))

    def expired(self, due_ns: int, now_ns: int) -> None:
        self.expirations.append((due_ns, now_ns))


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


def test_a_request_that_found_no_connection_in_time_has_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_OPEN_LOOP_CONNECTIONS", 0)
    loop = Loop()
    loop.pool.send(1, 4_000)
    loop.pool.send(3, 6_000)
    loop.pool.expire(5_000)
    assert (loop.recording.request.tolist(), loop.recording.outcome.tolist()) == ([1], [Failure.TIMEOUT])
    assert [due_ns for due_ns, _ in loop.expirations] == [4_000]
    assert [request for request, _, _ in loop.pool.waiting] == [3]


@pytest.mark.parametrize(("allowed", "connections"), [(None, 5), (1_000, 5), (3, 3), (0, 1)])
def test_an_open_loop_opens_no_more_connections_than_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, allowed: int | None, connections: int
) -> None:
    monkeypatch.setattr(pool_module, "allowed_connections", lambda: allowed)
    loop = BalancedLoop()
    for number in range(5):
        loop.pool.send(number, 1_000 * number)
    assert loop.pool.connections == connections
    assert [request for request, _, _ in loop.pool.waiting] == list(range(connections, 5))
    assert loop.pool.limit_reached == (connections < 5)


def test_a_closed_loop_is_never_short_of_connections() -> None:
    loop = BalancedLoop(schedule=ClosedLoop(1))
    for number in range(3):  # the third one while the callers' answers are being dealt with
        loop.pool.send(number, None)
    assert (len(loop.pool.waiting), loop.pool.limit_reached) == (1, False)


class HeldConnection:
    """A connection whose answers come when the test says so."""

    def __init__(self, loop: Any, address: tuple[str, int], target: int) -> None:
        self.target = target
        self.is_closed = False
        self._loop = loop
        self._address = address
        loop.made.append(self)

    def send(self, request: int, _due_ns: int | None, _ready_ns: int | None = None) -> None:
        self._loop.sent.append((request, self._address[1]))

    def close(self) -> None:
        self.is_closed = True


RATE = ConstantRate(100)


class BalancedLoop:
    new_connection: Any = None

    def __init__(self, balance: Balance = Balance.ROUND_ROBIN, schedule: Schedule = RATE) -> None:
        self.made: list[HeldConnection] = []
        self.sent: list[tuple[int, int]] = []
        self.new_connection = partial(HeldConnection, self)
        job = a_job([("127.0.0.1", port) for port in (1, 2)], schedule)  # type: ignore[arg-type]
        job = replace(job, endpoint=replace(job.endpoint, balance=balance))
        self.pool = pool_module.ConnectionPool(cast("LoadLoop", self), job)


@pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.LEAST_OUTSTANDING])
def test_a_removed_address_answers_what_it_has_and_gets_nothing_more(balance: Balance) -> None:
    loop = BalancedLoop(balance)
    for number in range(4):
        loop.pool.send(number, None)
    loop.pool.release(loop.made[0])  # type: ignore[arg-type]
    loop.pool.remove(("127.0.0.1", 1))
    loop.pool.remove(("127.0.0.1", 1))
    loop.pool.remove(("127.0.0.1", 2))
    assert [one.is_closed for one in loop.made] == [True, False, False, False]
    assert loop.pool.outstanding == 3
    for number in range(4, 7):
        loop.pool.send(number, None)
    assert [port for _, port in loop.sent] == [1, 2, 1, 2, 2, 2, 2]
    loop.pool.release(loop.made[2])  # type: ignore[arg-type]
    assert loop.made[2].is_closed
    assert (loop.pool.outstanding, loop.pool.connections) == (5, 5)


def test_a_request_that_waited_goes_to_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_OPEN_LOOP_CONNECTIONS", 1)
    loop = BalancedLoop()
    loop.pool.send(0, 5)
    loop.pool.send(1, 6)
    loop.pool.remove(("127.0.0.1", 1))
    assert loop.sent == [(0, 1)]
    loop.pool.release(loop.made[0])  # type: ignore[arg-type]
    assert loop.sent == [(0, 1), (1, 2)]
    assert not loop.pool.waiting


@pytest.mark.parametrize(("schedule", "opened"), [(ClosedLoop(3), [0, 0, 0, 1, 1, 1]), (ConstantRate(100), [0, 1])])
def test_connections_are_opened_ahead_of_the_load_so_that_no_request_waits_for_one(
    schedule: Schedule, opened: list[int]
) -> None:
    found: list[int] = []

    class Opening(FailingConnection):
        def open(self) -> None:
            found.append(self.target)

    loop: Any = Loop()
    loop.new_connection = partial(Opening, loop)
    job = a_job([("127.0.0.1", 1), ("127.0.0.1", 2)], schedule)
    pool_module.ConnectionPool(loop, job).open()
    assert found == opened
