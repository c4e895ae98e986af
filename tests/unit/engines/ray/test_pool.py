"""Load generators on nodes as the parent sees them: jobs, times on another clock, lost processes, and refusals."""

import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.fake_ray import FakeRay
from support.services.jobs import MESSAGES, MS, a_job
from support.synthetic import S

from pytest_mlpatterns.engines.ray.cluster import ClockOffset
from pytest_mlpatterns.engines.ray.generator_host import RayPool, RayProcess
from pytest_mlpatterns.engines.ray.messages import Ended, Heard, HostFacts, Started
from pytest_mlpatterns.errors import ChildError, SettingError
from pytest_mlpatterns.loadgen.ceiling import measure_library_overhead
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, OpenWindow, Share, Transport, Warm, WindowOpened
from pytest_mlpatterns.loadgen.process import STOP
from pytest_mlpatterns.loadgen.recorder import SampleRecorder, StreamColumns
from pytest_mlpatterns.records.addressing import Progress, Remote
from pytest_mlpatterns.records.launch import GeneratorReport, Warmup
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.system.machine import machine_identity
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate

ADDRESS = ("10.0.0.9", 8000)
JOB = a_job([ADDRESS], ClosedLoop(4))
AHEAD_NS = 7_000 * S


def host_facts(number: int = 2, *, offset_ns: int = 0, error_ns: int = 0, **changes: Any) -> HostFacts:
    """The host on a node of a machine of its own."""
    values = {
        "node": f"10.0.0.{number}",
        "machine": f"machine-{number}",
        "clock": ClockOffset(offset_ns, error_ns),
        "allowed_connections": 1000,
    }
    return HostFacts(**{**values, **changes})


@dataclass
class ScriptedHosts:
    """Functions of the driver for :class:`support.fake_ray.FakeRay`, and what they were called with."""

    facts: tuple[HostFacts, ...]  # of the host of each generator
    staged: list[tuple[bytes, ...]] = field(default_factory=list)  # messages in the object store
    jobs: list[tuple[int, int, LoadJob]] = field(default_factory=list)  # key, number and job
    sent: list[tuple[int, object]] = field(default_factory=list)  # key and message
    stopped: list[int] = field(default_factory=list)  # keys
    asked: Counter[str] = field(default_factory=Counter)
    on_load: Callable[[int], list[object]] = lambda _key: []  # what a process sends when it gets a job
    on_send: Callable[[int, object], list[object]] = lambda _key, _message: []
    stopped_text: str = ""  # answer to the question who is stopped
    _heard: list[Heard] = field(default_factory=list)
    _count: int = 0

    @property
    def functions(self) -> Mapping[str, Callable[..., object]]:
        return {
            "open_hosts": lambda processes: self.facts[:processes],
            "stage": self.staged.append,
            "load": self._load,
            "send": self._send,
            "collect": self._collect,
            "why_stopped": self._why_stopped,
            "close_channel": lambda _key: None,
            "stop": self.stopped.append,
            "ceilings_rps": self._ceilings_rps,
            "library_overhead_ns": lambda: 27_000.0,
        }

    def hear(self, key: int, *messages: object) -> None:
        """A process sends these."""
        for message in messages:
            self._count += 1
            self._heard.append(Heard(self._count, key, message))

    def _load(self, key: int, number: int, job: LoadJob) -> None:
        self.jobs.append((key, number, job))
        self.hear(key, *self.on_load(key))

    def _send(self, key: int, message: object) -> None:
        self.sent.append((key, message))
        self.hear(key, *self.on_send(key, message))

    def _collect(self, after: int, _timeout_s: float) -> tuple[Heard, ...]:
        self.asked["collect"] += 1
        self._heard = [heard for heard in self._heard if heard.number > after]
        return tuple(self._heard)

    def _why_stopped(self, _key: int) -> str:
        self.asked["why_stopped"] += 1
        return self.stopped_text

    def _ceilings_rps(self, _transport: object, processes: int) -> tuple[float, ...]:
        self.asked["ceilings_rps"] += 1
        return tuple(1000.0 * (number + 1) for number in range(processes))


