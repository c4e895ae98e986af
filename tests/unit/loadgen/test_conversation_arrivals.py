"""The requests of a conversation follow each other in order, each when the answer before was thought about."""

from array import array

import numpy as np
import pytest
from support.services.jobs import MS, a_job
from support.services.scripted import ScriptedServer, Send, answer

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS, ConversationArrivals, arrivals_of
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.load_run import LoadRun
from pytest_mlpatterns.loadgen.messages import Share
from pytest_mlpatterns.loadgen.recorder import SampleRecorder
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, Schedule, Stages

THINK = array("q", [20 * MS, 0, -1, -1, -1]).tobytes()
"""Requests 0, 1 and 2 are one conversation, 3 and 4 one of one turn each."""
STARTS = array("I", [0, 3, 4]).tobytes()


class Load:
    """A load with conversations, without a server."""

    def __init__(self, schedule: Schedule) -> None:
        self.sent: list[tuple[int, int | None]] = []
        self._starts = iter([0, 3, 4, 0])
        self._recording = SampleRecorder()
        self.arrivals = ConversationArrivals(THINK, lambda *sent: self.sent.append(sent), self._recording)
        self.arrivals.begun_by(arrivals_of(schedule, lambda due: self.sent.append((next(self._starts), due)), Share()))
        self.arrivals.start(0)

    def answered(self, request: int, now_ns: int, outcome: int = 200) -> bool:
        self._recording.add(0, 0, now_ns, outcome, request, 0, 0)
        return self.arrivals.answered(now_ns, failed=outcome < 0)


def test_the_next_turn_is_due_when_the_thinking_after_the_answer_is_over() -> None:
    load = Load(ClosedLoop(1))
    assert load.sent == [(0, None)]
    assert not load.answered(0, 5 * MS)
    assert load.arrivals.next_due_ns == 25 * MS
    load.arrivals.send_due(24 * MS)
    assert len(load.sent) == 1
    load.arrivals.send_due(26 * MS)
    assert load.sent[1:] == [(1, 25 * MS)]
    assert not load.answered(1, 30 * MS)
    load.arrivals.send_due(30 * MS)
    assert load.sent[2:] == [(2, None)]  # at once: no thinking is due by a clock
    assert load.arrivals.next_due_ns == NEVER_NS


@pytest.mark.parametrize(("request_", "outcome"), [(2, 200), (3, 200), (0, 500)], ids=["last", "only", "refused"])
def test_the_caller_begins_another_conversation_when_one_ends(request_: int, outcome: int) -> None:
    assert Load(ClosedLoop(1)).answered(request_, 5 * MS, outcome)


def test_a_caller_whose_connection_failed_rests_first() -> None:
    load = Load(ClosedLoop(1))
    assert not load.answered(0, 5 * MS, -1)
    load.arrivals.tick(50 * MS)
    assert load.sent[1:] == [(3, None)]


def test_an_arrival_of_an_open_loop_begins_a_conversation() -> None:
    load = Load(ConstantRate(100))
    load.arrivals.send_due(0)
    load.answered(0, 5 * MS)
    load.arrivals.send_due(20 * MS)
    assert load.sent == [(0, 0), (3, 10 * MS), (4, 20 * MS)]
    load.arrivals.send_due(25 * MS)
    assert load.sent[3:] == [(1, 25 * MS)]


def test_nothing_goes_on_after_the_end() -> None:
    load = Load(ClosedLoop(1))
    load.answered(0, 5 * MS)
    load.arrivals.finish()
    assert load.arrivals.next_due_ns == NEVER_NS
    load.arrivals.send_due(100 * MS)
    assert len(load.sent) == 1


def test_a_caller_goes_through_one_conversation_after_the_other() -> None:
    with ScriptedServer(lambda _request: [Send(answer())]) as server:
        job = a_job([server.address], ClosedLoop(1), think_ns=array("q", [MS, 0, -1, -1, -1]).tobytes(), order=STARTS)
        samples = samples_of(LoadLoop(job, lambda _: None).run())
    count = samples.request.size
    assert samples.request.tolist() == ([0, 1, 2, 3, 4] * count)[:count]
    thought_ns = (samples.due_ns[1:] - samples.done_ns[:-1])[samples.request[:-1] == 0]
    assert (thought_ns == MS).all()


def test_several_callers_keep_every_turn_after_the_answer_to_the_one_before() -> None:
    with ScriptedServer(lambda _request: [Send(answer())]) as server:
        job = a_job([server.address], ClosedLoop(3), think_ns=THINK, order=STARTS)
        samples = samples_of(LoadLoop(job, lambda _: None).run())
    begun, ended = np.sort(samples.sent_ns[samples.request == 1]), np.sort(samples.done_ns[samples.request == 0])
    assert (begun >= ended[: begun.size] + 20 * MS).all()


def run_of(schedule: Schedule, share: Share) -> tuple[LoadRun, list[tuple[int, int | None]]]:
    sent: list[tuple[int, int | None]] = []
    job = a_job([("127.0.0.1", 1)], schedule, think_ns=THINK, order=STARTS, share=share, warmup_ns=50 * MS)
    run = LoadRun(job, lambda *one: sent.append(one), lambda _: None)
    run.start(0)
    return run, sent


def answer_to(run: LoadRun, request: int, due_ns: int, now_ns: int) -> bool:
    run.recording.add(due_ns, due_ns, now_ns, 200, request, 0, 0)
    return run.answered(due_ns, now_ns, failed=False)


def test_conversations_of_a_shared_open_loop_go_on_when_its_window_opens() -> None:
    run, sent = run_of(ConstantRate(10), Share(0, 2))
    run.send_due(0)
    run.open_at(10 * MS)
    run.send_due(10 * MS)
    answer_to(run, 0, 0, 12 * MS)
    run.send_due(32 * MS)
    assert sent == [(0, 0), (4, 10 * MS), (1, 32 * MS)]  # the other generator begins number 3


def test_the_conversation_of_the_warm_up_of_stages_does_not_go_on() -> None:
    run, sent = run_of(Stages((("0s", 100), ("1s", 100))), Share())
    assert sent == [(0, None)]
    run.tick(50 * MS, 1, limit_reached=False)
    answer_to(run, 0, 0, 51 * MS)
    run.send_due(71 * MS)
    assert 1 not in [request for request, _ in sent]
