"""The phases of a load, without a loop: the moments are declared."""

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.services.jobs import MS, a_job, window_of

from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.load_run import LoadRun
from pytest_mlpatterns.loadgen.messages import Event, Share, Warm, WindowOpened
from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.own_client import ClientWire
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, Schedule, Stages

RAMP = Stages((("100ms", 100),), start=100)
START_NS, OPEN_NS = 1_000 * MS, 1_200 * MS


def warm(schedule: Schedule) -> tuple[LoadRun, list[int | None], list[Event]]:
    """The first of two generators, warmed up and waiting for its window; the due times that it sent, and its events."""
    sent: list[int | None] = []
    events: list[Event] = []
    length_ns = schedule.length_ns or 100 * MS
    job = a_job([("127.0.0.1", 1)], schedule, duration_ns=length_ns, warmup_ns=50 * MS, share=Share(0, 2))
    run = LoadRun(job, lambda _request, due_ns: sent.append(due_ns), events.append)
    run.start(START_NS)
    run.tick(START_NS + 60 * MS, 1, limit_reached=False)
    assert events == [Warm()]
    run.open_at(OPEN_NS)
    sent.clear()
    return run, sent, events


@pytest.mark.parametrize("late_ns", [0, 3 * MS])
def test_a_late_loop_opens_its_window_at_the_agreed_time_and_says_how_late(late_ns: int) -> None:
    run, sent, events = warm(RAMP)
    run.send_due(OPEN_NS - 1)
    assert sent == []
    run.send_due(OPEN_NS + late_ns)
    assert events[1:] == [WindowOpened(OPEN_NS)]
    assert sent == [OPEN_NS]
    run.tick(OPEN_NS + 200 * MS, 1, limit_reached=False)
    assert run.result().generator.opened_late_ns == late_ns


def test_an_answer_after_the_agreed_time_makes_no_request_of_the_warm_up_due() -> None:
    """Its due time would lie in the window, although the schedule does not have it."""
    run, _, _ = warm(RAMP)
    assert run.answered(START_NS, OPEN_NS - 1, failed=False)
    assert not run.answered(START_NS, OPEN_NS, failed=False)


def test_a_request_that_an_answer_just_before_the_agreed_time_makes_due_is_of_the_warm_up() -> None:
    """It is sent some microseconds later, which may be in the window, whose schedule does not have it."""
    run, _, _ = warm(RAMP)
    run.answered(START_NS, OPEN_NS - 1, failed=False)
    assert run.due_after_answer_ns == OPEN_NS - 1
    run.send_due(OPEN_NS)
    run.answered(OPEN_NS, OPEN_NS + MS, failed=False)
    assert run.due_after_answer_ns is None


def test_the_callers_of_a_closed_loop_go_on_through_the_opening() -> None:
    run, _, _ = warm(ClosedLoop(4))
    assert run.answered(START_NS, OPEN_NS, failed=False)


def test_a_rate_begins_its_clock_anew_with_the_window() -> None:
    run, sent, _ = warm(ConstantRate(200))
    run.send_due(OPEN_NS)
    run.send_due(OPEN_NS + 30 * MS)
    assert sent == [OPEN_NS, OPEN_NS + 10 * MS, OPEN_NS + 20 * MS, OPEN_NS + 30 * MS]


def test_waits_for_connections_count_from_when_the_window_opens() -> None:
    run, _, _ = warm(RAMP)
    run.waited_ns.append(9 * MS)
    run.sent_again_ns.append(START_NS)
    run.send_due(OPEN_NS)
    run.waited_ns.extend((2 * MS, 3 * MS))
    run.sent_again_ns.append(OPEN_NS)
    run.tick(OPEN_NS + 200 * MS, 1, limit_reached=True)
    report = run.result().generator
    assert (report.connection_wait_ns, report.connection_waits, report.sent_again) == (5 * MS, 2, 1)


def sharing(schedule: Schedule, number: int) -> tuple[LoadRun, list[Event]]:
    """A generator of two whose load decides when it is warm, at its first tick; and its events."""
    events: list[Event] = []
    job = a_job(
        [("127.0.0.1", 1)],
        schedule,  # type: ignore[arg-type]
        warmup_ns=None,
        share=Share(number, 2),
    )
    run = LoadRun(job, lambda _request, _due_ns: None, events.append)
    run.start(START_NS)
    run.tick(START_NS + 50 * MS, 0, limit_reached=False)
    return run, events


@pytest.mark.parametrize(
    "schedule", [RAMP, Stages((("100ms", 4),), of="concurrency"), ClosedLoop(1)], ids=["stages", "levels", "one-caller"]
)
def test_a_generator_that_has_no_callers_in_the_warm_up_is_warm_at_once(schedule: Schedule) -> None:
    run, events = sharing(schedule, 1)
    assert events == [Warm()]
    run.open_at(OPEN_NS)
    run.send_due(OPEN_NS)
    assert events[1:] == [WindowOpened(OPEN_NS)]
    run.tick(OPEN_NS + 600_000 * MS, 0, limit_reached=False)
    assert run.result().warmup.steady, "it would make the load of all unsteady"


@pytest.mark.parametrize(
    ("schedule", "number"),
    [(RAMP, 0), (ClosedLoop(1), 0), (ClosedLoop(2), 1), (ConstantRate(1), 1)],
    ids=["stages", "first", "two-callers", "rate"],
)
def test_any_other_generator_waits_for_answers(schedule: Schedule, number: int) -> None:
    assert sharing(schedule, number)[1] == []


@each_row(("of", "chunks", "streams"), [(1, [], False), (1, [START_NS], True), (2, [], True)])
def test_answers_of_a_client_are_streams_if_one_came_in_chunks(of: int, chunks: list[int], streams: bool) -> None:
    """A part of a shared load has the columns anyway, which the other parts may need."""
    job = a_job([("127.0.0.1", 1)], ClosedLoop(1), stream=True, share=Share(0, of), window=window_of(1))
    run = LoadRun(
        replace(job, endpoint=Endpoint((("127.0.0.1", 0),), wire=ClientWire(name="own"))),
        lambda *_: None,
        lambda _: None,
    )
    run.start(START_NS)
    answer = StreamedAnswer()
    answer.chunk_ns.extend(chunks)
    run.recording.adder_of(answer)(START_NS, START_NS, START_NS, 200, 0, 0, 0)
    run.open_at(START_NS)
    run.stop_early = True
    run.tick(OPEN_NS, 1, limit_reached=False)
    result = run.result()
    assert (samples_of(result).stream is not None) == streams
    assert (result.generator.client, result.generator.cpu_ns) == ("own", 0), "this process is the deployment"
