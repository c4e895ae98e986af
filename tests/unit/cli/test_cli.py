"""``python -m pytest_mlpatterns``: a result file becomes something else, or one line says why not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.each_row import each_row
from support.synthetic import ENVIRONMENT, make_setup, result

from pytest_mlpatterns.analysis.choice.criteria import parse_criteria
from pytest_mlpatterns.analysis.choice.ranking import Unmeasured, rank
from pytest_mlpatterns.cli import main
from pytest_mlpatterns.records.result import FailedTest
from pytest_mlpatterns.reports.files.result_file import read_results, results_json
from pytest_mlpatterns.reports.html.page import html_report
from pytest_mlpatterns.system.empty_results import write_empty_results

EXPORT = ("export", "--format", "otlp-json")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_text(results_json([result()], ENVIRONMENT, "2026-11-24", baseline={}), encoding="utf-8")
    return path


def test_export_writes_the_file_that_was_named(file: Path) -> None:
    assert main([*EXPORT, str(file), "-o", str(file.parent / "gauges.json")]) == 0
    assert "test_perf.py::test_digits" in (file.parent / "gauges.json").read_text(encoding="utf-8")


def test_the_format_that_left_is_refused_by_its_name(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(file), "--format", "pytest-benchmark"])
    assert ended.value.code == 2
    assert "pytest-benchmark left in 0.3" in capsys.readouterr().err


def test_report_writes_the_page_of_the_results(file: Path) -> None:
    assert main(["report", str(file), "-o", str(file.parent / "report.html")]) == 0
    made = html_report(read_results(file.read_text(encoding="utf-8")), results_file=str(file))
    assert (file.parent / "report.html").read_text(encoding="utf-8") == made


def test_summary_writes_a_table_and_the_failures(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = [result("test_a.py::test_good"), result("test_a.py::test_bad", passed=False)]
    file.write_text(results_json(measured, ENVIRONMENT, "2026-11-24", baseline={}), encoding="utf-8")
    assert main(["summary", str(file)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("### Performance: 1 broken test, 1 passed")
    assert r"- ✗ **test\_a.py::test\_bad**: " in text
    assert r"| test\_a.py::test\_good |" in text


@pytest.mark.processes
def test_without_a_name_it_goes_to_standard_output(file: Path) -> None:
    command = [sys.executable, "-m", "pytest_mlpatterns", *EXPORT, str(file)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert json.loads(done.stdout)["resourceMetrics"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "results.json cannot be read: No such file or directory; name a file that pytest --perf-json wrote"),
        (b"{", "results.json is damaged: "),
        (b"\xff\xfe", "results.json cannot be read: 'utf-8' codec can't decode"),
        (b"{}", "results.json is not a result file of pytest-mlpatterns"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line(
    file: Path, content: bytes | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert main([*EXPORT, str(file)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("ERROR: ")
    assert words in line


@each_row(
    ("arguments", "code", "words"),
    (("verdict",), 3, "the run was not completed\n"),
    (("report",), 0, '<span class="state interrupted">the run was not completed</span>'),
    (("summary",), 0, "### Performance: no perf test\n\nThe run was not completed."),
    (EXPORT, 2, "has no results, because the run was not completed; measure again with --perf-json"),
    (("rank", "rtm=1"), 2, "has no results, because the run was not completed; measure again with --perf-json"),
    (("accept", "--prune"), 2, "has no results, because the run was not completed; measure again with --perf-json"),
)
def test_the_file_of_a_run_that_was_killed_says_so(
    file: Path, arguments: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_empty_results(file)
    assert main([arguments[0], str(file), *arguments[1:]]) == code
    assert words in "".join(capsys.readouterr())


def test_a_file_that_cannot_be_written_is_told_in_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EXPORT, str(file), "-o", str(file.parent / "no" / "such.json")]) == 2
    assert "no/such.json" in capsys.readouterr().err


@pytest.fixture
def patterns(tmp_path: Path) -> Path:
    """Results of one test under three patterns; a fourth gave none."""
    path = tmp_path / "patterns.json"
    results = [
        result(
            f"test_perf.py::test_shop[{pattern}]",
            group="test_perf.py::test_shop",
            setup=make_setup(pattern=pattern),
            metrics={"rtm": (rtm, rtm * 0.99, rtm * 1.01)},
        )
        for pattern, rtm in (("single", 20e6), ("cached", 5e6), ("batched", 10e6))
    ]
    preferences = parse_criteria("rtm=1", "--perf-rank")
    absent = [Unmeasured("test_perf.py::test_shop[queued]", "test_perf.py::test_shop", "queued")]
    ranking = [one.to_json() for one in rank(results, preferences, absent)]
    path.write_text(results_json(results, ENVIRONMENT, "2026-11-24", baseline={}, ranking=ranking), encoding="utf-8")
    return path


def test_stored_results_are_ranked_by_other_weights(patterns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(patterns), "rtm=1,asl=1,rtm<15ms"]) == 0
    said = capsys.readouterr().out
    assert "cached first; then batched; single and" in said
    assert "left out of the weights: CPU share (ASL)" in said
    assert "queued: not measured: its test failed" in said


def test_a_pattern_whose_test_gave_no_result_is_named_by_a_file_without_a_ranking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group, path = "test_perf.py::test_shop", tmp_path / "results.json"
    measured = [
        result(f"{group}[{name}]", group=group, setup=make_setup(pattern=name)) for name in ("single", "cached")
    ]
    absent = FailedTest(f"{group}[batched]", "it did not start", None, group=group, pattern="batched")
    path.write_text(results_json([*measured, absent], ENVIRONMENT, "2026-11-30", baseline={}), encoding="utf-8")
    assert main(["rank", str(path), "rtm=1"]) == 0
    assert "batched: not measured: its test failed" in capsys.readouterr().out


@pytest.mark.processes
def test_a_ranking_is_shown_in_ascii_where_the_terminal_has_no_more(patterns: Path) -> None:
    command = [sys.executable, "-m", "pytest_mlpatterns", "rank", str(patterns), "rtm=1"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, encoding="ascii", check=True)
    assert "cached first; then batched and single" in " ".join(done.stdout.split())


def test_results_without_patterns_are_told_to_be_so(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(file), "rtm=1"]) == 0
    assert capsys.readouterr().out.startswith("nothing to rank: no test was measured under several patterns; ")


def test_weights_that_cannot_be_read_are_told_in_one_line(patterns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(patterns), "rmt=1"]) == 2
    assert capsys.readouterr().err.startswith("ERROR: WEIGHTS names the metric 'rmt', did you mean rtm? ")


def test_a_command_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert "COMMAND" in told
    assert "exit with 0 if all tests passed" in told  # the commands with what they do


LEFT = ["plan", *(f"history {action}" for action in ("backfill", "compact", "export", "import", "pull", "push"))]


@each_row(
    ("command", "words"),
    ("verdct", "is no command, did you mean verdict? expected one of new, "),
    *((command, "left in 0.3 (commit ") for command in LEFT),
)
def test_an_unknown_command_is_refused_by_name(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "anything"])
    assert caught.value.code == 2
    assert f": error: {command} {words}" in capsys.readouterr().err