def pool_of(hosts: ScriptedHosts) -> RayPool:
    return RayPool(lambda: FakeRay(hosts.functions))  # type: ignore[arg-type]


def started(**facts: Any) -> tuple[ScriptedHosts, RayProcess]:
    """A node, and the process of a generator on it that has its first job."""
    hosts = ScriptedHosts((host_facts(2, **facts),))
    pool = pool_of(hosts)
    pool.prepare(JOB, 1)
    process = pool.start(0, log=None)  # type: ignore[arg-type]
    process.send(JOB)
    return hosts, process


def recorded(*done_ns: int, start_ns: int = 0, cpu_ns: int = 1000, stopped: bool = False) -> LoadResult:
    """A recording of requests that took 1 ms."""
    recorder = SampleRecorder()
    for at_ns in done_ns:
        recorder.add(at_ns - MS, at_ns - MS, at_ns, 200, 0, 0, 100)
    return LoadResult(
        columns={name: bytes(column.raw()) for name, column in recorder.columns().items()},
        window=Window(start_ns, start_ns + S),
        warmup=Warmup(5 * MS, 1, None),
        generator=GeneratorReport(cpu_ns, S, len(done_ns), connections=1),
        answers=[],
        stopped_early=stopped,
    )


def run(hosts: ScriptedHosts, directory: Path, processes: int, seen: list[Any] | None = None) -> LoadResult:
    generator = Generator(directory / "generator.log", pool=pool_of(hosts))
    return generator.run(JOB, poll_s=0.05, on_poll=[].append if seen is None else seen.append, processes=processes)


class TestJobs:
    def test_what_all_send_goes_to_the_cluster_once(self) -> None:
        hosts = ScriptedHosts((host_facts(2), host_facts(3)))
        pool = pool_of(hosts)
        pool.prepare(JOB, 2)
        processes = [pool.start(number, log=None) for number in range(2)]  # type: ignore[arg-type]
        for share, process in enumerate(processes):
            process.send(replace(JOB, share=Share(share, 2)))
            process.send(replace(JOB, share=Share(share, 2), duration_ns=5))
        assert hosts.staged == [MESSAGES]
        assert [(number, job.share, job.messages) for _, number, job in hosts.jobs] == [
            (number, Share(number, 2), ()) for number in (0, 0, 1, 1)
        ]
        processes[0].send(replace(JOB, messages=(b"other",)))
        assert hosts.staged == [MESSAGES, (b"other",)]

    def test_a_process_starts_with_its_first_job(self) -> None:
        hosts = ScriptedHosts((host_facts(2),))
        pool = pool_of(hosts)
        process = pool.start(0, log=None)  # type: ignore[arg-type]
        process.close_channel()
        process.stop()
        assert process.pid is None
        assert (hosts.jobs, hosts.stopped) == ([], [])

    def test_its_host_begins_to_start_before_the_first_job(self, tmp_path: Path) -> None:
        asked: Queue[int] = Queue()
        hosts = ScriptedHosts((host_facts(2), host_facts(3)))
        functions = {**hosts.functions, "open_hosts": lambda processes: asked.put(processes) or hosts.facts}
        pool = RayPool(lambda: FakeRay(functions))  # type: ignore[arg-type,return-value]
        generator = Generator(tmp_path / "generator.log", pool=pool)
        generator.start(2)
        assert asked.get(timeout=60) == 2
        pool.prepare(JOB, 2)
        assert asked.get(timeout=60) == 2
        pool.begin(2)
        assert asked.empty()

    def test_messages_wait_for_the_process_that_they_are_of(self) -> None:
        hosts = ScriptedHosts((host_facts(2), host_facts(3)))
        pool = pool_of(hosts)
        pool.prepare(JOB, 2)
        first, second = (pool.start(number, log=None) for number in range(2))  # type: ignore[arg-type]
        for process in (first, second):
            process.send(JOB)
        one, two = Progress(S, 1, MS), Progress(S, 2, MS)
        keys = [key for key, _, _ in hosts.jobs]
        hosts.hear(keys[1], two)
        hosts.hear(keys[0], one)
        assert first.receive(30.0) == one
        asked = hosts.asked["collect"]
        assert second.receive(30.0) == two
        assert hosts.asked["collect"] == asked

    def test_without_a_message_it_waits_no_longer_than_asked(self) -> None:
        with pytest.raises(TimeoutError):
            started()[1].receive(0.001)

    def test_what_came_of_an_earlier_job_is_forgotten(self) -> None:
        hosts, process = started()
        key = hosts.jobs[0][0]
        hosts.hear(key, Progress(S, 1, MS), Ended("it died meanwhile"))
        assert process.receive(30.0) == Progress(S, 1, MS)
        process.send(JOB)
        hosts.hear(key, Progress(S, 2, MS))
        assert process.receive(30.0) == Progress(S, 2, MS)

    def test_a_recording_is_acknowledged_so_that_the_cluster_can_drop_it(self) -> None:
        hosts, process = started()
        hosts.hear(hosts.jobs[0][0], recorded(2 * MS))
        process.receive(30.0)
        assert hosts._heard == []


