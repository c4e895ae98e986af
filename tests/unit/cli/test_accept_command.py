"""``python -m pytest_mlpatterns accept``: from a failed run to a table that the next run reads."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import ENVIRONMENT, result, verdict

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.config.acceptances import read_acceptances
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import NO_CEILING, Acceptance, Outcome, Verdict
from pytest_mlpatterns.reports.files.result_file import results_json

TEST = "test_a.py::test_digits[single]"
SLOWER = (
    verdict(Outcome.FAIL, change=(0.47, 0.43, 0.51)),
    verdict(Outcome.FAIL, metric="throughput", change=(0.32, 0.3, 0.34)),
    replace(verdict(Outcome.INCONCLUSIVE, metric="cpu_per_request", change=(0.4, -0.1, 0.9)), tolerance=0.07),
    verdict(Outcome.PASS, metric="peak_memory", change=(0.01, 0.0, 0.02)),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, result(TEST, passed=False, verdicts=SLOWER), result("test_a.py::test_calm"))
    return tmp_path


def write(directory: Path, *results: TestResult, baseline: Mapping[str, str] = {}) -> None:
    text = results_json(results, ENVIRONMENT, "2026-11-24", baseline=baseline, commit="1a2b3c4")
    (directory / "results.json").write_text(text, encoding="utf-8")


def accepted(directory: Path) -> tuple[Acceptance, ...]:
    file = directory / "perf-accepted.toml"
    return read_acceptances(file, file.read_text(encoding="utf-8"))


def test_what_failed_is_accepted_with_its_reason(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "perf-accepted.toml").write_text("# agreed by all\n", encoding="utf-8")
    options = ["--reason", 'a "larger"\nmodel', "--issue", "#123", "--until", "2999-12-31"]
    assert main(["accept", "results.json", TEST, *options]) == 0
    assert f"perf-accepted.toml accepts 2 changes of {TEST}" in capsys.readouterr().out
    time, cpu = accepted(here)
    assert str(time) == 'rtm +55 %: a "larger" model, #123, until 2999-12-31'
    assert (cpu.metric, cpu.ceiling, cpu.since) == ("cpu_per_request", 0.9, "1a2b3c4")
    assert time.is_of(TEST)
    assert not time.is_of("test_a.py::test_calm")
    text = (here / "perf-accepted.toml").read_text(encoding="utf-8")
    assert text.startswith("# agreed by all\n")


def test_one_metric_with_a_ceiling_of_its_own(here: Path) -> None:
    options = ["--reason", "why", "--metric", "peak_memory", "--ceiling", "80%"]
    assert main(["accept", "results.json", TEST, *options]) == 0
    (memory,) = accepted(here)
    assert (memory.metric, memory.ceiling) == ("peak_memory", 0.8)


@each_row(
    ("arguments", "message"),
    ([TEST], "accept needs a test and a reason"),
    ([TEST, "--reason", " "], "accept needs a test and a reason"),
    (
        ["test_b.py::test_c", "--reason", "why"],
        "there is no result of 'test_b.py::test_c'; the file has results of",
    ),
    (["test_a.py::test_calm", "--reason", "why"], "has no change beyond its tolerance"),
    ([TEST, "--reason", "why", "--metric", "p95"], "p95 of test_a.py::test_digits[single] was not compared"),
    ([TEST, "--reason", "why", "--ceiling", "much"], "ERROR: --ceiling is 'much', expected"),
    ([TEST, "--reason", "why", "--ceiling", "0"], "--ceiling is '0', expected more than 0; write --ceiling 60%"),
    (
        [TEST, "--reason", "why", "--ceiling", "30%"],
        "--ceiling is '30%', below what was measured of rtm: +47.0 % (+43.0 % to +51.0 %); write --ceiling 55%",
    ),
    ([TEST, "--reason", "why", "--metric", "rtm", "--metric", "rtm"], "--metric names rtm twice, expected each"),
    ([TEST, "--reason", "why", "--until", "2020-01-01"], "--until is 2020-01-01, which is over, expected a day"),
    (
        [TEST, "--reason", "until 2999-12-31, as agreed"],
        "--reason has 'until 2999-12-31' inside its reason, expected the day in an option of its own; write",
    ),
    ([TEST, "--reason", "why", "--until", "soon"], "--until is 'soon', expected a day; write --until 2026-12-31"),
    ([TEST, "--reason", "why", "--until", "20261231"], "--until is '20261231', expected a day"),
)
def test_a_mistake_leaves_the_file_as_it_was(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["accept", "results.json", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (here / "perf-accepted.toml").exists()


def test_no_result_file_is_an_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "results.json").write_text("[]", encoding="utf-8")
    assert main(["accept", "results.json", TEST, "--reason", "why"]) == 2
    assert "results.json" in capsys.readouterr().err


def test_what_ended_is_removed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accept", "results.json", TEST, "--reason", "why"]) == 0
    before = (here / "perf-accepted.toml").read_text(encoding="utf-8")
    time, cpu = accepted(here)
    assert main(["accept", "results.json", "--prune"]) == 0
    assert (here / "perf-accepted.toml").read_text(encoding="utf-8") == before
    write(here, result(TEST, accepted={time.identity: "main has it already", cpu.identity: ""}))
    capsys.readouterr()
    assert main(["accept", "results.json", "--prune"]) == 0
    assert f"removed from perf-accepted.toml: {time}" in capsys.readouterr().out
    assert accepted(here) == (cpu,)


def test_the_same_command_again_replaces_its_tables(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "perf-accepted.toml").write_text(f"# ours\n{of_larger_model(TEST)}", encoding="utf-8")
    for reason in ("why", "why", "because"):
        assert main(["accept", "results.json", TEST, "--reason", reason]) == 0
    assert "accepts 2 changes of" in (said := capsys.readouterr().out.splitlines())[0]
    assert ", 2 tables of them in place of an earlier one; commit it" in said[2]
    assert [(one.metric, one.reason) for one in accepted(here)] == [
        ("rtm", "larger model"),
        ("rtm", "because"),
        ("cpu_per_request", "because"),
    ]
    assert (here / "perf-accepted.toml").read_text(encoding="utf-8").startswith("# ours\n")


@pytest.mark.parametrize("arguments", [[TEST, "--reason", "why"], ["--prune"]])
def test_an_unusable_file_is_named(here: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write(here, result(TEST, passed=False, verdicts=SLOWER, accepted=OVER))
    (here / "binary").write_bytes(b"\xff\xfe")
    (here / "folder").mkdir()
    told = {}
    for name in ("binary", "folder", "absent/x", ""):
        assert main(["accept", "results.json", *arguments, "--file", name]) == 2
        told[name] = capsys.readouterr().err
    assert "binary is not in UTF-8, expected TOML; convert it" in told["binary"]
    assert "folder cannot be read or written: " in told["folder"]
    words = "does not exist, expected a file of acceptances" if arguments[0] == "--prune" else "cannot be read or"
    assert words in told["absent/x"]
    assert "--file is '', expected the path of a file" in told[""]
    assert not [text for text in told.values() if "Errno" in text]


def of_larger_model(test: str, *, opening: str = "[[accepted]]") -> str:
    return f'{opening}\ntest = "{test}"\nmetric = "rtm"\nceiling = 0.6\nreason = "larger model"\n'


OVER = {"rtm +60 %: larger model": "the baseline was recorded with it"}


def test_what_is_accepted_of_a_test_that_was_not_in_the_run_stays(here: Path) -> None:
    tables = [of_larger_model(test) for test in ("test_a.py::test_calm", TEST, "test_a.py::*")]
    (here / "perf-accepted.toml").write_text("\n".join(["# [[accepted]]", *tables]), encoding="utf-8")
    write(
        here,
        result("test_a.py::test_calm", accepted=OVER),
        result("test_a.py::test_b", accepted=dict.fromkeys(OVER, "")),
    )
    assert main(["accept", "results.json", "--prune"]) == 0
    assert (here / "perf-accepted.toml").read_text(encoding="utf-8") == "\n".join(["# [[accepted]]", *tables[1:]])


def test_tables_that_cannot_be_told_apart_are_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quoted = of_larger_model(TEST).replace('"larger model"', '"""\nsee\n[[accepted]]"""')
    text = of_larger_model("test_a.py::test_calm", opening="[[ accepted ]]") + quoted
    (here / "perf-accepted.toml").write_text(text, encoding="utf-8")
    write(here, result("test_a.py::test_calm", accepted=OVER))
    assert main(["accept", "results.json", "--prune"]) == 2
    assert "has 2 tables, of which 3 begin with a line [[accepted]]; write each so" in capsys.readouterr().err
    assert (here / "perf-accepted.toml").read_text(encoding="utf-8") == text


def test_of_a_group_the_test_that_became_worse_is_accepted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = "test_a.py::test_digits"
    calm, slower, other = (f"{group}[{name}]" for name in ("cached", "single", "batched"))
    worse = result(slower, group=group, passed=False, verdicts=SLOWER)
    write(here, result(calm, group=group), worse)
    assert main(["accept", "results.json", group, "--reason", "why"]) == 0
    assert {one.test for one in accepted(here)} == {slower}
    write(here, result(calm, group=group), worse, result(other, group=group, passed=False, verdicts=SLOWER))
    assert main(["accept", "results.json", group, "--reason", "why"]) == 2
    assert f"has 2 tests that became worse, expected one; name {slower} or {other}" in capsys.readouterr().err


TAIL = replace(verdict(Outcome.FAIL, metric="p99", change=(0.07, 0.01, 0.1)), tolerance=0.2, ceiling=8.3)


def test_the_ceiling_of_a_tail_is_the_one_with_which_it_passes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, result(TEST, passed=False, verdicts=(TAIL,)))
    assert main(["accept", "results.json", TEST, "--reason", "why", "--ceiling", "100%"]) == 2
    assert "the slowest requests still fail p99, expected at least 830 %; write --ceiling 830%" in (
        capsys.readouterr().err
    )
    assert main(["accept", "results.json", TEST, "--reason", "why"]) == 0
    assert [(one.metric, one.ceiling) for one in accepted(here)] == [("p99", 8.3)]


@pytest.mark.parametrize("options", [[], ["--metric", "p99"], ["--ceiling", "900%"]])
@pytest.mark.parametrize("failing", [replace(TAIL, change=None), replace(TAIL, ceiling=NO_CEILING)])
def test_what_no_ceiling_covers_is_not_accepted(
    here: Path, failing: Verdict, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, result(TEST, passed=False, verdicts=(failing, SLOWER[0])))
    assert main(["accept", "results.json", TEST, "--reason", "why", *options]) == 2
    assert f"p99 of {TEST} became worse without bound" in capsys.readouterr().err
    assert not (here / "perf-accepted.toml").exists()
    assert main(["accept", "results.json", TEST, "--reason", "why", "--metric", "rtm"]) == 0


@pytest.mark.parametrize("place", ["ci/perf-accepted.toml", "../perf-accepted.toml", "perf-accepted.toml"])
def test_the_file_lies_where_the_run_reads_it(here: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    below = here / "below"
    (below / "ci").mkdir(parents=True)
    (here / ".git").mkdir()
    monkeypatch.chdir(below)
    write(below, result(TEST, passed=False, verdicts=SLOWER), baseline={"accepted_file": place})
    assert main(["accept", "results.json", TEST, "--reason", "why"]) == 0
    assert len(accepted((below / place).parent)) == 2
    assert main(["accept", "results.json", "--prune"]) == 0


@pytest.mark.parametrize("is_absolute", [True, False])
def test_results_of_others_name_no_file_outside_of_the_project(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, is_absolute: bool
) -> None:
    below, place = here / "below", "../elsewhere/perf-accepted.toml"
    for directory in (below / ".git", here / "elsewhere"):
        directory.mkdir(parents=True)
    monkeypatch.chdir(below)
    told = os.path.normpath(below / place) if is_absolute else place
    write(below, result(TEST, passed=False, verdicts=SLOWER), baseline={"accepted_file": told})
    for arguments in ([TEST, "--reason", "why"], ["--prune"]):
        assert main(["accept", "results.json", *arguments]) == 2
        assert f"the results name {told} for acceptances, expected a file in {below}; if" in capsys.readouterr().err
    assert list((here / "elsewhere").iterdir()) == []
    assert main(["accept", "results.json", TEST, "--reason", "why", "--file", told]) == 0


def test_a_test_whose_id_reads_as_a_pattern_is_accepted_alone(here: Path) -> None:
    test = "test_a.py::test_q[SELECT *-single]"
    write(here, result(test, passed=False, verdicts=SLOWER[:1]))
    assert main(["accept", "results.json", test, "--reason", "why"]) == 0
    (one,) = accepted(here)
    assert one.is_of(test)
    assert not one.is_of("test_a.py::test_q[SELECT id FROM big-single]")
