"""Profiles for other tools: speedscope's file and collapsed stacks, both with the times that the result holds."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.each_row import each_row
from support.profiles import present_alone, slower_normalize
from support.synthetic import ENVIRONMENT, result

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.profile import Frame, ProfileNode, ProfileRecord
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.reports.files.profiles import collapsed_stacks, speedscope_json
from pytest_mlpatterns.reports.files.result_file import Results, results_json

COMPARED = result("t::compared", profile=slower_normalize())
ALONE = result("t::alone", profile=present_alone())


def run(*results: TestResult) -> Results:
    return Results(results, ENVIRONMENT, "2026-11-26", {})


def weights(document: dict[str, Any]) -> dict[str, dict[tuple[str, ...], int]]:
    """The weight of each stack of each profile of a speedscope file."""
    names = [frame["name"] for frame in document["shared"]["frames"]]
    return {
        profile["name"]: {
            tuple(names[frame] for frame in stack): weight
            for stack, weight in zip(profile["samples"], profile["weights"], strict=True)
        }
        for profile in document["profiles"]
    }


class TestSpeedscope:
    def test_each_test_has_a_profile_of_each_side(self) -> None:
        document = json.loads(speedscope_json(run(result(), COMPARED, ALONE)))
        assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
        found = weights(document)
        assert [*found] == ["t::compared, before", "t::compared, now", "t::alone"]
        stack = ("worker", "HTTP server", "model", "Digits.predict", "normalize")
        assert found["t::compared, before"][stack] == 400_000
        assert found["t::compared, now"][stack] == 420_000
        assert found["t::compared, now"][*stack, "sort"] == 2_280_000
        assert (*stack, "sort") not in found["t::compared, before"]

    def test_the_end_of_a_profile_is_the_sum_of_its_weights(self) -> None:
        for profile in json.loads(speedscope_json(run(COMPARED)))["profiles"]:
            assert profile["type"] == "sampled"
            assert profile["unit"] == "nanoseconds"
            assert profile["endValue"] - profile["startValue"] == sum(profile["weights"])

    def test_functions_are_shared_with_file_and_line_where_they_have_them(self) -> None:
        frames = json.loads(speedscope_json(run(COMPARED, ALONE)))["shared"]["frames"]
        assert len(frames) == 10
        assert {"name": "normalize", "file": "model.py", "line": 41} in frames
        assert {"name": "worker"} in frames

    def test_one_side_and_one_test_can_be_chosen(self) -> None:
        document = json.loads(speedscope_json(run(COMPARED, ALONE), test="t::compared", side="before"))
        assert [*weights(document)] == ["t::compared, before"]


class TestCollapsed:
    def test_a_line_is_a_stack_and_its_own_time(self) -> None:
        lines = collapsed_stacks(run(COMPARED)).splitlines()
        assert lines[0] == "worker;HTTP server 215000"
        assert "worker;HTTP server;model;Digits.predict (model.py:30);normalize (model.py:41) 420000" in lines
        assert sum(int(line.rpartition(" ")[2]) for line in lines) == 5_339_000

    def test_both_sides_are_two_columns(self) -> None:
        lines = collapsed_stacks(run(COMPARED), side="both").splitlines()
        assert lines[-1] == "worker;HTTP server;wire: encode;dumps (json/__init__.py:183) 60000 0"
        assert all(len(line.rsplit(" ", 2)) == 3 for line in lines)

    def test_stacks_of_several_tests_begin_with_their_test(self) -> None:
        lines = collapsed_stacks(run(COMPARED, ALONE)).splitlines()
        assert {line.partition(";")[0] for line in lines} == {"t::compared", "t::alone"}

    def test_a_name_cannot_end_a_frame_or_a_line(self) -> None:
        record = ProfileRecord(frames=(Frame("a;b\nc 5", "x y.py"),), nodes=(ProfileNode(-1, 0, 0, 7),))
        assert collapsed_stacks(run(result(profile=record))) == "a,b c 5 (x y.py) 7\n"


@each_row(
    ("results", "chosen", "message"),
    ((result(),), {}, "has no profile; measure with --perf-profile on"),
    ((result("t"), ALONE), {"test": "t"}, "has no profile of t; measure it with --perf-profile on"),
    (
        (result("t", profile=ProfileRecord(note="py-spy is not installed")),),
        {"test": "t"},
        "has no profile of t: py-spy is not installed; measure it with --perf-profile on",
    ),
    ((ALONE,), {"test": "t::alon"}, "has no test t::alon; did you mean t::alone? name one of those that it has"),
    ((ALONE,), {"side": "before"}, "has 1 profile of one side alone; measure with --perf-against for both"),
)
def test_what_is_not_there_is_said_with_what_to_do(
    results: tuple[TestResult, ...], chosen: dict[str, Any], message: str
) -> None:
    for write in (speedscope_json, collapsed_stacks):
        with pytest.raises(ResultFileError) as error:
            write(run(*results), **chosen)
        assert str(error.value) == message


class TestCommand:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "results.json"
        path.write_text(results_json([COMPARED, ALONE], ENVIRONMENT, "2026-11-26", baseline={}), encoding="utf-8")
        return path

    def test_export_writes_both_formats(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["export", str(file), "--format", "speedscope"]) == 0
        assert capsys.readouterr().out == speedscope_json(run(COMPARED, ALONE))
        chosen = ["--test", "t::compared", "--side", "both"]
        assert main(["export", str(file), "--format", "collapsed", *chosen]) == 0
        assert capsys.readouterr().out == collapsed_stacks(run(COMPARED), side="both")

    def test_a_test_and_a_side_are_for_profiles(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["export", str(file), "--format", "openmetrics", "--test", "t"]) == 2
        assert "--test and --side are for --format speedscope and collapsed" in capsys.readouterr().err
