"""Which failed attempts are followed by another one, without a loop: the moments are declared."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.services.jobs import MS
from support.services.scripted import answer
from support.synthetic import PROPERTY

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS
from pytest_mlpatterns.loadgen.messages import Share
from pytest_mlpatterns.loadgen.recorder import RetryColumns, SampleRecorder
from pytest_mlpatterns.loadgen.retrier import (
    FULL_TOKENS,
    Attempt,
    Resending,
    Retrier,
    RetryBudget,
    retry_after_ns,
)
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.workload.retries import Retries

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.connection import Connection

S = 1000 * MS
FIRST = Attempt(request=3, due_ns=0, sent_ns=5)


def retrier(retries: Retries, *, timeout_ns: int = 10 * S, share: Share | None = None) -> Retrier:
    recording = SampleRecorder(None, RetryColumns(with_budget=retries.share is not None))
    return Retrier(retries, share or Share(), timeout_ns=timeout_ns, recording=recording)


def columns_of(found: Retrier, rows: int) -> dict[str, list[int]]:
    columns = found._recording.retries
    assert columns is not None
    return {name: list(memoryview(column)) for name, column in columns.columns(rows).items()}


@PROPERTY
@given(st.sampled_from([0.01, 0.1, 0.25, 1.0]), st.lists(st.booleans(), max_size=400))
def test_a_budget_never_allows_more_than_its_share_of_extra_requests(share: float, fails: list[bool]) -> None:
    budget = RetryBudget(share)
    taken = 0
    for number, failed in enumerate(fails, start=1):
        budget.deposit()
        taken += failed and budget.withdraw()
        assert taken <= share * number + 1e-6


def test_a_budget_gives_all_of_its_share_and_saves_up_no_more_than_it_holds() -> None:
    budget = RetryBudget(0.1)
    for _ in range(10):
        assert not budget.withdraw()
        budget.deposit()
    assert budget.withdraw()
    assert not budget.withdraw()
    for _ in range(100_000):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(1000)) == FULL_TOKENS


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (b"Retry-After: 3", 3),
        (b"retry-after:  120  ", 120),
        (b"retry-after: Thu, 01 Jan 1970 00:01:40 GMT", 10),
        (b"retry-after: Thu, 01 Jan 1970 00:00:40 GMT", 0),
        (b"retry-after: soon", 0),
        (b"retry-after: -1", 0),
        (b"retry-after: 99999999999999999999", 0),
        (b"x-retry-after: 3", 0),
    ],
)
def test_an_answer_asks_for_a_wait_in_seconds_or_until_a_date(header: bytes, seconds: int) -> None:
    head = answer(b"", 503, header).partition(b"\r\n\r\n")[0]
    assert retry_after_ns(head, lambda: 90.0) == seconds * S


@PROPERTY
@given(
    st.binary(max_size=40) | st.from_regex(rb"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} [-+A-Z0-9]{5}")
)
def test_no_header_of_a_service_ends_the_load(value: bytes) -> None:
    assert retry_after_ns(b"HTTP/1.1 503 Busy\r\nretry-after:" + value, lambda: 90.0) >= 0


def test_a_request_is_tried_again_as_often_as_was_asked() -> None:
    found = retrier(Retries(2, backoff="10ms", jitter=False))
    attempt = FIRST
    assert found.wait_ns(attempt, 503, 1 * MS) == 10 * MS
    attempt = attempt.next
    assert found.wait_ns(attempt, Failure.CLOSED, 20 * MS) == 20 * MS
    attempt = attempt.next
    assert attempt == Attempt(3, 0, 5, number=3)
    assert found.wait_ns(attempt, 503, 50 * MS) is None
    assert found.resent == 2
    assert columns_of(found, 2) == {"attempts": [3, 1]}


@pytest.mark.parametrize(("outcome", "has_begun"), [(200, False), (404, False), (503, True), (Failure.CLOSED, True)])
def test_an_answer_and_one_that_has_begun_are_final(outcome: int, has_begun: bool) -> None:
    found = retrier(Retries(2))
    assert found.wait_ns(FIRST, outcome, 1, has_begun=has_begun) is None
    assert columns_of(found, 1) == {"attempts": [1]}


def test_no_attempt_begins_after_the_time_out_of_the_request() -> None:
    found = retrier(Retries(5, backoff="10ms", jitter=False), timeout_ns=100 * MS)
    assert found.wait_ns(FIRST, 503, 90 * MS - 1) == 10 * MS
    assert found.wait_ns(FIRST, 503, 90 * MS) is None
    assert found.wait_ns(FIRST, 503, 1 * MS, head=b"HTTP/1.1 503 Busy\r\nretry-after: 1") is None


def test_a_retry_waits_for_what_its_answer_asks_unless_it_is_deaf() -> None:
    head = b"HTTP/1.1 503 Busy\r\nretry-after: 2"
    assert retrier(Retries(1, backoff="1ms")).wait_ns(FIRST, 503, 0, head=head) == 2 * S
    deaf = retrier(Retries(1, backoff="1ms", honour_retry_after=False))
    assert (deaf.wait_ns(FIRST, 503, 0, head=head) or 0) <= MS


def test_generators_of_one_load_draw_waits_of_their_own_and_the_same_ones_each_time() -> None:
    waits = [
        [retrier(Retries(1), share=Share(number, 2)).wait_ns(FIRST, 503, 0) for _ in range(2)] for number in (0, 1)
    ]
    assert waits[0][0] == waits[0][1] != waits[1][0] == waits[1][1]


def test_requests_that_fail_for_want_of_budget_are_noted() -> None:
    found = retrier(Retries(3, budget=0.5))
    assert found.wait_ns(FIRST, 503, 0) is None  # half a token
    found._recording.add(0, 0, 1, 503, 0, 0, 0)
    assert found.wait_ns(FIRST, 503, 0) is not None
    assert found.wait_ns(FIRST.next, 503, 0) is None
    found._recording.add(0, 0, 1, 503, 0, 0, 0)
    assert found.wait_ns(FIRST, 200, 0) is None
    found._recording.add(0, 0, 1, 200, 0, 0, 0)
    assert columns_of(found, 3) == {"attempts": [1, 2, 1], "denied": [1, 1, 0]}


def test_attempts_are_sent_when_their_waits_are_over() -> None:
    sent: list[Attempt] = []
    resending = Resending(retrier(Retries(1, backoff="10ms", jitter=False)), sent.append)
    assert (resending.next_ns, resending.waiting) == (NEVER_NS, 0)
    for number, ended_ns in enumerate((7 * MS, 2 * MS, 4 * MS)):
        assert resending.is_tried_again(Attempt(number, 0, 0), 503, ended_ns)
    assert not resending.is_tried_again(Attempt(9, 0, 0), 200, 0)
    assert (resending.next_ns, resending.waiting) == (12 * MS, 3)
    resending.run(14 * MS)
    assert sent == [Attempt(1, 0, 0, 2), Attempt(2, 0, 0, 2)]
    resending.run(17 * MS)
    assert [one.request for one in sent] == [1, 2, 0]
    assert resending.next_ns == NEVER_NS


class Carrier:
    """What carries an attempt, in place of a connection."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt: Attempt | None = attempt
        self.failures: list[Failure] = []

    def fail(self, failure: Failure) -> None:
        self.failures.append(failure)
        self.attempt = None


