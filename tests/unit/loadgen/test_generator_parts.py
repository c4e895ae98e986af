"""Generator processes that do as they are told: their parts become one, and one that hangs is replaced."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.services.jobs import a_job
from support.synthetic import MS, S

from pytest_mlpatterns import ChildError
from pytest_mlpatterns.loadgen import ceiling
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.generator_process import LocalPool
from pytest_mlpatterns.loadgen.messages import LoadResult, Transport
from pytest_mlpatterns.loadgen.recorder import SampleRecorder
from pytest_mlpatterns.records.addressing import Answer, Progress, Remote
from pytest_mlpatterns.records.launch import GeneratorReport, Warmup
from pytest_mlpatterns.records.outcomes import FailedAnswer
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.workload.schedule import ClosedLoop

PROGRESS = Progress(S, 100, MS)
QUIET: Any = None
JOB = a_job([("127.0.0.1", 1)], ClosedLoop(2), duration_ns=3 * S, warmup_ns=S, timeout_ns=10 * S)


class FakeChild:
    """A process that sends these messages; what is quiet sends none within the time that it is given."""

    node = ""
    clock_error_ns = 0

    def __init__(self, *messages: object, pid: int = 4711, stopped: str = "") -> None:
        self.pid = pid
        self.name = f"process {pid}"
        self.ended = False
        self._stopped = stopped
        self.waited_s = 0.0
        self._messages = iter(messages)

    def send(self, _: object) -> None:
        """Take it."""

    def receive(self, timeout_s: float) -> object:
        message = next(self._messages, QUIET)
        if message is QUIET:
            self.waited_s += timeout_s
            raise TimeoutError
        return message

    def close_channel(self) -> None:
        """Hear of it."""

    def why_stopped(self) -> str:
        return self._stopped

    def stop(self) -> None:
        self.ended = True


class FakePool(LocalPool):
    """Gives these processes in turn."""

    def __init__(self, *children: FakeChild) -> None:
        self._waiting = list(children)
        self.asked: list[int] = []

    def start(self, number: int, log: Path) -> Any:
        return self._waiting.pop(0)

    def ceilings_rps(self, transport: Transport, processes: int) -> tuple[float, ...]:
        self.asked.append(processes)
        return (9000.0, 8000.0)


def run(directory: Path, *children: FakeChild, poll_s: float = 0.05) -> None:
    generator = Generator(directory / "generator.log", pool=FakePool(*children))
    generator.run(JOB, poll_s=poll_s, on_poll=lambda _: None, processes=len(children))


def test_a_silent_generator_is_ended_after_twenty_seconds(tmp_path: Path) -> None:
    child = FakeChild(PROGRESS, *[QUIET] * 300, PROGRESS)
    with pytest.raises(ChildError, match=r"\(process 4711\) has sent nothing for 20 s: this load is invalid; the proc"):
        run(tmp_path, child)
    assert child.ended
    assert child.waited_s == pytest.approx(15 + 20)


def test_a_stopped_generator_is_ended_after_three_intervals(tmp_path: Path) -> None:
    child = FakeChild(PROGRESS, stopped="process 4711 (python) is stopped (SIGSTOP)")
    with pytest.raises(ChildError, match=r"the load generator is stopped: process 4711 \(python\) is stopped \(SIGST"):
        run(tmp_path, child)
    assert child.ended
    assert child.waited_s == pytest.approx(0.75)


def test_of_several_the_silent_one_is_named_and_all_are_ended(tmp_path: Path) -> None:
    alive, silent = FakeChild(*[PROGRESS] * 100_000, pid=1), FakeChild(pid=4712)
    with pytest.raises(ChildError, match=r"\(process 4712\) has sent nothing"):
        run(tmp_path, alive, silent)
    assert alive.ended
    assert silent.ended
    assert silent.waited_s == pytest.approx(20, abs=0.1)


def test_a_stopped_generator_is_found_however_seldom_the_caller_asks(tmp_path: Path) -> None:
    child = FakeChild(stopped="process 4711 is stopped")
    with pytest.raises(ChildError, match="is stopped"):
        run(tmp_path, child, poll_s=60.0)
    assert child.waited_s == pytest.approx(0.75)


def test_a_server_for_the_ceiling_that_is_deaf_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = FakeChild()
    monkeypatch.setattr(ceiling, "Child", lambda *_, **__: child)
    with pytest.raises(ChildError, match=r"\(process 4711\) does not listen after 20 s"):
        ceiling.measure_ceiling(Generator(tmp_path / "generator.log"), tmp_path)
    assert child.ended


def test_a_generator_that_reports_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up, window and the time-outs of both are 24 s; half a minute more is late."""
    clock = itertools.count(0.0, 0.25)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    child = FakeChild(*[PROGRESS] * 1000)
    with pytest.raises(ChildError, match=r"\(process 4711\) is not done with its load after 54 s"):
        run(tmp_path, child)
    assert child.ended


def part(number: int, completed: int, *, stopped_early: bool = False) -> LoadResult:
    """What a process of two recorded in a second; each has said why something failed."""
    recording = SampleRecorder()
    recording.add(number, number, 10 - number, 200, number, 0, 0)
    said = {"score": f"none in {number}"}
    return LoadResult(
        recording.columns(),
        Window(0, S),
        Warmup(0, number, steady=True),
        GeneratorReport(MS, S, completed, connections=number, connect_ns=number),
        [Answer(number, b"", b"")],
        stopped_early,
        failed={-1: FailedAnswer(number, "words"), -number: FailedAnswer(number, "words")},
        figure_faults=said,
        without_figure=said,
    )


@each_row(
    ("completed", "stopped_early", "node", "remote", "ceilings"),
    (1001, False, "a", None, [9000.0, 8000.0]),
    (1000, False, "a", None, [None, None]),  # what every machine reaches is not worth a measurement
    (1001, True, "a", None, [None, None]),
    (1001, False, "a", Remote("https://host", http2=False), [None, None]),
    (1001, False, "", None, []),
)
def test_parts_of_a_load_become_one(
    tmp_path: Path, completed: int, stopped_early: bool, node: str, remote: Remote | None, ceilings: list[float | None]
) -> None:
    children = [FakeChild(part(number, completed, stopped_early=stopped_early)) for number in (1, 2)]
    for child in children:
        child.node = node
    pool = FakePool(*children)
    job = replace(JOB, endpoint=replace(JOB.endpoint, remote=remote))
    generator = Generator(tmp_path / "generator.log", pool=pool)
    whole = generator.run(job, poll_s=0.05, on_poll=lambda _: None, processes=2)
    report = whole.generator
    assert [one.ceiling_rps for one in report.parts] == ceilings
    assert pool.asked == ([2] if any(ceilings) else [])
    assert (report.completed, report.connections, report.connect_ns, report.processes) == (2 * completed, 3, 2, 2)
    assert (whole.warmup.requests, whole.warmup.steady, whole.stopped_early) == (3, True, stopped_early)
    assert samples_of(whole).request.tolist() == [2, 1], "in the order of completion"
    assert [answer.request for answer in whole.answers] == [1, 2]
    first = {"score": "none in 1"}
    assert (whole.figure_faults, whole.without_figure) == (first, first)
    assert {outcome: answer.request for outcome, answer in whole.failed.items()} == {-1: 1, -2: 2}
