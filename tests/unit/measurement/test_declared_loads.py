"""Sides, launches, overloads and clients of their own over a generator and processes whose figures are declared."""

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.declared_side import DeclaredGenerator, declared_deployment
from support.each_row import each_row
from support.services.jobs import a_job
from support.synthetic import MS, START_NS, S, samples

from pytest_mlpatterns import Deployment, DeploymentError, InvalidResultError, SettingError
from pytest_mlpatterns.analysis.capacity.overload import OverloadPlan
from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, WindowOpened
from pytest_mlpatterns.measurement import load_source
from pytest_mlpatterns.measurement.answer_check import require_figures
from pytest_mlpatterns.measurement.during import During
from pytest_mlpatterns.measurement.further_load import FurtherLoad, offer_overload
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.measurement.load_source import LoadEvents, deploy_in_process
from pytest_mlpatterns.measurement.variant import Variant, VariantRun
from pytest_mlpatterns.records.addressing import Progress, Remote
from pytest_mlpatterns.records.outcomes import FailedAnswer, Failure
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.serving.model import StartOptions
from pytest_mlpatterns.workload.own_client import ClientWire
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop, Stages

PLAN = LoadPlan(read_payload([1, 2, 3]), ClosedLoop(2), 200 * MS, 0, 30 * S, None)


def side(generator: DeclaredGenerator, remote: Remote | None = None) -> VariantRun:
    where = declared_deployment(remote)
    return VariantRun(Variant("main", lambda: where, PLAN), where, generator, on_progress=lambda _: None)


@each_row(("remote", "overhead_ns"), [(None, None), (Remote("https://host", http2=False), 5.0)])
def test_each_block_of_a_side_gives_one_value_of_each_metric(remote: Remote | None, overhead_ns: float | None) -> None:
    generator = DeclaredGenerator(ceiling_rps=9000.0)
    run = side(generator, remote)
    run.warm_up(20 * MS)
    for length_ns in (100 * MS, 200 * MS):
        run.load(length_ns, run.position)
    run.end()
    assert run.values["rtm"] == pytest.approx(run.values["latency_mean"]) == [10 * MS] * 2
    assert run.values["throughput"] == pytest.approx([200, 200], rel=0.1)
    assert run.values["cpu_per_request"] == [24 * MS / 20, 24 * MS / 40]  # three samples a block
    assert (run.position, run.repeated, run.disturbed) == (60, 0, [False, False])
    launch = run.launch(with_facts=True)
    assert (launch.generator.ceiling_rps, launch.generator.library_overhead_ns) == (9000, overhead_ns)
    assert 0 < launch.sorting_ns[0] < S
    assert (run.figures().requests, run.figures().failed) == (60, 0)


def nothing_due(result: LoadResult) -> LoadResult:
    return replace(result, window=Window(0, 1))


def busy(result: LoadResult, client: str = "") -> LoadResult:
    """The load generator took all of a core."""
    return replace(result, generator=replace(result.generator, cpu_ns=2 * result.generator.wall_ns, client=client))


@each_row(
    ("spoilt", "blocks", "lengths_ms", "said"),
    (nothing_due, 2, [100, 200, 400], ""),
    (nothing_due, 9, [100, 200, 400, 800, 1600], "main: in 5 turns in a row no request was due; measure"),
    (busy, 1, [100, 100], ""),
    (busy, 9, [100] * 5, "main: in 5 turns in a row the load generator .*; lower the load"),
    (partial(busy, client="own"), 9, [100], "main: perf_client own used 200 %"),
)
def test_a_block_that_shows_nothing_is_measured_again_and_then_an_error(
    spoilt: Callable[[LoadResult], LoadResult], blocks: int, lengths_ms: list[int], said: str
) -> None:
    """A client of the user's own, which will be the limit again, is not measured again."""

    class Spoiling(DeclaredGenerator):
        def run(self, job: LoadJob, **how: Any) -> LoadResult:
            result = super().run(job, **how)
            return spoilt(result) if len(self.jobs) <= blocks else result

    generator = Spoiling()
    run = side(generator)
    if said:
        with pytest.raises(InvalidResultError, match=said) as raised:
            run.load(100 * MS, 0)
        assert raised.value.side == "", "that it was asked nothing is not its failure"
    else:
        run.load(100 * MS, 0)
        assert (run.repeated, len(run.disturbed)) == (blocks, 1)
    assert [job.duration_ns for job in generator.jobs] == [ms * MS for ms in lengths_ms]


def test_a_side_that_fails_is_named_with_what_it_said() -> None:
    with pytest.raises(InvalidResultError, match=r"^main: 20 of 20 requests failed \(503: 20; first"):
        side(DeclaredGenerator(outcome=503)).load(100 * MS, 0)


@pytest.mark.parametrize("smoke", [False, True])
def test_each_launch_has_a_deployment_of_its_own(smoke: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Deployment] = []

    def start() -> Deployment:
        started.append(declared_deployment())
        started[-1].cold_start_ns = len(started)
        return started[-1]

    settled: list[int] = []
    generator = DeclaredGenerator()
    runner = LaunchRunner(
        start, PLAN, generator, on_progress=lambda _: None, settle=lambda: settled.append(0), smoke=smoke
    )
    monkeypatch.setattr("pytest_mlpatterns.measurement.launch.send_one", lambda one, _plan: ("asked once", one))
    first, second = runner.measure(), runner.measure()
    assert len(started) == len(settled) == 2
    if smoke:
        assert [first, second] == [("asked once", one) for one in started]
    else:
        assert [first.cold_start_ns, second.cold_start_ns] == [1, 2]
        assert len(first.sorting_ns) == 4
        assert min(first.sorting_ns) > 0
    assert runner.start_again() == 3
    runner.close()


