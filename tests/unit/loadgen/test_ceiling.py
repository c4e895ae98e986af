"""The generator's ceiling on a machine that is held up: a window in which hardly anything happened says nothing."""

from pathlib import Path
from typing import Any

import pytest
from support.synthetic import MS

from pytest_mlpatterns import ChildError
from pytest_mlpatterns.loadgen.ceiling import measure_ceiling
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, Transport
from pytest_mlpatterns.records.launch import GeneratorReport, Warmup
from pytest_mlpatterns.records.samples import Window


class HeldUpGenerator:
    """A generator that completes these numbers of requests, one a window, with 10 us of CPU time each."""

    def __init__(self, *completed: int) -> None:
        self.ceilings_rps: dict[Transport, float] = {}
        self.windows_ns: list[int] = []
        self._completed = iter(completed)

    def run(self, job: LoadJob, **_: object) -> LoadResult:
        self.windows_ns.append(job.duration_ns)
        completed = next(self._completed)
        report = GeneratorReport(10_000 * completed, job.duration_ns, completed, connections=32)
        window = Window(0, job.duration_ns)
        return LoadResult({}, window, Warmup(0, 0, steady=True), report, answers=[], stopped_early=False)


def measured(directory: Path, *completed: int) -> Any:
    generator: Any = HeldUpGenerator(*completed)
    measure_ceiling(generator, directory, Transport.THREAD)  # its null server is a function
    return generator


def test_windows_are_doubled_until_enough_was_answered(tmp_path: Path) -> None:
    generator = measured(tmp_path, 0, 99, 100)
    assert generator.windows_ns == [150 * MS, 300 * MS, 600 * MS]
    assert generator.ceilings_rps == {Transport.THREAD: 100_000}


def test_a_machine_on_which_nothing_is_answered_is_too_busy(tmp_path: Path) -> None:
    expected = r"got 7 answers in 4\.8 s from a server that does nothing, expected 100 or more: this machine is"
    with pytest.raises(ChildError, match=expected):
        measured(tmp_path, *[0] * 5, 7)
