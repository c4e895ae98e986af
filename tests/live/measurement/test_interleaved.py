"""Interleaved runs: real deployments and scripted servers in alternating blocks, and both gone afterwards."""

import asyncio
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from support.services.deploy import make_start_options
from support.services.processes import our_children, survivors
from support.services.scripted import Request, ScriptedServer, Send, Silence, Step, answer
from support.stream_modes import response
from support.synthetic import MS, S, capacity

from pytest_mlpatterns import Deployment, DeploymentError, InvalidResultError, ModelLoadError, Single
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, PairedCapacity, PairedLaunch, judge_ratio
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.judging.look import Pairs
from pytest_mlpatterns.judging.loop import Ruling, decide_pairs
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.measurement.interleaved import InterleavedRun, Variant
from pytest_mlpatterns.measurement.paired_blocks import BlockDesign
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.serving.model import service_plan
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.input_order import InOrder
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, Stages
from pytest_mlpatterns.workload.window_plan import RequestWindow

pytestmark = pytest.mark.processes

INPUTS = [[1], [2], [3]]
PLAN = LoadPlan(
    payload=read_payload(INPUTS), schedule=ClosedLoop(2), duration_ns=S, warmup_ns=0, timeout_ns=30 * S, check=None
)
SHORT = BlockDesign(block_ns=100 * MS, answers=5, rounds=1, most_rounds=1, warmup_ns=20 * MS)


