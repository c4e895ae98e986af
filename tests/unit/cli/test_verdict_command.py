"""``python -m pytest_mlpatterns verdict``: exit codes, what is printed, and the commands to run next."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.golden import LIKELY
from support.synthetic import ENVIRONMENT, changed, counterpart, result, verdict

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.records.launch import Busy
from pytest_mlpatterns.records.result import FailedTest, RunEnd, TestResult
from pytest_mlpatterns.records.result_parts import BaselineGap, Location
from pytest_mlpatterns.records.verdict import Gate, Kind, Outcome, Unjudged
from pytest_mlpatterns.reports.files.result_file import results_json
from pytest_mlpatterns.reports.text.failure import next_step

COMMAND = "pytest t.py::test_slow --perf-against=main"
PASSED = result("t.py::test_calm")
ACCEPTED = result("t.py::test_agreed", verdicts=(replace(verdict(Outcome.PASS), accepted="rtm +60 %: larger model"),))
OPEN = result("t.py::test_open", verdicts=(verdict(Outcome.INCONCLUSIVE),))
BUSY = changed(OPEN, test="t.py::test_busy", verdicts=(LIKELY,), busy=Busy(1.6, cores=2))
SLOWER = changed(BUSY, test="t.py::test_slower", probably_slower=("rtm",))
NEW = result("t.py::test_new", unjudged=Unjudged(Kind.NOT_COMPARED, "no baseline"), baseline_gap=BaselineGap.ABSENT)
LIMIT = result("t.py::test_limit", passed=False, verdicts=(verdict(Outcome.FAIL, against="limit"),))
SLOW = result(
    "t.py::test_slow",
    passed=False,
    verdicts=(verdict(Outcome.FAIL, against="revision", change=(0.4, 0.3, 0.5)),),
    reference=counterpart(kind="revision"),
    command=COMMAND,
)
CRASHED = result("t.py::test_crash", passed=False, unjudged=Unjudged(Kind.TEST_ERROR, "KeyError: 'x'"))
INVALID = FailedTest("t.py::test_invalid", "SettingError: typo", None, Kind.INVALID)
BROKEN = FailedTest("t.py::test_broken", "OSError: no disk", Location("t.py", 3))


CUT = RunEnd(complete=False, not_run=("t.py::test_b",))
FAILED = RunEnd(other_failures=("t.py::test_ordinary",))


def write(file: Path, *tests: TestResult | FailedTest, run: RunEnd | None = None) -> str:
    file.write_text(results_json(tests, ENVIRONMENT, "2026-11-24", baseline={}, run=run), encoding="utf-8")
    return str(file)


@each_row(
    ("tests", "code"),
    ([PASSED, ACCEPTED], 0),
    ([PASSED, OPEN], 3),
    ([NEW], 3),
    ([LIMIT, OPEN], 2),
    ([SLOW], 2),
    ([CRASHED, SLOW, OPEN], 1),
    ([INVALID], 1),
    ([BROKEN, PASSED], 1),
    ([], 1),
)
def test_of_several_exit_codes_the_lowest_above_zero_counts(
    tmp_path: Path, tests: list[TestResult | FailedTest], code: int
) -> None:
    assert main(["verdict", write(tmp_path / "r.json", *tests)]) == code


@pytest.mark.parametrize(("options", "code"), [((), 3), (("--probably", "undecided"), 3), (("--probably", "fail"), 2)])
def test_what_is_probably_slower_fails_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], code: int
) -> None:
    file = write(tmp_path / "r.json", SLOWER, BUSY, PASSED)
    assert main(["verdict", file, "--format", "json", *options]) == code
    data = json.loads(capsys.readouterr().out)
    machine = "the machine was busy (1.6 of 2 cores): 2 of 3 tests undecided"
    assert data["headline"] == f"1 probably slower, 1 undecided, 1 passed; {machine}"
    assert data["tests"][0]["kind"] == "probably_slower"
    assert data["tests"][0]["reasons"][1:] == ["the machine was busy: other processes used 1.6 of the 2 cores"]
    assert data["tests"][0]["next"][0]["purpose"] == "run it again in a quieter moment, or for about 220 s"


@each_row(
    ("tests", "run", "code", "headline"),
    ([PASSED], CUT, 3, "1 passed; the run was not completed, 1 perf test not run"),
    ([PASSED], RunEnd(complete=False, not_run=None), 3, "1 passed; the run was not completed"),
    ([PASSED], RunEnd(not_run=("t.py::test_b", "t.py::test_c")), 3, "1 passed; 2 perf tests not run"),
    ([SLOW], CUT, 2, "1 regression; the run was not completed, 1 perf test not run"),
    ([], CUT, 3, "the run was not completed, 1 perf test not run"),
    ([PASSED], RunEnd(smoke=True), 3, "1 passed; nothing was measured (--perf-smoke)"),
    ([BROKEN], RunEnd(smoke=True), 1, "1 broken test; nothing was measured (--perf-smoke)"),
    ([OPEN], FAILED, 1, "1 undecided; 1 other failure"),
    ([], FAILED, 1, "1 other failure"),
)
def test_a_run_that_was_cut_or_failed_elsewhere_is_no_pass(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    tests: list[TestResult | FailedTest],
    run: RunEnd,
    code: int,
    headline: str,
) -> None:
    file = write(tmp_path / "r.json", *tests, run=run)
    assert main(["verdict", file, "--format", "json"]) == code
    data = json.loads(capsys.readouterr().out)
    assert (data["exit_code"], data["headline"], data["run"]) == (code, headline, json.loads(json.dumps(run.to_json())))


def test_people_read_which_tests_have_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = RunEnd(False, tuple(f"t.py::test_{number}" for number in range(22)), ("t.py::test_ordinary",))
    main(["verdict", write(tmp_path / "r.json", PASSED, run=many)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["failed beside the perf tests:", "  t.py::test_ordinary", "", "not run:"]
    assert lines[4:24] == [f"  {test}" for test in (many.not_run or ())[:20]]
    assert lines[24:] == [
        "  and 2 more",
        "",
        "1 passed; the run was not completed, 22 perf tests not run; 1 other failure",
    ]


@pytest.mark.parametrize("text", [None, "{", '{"format": "other"}'])
def test_a_file_that_cannot_be_read_is_an_error_and_no_regression(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "r.json"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert main(["verdict", str(file)]) == 1


@pytest.mark.parametrize("arguments", [["verdict"], ["verdict", "r.json", "--format", "xml"]])
def test_wrong_arguments_are_an_error_and_no_regression(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 1


def test_wrong_arguments_of_other_commands_end_as_before() -> None:
    with pytest.raises(SystemExit) as end:
        main(["report"])
    assert end.value.code == 2


def test_programs_read_the_kind_of_each_test_and_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "r.json", PASSED, SLOW, LIMIT, OPEN, NEW, CRASHED, BROKEN)
    assert main(["verdict", file, "--format", "json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["exit_code"] == 1
    assert data["headline"] == ("1 regression, 1 missed limit, 2 broken tests, 1 undecided, 1 not compared, 1 passed")
    assert data["counts"]["test_error"] == 2
    by_test = {one["test"].partition("::")[2]: one for one in data["tests"]}
    assert {name: one["kind"] for name, one in by_test.items()} == {
        "test_calm": "passed",
        "test_slow": "regression",
        "test_limit": "limit",
        "test_open": "undecided",
        "test_new": "not_compared",
        "test_crash": "test_error",
        "test_broken": "test_error",
    }
    assert by_test["test_crash"]["reasons"] == ["KeyError: 'x'"]
    assert by_test["test_broken"]["location"] == "t.py:3"
    commands = {name: [step["command"] for step in one["next"]] for name, one in by_test.items()}
    assert commands == {
        "test_calm": [],
        "test_slow": [f"python -m pytest_mlpatterns accept {file} t.py::test_slow --reason WHY", COMMAND],
        "test_limit": ["", "pytest t.py::test_limit"],
        "test_open": ["pytest t.py::test_open --perf-budget 120s"],
        "test_new": ["pytest t.py::test_new --perf-baseline update"],
        "test_crash": ["pytest t.py::test_crash"],
        "test_broken": ["pytest t.py::test_broken"],
    }


def test_an_intended_change_of_a_baseline_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = result("t.py::test_a[b c]", passed=False, verdicts=(verdict(Outcome.FAIL),))
    assert main(["verdict", write(tmp_path / "r.json", worse)]) == 2
    assert "    pytest 't.py::test_a[b c]' --perf-baseline update\n" in capsys.readouterr().out


def test_what_no_acceptance_covers_has_no_command_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing = verdict(Outcome.FAIL, metric="p95", against="revision")
    worse = result("t.py::test_a", passed=False, verdicts=(failing,), reference=counterpart(kind="revision"))
    assert main(["verdict", write(tmp_path / "r.json", worse)]) == 2
    assert "  find the change that is slower; no ceiling can accept it\n  to run it again:\n" in capsys.readouterr().out
    assert next_step([failing], worse, "r.json") == ["find the change that is slower; no ceiling can accept it"]


def test_people_read_what_needs_attention_and_the_headline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    advised = changed(LIMIT, gate=Gate.WARN)
    assert main(["verdict", write(tmp_path / "r.json", PASSED, advised)]) == 2
    assert capsys.readouterr().out == (
        "t.py::test_limit: missed limit (advisory)\n"
        f"  {LIMIT.verdicts[0].reason}\n"
        "  find what is slow; if the limit is too tight, change it: t.py:12\n"
        "  to run it again:\n"
        "    pytest t.py::test_limit\n"
        "\n"
        "1 missed limit, 1 passed\n"
    )


def test_commands_of_a_file_cannot_paint_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nasty = result("t.py::test", passed=False, command="pytest \x1b[2J")
    main(["verdict", write(tmp_path / "r.json", nasty)])
    assert "\x1b" not in capsys.readouterr().out
