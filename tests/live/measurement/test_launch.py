"""One launch from start to record: a real model under a real load, the check, a smoke run, services that ran before."""

import gzip
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from msgspec.structs import replace
from support.deployed import deployed
from support.nightly import rarer
from support.services.deploy import make_start_options
from support.services.processes import our_children, survivors
from support.services.scripted import Hold, Request, Reset, ScriptedServer, Send, Silence, Step, answer

from pytest_mlpatterns import (
    Deployment,
    DeploymentError,
    InvalidResultError,
    Pattern,
    Replicated,
    SettingError,
    Single,
    Url,
)
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.verdicts.verdicts import why_invalid
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult, WindowOpened
from pytest_mlpatterns.measurement.answer_check import check_answers, check_outputs
from pytest_mlpatterns.measurement.during import During
from pytest_mlpatterns.measurement.launch import Interrupted, LaunchRunner
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.serving.external.attach import attach
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate

RIGHT = [Send(answer(b'{"predictions": [1]}'))]
"""The answer to any input."""
See = Callable[[Event | None], None]
Watch = Callable[[See], None]


pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
MS = 1_000_000
INPUTS = [[1, 2], [3, 4], [5, 6]]
PLAN = LoadPlan(
    payload=read_payload(INPUTS),
    schedule=ClosedLoop(2),
    duration_ns=140 * MS,
    warmup_ns=40 * MS,
    timeout_ns=30_000 * MS,
    check=None,
)


def add(batch: list[Any]) -> list[Any]:
    return [sum(numbers) for numbers in batch]


def slowly(_: object) -> list[Send]:
    """An answer after 300 ms."""
    time.sleep(0.3)
    return RIGHT


def make_runner(
    generator: Generator,
    directory: Path,
    plan: LoadPlan = PLAN,
    *,
    pattern: Pattern | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    smoke: bool = False,
) -> AbstractContextManager[LaunchRunner]:
    tools: dict[str, Any] = {"generator": generator, "directory": directory, "smoke": smoke}
    return deployed(pattern or Single(), add, plan, module=HERE, **tools, on_progress=lambda seen, _: on_progress(seen))


@contextmanager
def bench_of(
    script: Callable[[Request], Sequence[Step]], plan: LoadPlan, generator: Generator, *, smoke: bool = False
) -> Iterator[LaunchRunner]:
    """Measures a server that does this with every request."""
    with ScriptedServer(script) as server:
        deployment = Deployment(Endpoint((server.address,), "/v1/models/m:predict", "m"), ForeignProcesses())
        runner = LaunchRunner(lambda: deployment, plan, generator, on_progress=lambda _: None, smoke=smoke)
        yield runner
        runner.close()