class TestClocks:
    def test_the_window_opens_at_the_time_of_the_other_clock(self) -> None:
        hosts, process = started(offset_ns=AHEAD_NS)
        process.send(OpenWindow(5 * S))
        process.send(STOP)
        key = hosts.jobs[0][0]
        assert hosts.sent == [(key, OpenWindow(5 * S + AHEAD_NS)), (key, STOP)]
        hosts.hear(key, WindowOpened(5 * S + AHEAD_NS))
        assert process.receive(30.0) == WindowOpened(5 * S)

    @pytest.mark.parametrize("offset_ns", [0, AHEAD_NS, -AHEAD_NS])
    def test_recorded_times_are_on_the_clock_of_this_process(self, offset_ns: int) -> None:
        hosts, process = started(offset_ns=offset_ns, error_ns=300)
        start_ns = 9_000 * S
        hosts.hear(hosts.jobs[0][0], recorded(start_ns + offset_ns + 2 * MS, start_ns=start_ns + offset_ns))
        result = process.receive(30.0)
        samples = samples_of(result)
        assert result.window == Window(start_ns, start_ns + S)
        assert (samples.due_ns.tolist(), samples.done_ns.tolist()) == ([start_ns + MS], [start_ns + 2 * MS])
        assert samples.sent_ns.tolist() == [start_ns + MS]
        assert process.clock_error_ns == 300

    def test_times_of_streams_are_too_and_absent_ones_stay_absent(self) -> None:
        hosts, process = started(offset_ns=AHEAD_NS)
        whole = recorded(AHEAD_NS + 2 * MS, AHEAD_NS + 3 * MS)
        streams = {
            "first_byte_ns": array("q", [AHEAD_NS + MS, 0]),
            "chunk_count": array("I", [2, 0]),
            "output_tokens": array("i", [2, -1]),
            "input_tokens": array("i", [1, -1]),
            "chunk_ns": array("q", [AHEAD_NS + MS, AHEAD_NS + 2 * MS]),
        }
        assert set(streams) == set(StreamColumns.COLUMNS)
        texts = {"text": b"ab", "text_bytes": array("i", [2, -1]).tobytes()}
        columns = whole.columns | {name: column.tobytes() for name, column in streams.items()} | texts
        hosts.hear(hosts.jobs[0][0], replace(whole, columns=columns))
        result = process.receive(30.0)
        stream = samples_of(result).stream
        assert stream.first_byte_ns.tolist() == [MS, 0]
        assert stream.chunk_ns.tolist() == [MS, 2 * MS]
        assert result.columns["text"] == b"ab"