def test_a_function_beside_a_load_that_fails_ends_with_it() -> None:
    has_ended = threading.Event()

    def beside(during: During) -> None:
        try:
            during.wait_until(bool)
        finally:
            has_ended.set()

    class Failing(DeclaredGenerator):
        def run(self, _job: LoadJob, *, on_poll: Any, **_: Any) -> LoadResult:
            on_poll(WindowOpened(time.perf_counter_ns()))
            raise ChildError("it is gone")

    for function in (None, beside):
        plan = replace(PLAN, during=function, duration_ns=3600 * S)
        with pytest.raises(ChildError, match="it is gone"):
            LaunchRunner(declared_deployment, plan, Failing(), on_progress=lambda _: None).measure()
    assert has_ended.wait(30)


@each_row(("ceiling_rps", "limited"), [(None, False), (100_000.0, False), (250.0, True)])
def test_a_load_beyond_capacity_says_if_the_generator_was_the_limit(ceiling_rps: float | None, limited: bool) -> None:
    generator = DeclaredGenerator(ceiling_rps)
    load = FurtherLoad(declared_deployment(), PLAN, a_job([("127.0.0.1", 9)], ClosedLoop(1)), generator, lambda _: None)
    loads = offer_overload(load, OverloadPlan((1.5, 2.0), step_s=0.2, watched_s=0.4), 100.0)
    assert [(one.load_ratio, one.window.duration_ns, one.watched_ns) for one in loads] == [
        (1.5, 200 * MS, 0),
        (2.0, 200 * MS, 400 * MS),
    ]
    assert [bool(one.limited) for one in loads] == [limited] * 2
    back = (("0s", 80.0), ("400ms", 80.0))
    assert generator.jobs[1].schedule == Stages((("200ms", 200.0), *back), start=200.0)


class TestAClientByItself:
    """Its process is that of a load generator of its own."""

    WIRE = ClientWire(name="own")

    def deployed(self, generator: DeclaredGenerator, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(load_source, "Generator", lambda *_: generator)
        options = StartOptions(60 * S, replace(PLAN.payload, wire=self.WIRE), Path("unused"))
        return deploy_in_process(self.WIRE, options, 3)

    def test_it_answers_one_request_after_its_processes_have_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        generator = DeclaredGenerator()
        found = self.deployed(generator, monkeypatch)
        (job,) = generator.jobs
        assert (generator.started, job.warmup_ns, job.window.requests, len(job.messages)) == (3, 0, 1, 1)
        assert load_source.load_source(found, DeclaredGenerator()) is generator
        assert found.cold_start_ns > 0

    @pytest.mark.parametrize(("words", "why"), [("ValueError", "raised ValueError"), ("", "has not returned within")])
    def test_one_that_answers_nothing_is_closed(self, monkeypatch: pytest.MonkeyPatch, words: str, why: str) -> None:
        generator = DeclaredGenerator(outcome=Failure.CLOSED)
        generator.failed = {Failure.CLOSED: FailedAnswer(0, words)} if words else {}
        with pytest.raises(DeploymentError, match=f"perf_client own {why}.*, with perf_payload item 0"):
            self.deployed(generator, monkeypatch)
        assert generator.closed

    def test_one_whose_process_dies_is_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        generator = DeclaredGenerator()
        monkeypatch.setattr(generator, "run", lambda *_, **__: (_ for _ in ()).throw(ChildError("it is gone")))
        with pytest.raises(DeploymentError, match="perf_client own: it is gone"):
            self.deployed(generator, monkeypatch)
        assert generator.closed


def test_each_event_of_a_load_reaches_its_observers_after_the_poll() -> None:
    seen: list[Any] = []
    events = LoadEvents(seen.append, lambda: seen.append("window"), lambda: seen.append("poll"), seen.append)
    progress = Progress(1, 2, None)
    for event in (None, WindowOpened(7), progress):
        events.handle(event)
    assert seen == ["poll", "poll", 7, "window", "poll", progress]


@each_row(
    ("values", "fault", "error", "words"),
    ([1.0, np.nan], "", None, ""),
    ([np.nan, np.nan], "", InvalidResultError, "perf_figures: no answer has score; the first one has no field"),
    ([1.0, 1.0], "cannot be loaded", SettingError, "perf_figures: score cannot be loaded"),
    (None, "", None, ""),
)
def test_a_figure_that_no_answer_has_is_refused(
    values: list[float] | None, fault: str, error: type[Exception] | None, words: str
) -> None:
    """``values`` is None for a load that may lack them."""
    found = samples([START_NS, START_NS + MS], MS)
    found = found if values is None else replace(found, figures={"score": np.array(values)})
    result: Any = SimpleNamespace(
        figure_faults={"score": fault} if fault else {},
        window=Window(START_NS, START_NS + S),
        without_figure={"score": "no field"},
    )
    plan: Any = SimpleNamespace(figures="score")
    given = None if values is None else found
    if error is None:
        require_figures(plan, result, given)
        require_figures(SimpleNamespace(figures=None), result, given)  # type: ignore[arg-type]
        return
    with pytest.raises(error, match=words):
        require_figures(plan, result, given)