@pytest.fixture
def watch(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Lets a function see every event of the loads too, after who runs the load has seen it."""

    def start(see: See) -> None:
        run = generator.run

        def watched(job: LoadJob, *, on_poll: See, **how: Any) -> LoadResult:
            def both(event: Event | None) -> None:
                on_poll(event)
                see(event)

            return run(job, on_poll=both, **how)

        monkeypatch.setattr(generator, "run", watched)

    return start


def in_window(launch: Launch) -> int:
    """Requests that ended in the measured window."""
    done = launch.samples.done_ns
    return int(((done >= launch.window.start_ns) & (done < launch.window.end_ns)).sum())


class TestFunctionBeside:
    def test_its_steps_are_in_the_record_and_a_search_gets_another_deployment(
        self, generator: Generator, tmp_path: Path
    ) -> None:
        def kill(during: During) -> None:
            with during.step("kill"):
                during.kill("replica")

        plan = replace(PLAN, duration_ns=1_400 * MS, during=kill)
        with make_runner(generator, tmp_path, plan, pattern=Replicated(2)) as runner:
            launch = runner.measure()
            (step,) = launch.steps
            assert step.name == "kill"
            assert launch.window.start_ns <= step.begin_ns <= step.end_ns <= launch.window.end_ns
            assert launch.samples.failed.any()
            assert not launch.silence
            spent = runner.deployment
            runner.follow_growth(200 * MS, lambda _track: True)
            assert runner.deployment is not spent
            assert all(map(psutil.pid_exists, runner.deployment.pids))

    def test_a_load_that_fails_ends_its_waits(self, generator: Generator, tmp_path: Path) -> None:
        seen: list[str] = []

        def wait(during: During) -> None:
            try:
                during.wait_until(lambda: False)
            except InvalidResultError as error:
                seen.append(str(error))

        def stop(_progress: Progress) -> None:
            raise RuntimeError("the terminal is gone")

        plan = replace(PLAN, duration_ns=600_000 * MS, during=wait)
        with (
            make_runner(generator, tmp_path, plan, on_progress=stop) as runner,
            pytest.raises(RuntimeError, match="the terminal is gone"),
        ):
            runner.measure()

    def test_a_smoke_run_calls_it_once_beside_no_load(self, generator: Generator, tmp_path: Path) -> None:
        seen: list[Any] = []

        def ask(during: During) -> None:
            during.wait_until("100ms")
            seen.append(during.predict([1, 2]))

        with make_runner(generator, tmp_path, replace(PLAN, during=ask), smoke=True) as runner:
            assert runner.measure().samples.succeeded.all()
        assert seen == [3]


class TestLaunch:
    def test_a_launch_has_everything_that_was_seen(self, generator: Generator, tmp_path: Path) -> None:
        with make_runner(generator, tmp_path, replace(PLAN, duration_ns=1_200 * MS)) as runner:
            launch = runner.measure()
            total = runner.deployment.stats().replica_requests[0]
            messages = PLAN.payload.messages(*runner.deployment.addresses[0], runner.deployment.path)
        samples = launch.samples
        assert set(samples.outcome.tolist()) == {200}
        assert set(samples.request.tolist()) == {0, 1, 2}
        assert launch.window.duration_ns == 1_200 * MS
        assert launch.warmup.duration_ns >= PLAN.warmup_ns
        assert launch.warmup.steady is None
        assert launch.cold_start_ns is not None
        assert launch.cold_start_ns > 0
        assert not launch.open_loop
        assert launch.request_bytes.tolist() == [len(message) for message in messages]
        assert launch.generator.completed >= in_window(launch) > 0
        assert launch.generator.cpu_ns > 0
        assert total == len(samples.outcome) + 1  # and the one that showed that it is ready
        assert 0 < launch.stats.replica_requests[0] < len(samples.outcome)
        usage = launch.usage
        assert len(usage.time_ns) >= 3
        assert usage.time_ns[0] <= launch.window.start_ns
        assert usage.time_ns[-1] >= launch.window.end_ns
        assert usage.cpu_ns[-1] > usage.cpu_ns[0]
        assert usage.rss_bytes.max() > 2**20

    def test_without_a_warm_up_every_request_is_counted_however_late_its_window_is_seen(
        self, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = generator.run

        def late(job: LoadJob, *, on_poll: See, **how: Any) -> LoadResult:
            events: list[Event | None] = []
            result = run(job, on_poll=events.append, **how)
            for event in events:
                on_poll(event)
            return result

        monkeypatch.setattr(generator, "run", late)
        with make_runner(generator, tmp_path, replace(PLAN, warmup_ns=0)) as runner:
            launch = runner.measure()
        assert launch.stats.replica_requests == (len(launch.samples.outcome),)

    def test_a_window_with_few_requests_stretches_if_it_may(self, generator: Generator, tmp_path: Path) -> None:
        plan = replace(PLAN, schedule=ConstantRate(50), duration_ns=100 * MS, stretches=True)
        with make_runner(generator, tmp_path, plan) as runner:
            first, second = runner.measure(), runner.measure()
        for one in (first, second):
            assert one.samples.due_in(one.window).sum() >= 20
            assert 400 * MS <= one.window.duration_ns <= 1_000 * MS

    def test_launches_of_a_slow_service_have_equal_whole_rounds(self, generator: Generator, watch: Watch) -> None:
        """It is quicker in the window than in the warm-up, so that a pause does not make the window end too soon."""
        opened = threading.Event()

        def script(_: object) -> list[Send]:
            time.sleep(0.04 if opened.is_set() else 0.12)
            return RIGHT

        def see(event: Event | None) -> None:
            if isinstance(event, WindowOpened):
                opened.set()

        watch(see)
        plan = replace(PLAN, warmup_ns=None, budget_ns=200_000 * MS, launches=8, stretches=True)
        launches: list[Launch] = []
        with bench_of(script, plan, generator) as runner:
            for _ in range(2):
                opened.clear()
                launches.append(runner.measure())
        order = np.frombuffer(plan.payload.order(), dtype=np.uint32).tolist()
        for one in launches:
            due = one.samples.due_in(one.window)
            inputs = one.samples.request[due][np.argsort(one.samples.due_ns[due], kind="stable")]
            assert inputs.tolist() == order * (due.sum() // len(order))
            assert due.sum() >= 20
        assert launches[0].samples.due_in(launches[0].window).sum() == due.sum()

    def test_the_first_window_has_the_requests_that_a_verdict_needs(self, generator: Generator) -> None:
        def script(_: object) -> list[Send]:
            time.sleep(0.005)
            return RIGHT

        plan = replace(
            PLAN, duration_ns=100 * MS, warmup_ns=700 * MS, budget_ns=20_000 * MS, launches=8, stretches=True
        )
        with bench_of(script, plan, generator) as runner:
            runner.want_requests(60)
            first, second = runner.measure(), runner.measure()
        assert first.samples.due_in(first.window).sum() == 60
        assert second.window.duration_ns < first.window.duration_ns
        assert [len(one.sorting_ns) for one in (first, second)] == [4, 4]  # one may decide, and has to know the machine

    @pytest.mark.parametrize("stretches", [False, *rarer(True)])
    def test_a_request_longer_than_the_window_of_several_generators_lengthens_it(
        self, generator: Generator, watch: Watch, stretches: bool
    ) -> None:
        """A load of a lengthened window is ended once its callers have sent some requests in it."""
        over = threading.Event()
        opened: list[int] = []
        ended: list[int] = []
        lengths_ns: list[int] = []
        asked: list[Request] = []

        def script(request: Request) -> list[Step]:
            asked.append(request)
            return [Hold(over), Send(answer(b'{"predictions": [1]}'))] if request.number < 2 else [*slowly(request)]

        def see(event: Event | None) -> None:
            if isinstance(event, WindowOpened):
                opened.append(len(asked))
                lengths_ns.append(runner.plan.duration_ns)
                if len(opened) == 1:
                    threading.Timer(2.0, over.set).start()  # long after the window
            elif len(opened) > 1 + len(ended) and len(asked) > opened[-1] + 6:
                ended.append(len(asked))
                generator.end_load()

        watch(see)
        plan = replace(PLAN, duration_ns=100 * MS, warmup_ns=50 * MS, budget_ns=20_000 * MS, launches=8)
        with bench_of(script, replace(plan, generators=2, stretches=stretches), generator) as runner:
            launches = [runner.measure() for _ in range(2)]
        assert lengths_ns[0] == 100 * MS
        assert len(lengths_ns) == 3
        assert min(lengths_ns[1:]) >= 4_400 * MS  # each caller has time for two answers as long as the longest
        for one in launches:
            assert one.samples.due_in(one.window).sum() >= 2
            assert one.given_window_ns == 100 * MS
            assert one.window.duration_ns >= 250 * MS

    def test_a_budget_too_small_for_a_request_leaves_the_window(self, generator: Generator, watch: Watch) -> None:
        over = threading.Event()

        def see(event: Event | None) -> None:
            if isinstance(event, WindowOpened):
                threading.Timer(0.3, over.set).start()  # after the window

        watch(see)
        plan = replace(PLAN, duration_ns=100 * MS, warmup_ns=50 * MS, generators=2, budget_ns=400 * MS)
        with bench_of(lambda _: [Hold(over), Send(answer(b'{"predictions": [1]}'))], plan, generator) as runner:
            launch = runner.measure()
        assert launch.samples.due_in(launch.window).sum() == 0
        assert launch.window.duration_ns == 100 * MS
        assert launch.given_window_ns is None


class TestBench:
    def test_the_deployment_starts_when_first_asked_for_and_serves_the_first_measurement(
        self, generator: Generator, tmp_path: Path
    ) -> None:
        before = our_children()
        with make_runner(generator, tmp_path) as runner:
            assert runner.log_tail() == ""
            assert our_children() == before
            first = runner.deployment.pids
            assert runner.deployment.predict([20, 22]) == 42
            runner.measure()
            assert runner.deployment.pids == first
            runner.measure()
            assert runner.deployment.pids != first
            assert survivors(first, 0) == set()
            second = runner.deployment.pids
            runner.close()
            runner.close()
        assert survivors(second, 0) == set()

    def test_ctrl_c_keeps_what_was_measured(self, generator: Generator, tmp_path: Path) -> None:
        def interrupt(progress: Progress) -> None:
            if progress.completed > 0:
                raise KeyboardInterrupt

        plan = replace(PLAN, duration_ns=600_000 * MS)
        with make_runner(generator, tmp_path, plan, on_progress=interrupt) as runner:
            with pytest.raises(Interrupted) as caught:
                runner.measure()
            launch = caught.value.launch
            assert launch.window.duration_ns < plan.duration_ns
            assert set(launch.samples.outcome.tolist()) == {200}
            assert launch.stats is not None

    def test_of_a_launch_without_a_window_ctrl_c_keeps_nothing(self, generator: Generator, tmp_path: Path) -> None:
        def interrupt(_: Progress) -> None:
            raise KeyboardInterrupt

        plan = replace(PLAN, warmup_ns=600_000 * MS)
        with (
            make_runner(generator, tmp_path, plan, on_progress=interrupt) as runner,
            pytest.raises(KeyboardInterrupt) as caught,
        ):
            runner.measure()
        assert caught.type is KeyboardInterrupt

    def test_ctrl_c_stays_ctrl_c_if_the_deployment_has_ended_too(self, generator: Generator, tmp_path: Path) -> None:
        def interrupt(_: Progress) -> None:
            os.kill(runner.deployment.pids[0], signal.SIGKILL)
            raise KeyboardInterrupt

        plan = replace(PLAN, duration_ns=600_000 * MS)
        with make_runner(generator, tmp_path, plan, on_progress=interrupt) as runner, pytest.raises(KeyboardInterrupt):
            runner.measure()


class TestCheck:
    @pytest.mark.parametrize(
        ("verdict", "error", "message"),
        [
            (False, AssertionError, r"check= returned False for \d+ answers"),
            ([True, False], AssertionError, r"check= returned \[True, False\] for \d+ answers"),
            (np.array([True, False]), AssertionError, r"check= returned array\(.*\) for \d+ answers"),
            (0, SettingError, "check= returned 0, expected None, True, False or an array of them; assert inside it"),
            ([], SettingError, r"check= returned \[\], expected None, True, False or an array of them"),
            ("wrong", SettingError, "check= returned 'wrong', expected None, True, False or an array of them"),
            ((one for one in ()), SettingError, "check= returned an unfinished generator, expected a f"),
        ],
        ids=["false", "list", "array", "number", "nothing", "text", "generator"],
    )
    def test_a_check_that_does_not_say_that_all_is_well_fails(
        self, verdict: object, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            check_outputs(lambda _inputs, _outputs: verdict, [1], [1])

    @pytest.mark.parametrize("sent", [b"hello", b'{"predictions": []}'], ids=["no-json", "empty"])
    def test_a_check_without_an_answer_is_no_verdict(self, generator: Generator, sent: bytes) -> None:
        plan = replace(PLAN, check=lambda _inputs, _outputs: True)
        with (
            bench_of(lambda _: [Send(answer(sent))], plan, generator) as runner,
            pytest.raises(InvalidResultError, match="could not read an answer"),
        ):
            runner.measure()

    def test_a_load_without_a_success_is_said_to_have_none_instead(self, generator: Generator) -> None:
        plan = replace(PLAN, check=lambda _inputs, _outputs: False)
        with bench_of(lambda _: [Send(answer(b"no", 503))], plan, generator) as runner:
            why = why_invalid(Metrics((runner.measure(),)))
        assert why is not None
        assert re.match(r"none of [\d,]+ requests succeeded \(503: ", str(why.error()))


def test_a_check_that_gets_no_answer_because_of_their_length_says_so() -> None:
    deployment = Deployment(Endpoint((("127.0.0.1", 1),), "/predict", "m"), ForeignProcesses())
    plan = replace(PLAN, check=lambda _inputs, _outputs: True)
    with pytest.raises(
        InvalidResultError, match=r"^check= keeps at most 64\.0 MiB of answers, and every answer is longer"
    ):
        check_answers(deployment, plan, [], are_cut=True)


class TestSilence:
    """A service that answers forty requests, the last of them after the warm-up, and then none."""

    PLAN = replace(PLAN, timeout_ns=2_000 * MS, duration_ns=1_800 * MS, stretches=True)

    @pytest.fixture
    def runner(self, generator: Generator) -> Iterator[LaunchRunner]:
        def script(request: Request) -> list[Step]:
            time.sleep(0.005)
            return [Send(answer(b'{"predictions": [1]}')) if request.number < 40 else Silence()]

        with bench_of(script, self.PLAN, generator) as runner:
            yield runner

    def test_a_silence_is_recorded_and_measured_once(self, runner: LaunchRunner) -> None:
        launch = runner.measure()
        assert launch.silence.endswith("all 2 callers timed out after 2.00 s")
        assert launch.samples.outcome.size == 42

    def test_its_metrics_are_not_asked_for(self, runner: LaunchRunner) -> None:
        class Scraper:
            asked = 0

            def layers(self) -> tuple[LayerStats, ...]:
                self.asked += 1
                if self.asked > 1:
                    raise DeploymentError("the metrics do not answer")
                return ()

            def close(self) -> None:
                """Nothing is open."""

        runner.deployment.scraper = Scraper()  # type: ignore[assignment]
        assert runner.measure().silence


class TestSmoke:
    def test_a_smoke_run_sends_one_request_and_needs_no_generator(self, tmp_path: Path) -> None:
        generator = Generator(tmp_path / "generator.log")
        seen: list[tuple[Sequence[Any], Sequence[Any]]] = []
        plan = replace(PLAN, check=lambda inputs, outputs: seen.append((inputs, outputs)))
        with make_runner(generator, tmp_path, plan, smoke=True) as runner:
            before = runner.deployment.stats()
            running = our_children()
            launch = runner.measure()
            assert our_children() == running
            assert runner.deployment.stats().since(before).replica_requests == launch.stats.replica_requests == (1,)
        assert launch.samples.outcome.tolist() == [200]
        assert launch.samples.request.tolist() == [0]
        assert in_window(launch) == 1
        assert launch.generator.completed == 1
        assert seen == [([INPUTS[0]], [3])]
        generator.close()

    def test_an_error_is_a_sample_like_any_other(self, generator: Generator) -> None:
        asked: list[Request] = []
        with bench_of(
            lambda one: asked.append(one) or [Send(answer(b"busy", 503))], PLAN, generator, smoke=True
        ) as runner:
            assert runner.measure().samples.outcome.tolist() == [503]
        assert len(asked) == 1

    def test_an_error_is_no_answer_for_a_check(self, generator: Generator) -> None:
        plan = replace(PLAN, check=lambda _inputs, _outputs: True)
        with (
            bench_of(lambda _: [Send(answer(b'{"predictions": [1]}', 503))], plan, generator, smoke=True) as runner,
            pytest.raises(InvalidResultError, match="no successful answer"),
        ):
            runner.measure()

    def test_a_connection_that_breaks_is_told(self, generator: Generator) -> None:
        with (
            bench_of(lambda _: [Reset()], PLAN, generator, smoke=True) as runner,
            pytest.raises(DeploymentError, match=f"127.0.0.1:{runner.deployment.addresses[0][1]}"),
        ):
            runner.measure()


class TestServicesThatRun:
    def test_it_is_asked_as_clients_do_and_measured_as_it_answers(self, generator: Generator, tmp_path: Path) -> None:
        zipped = gzip.compress(b'{"predictions": [%s1]}' % (b" " * 9000), mtime=0)
        sent = answer(zipped, 200, b"content-encoding: gzip")
        outputs: list[Any] = []
        plan = replace(PLAN, check=lambda _inputs, found: outputs.extend(found))
        with ScriptedServer(lambda _: [Send(sent)]) as server:
            target = Url("http://{}:{}/predict".format(*server.address))
            with closing(
                LaunchRunner(
                    lambda: attach(target, make_start_options(tmp_path, INPUTS)),
                    plan,
                    generator,
                    on_progress=lambda _: None,
                )
            ) as runner:
                launch = runner.measure()
        assert set(launch.samples.received_bytes.tolist()) == {len(sent)}
        assert set(outputs) == {1}
        assert len(server.requests) > 2
        asked = b"\r\naccept-encoding: gzip, deflate\r\n"
        assert all(asked in request.head.lower() for request in server.requests)  # also the one before the load