class TestSharedLoads:
    def test_recordings_of_two_clocks_are_merged_in_the_order_of_completion(self, tmp_path: Path) -> None:
        offsets = (AHEAD_NS, -AHEAD_NS)
        hosts = ScriptedHosts(
            tuple(host_facts(2 + number, offset_ns=offset, error_ns=100) for number, offset in enumerate(offsets))
        )
        hosts.on_load = lambda _key: [Started(4711), Warm()]

        def opened(key: int, message: object) -> list[object]:
            assert isinstance(message, OpenWindow)
            at_ns = message.at_ns
            done = [at_ns + (2 * step + key) * MS for step in range(1, 4)]
            part = recorded(*done, start_ns=at_ns)
            late = replace(part.generator, opened_late_ns=key * MS)
            return [WindowOpened(at_ns), replace(part, generator=late)]

        hosts.on_send = opened
        before_ns = time.perf_counter_ns()
        seen: list[Any] = []
        result = run(hosts, tmp_path, 2, seen)
        samples = samples_of(result)
        assert np.diff(samples.done_ns).tolist() == [MS] * 5
        assert result.window.start_ns > before_ns
        assert seen == [WindowOpened(result.window.start_ns)]
        assert (samples.done_ns - result.window.start_ns).tolist() == [step * MS for step in range(2, 8)]
        assert result.generator.processes == 2
        assert [(part.node, part.completed, part.opened_late_ns) for part in result.generator.parts] == [
            ("10.0.0.2", 3, 0),
            ("10.0.0.3", 3, MS),
        ]
        assert {part.clock_error_ns for part in result.generator.parts} == {100}

    @pytest.mark.parametrize(("rows", "ceilings"), [(10, (None,)), (2000, (1000.0,))])
    def test_a_fast_generator_comes_with_its_ceiling(
        self, tmp_path: Path, rows: int, ceilings: Sequence[float | None]
    ) -> None:
        hosts = ScriptedHosts((host_facts(2),))
        hosts.on_load = lambda _key: [recorded(*range(S, S + rows))]
        result = run(hosts, tmp_path, 1)
        assert tuple(part.ceiling_rps for part in result.generator.parts) == tuple(ceilings)

    def test_the_ceiling_of_a_job_is_the_mean_over_the_nodes(self, tmp_path: Path) -> None:
        hosts = ScriptedHosts((host_facts(2), host_facts(3)))
        hosts.on_load = lambda _key: [Warm()]
        hosts.on_send = lambda _key, message: [recorded(5 * S, start_ns=message.at_ns)]  # type: ignore[attr-defined]
        generator = Generator(tmp_path / "generator.log", pool=pool_of(hosts))
        generator.run(JOB, poll_s=0.05, on_poll=lambda _: None, processes=2)
        assert generator.ceiling_of(JOB) == 1500.0
        assert generator.ceiling_of(JOB, rate_rps=10.0) is None
        assert generator.pool.ceilings_rps(Transport.HTTP1, 2) == (1000.0, 2000.0)

    def test_the_opening_is_far_enough_away_for_the_farthest_node(self) -> None:
        pool = pool_of(ScriptedHosts((host_facts(2), host_facts(3, error_ns=50 * MS))))
        assert pool.opening_delay_ns(1) == 105 * MS
        pool.prepare(JOB, 2)
        assert pool.opening_delay_ns(2) == 2_010 * MS


class TestLost:
    def test_a_process_that_ended_is_named_with_its_node(self, tmp_path: Path) -> None:
        hosts = ScriptedHosts((host_facts(2),))
        hosts.on_load = lambda _key: [Started(4711), Ended("process 4711 ended with signal SIGKILL")]
        with pytest.raises(ChildError) as lost:
            run(hosts, tmp_path, 1)
        assert str(lost.value) == (
            "the load generator (process 4711 on node 10.0.0.2) ended during its load: process 4711 ended with signal "
            "SIGKILL: this load is invalid, and the next one gets another generator"
        )
        assert hosts.stopped == [hosts.jobs[0][0]]

    def test_one_that_never_started_is_named_by_its_number(self, tmp_path: Path) -> None:
        hosts = ScriptedHosts((host_facts(2),))
        hosts.on_load = lambda _key: [Ended("node 10.0.0.2 of the Ray cluster is gone (ActorDiedError)")]
        with pytest.raises(ChildError, match=r"the load generator \(generator 0 on node 10.0.0.2\) ended during its"):
            run(hosts, tmp_path, 1)

    def test_the_driver_is_asked_twice_a_second_who_is_stopped(self) -> None:
        hosts, process = started()
        hosts.stopped_text = "process 4711 (python) is stopped (SIGSTOP) on node 10.0.0.2"
        assert process.why_stopped() == hosts.stopped_text
        assert process.why_stopped() == "" or hosts.asked["why_stopped"] == 2

    def test_a_driver_that_does_not_answer_is_an_error_and_no_silence(self) -> None:
        _, process = started()

        def silent(*_arguments: object) -> None:
            raise TimeoutError

        pool = RayPool(lambda: FakeRay({"open_hosts": silent}))  # type: ignore[arg-type]
        with pytest.raises(ChildError, match="the Ray driver does not answer for 150 s"):
            pool.prepare(JOB, 1)
        assert process.node == "10.0.0.2"

    def test_processes_of_a_driver_that_is_gone_have_ended(self) -> None:
        ray = FakeRay(ScriptedHosts((host_facts(2),)).functions)
        pool = RayPool(lambda: ray)  # type: ignore[arg-type]
        pool.prepare(JOB, 1)
        process = pool.start(0, log=None)  # type: ignore[arg-type]
        process.send(JOB)
        asked = []

        def gone(name: str) -> object:
            def ended(*_arguments: object) -> None:
                asked.append(name)
                raise ChildError("process 1 ended")

            return ended

        ray.functions = {name: gone(name) for name in ("close_channel", "stop")}
        process.close_channel()
        process.stop()
        assert asked == ["close_channel", "stop"]


