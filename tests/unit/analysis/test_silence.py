"""A service that stops to answer is found in a closed loop too, and one that lost a request or is slow is not."""

import numpy as np
import pytest
from support.each_row import each_row
from support.synthetic import MS, START_NS, S, samples

from pytest_mlpatterns.analysis.health.sustained import Silence, silence_of
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.samples import Samples, Window

WINDOW = Window(START_NS, START_NS + 3 * S)
TIMEOUT_NS = 10 * S
LATENCY_NS = 5 * MS
TIMEOUT = Failure.TIMEOUT


def closed_loop(
    callers: int,
    *,
    hangs_at: dict[int, int] | None = None,
    outcome: int = Failure.TIMEOUT,
    think_ns: int = 0,
    latency_ns: int = LATENCY_NS,
    timeout_ns: int = TIMEOUT_NS,
) -> Samples:
    """Callers from half a second before the window on; ``hangs_at`` says from when on a caller gets no answer."""
    due, took, ended = [], [], []
    for caller in range(callers):
        now = WINDOW.start_ns - S // 2 + caller * MS
        silent_ns = WINDOW.start_ns + (hangs_at or {}).get(caller, 2**40)
        while now < WINDOW.end_ns:
            hangs = now >= silent_ns
            due.append(now)
            took.append(timeout_ns if hangs else latency_ns)
            ended.append(outcome if hangs else 200)
            now += took[-1] + think_ns
    return samples(due, took, outcome=ended, request=np.arange(len(due)) % 7)


def silence(of: Samples, think_ns: int | None = 0) -> Silence:
    return silence_of(of, WINDOW, think_ns=think_ns)


@each_row(
    ("callers", "hang", "at_ns", "outcome", "is_certain", "said"),
    *(
        (count, count, 2 * S, TIMEOUT, True, f"no answer since 2.00 s of the window: all {count} callers timed out")
        for count in (2, 4, 64)  # whatever share of the requests failed
    ),
    (4, 4, -100 * MS, TIMEOUT, True, "no answer in the whole window: all 4 callers timed out"),  # and none was due
    (1, 1, -100 * MS, TIMEOUT, True, "no answer in the whole window: the only caller timed out"),
    (4, 4, 0, TIMEOUT, True, "all 4 callers timed out"),  # they asked once
    (
        4,
        4,
        S,
        Failure.NOT_ENDED,
        True,
        "no response ended since 1.00 s of the window: all 4 callers got [DONE], and no",
    ),
    (1, 1, 2 * S, TIMEOUT, False, ""),  # the only caller may have met the one request that hangs
    (4, 1, S, TIMEOUT, False, "the service no longer answers: 1 last request without an answer (time-out: 1)"),
)
def test_a_service_that_answers_no_caller_any_more_is_certain(
    callers: int, hang: int, at_ns: int, outcome: Failure, is_certain: bool, said: str
) -> None:
    found = silence(closed_loop(callers, hangs_at=dict.fromkeys(range(hang), at_ns), outcome=outcome))
    assert (found.everyone, found.is_certain) == (hang == callers, is_certain)
    assert is_certain or found.is_suspected
    assert said in found.describe(WINDOW, TIMEOUT_NS)
    assert "after 10.0 s" in found.describe(WINDOW, TIMEOUT_NS) or "timed out" not in said
    assert not is_certain or found.failed == min(hang, found.requests)
    pause = silence(closed_loop(4, hangs_at=dict.fromkeys(range(4), 2950 * MS), timeout_ns=100 * MS))
    assert (pause.everyone, pause.is_certain, pause.is_suspected) == (True, False, True)


@each_row(
    "of",
    closed_loop(4),
    closed_loop(1),
    closed_loop(4, latency_ns=4 * S),
    closed_loop(4, think_ns=2 * S),
    samples(START_NS + np.arange(30) * 100 * MS, LATENCY_NS),
    samples([], []),
)
@each_row("think_ns", [0, 2 * S, None])
def test_answers_within_the_time_out_are_no_silence(of: Samples, think_ns: int | None) -> None:
    assert silence_of(of, WINDOW, think_ns=think_ns) is None


def test_a_request_that_hung_in_the_middle_of_the_window_is_none_and_any_status_is_an_answer() -> None:
    due = START_NS + np.arange(3000) * MS
    hung = np.where(np.arange(3000) == 100, Failure.TIMEOUT, 200)
    for outcome in (hung, 503):
        assert silence_of(samples(due, 2 * MS, outcome=outcome), WINDOW, think_ns=0) is None


def test_callers_that_pause_after_an_answer_have_not_asked_again() -> None:
    """One of four hangs; the others got an answer before the window ended, and pause beyond its end."""
    of = samples(
        [START_NS + S, *(START_NS + 2900 * MS + caller for caller in range(3))],
        [TIMEOUT_NS, MS, MS, MS],
        outcome=[Failure.TIMEOUT, 200, 200, 200],
    )
    assert not silence(of, think_ns=S).everyone
    assert silence(of, think_ns=0).everyone


@pytest.mark.parametrize("outcome", [Failure.CONNECT, Failure.CLOSED])
def test_a_service_that_is_gone_refuses_every_request(outcome: Failure) -> None:
    answered = START_NS + np.arange(2900) * MS
    refused = START_NS + 2900 * MS + np.arange(2) * 50 * MS
    of = samples([*answered, *refused], MS // 10, outcome=[200] * 2900 + [outcome] * 2)
    found = silence(of)
    assert (found.everyone, found.is_certain, found.is_suspected) == (True, False, True)
    assert found.describe(WINDOW, TIMEOUT_NS) == (
        f"no answer since 2.90 s of the window: every request failed ({outcome.label}: 2)"
    )


def test_where_nothing_succeeded_or_much_failed_their_number_says_it() -> None:
    never = silence(closed_loop(4, hangs_at=dict.fromkeys(range(4), -S), timeout_ns=500 * MS))
    assert (never.is_certain, never.is_suspected) == (False, False)
    closes = silence(closed_loop(2, hangs_at={0: S}, outcome=Failure.CLOSED, timeout_ns=20 * MS))
    assert (closes.is_certain, closes.is_suspected) == (False, False)


def test_an_open_loop_is_never_certain() -> None:
    due = START_NS + np.arange(300) * 10 * MS
    of = samples(due, np.where(np.arange(300) < 290, MS, TIMEOUT_NS), outcome=[200] * 290 + [Failure.TIMEOUT] * 10)
    found = silence(of, think_ns=None)
    assert (found.everyone, found.is_certain, found.is_suspected) == (False, False, True)


def test_the_request_and_the_address_of_one_more_are_those_of_the_last_answer_and_of_the_silent_server() -> None:
    found = silence(closed_loop(2, hangs_at={0: S, 1: S}))
    answered = closed_loop(2, hangs_at={0: S, 1: S})
    assert found.request == answered.request[answered.succeeded][-1]
    assert found.target == 0
