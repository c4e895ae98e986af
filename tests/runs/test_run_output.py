"""What a run leaves behind on GitHub Actions, seen from outside; the files themselves are tested with their formats."""

from pathlib import Path

import pytest
from support.project import APART, Project

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


def test_on_github_a_failing_test_is_annotated_at_its_line(tmp_path: Path) -> None:
    annotations, summary = on_github(tmp_path, tmp_path, *APART)
    fails, breaks = sorted(annotations, key=lambda text: "test_breaks" in text)
    number = line_of(tmp_path, "def test_fails(perf):")
    assert fails.startswith(
        f"::error file=test_perf.py,line={number},title=test_perf.py%3A%3Atest_fails::LimitFailure: RTM "
    )
    assert " is not below 1.00 ns%0Awhere: " in fails
    assert f"line={line_of(tmp_path, 'def test_breaks(perf): pass')}," in breaks
    assert summary.startswith("### Performance: 1 missed limit, 1 invalid test, 1 not compared\n")
    assert "\n| ✗ FAIL | test\\_perf.py::test\\_fails | single | " in summary
    assert "- ✗ **test\\_perf.py::test\\_breaks**: " in summary


def test_the_file_is_named_as_the_repository_sees_it(tmp_path: Path) -> None:
    inside = tmp_path / "models" / "digits"
    inside.mkdir(parents=True)
    annotations, _ = on_github(inside, tmp_path, "-k", "breaks")
    assert annotations[0].startswith("::error file=models/digits/test_perf.py,line=")


def test_a_job_summary_is_appended_to_what_stands_there(tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("before\n", encoding="utf-8")
    _, summary = on_github(tmp_path, tmp_path, "-k", "passes")
    assert summary.startswith("before\n### Performance: 1 not compared\n")


@pytest.mark.parametrize(
    "arguments", [("--perf-smoke", "-k", "passes"), ("-k", "plain")], ids=["smoke", "no perf test"]
)
def test_a_run_that_judges_nothing_has_no_job_summary(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert on_github(tmp_path, tmp_path, *arguments) == ([], "")


def test_a_job_summary_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    variables = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "no" / "summary.md")}
    run = PROJECT.run(tmp_path, "-k", "passes", environment=variables)
    assert run.exit_code == pytest.ExitCode.OK
    assert "WARNING: the job summary " in run.section("performance")
    assert "no/summary.md (GITHUB_STEP_SUMMARY) cannot be written: No such file" in run.section("performance")


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
    assert run.json("out.json")["run"]["not_run"] == []
    run = PROJECT.run(tmp_path, "--perf-json=out.json", "-x", "-k", "breaks or fails")
    assert run.json("out.json")["run"]["not_run"] == ["test_perf.py::test_breaks"]


def test_elsewhere_nothing_of_that_is_said(tmp_path: Path) -> None:
    run = PROJECT.run(tmp_path, "-k", "fails", environment={"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")})
    assert "::error" not in run.out
    assert not (tmp_path / "summary.md").exists()
