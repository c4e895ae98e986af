"""Ctrl-C and worse, in the middle of a load: what is kept, what is shown, and that no process stays behind."""

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from support.nightly import rarer
from support.project import APART, RECORD, Project, Run, clean_environment, command

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.records.result import RunEnd
from pytest_mlpatterns.reports.files.result_file import read_results

pytestmark = pytest.mark.processes

PROJECT = Project().with_tests(
    """
    def test_first(perf):
        perf.assert_rtm_below("60s")

    @pytest.mark.perf(duration="60s", model="started:model")
    def test_long(perf):
        perf.assert_rtm_below("60s")

    @pytest.mark.perf(warmup="60s", model="started:model")
    def test_warming(perf):
        perf.assert_rtm_below("60s")

    def test_never(perf):
        pass
    """
)
PROJECT = PROJECT.with_file(
    "started.py",
    '''
    """A model that tells when it has answered some requests: the load is under way then."""

    import time
    from pathlib import Path

    answered = 0

    def model(batch):
        global answered
        answered += 1
        if answered == 200:
            Path("under-way").touch()
        time.sleep(0.001)
        return batch
    ''',
)
FILE = "perf-baseline.json"
OLD = '{"format": "pytest-mlpatterns-baseline", "version": 1, "tests": {}}\n'
DEADLINE_S = 120
"""What takes longer hangs, however busy the machine is."""


@contextmanager
def _under_load(directory: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A run of pytest whose long load is under way, and all processes below it."""
    PROJECT.with_file(FILE, OLD).write(directory)
    process = subprocess.Popen(
        command(*RECORD, "--perf-json", "out.json", *arguments),
        cwd=directory,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    family: list[psutil.Process] = []
    try:
        until = time.monotonic() + DEADLINE_S
        while not (directory / "under-way").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until, "the load does not begin"
            time.sleep(0.02)  # between looks for the file that the model makes
        family = psutil.Process(process.pid).children(recursive=True)
        yield process, family
    finally:
        for member in [*family, process]:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                member.kill()
        process.communicate()


def test_ctrl_c_keeps_what_was_measured_and_ends_every_process(tmp_path: Path) -> None:
    with _under_load(tmp_path) as (process, family):
        assert len(family) >= 2  # the deployment and the load generator
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
        _, alive = psutil.wait_procs(family, timeout=DEADLINE_S)
    assert alive == []
    run = Run(process.returncode, out, err, tmp_path)
    assert run.exit_code == pytest.ExitCode.INTERRUPTED
    assert run.table == {"test_first": "pass", "test_long": "interrupted"}
    (row,) = [line for line in run.section("performance").splitlines() if line.startswith("test_perf.py::test_long ")]
    assert " ms " in row or " µs " in row
    assert re.search(r"^!+ KeyboardInterrupt !+$", run.out, re.MULTILINE)
    assert "INTERNALERROR" not in run.out + run.err
    assert "Traceback" not in run.err
    assert (tmp_path / FILE).read_text(encoding="utf-8") == OLD
    results = {result["test"].rpartition("::")[2]: result["interrupted"] for result in run.json("out.json")["results"]}
    assert results == {"test_first": False, "test_long": True}


def test_ctrl_c_in_a_warm_up_keeps_the_other_results_and_the_verdict_is_no_pass(tmp_path: Path) -> None:
    with _under_load(tmp_path, "--perf-html", "out.html", "-k", "first or warming or never") as (process, _):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    run = Run(process.returncode, out, err, tmp_path)
    assert run.exit_code == pytest.ExitCode.INTERRUPTED
    assert run.table == {"test_first": "pass"}
    found = read_results((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [one.test for one in found.results] == ["test_perf.py::test_first"]
    assert found.run == RunEnd(False, ("test_perf.py::test_warming", "test_perf.py::test_never"))
    assert "the run was not completed, 2 perf tests not run" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert main(["verdict", str(tmp_path / "out.json")]) == 3


def test_ctrl_c_ends_every_process_of_a_distributed_run(tmp_path: Path) -> None:
    with _under_load(tmp_path, *APART, "-k", "long") as (process, family):
        assert len(family) >= 3  # a worker, a deployment and a load generator
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
        _, alive = psutil.wait_procs(family, timeout=DEADLINE_S)
    assert alive == []
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    found = read_results((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert found.run == RunEnd(False, ("test_perf.py::test_long",))
    assert main(["verdict", str(tmp_path / "out.json")]) == 3
    assert "INTERNALERROR" not in out + err
    assert (tmp_path / FILE).read_text(encoding="utf-8") == OLD


@pytest.mark.parametrize("how", [signal.SIGKILL, *rarer(signal.SIGTERM)], ids=["KILL", "TERM"])
def test_no_process_outlives_pytest_however_it_ends(
    tmp_path: Path, distribution: tuple[str, ...], how: signal.Signals
) -> None:
    with _under_load(tmp_path, "-k", "long", *distribution) as (process, family):
        process.send_signal(how)
        process.wait(timeout=DEADLINE_S)
        gone, alive = psutil.wait_procs(family, timeout=DEADLINE_S)
    assert alive == []
    assert len(gone) == len(family) >= 2
    assert (tmp_path / FILE).read_text(encoding="utf-8") == OLD
    assert main(["verdict", str(tmp_path / "out.json")]) == 3


def test_a_deployment_that_dies_under_load_fails_its_test_and_no_other(tmp_path: Path) -> None:
    body = '''
    import os

    class Dies:
        """Ends its process under the load, at a request that comes in every load."""

        def __init__(self):
            self.answered = 0

        def __call__(self, batch):
            self.answered += 1
            if self.answered == 5:
                print("out of memory", flush=True)
                os._exit(9)
            time.sleep(0.001)
            return batch

    @pytest.mark.perf(model=Dies, duration="5s")
    def test_dies(perf):
        perf.assert_rtm_below("60s")

    def test_after(perf):
        perf.assert_rtm_below("60s")
    '''
    run = Project().with_tests(body).run(tmp_path)
    assert run.outcomes == {"failed": 1, "passed": 1}
    text = run.failure("test_dies")
    assert "DeploymentError: service: process " in text
    assert "ended with exit code 9" in text
    assert "out of memory" in text
    assert "pytest_mlpatterns/" not in text