class Sleeps:
    """Answers after a time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def __call__(self, batch: list[Any]) -> list[Any]:
        await asyncio.sleep(self.seconds)
        return batch


class OneAtATime(Sleeps):
    """As many a second as its time allows, whatever is asked of it."""

    async def __call__(self, batch: list[Any]) -> list[Any]:
        self.free = getattr(self, "free", None) or asyncio.Semaphore(1)
        async with self.free:
            return await super().__call__(batch)


def broken() -> object:
    raise LookupError("no weights")


class Broken:
    """Cannot be built."""

    def __init__(self) -> None:
        broken()

    def __call__(self, batch: list[Any]) -> list[Any]:
        return batch


def started(model: object, directory: Path) -> Deployment:
    """The one place that knows how a deployment is started."""
    return launch(service_plan(Single(), model, [sys.modules[__name__]]), make_start_options(directory, INPUTS))


def make_variant(name: str, model: object, directory: Path, plan: LoadPlan = PLAN) -> Variant:
    return Variant(name, partial(started, model, directory), plan)


def silent(_: Progress) -> None:
    """Nobody watches."""


class Served(Deployment):
    """A scripted server as a deployment; tells when it is closed."""

    def __init__(self, server: ScriptedServer, events: list[str], name: str) -> None:
        super().__init__(Endpoint((server.address,), "/v1/models/m:predict", name), ForeignProcesses())
        events.append(f"start {name}")
        self._tell = partial(events.append, f"close {name}")

    def close(self) -> None:
        self._tell()
        super().close()


def scripted(server: ScriptedServer, events: list[str], name: str, plan: LoadPlan = PLAN) -> Variant:
    return Variant(name, lambda: Served(server, events, name), plan)


def after(seconds: float, data: bytes = answer(b'{"predictions": [1]}')) -> Any:
    """A script that answers after a time."""

    def script(_: Request) -> Iterable[Step]:
        time.sleep(seconds)
        return [Send(data)]

    return script


def measured(run: InterleavedRun, launches: int = 1) -> list[PairedLaunch]:
    """So many launches, whatever they say."""
    for _ in range(launches):
        run.measure(60 * S, 1)
    return run.launches


class Recording(Generator):
    """Keeps the jobs that it was given."""

    def __init__(self, log: Path) -> None:
        super().__init__(log)
        self.jobs: list[LoadJob] = []

    def run(self, job: LoadJob, **how: Any) -> LoadResult:  # type: ignore[override]
        self.jobs.append(job)
        return super().run(job, **how)


class TestRealDeployments:
    def test_a_service_of_4_ms_is_faster_than_one_of_40_ms_but_not_by_any_factor(
        self, generator: Generator, tmp_path: Path
    ) -> None:
        before = our_children()
        variants = make_variant("slow", Sleeps(0.04), tmp_path), make_variant("quick", Sleeps(0.004), tmp_path)
        run = InterleavedRun(variants[1], variants[0], generator, on_progress=silent, design=SHORT)

        def at_least(factor: float, launches: Sequence[PairedLaunch]) -> Outcome:
            return judge_ratio([one.rtm for one in launches], factor, "higher", plan=SequentialPlan()).outcome

        launches = measured(run, 3)
        assert 0 < run.spent_s < 60
        assert at_least(1.2, launches) is Outcome.PASS
        assert at_least(1e6, launches) is Outcome.FAIL
        assert len(our_children() - before) <= 1  # the generator, which goes on
        found = launches[0]
        assert 1 < math.exp(found.rtm.value) < 100
        assert 1 < math.exp(found.latency_mean.value) < 100
        assert (found.second.latency_mean_ns or 0) >= 40 * MS
        assert found.throughput.value < 0
        assert found.cpu_per_request is not None
        assert found.pairs == 2 or (found.disturbed and found.pairs <= 4)  # others disturbed the first ones
        assert found.first.rtm_ns >= 4 * MS
        assert found.second.rtm_ns >= 40 * MS
        assert found.second.throughput_rps <= 2 * 2 / 0.04  # a busy generator notes answers in bunches
        assert found.first.cpu_ns_per_request is not None
        assert 0 < found.first.cpu_ns_per_request < S
        assert found.first.requests > found.second.requests >= 4
        assert found.first.failed == found.second.failed == 0
        assert [one.second_began for one in launches[:3]] == [False, True, False]
        assert json.loads(json.dumps(msgspec.to_builtins(found)))["rtm"]["value"] == found.rtm.value

    def test_a_side_that_does_not_load_is_named_the_other_closed(self, generator: Generator, tmp_path: Path) -> None:
        before = our_children()
        variants = make_variant("reference", Sleeps(0), tmp_path), make_variant("present", Broken, tmp_path)
        with pytest.raises(ModelLoadError, match=r"present: (?s:.*)LookupError: no weights"):
            measured(InterleavedRun(*variants, generator, on_progress=silent, design=SHORT))
        assert len(our_children() - before) == 0

    def test_a_side_that_dies_under_load_is_named_and_both_close(self, generator: Generator, tmp_path: Path) -> None:
        running: dict[str, Deployment] = {}

        def start(name: str) -> Deployment:
            running[name] = started(Sleeps(0.002), tmp_path)
            return running[name]

        def kill(_: Progress) -> None:
            for pid in running["present"].pids:
                os.kill(pid, signal.SIGKILL)

        variants = [Variant(name, partial(start, name), PLAN) for name in ("reference", "present")]
        with pytest.raises(DeploymentError, match=r"present: .*SIGKILL"):
            measured(InterleavedRun(*variants, generator, on_progress=kill, design=replace(SHORT, block_ns=300 * MS)))
        pids = [pid for deployment in running.values() for pid in deployment.pids]
        assert survivors(pids, 0) == set()

    def test_what_each_sustains_is_searched_for_in_turn(self, generator: Generator, tmp_path: Path) -> None:
        before = our_children()
        variants = make_variant("quick", OneAtATime(0.003), tmp_path), make_variant("slow", OneAtATime(0.012), tmp_path)
        run = InterleavedRun(*variants, generator, on_progress=silent)
        run.search(60 * S)
        (found,) = run.capacities
        assert found.first.nmrt.value <= 2 / 0.003  # a busy generator notes answers in bunches
        assert found.second.nmrt.value <= 2 / 0.012
        assert found.nmrt.value == pytest.approx(math.log(found.second.nmrt.value / found.first.nmrt.value))
        assert found.nmrt.error >= max(found.first.nmrt.relative_error, found.second.nmrt.relative_error)
        assert run.spent_s > 0
        assert len(our_children() - before) <= 1

    def test_a_search_that_gave_only_a_bound_supports_no_ratio(self, generator: Generator, tmp_path: Path) -> None:
        variants = make_variant("quick", Sleeps(0.001), tmp_path), make_variant("slow", Sleeps(0.002), tmp_path)
        run = InterleavedRun(*variants, generator, on_progress=silent)
        run.capacities.append(PairedCapacity(LogRatio(0, 0), capacity(), capacity()))  # so that the other begins
        with pytest.raises(
            InvalidResultError, match=r"slow: capacity \(NMRT\) is at least .* but not known: the time was up"
        ):
            run.search(S)


class SlowToStart(Sleeps):
    """Takes a second to be built, and answers at once."""

    def __init__(self) -> None:
        super().__init__(0.0)
        time.sleep(1.0)


class TestFurtherStarts:
    def test_both_sides_start_again_without_load(self, tmp_path: Path) -> None:
        before = our_children()
        variants = make_variant("a", Sleeps(0.0), tmp_path), make_variant("b", SlowToStart, tmp_path)
        run = InterleavedRun(*variants, Recording(tmp_path / "generator.log"), on_progress=silent)
        assert run.start_ns == math.inf, "no start is known yet"
        run.start_again()
        assert run.start_ns == run.second_starts_ns[0]
        run.start_again()
        assert len(run.first_starts_ns) == len(run.second_starts_ns) == 2
        assert min(run.second_starts_ns) >= S
        assert any(b - a > 0.3 * S for a, b in zip(run.first_starts_ns, run.second_starts_ns, strict=True))
        assert run.spent_s >= sum(run.second_starts_ns) / S
        assert run.launches == []
        assert our_children() == before


@dataclass(frozen=True)
class Compared:
    """A run of two scripted servers."""

    run: InterleavedRun
    one: ScriptedServer
    other: ScriptedServer


@contextmanager
def compared(
    generator: Generator, *scripts: Any, plan: LoadPlan = PLAN, events: list[str] | None = None, **how: Any
) -> Iterator[Compared]:
    """A run of two servers that answer after 2 ms, or as these scripts say."""
    first, second = scripts or (after(0.002),) * 2
    told = [] if events is None else events
    with ScriptedServer(first) as one, ScriptedServer(second) as other:
        variants = scripted(one, told, "A", plan), scripted(other, told, "B", plan)
        yield Compared(
            InterleavedRun(*variants, generator, **{"on_progress": silent, "design": SHORT, **how}), one, other
        )


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    """A generator that keeps the jobs that it was given."""
    with closing(Recording(tmp_path / "generator.log")) as generator:
        yield generator


class TestTurns:
    def test_blocks_alternate_within_a_launch_and_launches_among_themselves(self, recording: Recording) -> None:
        events: list[str] = []
        with compared(recording, events=events, design=replace(SHORT, rounds=2, answers=1)) as both:
            measured(both.run, 2)
            assert both.run.names == ("A", "B")
        assert sorted(events[:2]) == sorted(events[4:6]) == ["start A", "start B"]  # both at once
        assert sorted(events[2:4]) == sorted(events[6:8]) == ["close A", "close B"]
        names = {both.one.address: "A", both.other.address: "B"}
        blocks = "".join(names[job.endpoint.addresses[0]] for job in recording.jobs)
        # AB ABBAABBA BA BAABBAAB: each launch after its warm-ups; a busy machine has a block measured again
        assert re.fullmatch("ABA+BB+AA+BB+A+BAB+AA+BB+AA+B+", blocks)
        assert min(job.duration_ns for job in recording.jobs[2:10]) >= 100 * MS  # longer where answers are slow

    def test_both_blocks_of_a_pair_begin_with_one_input_and_the_next_pair_goes_on(self, recording: Recording) -> None:
        plan = replace(PLAN, payload=read_payload(InOrder(range(3000))), schedule=ClosedLoop(1))
        with compared(recording, after(0.001), after(0.004), plan=plan) as both:
            measured(both.run)
        pairs = [(job, job.beside) for job in recording.jobs[2:]]
        starts = [[int.from_bytes(job.order[:4], sys.byteorder) for job in pair if job is not None] for pair in pairs]
        assert starts[0] == [0, 0]
        assert starts[1][0] == starts[1][1] > 0
        before = [inputs[inputs.index(starts[1][0]) - 1] for inputs in inputs_of(both)]
        assert max(before) == starts[1][0] - 1  # of the faster variant nothing is left out

    def test_the_blocks_of_a_pair_are_sliced_where_both_sides_are_closed_loops(self, recording: Recording) -> None:
        plan = replace(PLAN, schedule=ClosedLoop(1))
        with compared(recording, after(0.002), after(0.004), plan=plan) as both:
            (found,) = measured(both.run)
        blocks = [job for job in recording.jobs if job.beside is not None]
        assert [job.endpoint.addresses for job in blocks[:2]] == [(both.one.address,), (both.other.address,)]
        assert found.first.rtm_ns >= 2 * MS
        assert found.second.rtm_ns >= 4 * MS
        sides = both.run.first_launches[0], both.run.second_launches[0]
        for side, figures in zip(sides, (found.first, found.second), strict=True):
            inside = side.samples.due_in(side.window)
            assert inside.sum() == figures.requests
            assert side.samples.latency_ns[inside].sum() <= side.window.duration_ns  # one caller, one after the other

    @pytest.mark.parametrize(
        "changes",
        [{"generators": 2}, {"schedule": ClosedLoop(1, think_time="1ms")}, {"schedule": ConstantRate(200)}],
        ids=["two generators", "callers that think", "open loop"],
    )
    def test_other_loads_have_one_block_after_the_other(self, recording: Recording, changes: dict[str, Any]) -> None:
        with compared(recording, plan=replace(PLAN, **{"schedule": ClosedLoop(1), **changes})) as both:
            measured(both.run)
        assert {job.beside for job in recording.jobs} == {None}

    def test_slow_variants_get_the_same_inputs_in_every_block(self, recording: Recording) -> None:
        events: list[str] = []

        def script(_: Request) -> list[Step]:
            time.sleep(0.005 if "close A" in events else 0.08)  # later launches keep to the plan of the first one
            return [Send(answer(b'{"predictions": [1]}'))]

        with compared(recording, script, script, events=events) as both:
            found, again = measured(both.run, 2)
        blocks = [job for job in recording.jobs if job.duration_ns != SHORT.warmup_ns]
        assert {isinstance(job.window, RequestWindow) and job.window.requests for job in blocks} == {6}
        assert all(job.stagger_ns > 0 for job in blocks)
        assert {job.stagger_ns for job in recording.jobs if job not in blocks} == {0}
        assert len({job.order for job in blocks}) == 1  # two rounds of three inputs, and then the first one again
        assert found.first.requests == found.second.requests == 6 * found.pairs
        assert again.first.requests == again.second.requests == 6 * again.pairs
        one, other = inputs_of(both)
        assert sorted(one[-12:]) == sorted(other[-12:]) == sorted(INPUTS * 4)

    def test_an_open_loop_keeps_its_rate_on_both_sides(self, generator: Generator) -> None:
        with compared(generator, after(0.1), after(0.15), plan=replace(PLAN, schedule=ConstantRate(50))) as both:
            (found,) = measured(both.run)
        assert found.first.rtm_ns >= 100 * MS
        assert found.second.rtm_ns >= 150 * MS
        assert found.first.requests == pytest.approx(found.second.requests, abs=2 * found.pairs)  # one at either edge
        assert found.cpu_per_request is None
        assert found.first.cpu_ns_per_request is None

    def test_a_schedule_with_a_length_is_a_block_as_a_whole(self, recording: Recording) -> None:
        schedule = Stages((("80ms", 2), ("40ms", 2)), of="concurrency", start=2)
        with compared(recording, plan=replace(PLAN, schedule=schedule)) as both:
            measured(both.run)
        assert [job.schedule for job in recording.jobs] == [ClosedLoop(1)] * 2 + [schedule] * 4
        assert {job.duration_ns for job in recording.jobs[2:]} == {120 * MS}

    def test_a_longer_warm_up_of_the_plan_is_kept(self, recording: Recording) -> None:
        plan = replace(PLAN, warmup_ns=150 * MS)
        with ScriptedServer(after(0.002)) as one, ScriptedServer(after(0.002)) as other:
            variants = scripted(one, [], "A", plan), scripted(other, [], "B", replace(plan, warmup_ns=None))
            measured(InterleavedRun(*variants, recording, on_progress=silent, design=SHORT))
        assert [job.duration_ns for job in recording.jobs[:2]] == [150 * MS, 20 * MS]

    def test_a_block_may_be_over_before_its_first_answer_comes(self, generator: Generator) -> None:
        plan = replace(PLAN, schedule=ConstantRate(200))
        design = replace(SHORT, block_ns=20 * MS, launch_ns=MS)
        with compared(generator, after(0.4), after(0.1), plan=plan, design=design) as both:
            (found,) = measured(both.run)
        assert found.first.rtm_ns >= 400 * MS
        assert found.first.throughput_rps > 0


def inputs_of(both: Compared) -> list[list[Any]]:
    """What each server was asked for."""
    return [[json.loads(request.body)["instances"][0] for request in one.requests] for one in (both.one, both.other)]


class TestDeciding:
    def test_the_budget_ends_it_after_the_pairs_of_the_first_look(self, generator: Generator) -> None:
        asked: list[int] = []

        def rule(pairs: Pairs) -> Ruling:
            asked.append(len(pairs.launches))
            return Ruling(None if len(pairs.launches) == 3 else "pair")

        looks = SequentialPlan(first=2, last=8)
        with compared(generator) as both:
            assert decide_pairs(rule, both.run, looks, budget_ns=1).wants == "pair"
            assert (len(both.run.launches), asked) == (2, [2])
            assert decide_pairs(rule, both.run, looks, budget_ns=60 * S).wants is None
            assert (len(both.run.launches), asked) == (3, [2, 2, 3])

    def test_ctrl_c_passes_through_and_both_are_closed(self, generator: Generator) -> None:
        def interrupt(_: Progress) -> None:
            raise KeyboardInterrupt

        events: list[str] = []
        design = replace(SHORT, warmup_ns=60 * S)
        with (
            compared(generator, events=events, on_progress=interrupt, design=design) as both,
            pytest.raises(KeyboardInterrupt),
        ):
            measured(both.run)
        assert sorted(events) == ["close A", "close B", "start A", "start B"]
        assert both.run.launches == []
        assert both.run.spent_s > 0


def failing_every(nth: int) -> Any:
    """A script that answers every so many requests with an error."""

    def script(request: Request) -> Iterable[Step]:
        time.sleep(0.001)
        return [Send(answer(b"busy", 503) if request.number % nth == nth - 1 else answer(b'{"predictions": [1]}'))]

    return script


class TestDisturbance:
    @pytest.mark.parametrize(("blocks", "pairs"), [(0, 16), (2, 16), (26, 18), (99, 16)])
    def test_pairs_that_were_disturbed_are_made_up_for_where_few_others_are_left(
        self, generator: Generator, monkeypatch: pytest.MonkeyPatch, blocks: int, pairs: int
    ) -> None:
        """So many blocks are disturbed, from the first on; a launch has 32 and wants at least four quiet pairs."""
        numbers = iter(range(99))
        monkeypatch.setattr("pytest_mlpatterns.measurement.variant.is_disturbed", lambda *_: next(numbers) < blocks)
        design = BlockDesign(block_ns=20 * MS, answers=2, rounds=8, warmup_ns=20 * MS)
        with compared(generator, design=design) as both:
            (found,) = measured(both.run)
        assert (found.pairs, found.disturbed) == (pairs, min(blocks // 2, 16))
        assert both.run.second_launches[0].samples.succeeded.all()

    def test_long_blocks_are_not_repeated(self, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first of two pairs is disturbed; in the time of two further ones another launch could be measured."""
        numbers = iter(range(99))
        monkeypatch.setattr("pytest_mlpatterns.measurement.variant.is_disturbed", lambda *_: next(numbers) < 2)
        with compared(generator, after(0.12), after(0.12), design=BlockDesign(answers=2, launch_ns=2 * S)) as both:
            (found,) = measured(both.run)
        assert (found.pairs, found.disturbed) == (2, 1)


