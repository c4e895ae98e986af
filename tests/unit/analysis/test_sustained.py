"""Whether a service sustains an open loop, by queues of known capacity."""

import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.queueing import Queue, Run, served_ns
from support.synthetic import MS, START_NS, S, launch, samples

from pytest_mlpatterns.analysis.health.sustained import (
    Backlog,
    backlog_of,
    moves_ratios,
    spread_note,
    why_limited,
    why_not_sustained,
)
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.records.launch import GeneratorPart, GeneratorReport
from pytest_mlpatterns.records.samples import Window

_TRIALS = 150


def verdict(*runs: Run, rate_rps: float) -> str | None:
    backlogs = (backlog_of(run.samples, run.window, rate_rps) for run in runs)
    return why_not_sustained([backlog for backlog in backlogs if backlog is not None])


def share_found(
    queue: Queue, utilisation: float, *, window_s: float, warmup_s: float = 0.6, launches: int = 1
) -> float:
    """How often a load of this utilisation is found not to be sustained."""
    rng = np.random.default_rng(0)
    rate_rps = utilisation * queue.capacity_rps
    found = sum(
        verdict(*(queue.run(rate_rps, warmup_s, window_s, rng) for _ in range(launches)), rate_rps=rate_rps) is not None
        for _ in range(_TRIALS)
    )
    return found / _TRIALS


@pytest.mark.simulation
@each_row("window_s", [0.7, 3.0])
@each_row("utilisation", [0.5, 0.95])
@each_row(
    "queue", [Queue(50), Queue(400), Queue(400, service="M"), Queue(400, 4), Queue(50, arrivals="D", service="M")]
)
def test_a_load_below_the_capacity_is_sustained(queue: Queue, utilisation: float, window_s: float) -> None:
    assert share_found(queue, utilisation, window_s=window_s) <= 1 / _TRIALS


@pytest.mark.simulation
@each_row(
    ("queue", "utilisation"),
    (Queue(400), 1.1),
    (Queue(2000, service="M"), 1.1),
    (Queue(400, service="M"), 1.3),
    (Queue(400, 4), 1.1),
    (Queue(200, arrivals="D", service="G"), 1.1),
    (Queue(50, arrivals="D"), 1.1),
    (Queue(20, arrivals="D"), 1.25),
)
def test_a_load_above_the_capacity_is_found_in_three_seconds(queue: Queue, utilisation: float) -> None:
    assert share_found(queue, utilisation, window_s=3.0, warmup_s=3.0) > 0.99  # a warm-up of an overload is long


@pytest.mark.simulation
def test_several_short_launches_find_together_what_one_does_not() -> None:
    queue = Queue(1000, service="M")
    assert share_found(queue, 1.1, window_s=0.7) < 0.5
    assert share_found(queue, 1.1, window_s=0.7, launches=8) > 0.9


@pytest.mark.parametrize(
    ("rate_rps", "answers", "is_sustained"),
    [(10_000, 9_750, True), (10_000, 9_650, False), (100, 96, True), (100, 94, False)],
)
def test_a_load_is_not_sustained_if_three_per_cent_and_five_requests_stay_without_answer(
    rate_rps: int, answers: int, is_sustained: bool
) -> None:
    backlog = Backlog(float(rate_rps), S, rate_rps, answers, rate_rps - answers, 0.0, 0.0, saturated=False, degrees=50)
    assert (why_not_sustained([backlog]) is None) is is_sustained


@each_row("at_s", [1.5, 2.9, 3.7])
@each_row("length_s", [0.1, 0.3, 0.8])
def test_a_pause_of_the_service_is_no_overload(at_s: float, length_s: float) -> None:
    rng = np.random.default_rng(1)
    queue = Queue(250, arrivals="D", service="G")
    arrivals_ns = queue.arrivals_ns(200, 4 * S, rng)
    service_ns = queue.service_ns(arrivals_ns.size, rng)
    service_ns[np.searchsorted(arrivals_ns, int(at_s * S)) :][:1] += int(length_s * S)
    assert verdict(Run.of(arrivals_ns, service_ns, warmup_s=1.0, window_s=3.0), rate_rps=200) is None


@pytest.mark.simulation
def test_repeated_pauses_of_a_service_with_room_are_no_overload() -> None:
    rng = np.random.default_rng(1)
    queue = Queue(400, service="M")
    for _ in range(_TRIALS):
        arrivals_ns = queue.arrivals_ns(200, 4 * S, rng)
        service_ns = queue.service_ns(arrivals_ns.size, rng)
        service_ns[rng.random(arrivals_ns.size) < 0.01] += 80 * MS
        assert verdict(Run.of(arrivals_ns, service_ns, warmup_s=1.0, window_s=3.0), rate_rps=200) is None


