"""Retries as a value: what is refused, how they are printed, which failures are tried again, and the waits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY

from pytest_mlpatterns import Retries, SettingError, UnitError
from pytest_mlpatterns.records.outcomes import Failure, grpc_outcome
from pytest_mlpatterns.workload.retries import may_be_retried

MS = 1_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "Retries(count=0), expected a whole number from 1 to 100"),
        ({"count": 101}, "Retries(count=101), expected a whole number from 1 to 100"),
        ({"count": True}, "Retries(count=True), expected a whole number from 1 to 100"),
        ({"jitter": 1}, "Retries(jitter=1), expected True or False"),
        ({"honour_retry_after": "yes"}, "Retries(honour_retry_after='yes'), expected True or False"),
        ({"budget": 0}, "Retries(budget=0), expected a share above 0; write 0.1"),
        ({"attempt_timeout": "0s"}, "Retries(attempt_timeout='0s'), expected a time above zero; write 500ms"),
        ({"seed": 0.5}, "Retries(seed=0.5), expected a whole number"),
    ],
)
def test_what_no_client_does_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        Retries(**{"count": 2, **arguments})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"backoff": 100}, "Retries(backoff=...)"),
        ({"attempt_timeout": "1"}, "Retries(attempt_timeout=...)"),
        ({"budget": 10}, "Retries(budget=...)"),
    ],
)
def test_times_and_shares_need_their_units(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(UnitError) as caught:
        Retries(2, **arguments)
    assert name in str(caught.value)


def test_retries_are_printed_as_they_are_written() -> None:
    assert str(Retries(2)) == "retries(2, backoff=100ms)"
    every = Retries(3, "1s", jitter=False, honour_retry_after=False, budget="10%", attempt_timeout="500ms", seed=7)
    assert str(every) == (
        "retries(3, backoff=1s, jitter=False, honour_retry_after=False, budget=0.1, attempt_timeout=500ms, seed=7)"
    )
    assert every == Retries(
        3, "1s", jitter=False, honour_retry_after=False, budget=0.1, attempt_timeout="500ms", seed=7
    )
    assert (every.share, every.attempt_timeout_ns) == (0.1, 500 * MS)
    assert (Retries(2).share, Retries(2).attempt_timeout_ns) == (None, None)


@pytest.mark.parametrize(
    "outcome",
    [408, 429, 500, 502, 503, 504, Failure.TIMEOUT, Failure.CONNECT, Failure.CLOSED, Failure.RESET]
    + [grpc_outcome(status) for status in (4, 8, 13, 14)],
)
def test_what_another_attempt_may_mend_is_tried_again(outcome: int) -> None:
    assert may_be_retried(outcome)


@pytest.mark.parametrize(
    "outcome",
    [200, 204, 302, 400, 404, 422, Failure.MALFORMED, Failure.CANCELLED, Failure.NO_STREAM, Failure.CUT_OFF]
    + [grpc_outcome(status) for status in (3, 5, 12, 16)],
)
def test_what_no_attempt_mends_is_not_tried_again(outcome: int) -> None:
    assert not may_be_retried(outcome)


def test_the_backoff_doubles_with_each_retry() -> None:
    retries = Retries(4, backoff="10ms", jitter=False)
    assert [retries.wait_ns(number, 0.3) for number in (1, 2, 3, 4)] == [10 * MS, 20 * MS, 40 * MS, 80 * MS]


@PROPERTY
@given(st.integers(1, 20), st.floats(0, 1, exclude_max=True), st.integers(0, 10**12))
def test_a_wait_is_drawn_below_the_backoff_and_no_shorter_than_what_the_answer_asks_for(
    retry: int, drawn: float, asked_ns: int
) -> None:
    honours, deaf = Retries(20, backoff="3ms"), Retries(20, backoff="3ms", honour_retry_after=False)
    assert 0 <= deaf.wait_ns(retry, drawn, asked_ns) <= deaf.backoff_ns(retry)
    assert honours.wait_ns(retry, drawn, asked_ns) == max(deaf.wait_ns(retry, drawn), asked_ns)
