"""What a run leaves behind on GitHub Actions, seen from outside; the files themselves are tested with their formats."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.project import APART, Project
from support.synthetic import ENVIRONMENT, result

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.records.result import RunEnd
from pytest_mlpatterns.reports.files.result_file import read_results, results_json
from pytest_mlpatterns.system.empty_results import write_empty_results

pytestmark = pytest.mark.processes

BODY = """
def test_passes(perf): pass

@pytest.mark.perf(
    pattern="single",
)
def test_fails(perf):
    perf.assert_rtm_below("1ns")

@pytest.mark.perf(model=len, payload=[])
def test_breaks(perf): pass

def test_plain():
    assert False
"""
PROJECT = Project().with_tests(BODY)
SKIPPED = """
import pytest

pytest.skip("no GPU", allow_module_level=True)
"""
"""A file that is skipped as a whole, which is no failure."""


def on_github(directory: Path, top: Path, *arguments: str, summary: str = "summary.md") -> tuple[list[str], str]:
    """The annotations of a run, and its job summary."""
    variables = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(top / summary),
        "GITHUB_WORKSPACE": str(top),
        "CI": "true",
    }
    run = PROJECT.run(directory, *arguments, environment=variables)
    file = top / "summary.md"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [line for line in run.out.splitlines() if line.startswith("::")], text


def line_of(directory: Path, text: str) -> int:
    lines = (directory / "test_perf.py").read_text(encoding="utf-8").splitlines()
    return lines.index(text) + 1


UNEVEN = """
import random
import time

import pytest


def uneven(batch):
    return [time.sleep(random.uniform(0.001, 0.06)) or value for value in batch]

@pytest.mark.perf(model=uneven, payload=[1, 2, 3], duration="1s", warmup="0s", launches=1, concurrency=2)
def test_uneven(perf):
    perf.assert_rtm_below(f"{perf.metrics.rtm_ns.value / 1e6:.6f}ms")  # which its own interval contains
"""


@pytest.fixture
def busy_neighbours() -> Iterator[None]:
    """As many busy processes as this machine has cores."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    yield
    for one in loops:
        one.kill()
        one.wait()


@pytest.mark.usefixtures("busy_neighbours")
def test_an_undecided_test_beside_busy_neighbours_names_them_and_the_run_does(tmp_path: Path) -> None:
    run = Project().with_file("test_uneven.py", UNEVEN).run(tmp_path, "test_uneven.py", "--perf-json=out.json")
    assert run.outcomes["passed"] == 1
    text = " ".join(run.section("performance").split())
    assert re.search(
        r"why the machine was busy: other processes used \d\.\d of the \d+ cores next run it again in", text
    )
    line = r"1 undecided; the machine was busy \(\d+\.\d of \d+ cores\): 1 of 1 test undecided"
    assert re.search(line, text)
    (result,) = run.json("out.json")["results"]
    assert result["kind"] == "undecided"
    assert result["busy"]["others_cores"] > 0.3


def test_on_github_a_failing_test_is_annotated_at_its_line(tmp_path: Path) -> None:
    annotations, summary = on_github(tmp_path, tmp_path, *APART)
    fails, breaks = sorted(annotations, key=lambda text: "test_breaks" in text)
    number = line_of(tmp_path, "def test_fails(perf):")
    assert fails.startswith(
        f"::error file=test_perf.py,line={number},title=test_perf.py%3A%3Atest_fails::LimitFailure: median latency "
    )
    assert " is not below 1.00 ns%0Awhere: " in fails
    assert f"line={line_of(tmp_path, 'def test_breaks(perf): pass')}," in breaks
    assert summary.startswith("### Performance: 1 missed limit, 1 invalid test, 1 not compared\n")
    assert "\n| ✗ FAIL | test\\_perf.py::test\\_fails | single | " in summary
    assert "- ✗ **test\\_perf.py::test\\_breaks**: " in summary