def test_batches_that_end_together_are_no_overload_and_hide_none() -> None:
    def batches(rate_rps: float, batch_ns: int) -> Run:
        """Batches of 32 requests, one after another."""
        arrivals_ns = Queue(1, arrivals="D").arrivals_ns(rate_rps, 4 * S, np.random.default_rng(0))
        arrivals_ns = arrivals_ns[: arrivals_ns.size // 32 * 32]
        full_ns = arrivals_ns[31::32]
        done_ns = np.repeat(served_ns(full_ns, np.full(full_ns.size, batch_ns)), 32)
        return Run(samples(START_NS + arrivals_ns, done_ns - arrivals_ns), Window(START_NS + S, START_NS + 4 * S))

    assert verdict(batches(950, 32 * MS), rate_rps=950) is None
    assert verdict(batches(1100, 32 * MS), rate_rps=1100) is not None


def test_the_sentence_names_the_load_the_answers_and_what_was_left() -> None:
    run = Queue(180, arrivals="D").run(200, 1.0, 3.0, np.random.default_rng(0))
    assert verdict(run, rate_rps=200) == (
        "the service does not sustain 200 req/s: it answered 180 req/s, 80 requests were waiting at the end"
    )


def test_a_service_without_a_queue_that_takes_long_is_still_filling_and_not_overloaded() -> None:
    arrivals_ns = np.arange(0, 4 * S, 10 * MS)
    slow = Run(samples(START_NS + arrivals_ns, 2 * S), Window(START_NS + S, START_NS + 4 * S))
    assert verdict(slow, rate_rps=100) is None


def test_requests_that_the_generator_sent_late_are_no_backlog_of_the_service() -> None:
    arrivals_ns = np.arange(0, 4 * S, 5 * MS)
    late = samples(START_NS + arrivals_ns, 4 * MS + arrivals_ns // 5, lag_ns=arrivals_ns // 5)
    assert verdict(Run(late, Window(START_NS + S, START_NS + 4 * S)), rate_rps=200) is None


def test_metrics_judge_open_loops_of_one_rate_alone() -> None:
    run = Queue(180, arrivals="D").run(200, 1.0, 3.0, np.random.default_rng(0))
    overloaded = replace(launch(run.samples, start_ns=run.window.start_ns, open_loop=True), rate_rps=200.0)
    assert Metrics((overloaded,)).not_sustained is not None
    assert Metrics((replace(overloaded, rate_rps=None),)).not_sustained is None


def test_a_window_without_requests_is_not_judged() -> None:
    assert backlog_of(samples([], []), Window(0, S), 10.0) is None
    assert why_not_sustained([]) is None


PARTS = tuple(GeneratorPart(f"10.0.0.{number}", 1000, 0.5, 5000.0) for number in (2, 3, 4))
REPORT = GeneratorReport(
    cpu_ns=3 * S // 2, wall_ns=S, completed=3000, connections=3, ceiling_rps=5000.0, processes=3, parts=PARTS
)


def test_one_that_uses_most_of_a_core_is_the_limit_though_the_others_are_idle() -> None:
    parts = (PARTS[0], replace(PARTS[1], core_share=0.83), PARTS[2])
    said = why_limited(replace(REPORT, cpu_ns=S, parts=parts))
    assert said == "the load generator on node 10.0.0.3 used 83.0 % of a core and may itself be the limit"


@pytest.mark.parametrize(("completed", "limited"), [(10_400, False), (10_600, True)])
def test_all_together_are_held_to_the_sum_of_their_ceilings(completed: int, limited: bool) -> None:
    said = why_limited(replace(REPORT, completed=completed))
    assert (said is not None) is limited
    assert not limited or "did 10,600 req/s together, over 70.0 % of the 15,000 req/s that they reach" in str(said)


@each_row(
    ("late_ns", "error_ns", "said"),
    ((0, MS, 5 * MS), 2 * MS, None),
    ((MS, 2 * MS, 8 * MS), MS // 5, "began within 7.00 ms of each other (their clocks are known to ±200 µs)"),
    ((0, 0, 0), 3 * MS, "began within 0 ns of each other (their clocks are known to ±3.00 ms)"),
)
def test_a_note_says_how_far_apart_they_began(late_ns: tuple[int, ...], error_ns: int, said: str | None) -> None:
    parts = tuple(replace(part, opened_late_ns=late) for part, late in zip(PARTS, late_ns, strict=True))
    note = spread_note(replace(REPORT, parts=(replace(parts[0], clock_error_ns=error_ns), *parts[1:])))
    assert note == (None if said is None else f"the load generators {said}")
    assert spread_note(replace(REPORT, parts=(), opened_late_ns=S)) is None, "on this machine"


@each_row(
    ("lag_us", "late", "moves"),
    (1500, 2, False),  # the median of both sides, and the change between them, are what they are
    (1500, 25, True),
    (79, 100, False),
    (81, 100, True),
)
def test_requests_that_are_sent_late_on_both_sides_move_no_ratio_if_they_are_few(
    lag_us: int, late: int, moves: bool
) -> None:
    lag_ns = np.where(np.arange(100) < late, lag_us * 1000, 0)
    assert moves_ratios(lag_ns, 800_000.0) is moves