class TestRefusals:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
    def test_a_service_on_a_loopback_address_is_not_loaded_from_another_machine(self, host: str) -> None:
        pool = pool_of(ScriptedHosts((host_facts(2, machine=machine_identity()), host_facts(3))))
        with pytest.raises(SettingError) as refused:
            pool.prepare(a_job([ADDRESS, (host, 8123)], ClosedLoop(1)), 2)
        assert str(refused.value) == (
            f'perf(generators_on="ray"): node 10.0.0.3 cannot reach {host}:8123, where the service listens; choose '
            'generators_on="local", or serve it with engine="ray"'
        )

    def test_a_service_on_a_loopback_address_is_loaded_from_its_own_machine(self) -> None:
        pool = pool_of(ScriptedHosts((host_facts(2, machine=machine_identity()),)))
        pool.prepare(a_job([("127.0.0.1", 8123)], ClosedLoop(1)), 1)
        assert [facts.node for facts in pool.facts] == ["10.0.0.2"]

    def test_the_origin_of_a_client_library_counts_instead_of_the_addresses(self) -> None:
        pool = pool_of(ScriptedHosts((host_facts(3),)))
        local = a_job([ADDRESS], ClosedLoop(1))
        remote = Remote("https://127.0.0.1:8443", http2=True)
        with pytest.raises(SettingError, match=r"cannot reach 127\.0\.0\.1:8443"):
            pool.prepare(replace(local, endpoint=replace(local.endpoint, remote=remote)), 1)

    def test_the_node_that_allows_the_fewest_connections_is_the_limit(self) -> None:
        few = host_facts(3, allowed_connections=5)
        pool = pool_of(ScriptedHosts((host_facts(2), few, host_facts(4, allowed_connections=None))))
        with pytest.raises(SettingError, match="the system allows 15 "):
            pool.prepare(a_job([ADDRESS], ClosedLoop(16)), 3)

    def test_a_load_whose_samples_take_too_much_memory_is_refused(self) -> None:
        pool = pool_of(ScriptedHosts((host_facts(2),)))
        with pytest.raises(SettingError, match="shorten duration="):
            pool.prepare(a_job([ADDRESS], ConstantRate(1_000_000), duration_ns=10**6 * S), 1)

    def test_a_closed_loop_that_records_too_much_is_ended(self) -> None:
        hosts, process = started()
        hosts.hear(hosts.jobs[0][0], Progress(S, 1000, MS), Progress(2 * S, 10**12, MS))
        assert process.receive(30.0) == Progress(S, 1000, MS)
        with pytest.raises(SettingError, match="a load of 1,000,000,000,000 requests"):
            process.receive(30.0)

    def test_what_a_client_library_adds_is_measured_beside_the_generators(self, tmp_path: Path) -> None:
        generator = Generator(tmp_path / "generator.log", pool=pool_of(ScriptedHosts((host_facts(2),))))
        measure_library_overhead(generator, tmp_path)
        assert generator.library_overhead_ns == 27_000.0
