"""Paired launches of two sides that are declared: whose turn it is, what is sent, and what the ratios are."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.declared_side import DeclaredGenerator, declared_deployment
from support.each_row import each_row
from support.synthetic import MS, S, capacity

from pytest_mlpatterns import Deployment, GeneratorLimitError, InvalidResultError
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.measurement import interleaved
from pytest_mlpatterns.measurement.interleaved import InterleavedRun, Variant
from pytest_mlpatterns.measurement.paired_blocks import BlockDesign
from pytest_mlpatterns.records.launch import Capacity, SearchEnd
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.workload.input_order import InOrder
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, Schedule

PLAN = LoadPlan(read_payload(InOrder(list(range(7)))), ClosedLoop(2), 200 * MS, 0, 30 * S, None)
FIRST, SECOND = 1, 2
ALONE = ClosedLoop(1)
"""One caller, whose answers are short enough for slices."""


class Sides:
    """Two sides of 10 ms and 20 ms, and what was done with them; ``busy`` are samples of the first with neighbours."""

    def __init__(self, busy: Sequence[int] = (), start_ns: int | None = 5) -> None:
        self.events: list[str] = []
        self._busy = busy
        self._start_ns = start_ns

    def of(self, port: int, plan: LoadPlan) -> Variant:
        def start() -> Deployment:
            found = declared_deployment(port=port, events=self.events, busy=self._busy if port == FIRST else ())
            found.cold_start_ns = self._start_ns and self._start_ns * port
            return found

        return Variant(f"side {port}", start, plan)

    def run(self, generator: Generator, schedule: Schedule = PLAN.schedule, **how: Any) -> InterleavedRun:
        plan = replace(PLAN, schedule=schedule)
        sides = self.of(FIRST, plan), self.of(SECOND, plan)
        return InterleavedRun(*sides, generator, on_progress=lambda _: None, **how)


def generator_of(kind: type[DeclaredGenerator] = DeclaredGenerator) -> DeclaredGenerator:
    return kind(latency_ms={FIRST: 10, SECOND: 20})


def first_inputs(jobs: Sequence[LoadJob]) -> list[int]:
    return [int(np.frombuffer(job.order, dtype=np.uint32)[0]) for job in jobs]


def test_sides_take_turns_with_the_same_inputs_and_the_other_begins_the_next_launch() -> None:
    generator, sides, told = generator_of(), Sides(), []
    run = sides.run(generator)
    run.watch(lambda: told.append(len(run.launches)))
    for _ in range(2):
        run.measure(60 * S, 1)
    one = [FIRST, SECOND, *[FIRST, SECOND, SECOND, FIRST] * 2]
    assert generator.ports == [*one, *(FIRST + SECOND - port for port in one)]
    assert sorted(sides.events) == ["close 1", "close 1", "close 2", "close 2"]
    assert told == [1, 2]
    blocks = generator.jobs[2:10]  # of 20 answers, or of 10 in the same time
    lengths_ms = [job.duration_ns // MS for job in blocks]
    assert lengths_ms == [100, 200, 200, 100] * 2
    assert first_inputs(blocks) == [0, 0, 6, 6, 5, 5, 4, 4]  # each pair goes on where the longer of the last one ended
    for paired, second_began in zip(run.launches, (False, True), strict=True):
        ratios = [math.exp(one.value) for one in (paired.rtm, paired.latency_mean, paired.cpu_per_request)]
        assert ratios == pytest.approx([2, 2, 1])  # it uses as much, and answers as many in twice the time
        assert math.exp(paired.throughput.value) == pytest.approx(0.5, rel=0.1)
        assert (paired.pairs, paired.disturbed, paired.repeated, paired.second_began) == (4, 0, 0, second_began)
        assert (paired.first.rtm_ns, paired.second.rtm_ns) == (10 * MS, 20 * MS)
    medians = [
        [np.median(one.samples.latency_ns) / MS for one in launches]
        for launches in (run.first_launches, run.second_launches)
    ]
    assert medians == [[10, 10], [20, 20]]
    assert run.spent_s > 0


def test_two_plain_loads_are_measured_in_slices_of_the_same_time() -> None:
    generator = generator_of()
    run = Sides().run(generator, ALONE)
    run.measure(60 * S, 1)
    blocks = generator.jobs[2:]
    assert [(job.endpoint.port, job.beside.endpoint.port) for job in blocks] == [(1, 2), (2, 1)] * 2
    assert {job.slices for job in blocks} == {20}
    assert [(job.duration_ns // MS, job.beside.duration_ns // MS) for job in blocks] == [(5, 10), (10, 5)] * 2
    assert first_inputs(blocks) == first_inputs([job.beside for job in blocks])
    (paired,) = run.launches
    assert math.exp(paired.rtm.value) == pytest.approx(2)
    assert (paired.pairs, paired.first.requests) == (4, 80)


@each_row(
    ("schedule", "more"),
    (ConstantRate(100), {}),
    (ClosedLoop(1, think_time="1ms"), {}),
    (ALONE, {"generators": 2}),
)
def test_other_loads_follow_each_other(schedule: Schedule, more: dict[str, Any]) -> None:
    generator, plan = generator_of(), replace(PLAN, schedule=schedule, **more)
    sides = Sides().of(FIRST, plan), Sides().of(SECOND, plan)
    InterleavedRun(*sides, generator, on_progress=lambda _: None).measure(60 * S, 1)
    assert all(job.beside is None for job in generator.jobs)


@each_row(("spoilt", "jobs_ms", "said"), (1, [5, 10, 5], ""), (9, [5, 10, 20, 40, 80], "side 1: in 5 turns in a row"))
def test_a_pair_of_slices_that_shows_nothing_of_one_side_is_measured_again(
    spoilt: int, jobs_ms: list[int], said: str
) -> None:
    """Nothing was due in it, so that side's slices get longer; the other side's do not."""

    class Spoiling(DeclaredGenerator):
        def run(self, job: LoadJob, **how: Any) -> LoadResult:
            result = super().run(job, **how)
            is_spoilt = 2 < len(self.jobs) <= 2 + spoilt
            return replace(result, window=Window(0, 1), slices=()) if is_spoilt else result

    generator = generator_of(Spoiling)
    run = Sides().run(generator, ALONE, design=BlockDesign(rounds=1, most_rounds=1))
    if said:
        with pytest.raises(InvalidResultError, match=said):
            run.measure(60 * S, 1)
    else:
        run.measure(60 * S, 1)
        assert (run.launches[0].repeated, run.launches[0].pairs) == (1, 2)
    lengths = {1: [], 2: []}
    for one in (one for job in generator.jobs[2:] for one in (job, job.beside)):
        lengths[one.endpoint.port].append(one.duration_ns // MS)
    assert lengths == {1: jobs_ms, 2: [10] * len(jobs_ms)}


@each_row(
    ("late_ms", "turns", "late"),
    (0.9, 1, ""),
    (3, 5, "the load generator was behind its schedule: 1 % of the requests were sent over 3.00 ms late"),
)
def test_blocks_whose_requests_are_late_in_each_turn_count_and_say_so(late_ms: float, turns: int, late: str) -> None:
    """The first block of a side has five turns, and the next one: on such a machine it would be late again."""
    generator = generator_of()
    generator.late_ns = round(late_ms * MS)
    run = Sides().run(generator, ConstantRate(100), design=BlockDesign(rounds=1, most_rounds=1))
    run.measure(60 * S, 1)
    (paired,) = run.launches
    assert str(paired.late or "").partition(", allowed")[0] == late
    _, _, *blocks = generator.ports
    assert blocks == [FIRST] * turns + [SECOND] * turns + [SECOND, FIRST]


@each_row(("quiet", "pairs"), (0, 4), (1, 8), (3, 6), (4, 4))
def test_a_launch_whose_pairs_were_disturbed_has_further_ones(quiet: int, pairs: int) -> None:
    """``quiet``: of the first four pairs; after them no neighbour is busy if more than one was."""
    per_block = 3  # samples
    last = 4 if quiet != 1 else 99
    busy = [2 + per_block * block + sample for block in range(quiet, last) for sample in (1, 2, 3)]
    run = Sides(busy).run(generator_of())
    run.measure(60 * S, 1)
    (paired,) = run.launches
    assert paired.pairs == pairs


@each_row(("start_ns", "known"), (5, [5, 10]), (None, []))
def test_starts_are_noted_if_both_are_known(start_ns: int | None, known: list[int]) -> None:
    sides, seen = Sides(start_ns=start_ns), []
    run = sides.run(generator_of(), look=lambda *both: seen.append([one.endpoint.port for one in both]))
    assert run.start_ns == math.inf
    run.measure(60 * S, 1)
    assert run.start_ns == (10 if known else math.inf)
    run.start_again()
    run.start_again()
    assert [*run.first_starts_ns, *run.second_starts_ns] == [one for one in known for _ in range(2)]
    assert run.start_ns == (10 if known else math.inf)
    assert len(sides.events) == 6
    assert seen == [[FIRST, SECOND]]


@each_row(("schedule", "in_flight"), (ClosedLoop(3), 3), (ConstantRate(9), None))
def test_a_run_names_its_sides_and_what_is_in_flight(schedule: Schedule, in_flight: int | None) -> None:
    run = Sides().run(generator_of(), schedule, design=BlockDesign(beyond_ns=7))
    assert (run.names, run.in_flight, run.beyond_ns) == (("side 1", "side 2"), in_flight, 7)


def searching(found: Callable[[int], Capacity], budgets: list[int]) -> Any:
    """A runner whose searches find this by the port of the service."""

    class Runner:
        def __init__(self, start: Callable[[], Deployment], *_: Any, **__: Any) -> None:
            self.deployment = start()

        def search(self, _decided: Any, _objective: Any, budget_ns: int) -> Capacity:
            budgets.append(budget_ns // S)
            return found(self.deployment.endpoint.port)

        def close(self) -> None:
            self.deployment.close()

    return Runner


def test_both_capacities_are_searched_for_in_turn_within_a_quarter_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[int] = []
    monkeypatch.setattr(interleaved, "LaunchRunner", searching(lambda port: capacity(400.0 / port), budgets))
    sides, seen = Sides(), []
    run = sides.run(
        generator_of(),
        design=BlockDesign(beyond_ns=20 * S, least_ns=2 * S),
        look=lambda *both: seen.append([one.endpoint.port for one in both]),
    )
    run.search(60 * S)
    run.search(0)
    assert budgets == [10, 10, 2, 2]
    for found in run.capacities:
        assert (found.first.nmrt.value, found.second.nmrt.value) == (400, 200)
        assert math.exp(found.nmrt.value) == pytest.approx(0.5)
        assert found.nmrt.error == pytest.approx(math.hypot(0.01, 0.01))
    assert sides.events == ["close 2", "close 1", "close 1", "close 2"]  # who began ends last
    assert seen == [[FIRST, SECOND]]


@each_row(
    ("found", "error"),
    (capacity(400.0, at_least=True), InvalidResultError),
    (capacity(0.0), InvalidResultError),
    (replace(capacity(400.0, at_least=True), end=SearchEnd.GENERATOR), GeneratorLimitError),
)
def test_a_capacity_that_is_not_known_has_no_ratio(
    found: Capacity, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaved, "LaunchRunner", searching(lambda _: found, []))
    sides = Sides()
    run = sides.run(generator_of())
    with pytest.raises(
        error, match=r"side 1: capacity \(NMRT\) is at least .*, but not known: two doublings"
    ) as raised:
        run.search(60 * S)
    assert type(raised.value) is error
    assert len(sides.events) == 2
    assert run.capacities == []


@each_row("generators", [1, 2])
def test_slow_sides_answer_the_same_requests_in_each_launch_unless_generators_share_them(generators: int) -> None:
    generator = DeclaredGenerator(latency_ms={FIRST: 100, SECOND: 200})
    plan = replace(PLAN, generators=generators)
    run = InterleavedRun(Sides().of(FIRST, plan), Sides().of(SECOND, plan), generator, on_progress=lambda _: None)
    run.measure(60 * S, 1)
    run.measure(10 * S, 1)  # has the blocks of the first
    first, second = generator.jobs[:6], generator.jobs[6:]
    for warm, *blocks in (first[1:], second[1:]):
        if generators == 2:
            assert {job.window for job in (warm, *blocks)} == {None}
            continue
        assert (warm.window.requests, warm.window.least_ns) == (4, 100 * MS)  # two answers to each caller
        for job in blocks:
            assert (job.window.requests, job.window.longest_ns) == (28, 3 * job.duration_ns)  # whole rounds
            assert (job.duration_ns, job.stagger_ns) == (2800 * MS, 18.75 * MS)
