"""Launches over a generator whose answers are declared: their windows, their ends, and what follows on the service."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.declared_side import DeclaredGenerator, DeclaredMonitor, declared_deployment
from support.each_row import each_row
from support.synthetic import MS, S

from pytest_mlpatterns import Deployment, DeploymentError, InvalidResultError
from pytest_mlpatterns.analysis.capacity.overload import OverloadPlan
from pytest_mlpatterns.loadgen.generator import LoadInterrupted
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.measurement import further_load, last_answer
from pytest_mlpatterns.measurement.held_memory import held_under_load
from pytest_mlpatterns.measurement.launch import Interrupted, LaunchRunner
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.records.launch import Usage
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.samples import HELD_LAYER, ResourceTrack, Window
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats
from pytest_mlpatterns.workload.input_order import InOrder
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, Schedule
from pytest_mlpatterns.workload.window_plan import RequestWindow

PLAN = LoadPlan(read_payload(InOrder(list(range(7)))), ClosedLoop(2), 200 * MS, 0, 30 * S, None)
Start = Callable[[], Deployment]


def runner_of(
    generator: DeclaredGenerator, plan: LoadPlan = PLAN, start: Start = declared_deployment, **how: Any
) -> LaunchRunner:
    return LaunchRunner(start, plan, generator, on_progress=lambda _: None, **how)


def lengths_ms(generator: DeclaredGenerator) -> list[int]:
    return [job.duration_ns // MS for job in generator.jobs]


@each_row(
    ("latency_ms", "stretches", "lengths", "given_ms"),
    (10, True, [200, 200], None),
    (100, False, [200, 200], None),
    (100, True, [200, 1200, 1200], None),  # four requests, so six times as long for twenty, and a fifth of it
    (400, False, [200, 200], None),
    (400, True, [200, 3000, 3000], 200),  # the longest; and a request is longer than what was given
)
def test_a_window_of_few_requests_is_measured_again_if_it_may_stretch_and_keeps_that_length(
    latency_ms: int, stretches: bool, lengths: list[int], given_ms: int | None
) -> None:
    generator = DeclaredGenerator(latency_ms={9: latency_ms})
    runner = runner_of(generator, replace(PLAN, stretches=stretches))
    found = [runner.measure(), runner.measure()]
    assert lengths_ms(generator) == lengths
    assert [one.given_window_ns for one in found] == [given_ms and given_ms * MS] * 2
    assert {one.window.duration_ns // MS for one in found} == {lengths[-1]}


class Early(DeclaredGenerator):
    """The requests of its first load were all due before the window."""

    def run(self, job: LoadJob, **how: Any) -> LoadResult:
        result = super().run(job, **how)
        window = Window(result.window.end_ns, result.window.end_ns + job.duration_ns)
        return replace(result, window=window) if len(self.jobs) == 1 else result


@each_row(
    ("schedule", "latency_ms", "budget_s", "lengths"),
    (ClosedLoop(2), 400, 5.0, [200, 880]),  # a request in flight, another one, and a tenth
    (ClosedLoop(2), 400, 0.88, [200, 880]),
    (ClosedLoop(2), 400, 0.8, [200]),  # the budget is too small for it
    (ClosedLoop(2), 50, 5.0, [200]),  # the requests did not cause it
    (ConstantRate(5), 400, 5.0, [200]),
)
def test_a_window_without_a_request_gets_the_time_of_one_if_the_callers_cause_it(
    schedule: Schedule, latency_ms: int, budget_s: float, lengths: list[int]
) -> None:
    generator = Early(latency_ms={9: latency_ms})
    runner_of(generator, replace(PLAN, schedule=schedule, budget_ns=round(budget_s * S))).measure()
    assert lengths_ms(generator) == lengths


@each_row("planned", [None, RequestWindow(30, 0, 900 * S)])
def test_the_first_launch_plans_the_window_and_the_next_ones_keep_that_of_a_slow_service(
    planned: RequestWindow | None,
) -> None:
    class Planning(DeclaredGenerator):
        def run(self, job: LoadJob, **how: Any) -> LoadResult:
            return replace(super().run(job, **how), planned=planned)

    generator = Planning(latency_ms={9: 100})
    runner = runner_of(generator, replace(PLAN, budget_ns=20 * S, stretches=planned is not None))
    runner.want_requests(459, decides_alone=True)
    runner.measure()
    runner.measure()
    first, second = (job.window for job in generator.jobs)
    assert (first.enough, first.decides_alone, first.round, first.budget_ns) == (459, True, 7, 20 * S)
    assert second == planned


def test_a_window_of_requests_is_as_long_as_they_take() -> None:
    generator = DeclaredGenerator()
    found = runner_of(generator, replace(PLAN, requests=40)).measure()
    assert (generator.jobs[0].window.requests, found.requests) == (40, 40)
    assert found.window.duration_ns == 205 * MS  # the last one was due after 195 ms


@each_row(
    ("warmup_ns", "when", "said"),
    (None, 0, "in the warm-up"),
    (0, 0, "in the window"),
    (None, 1, "in the window"),
    (None, 2, "after 40 answers"),
)
def test_the_end_of_a_process_under_load_says_how_far_the_load_was(warmup_ns: int | None, when: int, said: str) -> None:
    """``when``: before the window, in it, or after the load."""

    class Ending(DeclaredGenerator):
        def run(self, job: LoadJob, **how: Any) -> LoadResult:
            if not when:
                raise DeploymentError("it ended")
            result = super().run(job, **how)
            if when == 1:
                raise DeploymentError("it ended")
            return result

    asked: list[int] = []

    def stats() -> PatternStats:
        asked.append(0)
        if len(asked) == when == 2:
            raise DeploymentError("it ended")
        return PatternStats()

    plan = replace(PLAN, warmup_ns=warmup_ns)
    with pytest.raises(DeploymentError, match=f"(?s)it ended.*this happened under load, {said}"):
        runner_of(Ending(), plan, lambda: declared_deployment(stats=stats)).measure()


@each_row(("opens", "lives", "kept"), (True, True, 40), (False, True, None), (True, False, None))
def test_ctrl_c_keeps_the_requests_of_a_window_if_there_was_one(opens: bool, lives: bool, kept: int | None) -> None:
    class Stopped(DeclaredGenerator):
        def run(self, job: LoadJob, **how: Any) -> LoadResult:
            result = replace(super().run(job, **how), stopped_early=True)
            raise LoadInterrupted(result if opens else replace(result, window=Window(7, 7)))

    asked: list[int] = []

    def stats() -> PatternStats:
        asked.append(0)
        if not lives and len(asked) > 1:
            raise DeploymentError("it ended")
        return PatternStats()

    with pytest.raises(KeyboardInterrupt) as raised:
        runner_of(Stopped(), start=lambda: declared_deployment(stats=stats)).measure()
    launch = raised.value.launch if isinstance(raised.value, Interrupted) else None
    assert (launch and launch.samples.outcome.size) == kept


def test_a_check_needs_answers_unless_the_failures_are_what_is_wrong() -> None:
    plan = replace(PLAN, check=lambda _inputs, _outputs: True)
    with pytest.raises(InvalidResultError, match="check= has no successful answer to check"):
        runner_of(DeclaredGenerator(), plan).measure()
    assert runner_of(DeclaredGenerator(outcome=503), plan).measure().first_failure is not None


class TestAfterALaunch:
    """Searches and further loads go to the deployment that runs, and the next launch to a new one."""

    def runner(self, generator: DeclaredGenerator, plan: LoadPlan = PLAN, **how: Any) -> LaunchRunner:
        self.started: list[Deployment] = []

        def start() -> Deployment:
            self.started.append(declared_deployment(**how))
            return self.started[-1]

        return runner_of(generator, plan, start)

    @each_row(("during", "deployments"), (None, 1), (lambda _: None, 2))
    def test_a_search_needs_a_new_one_only_if_a_function_beside_the_load_may_have_changed_it(
        self, during: Any, deployments: int
    ) -> None:
        generator = DeclaredGenerator()
        runner = self.runner(generator, replace(PLAN, during=during, check=None))
        assert runner.log_tail() == ""
        runner.measure()
        found = runner.search(lambda _: False, None, 60 * S)
        assert found.nmrt.value == pytest.approx(200, rel=0.05)
        assert len(self.started) == deployments
        callers = [job.schedule.concurrency for job in generator.jobs[1:]]
        assert callers[:2] == [1, 2]
        assert runner.deployment is self.started[-1]

    def test_a_search_whose_last_load_got_no_answer_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(last_answer, "_RETRY_S", 0.01)

        class Dying(DeclaredGenerator):
            def run(self, job: LoadJob, **how: Any) -> LoadResult:
                self._outcome = 200 if len(self.jobs) < 2 else Failure.TIMEOUT
                return super().run(job, **how)

        runner = self.runner(Dying(), replace(PLAN, timeout_ns=1))
        with pytest.raises(InvalidResultError, match="in the search for the capacity no answer in the whole window"):
            runner.search(lambda _: False, None, 60 * S)

    def test_an_overload_is_offered_to_the_deployment_that_runs(self) -> None:
        generator = DeclaredGenerator()
        runner = self.runner(generator)
        loads = runner.offer_overload(OverloadPlan((1.5, 2.0), step_s=0.2, watched_s=0.4), 100.0)
        assert [one.load_ratio for one in loads] == [1.5, 2.0]
        assert [one.window.duration_ns for one in loads] == [200 * MS] * 2
        assert len(self.started) == 1

    def test_a_process_that_ended_under_an_overload_is_told(self) -> None:
        def stats() -> PatternStats:
            raise DeploymentError("it ended")

        runner = self.runner(DeclaredGenerator(), stats=stats)
        with pytest.raises(DeploymentError, match="it ended"):
            runner.offer_overload(OverloadPlan((1.5, 2.0), step_s=0.2, watched_s=0.4), 100.0)


class Growing(DeclaredMonitor):
    """What a service holds that gains some bytes with each second of load."""

    def __init__(self, generator: DeclaredGenerator, bytes_per_s: float | None) -> None:
        super().__init__()
        self._generator, self._bytes_per_s = generator, bytes_per_s
        self._at: list[int] = []

    def sample(self, *, poll: bool = False) -> None:
        self._at.append(self._generator.now_ns)

    def usage(self) -> Usage | None:
        if self._bytes_per_s is None:
            return None
        at = np.array(self._at)
        none = 0 * at
        held = (at - at[0]) / S * self._bytes_per_s
        return Usage(at, none, held.astype(np.int64), none, none, none, none, none, cores=2, machine_cores=2)


@each_row(
    ("bytes_per_s", "decided_at_s", "lengths", "is_whole"),
    (1000.0, 99, [500, 500, 1500], True),
    (1000.0, 0.4, [500], False),
    (1000.0, 0.9, [500, 500], False),
    (-1000.0, 99, [500, 500, 1500], True),
    (600.0e6, 99, [500, 500], False),  # 0.9 GB in the rest are more than a quarter of what is free then
    (None, 0, [500], False),
)
def test_a_growth_is_followed_in_pieces_until_it_is_decided_or_takes_too_much_memory(
    bytes_per_s: float | None,
    decided_at_s: float,
    lengths: list[int],
    is_whole: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = DeclaredGenerator()
    free = iter([8 * 10**9, 2 * 10**9, 8 * 10**9])
    monkeypatch.setattr(further_load, "ResourceMonitor", lambda *_: Growing(generator, bytes_per_s))
    monkeypatch.setattr(further_load.psutil, "virtual_memory", lambda: SimpleNamespace(available=next(free)))

    def stats() -> PatternStats:
        return PatternStats((sum(job.duration_ns // (5 * MS) for job in generator.jobs),))

    seen: list[ResourceTrack] = []

    def is_decided(track: ResourceTrack) -> bool:
        seen.append(track)
        return int(track.requests[-1]) >= decided_at_s * 200

    runner = runner_of(generator, replace(PLAN, warmup_ns=20 * MS), lambda: declared_deployment(stats=stats))
    found = runner.follow_growth(2500 * MS, is_decided)
    assert lengths_ms(generator) == lengths
    assert [job.warmup_ns for job in generator.jobs] == [20 * MS, 0, 0][: len(lengths)]
    inputs = [int(np.frombuffer(job.order, dtype=np.uint32)[0]) for job in generator.jobs]
    assert inputs == [0, 100 % 7, 200 % 7][: len(lengths)]
    assert (found.is_whole, found.track is None) == (is_whole, bytes_per_s is None)
    last = lengths[-1] // 5
    assert (found.total.replica_requests, found.stats.replica_requests) == ((sum(lengths) // 5,), (last,))
    runner.close()


def test_a_service_that_fails_while_its_growth_is_followed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = DeclaredGenerator(outcome=503)
    monkeypatch.setattr(further_load, "ResourceMonitor", lambda *_: Growing(generator, 1000.0))
    with pytest.raises(InvalidResultError, match=r"^100 of 100 requests failed \(503: 100; first"):
        runner_of(generator).follow_growth(2500 * MS, lambda _: False)


@each_row(
    ("of_growth", "held", "requests", "lengths"),
    (False, {("a.py", 3): 80}, 0, [400]),
    (True, {("a.py", 3): 180}, 180, [300, 900]),
)
def test_what_a_side_holds_is_read_after_its_load_and_a_growth_over_further_requests(
    of_growth: bool, held: dict[tuple[str, int], int], requests: int, lengths: list[int]
) -> None:
    """Each request holds a byte, of which the first are from the warm-up."""
    generator = DeclaredGenerator()

    def stats() -> PatternStats:
        answered = sum(job.duration_ns // (5 * MS) for job in generator.jobs)
        return PatternStats((answered,), layers=(LayerStats(0, HELD_LAYER, {"total": answered, "3:a.py": answered}),))

    deployment = declared_deployment(stats=stats)
    variant = Variant("main", lambda: deployment, replace(PLAN, warmup_ns=9 * S))
    found = held_under_load(variant, deployment, generator, of_growth=of_growth)
    assert (found.sites, found.requests) == (held, requests)
    assert lengths_ms(generator) == lengths