LONG = replace(SHORT, block_ns=400 * MS)


class TestWhatDoesNotCount:
    @pytest.mark.parametrize(("nth", "first"), [(1, "busy"), (8, "(503|busy)")], ids=["all", "every-eighth"])
    def test_a_side_whose_requests_fail_is_named(self, generator: Generator, nth: int, first: str) -> None:
        events: list[str] = []
        words = rf"B: [\d,]+ of [\d,]+ requests failed \(503: [\d,]+; first: perf_payload item \d -> {first}\)"
        with (
            compared(generator, after(0.002), failing_every(nth), events=events) as both,
            pytest.raises(InvalidResultError, match=words) as failed,
        ):
            measured(both.run)
        assert failed.value.side == "B"
        assert both.run.launches == []
        assert sorted(events[2:]) == ["close A", "close B"]

    def test_a_side_that_falls_silent_in_a_block_is_named_at_once(self, generator: Generator) -> None:
        def script(request: Request) -> Iterable[Step]:
            time.sleep(0.002)
            return [Send(answer(b'{"predictions": [1]}')) if request.number < 40 else Silence()]

        words = r"B: no answer .*: all 2 callers timed out after 1\.10 s"
        with (
            compared(generator, after(0.002), script, plan=replace(PLAN, timeout_ns=1100 * MS), design=LONG) as both,
            pytest.raises(InvalidResultError, match=words) as raised,
        ):
            measured(both.run)
        assert raised.value.side == "B"
        assert len(both.other.requests) <= 42  # a caller that waits asks no more

    def test_a_failure_now_and_then_is_counted(self, generator: Generator) -> None:
        with compared(generator, after(0.002), failing_every(40), design=LONG) as both:
            (found,) = measured(both.run)
        assert found.first.failed == 0
        assert 1 <= found.second.failed <= len(both.other.requests) // 40

    def test_the_first_failure_of_streams_is_none_of_the_warm_up(self, generator: Generator) -> None:
        good, warming, busy = (
            response(b"data: 1\n\n", b"event: error\ndata: %s\n\n" % error if error else b"")
            for error in (b"", b"warming", b"busy")
        )

        def script(request: Request) -> Iterable[Step]:
            time.sleep(0.002)
            if request.connection < 2:  # each job opens two: the warm-up, and the first block
                return [Send(warming if request.number % 2 else good)]
            return [Send(good if request.number % 40 else busy)]

        def start(server: ScriptedServer, name: str) -> Deployment:
            deployment = Served(server, [], name)
            deployment.streams = True
            return deployment

        with ScriptedServer(script) as one, ScriptedServer(script) as other:
            variants = (Variant(name, partial(start, at, name), PLAN) for name, at in (("A", one), ("B", other)))
            run = InterleavedRun(*variants, generator, on_progress=silent, design=LONG)
            measured(run)
        assert re.fullmatch(r"perf_payload item \d -> busy", str(run.second_launches[0].first_failure))
