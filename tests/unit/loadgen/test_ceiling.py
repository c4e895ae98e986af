"""The generator's ceiling, and what a client library adds, by a generator that is declared."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.each_row import each_row
from support.synthetic import MS

from pytest_mlpatterns import ChildError
from pytest_mlpatterns.loadgen import ceiling
from pytest_mlpatterns.loadgen.ceiling import measure_ceiling, measure_library_overhead
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, Transport
from pytest_mlpatterns.loadgen.recorder import SampleRecorder
from pytest_mlpatterns.records.launch import GeneratorReport, Warmup
from pytest_mlpatterns.records.samples import Window


class DeclaredGenerator:
    """A generator that completes these numbers of requests, one a window, with 10 us of CPU time each.

    Its client library takes 30 us more for a request than it does itself.
    """

    pool = SimpleNamespace(library_overhead_ns=lambda: None)

    def __init__(self, *completed: int) -> None:
        self.ceilings_rps: dict[Transport, float] = {}
        self.jobs: list[LoadJob] = []
        self._completed = iter(completed)

    def run(self, job: LoadJob, **_: object) -> LoadResult:
        self.jobs.append(job)
        completed = next(self._completed)
        recording = SampleRecorder()
        recording.add(0, 0, 70_000 if job.endpoint.remote else 40_000, 200, 0, 0, 0)
        report = GeneratorReport(10_000 * completed, job.duration_ns, completed, connections=32)
        window = Window(0, job.duration_ns)
        warmup = Warmup(0, 0, steady=True)
        return LoadResult(recording.columns(), window, warmup, report, answers=[], stopped_early=False)


def measured(directory: Path, *completed: int, transport: Transport = Transport.THREAD) -> Any:
    """``transport``: that of a thread needs no null server, since its client is a function."""
    generator: Any = DeclaredGenerator(*completed)
    measure_ceiling(generator, directory, transport)
    return generator


def test_windows_are_doubled_until_enough_was_answered(tmp_path: Path) -> None:
    generator = measured(tmp_path, 0, 99, 100)
    assert [job.duration_ns for job in generator.jobs] == [150 * MS, 300 * MS, 600 * MS]
    assert generator.ceilings_rps == {Transport.THREAD: 100_000}


def test_a_machine_on_which_nothing_is_answered_is_too_busy(tmp_path: Path) -> None:
    expected = r"got 7 answers in 4\.8 s from a server that does nothing, expected 100 or more: this machine is"
    with pytest.raises(ChildError, match=expected):
        measured(tmp_path, *[0] * 5, 7)


@each_row(
    ("transport", "head", "body_bytes"),
    (Transport.HTTP1, b"POST / HTTP/1.1\r\nhost: null\r\ncontent-length: 17\r\n\r\n", 17),
    (Transport.GRPC, b"\0" + (64).to_bytes(4, "big"), 64),
)
def test_the_null_server_gets_whole_requests_of_the_wire(
    tmp_path: Path, transport: Transport, head: bytes, body_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ceiling, "_null_server", lambda *_: nullcontext(8080))
        (job,) = measured(tmp_path, 100, transport=transport).jobs
    (message,) = job.messages
    assert (message[: len(head)], len(message) - len(head)) == (head, body_bytes)
    assert (job.transport, job.endpoint.port, job.schedule.concurrency) == (transport, 8080, 32)


def test_a_library_adds_what_its_median_is_above_ours_with_one_request_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceiling, "_null_server", lambda *_: nullcontext(8080))
    generator: Any = DeclaredGenerator(100, 100)
    measure_library_overhead(generator, tmp_path)
    assert generator.library_overhead_ns == 30_000
    assert [job.schedule.concurrency for job in generator.jobs] == [1, 1]