def test_a_job_summary_is_appended_to_what_stands_there(tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("before\n", encoding="utf-8")
    _, summary = on_github(tmp_path, tmp_path, "-k", "passes")
    assert summary.startswith("before\n### Performance: 1 not compared\n")


@pytest.mark.parametrize(
    "arguments", [("--perf-smoke", "-k", "passes"), ("-k", "plain")], ids=["smoke", "no perf test"]
)
def test_a_run_that_judges_nothing_has_no_job_summary(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert on_github(tmp_path, tmp_path, *arguments) == ([], "")


def test_the_result_file_names_what_failed_beside_the_perf_tests(tmp_path: Path, distribution: tuple[str, ...]) -> None:
    project = PROJECT.with_file("test_broken.py", "import absent").with_file("test_gpu.py", SKIPPED)
    arguments = ("--perf-json=out.json", "--continue-on-collection-errors", "-k", "passes or breaks or plain")
    run = project.run(tmp_path, *arguments, *distribution)
    assert run.outcomes["failed"] == 2
    end = run.json("out.json")["run"]
    assert (end["complete"], end["not_run"]) == (True, [])
    assert sorted(end["other_failures"]) == ["test_broken.py", "test_perf.py::test_plain"]


def test_the_result_file_names_the_perf_tests_behind_the_first_failure(tmp_path: Path) -> None:
    run = PROJECT.run(tmp_path, "--perf-json=out.json", "--perf-smoke", "-x", "-k", "passes or breaks or fails")
    assert run.exit_code == pytest.ExitCode.TESTS_FAILED
    end = run.json("out.json")["run"]
    assert (end["not_run"], end["smoke"]) == ([], True)
    run = PROJECT.run(tmp_path, "--perf-json=out.json", "-x", "-k", "breaks or fails")
    assert run.json("out.json")["run"]["not_run"] == ["test_perf.py::test_breaks"]


ENDED_EARLY = {
    "import error": (Project().with_file("test_bad.py", "import absent"), (), 1, "test_bad.py"),
    "usage error": (PROJECT, ("absent.py",), 3, "the run was not completed"),
    "misspelled option": (PROJECT, ("--perf-jsom=r.json",), 3, "the run was not completed"),
    "broken conftest": (PROJECT.with_file("conftest.py", "import absent"), (), 3, "the run was not completed"),
    "bad option": (PROJECT, ("--perf-budget=soon",), 3, "the run was not completed"),
    "no perf test": (PROJECT, ("-k", "plain"), 1, "has no result of a perf test"),
}
"""A run that measures nothing, and the exit code and a word of ``verdict`` after it."""


@pytest.mark.parametrize("way", ENDED_EARLY)
def test_results_of_an_earlier_run_are_never_those_of_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    project, arguments, code, words = ENDED_EARLY[way]
    file = tmp_path / "out.json"
    file.write_text(results_json([result()], ENVIRONMENT, "2026-11-24", baseline={}), encoding="utf-8")
    assert main(["verdict", str(file)]) == 0
    project.run(tmp_path, "--perf-json=out.json", *arguments)
    capsys.readouterr()
    assert main(["verdict", str(file)]) == code
    assert words in "".join(capsys.readouterr())


NO_ROOM = """
import resource

resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""


def test_results_that_cannot_be_replaced_end_the_run_before_it_measures(tmp_path: Path) -> None:
    (file := tmp_path / "out.json").write_text(before := '"pytest-mlpatterns-results"', encoding="utf-8")
    project = PROJECT.with_file("conftest.py", NO_ROOM)
    run = project.run_apart(tmp_path, "--perf-json=out.json", "-k", "plain", "-p", "no:cacheprovider")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    words = "has the results of an earlier run and cannot be replaced: File too large; make it writable"
    assert run.errors[0].startswith(f"ERROR: {file} {words}")
    assert file.read_text(encoding="utf-8") == before


def test_a_run_that_leaves_python_leaves_no_results_of_an_earlier_one(tmp_path: Path) -> None:
    write_empty_results(file := tmp_path / "out.json", complete=True)
    run = Project().with_file("test_leaves.py", "import os; os._exit(0)").run_apart(tmp_path, "--perf-json=out.json")
    assert run.exit_code == 0
    assert read_results(file.read_text(encoding="utf-8")).run == RunEnd(False, None)


@pytest.mark.parametrize("arguments", [("--collect-only",), ("--fixtures",), ("--help",)])
def test_a_run_that_only_shows_something_leaves_the_results(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_empty_results(file := tmp_path / "out.json")
    before = file.read_bytes()
    Project().with_tests("def test_it(perf): pass").run(tmp_path, "--perf-json=out.json", *arguments)
    assert file.read_bytes() == before


def test_a_file_of_another_kind_stays_whatever_runs(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text('{"mine": 1}', encoding="utf-8")
    assert PROJECT.run(tmp_path, "--perf-json=out.json", "-k", "plain").exit_code == pytest.ExitCode.TESTS_FAILED
    assert PROJECT.run(tmp_path, "--perf-json=out.json").exit_code == pytest.ExitCode.USAGE_ERROR
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == '{"mine": 1}'


@pytest.mark.parametrize(("place", "not_run"), [("test_dies", ["test_perf.py::test_after"]), ("", None)])
def test_a_lost_worker_leaves_tests_that_did_not_run(tmp_path: Path, place: str, not_run: list[str] | None) -> None:
    body = f"""
    import os

    def leave(where):
        if where == "{place}":
            os._exit(1)

    leave("")

    def test_dies(perf): leave("test_dies")

    def test_after(perf): pass
    """
    arguments = ("--perf-json=out.json", "--perf-smoke", *APART, "--max-worker-restart=0")
    run = Project().with_tests(body).run(tmp_path, *arguments)
    end = run.json("out.json")["run"]
    assert (end["complete"], end["not_run"]) == (False, not_run)


def test_elsewhere_nothing_of_that_is_said(tmp_path: Path) -> None:
    run = PROJECT.run(tmp_path, "-k", "fails", environment={"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")})
    assert "::error" not in run.out
    assert not (tmp_path / "summary.md").exists()