def test_attempts_end_when_their_time_is_up_and_no_others() -> None:
    resending = Resending(retrier(Retries(1, attempt_timeout="100ms")), lambda _: None)
    carriers = [Carrier(Attempt(number, 0, 0)) for number in range(4)]
    for carrier, sent_ns in zip(carriers, itertools.count(0, 10 * MS), strict=False):
        assert carrier.attempt is not None
        resending.watch(cast("Connection", carrier), carrier.attempt, sent_ns)
    assert resending.next_ns == 100 * MS
    carriers[0].attempt = None  # answered
    carriers[1].attempt = Attempt(8, 0, 0)  # answered, and sent again
    resending.run(115 * MS)
    assert [carrier.failures for carrier in carriers] == [[], [], [], []]
    resending.run(120 * MS)
    assert [carrier.failures for carrier in carriers] == [[], [], [Failure.TIMEOUT], []]
    assert carriers[1].attempt is not None
    resending.watch(cast("Connection", carriers[1]), carriers[1].attempt, 125 * MS)
    assert resending.next_ns == 130 * MS
    carriers[3].attempt = None
    resending.watch(cast("Connection", carriers[0]), Attempt(9, 0, 0), 126 * MS)
    assert resending.next_ns == 225 * MS  # those that have ended are forgotten


def test_attempts_without_a_limit_are_not_watched() -> None:
    resending = Resending(retrier(Retries(1)), lambda _: None)
    resending.watch(cast("Connection", Carrier(FIRST)), FIRST, 0)
    assert resending.next_ns == NEVER_NS
