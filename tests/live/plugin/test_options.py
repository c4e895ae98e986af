"""Options and ini keys: which wins, what cannot be read, what is written, and neighbours that own the same option."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.project import APART, OPTIONS, READ_ONLY, RECORD, Project, clean_environment

from pytest_mlpatterns.plugin import options as plugin_options
from pytest_mlpatterns.reports.files.result_file import read_results
from pytest_mlpatterns.reports.html.page import html_report

pytestmark = pytest.mark.processes

EMPTY = Project()
ASKS = "def test_it(perf):\n    pass\n"
UNDECIDED = """
def slow(batch):
    time.sleep(0.02)
    return batch

def test_it(perf):
    perf.assert_error_rate_below(0.05)
"""
"""Never decided by the few requests of 200 ms, see test_assertions."""

WRONG = {
    "baseline": ("perhaps", " is 'perhaps', expected one of check, update, require, prune, off"),
    "budget": ("30", " is '30', expected a time with its unit"),
    "json": ("no/such/place.json", " no/such/place.json is in"),
    "patterns": ("single,cachd", " names the pattern 'cachd', did you mean cached? expected one of batched, cached, "),
    "smoke": ("maybe", " is 'maybe', expected true or false"),
}
"""A value of the ini file that cannot be served, and what is said of it; all others are in tests/unit/config."""


@pytest.mark.parametrize(("name", "value", "words"), [(name, *wrong) for name, wrong in WRONG.items()])
def test_an_unreadable_ini_key_ends_the_run_with_one_line(tmp_path: Path, name: str, value: str, words: str) -> None:
    project = EMPTY.with_tests(ASKS, marker=None).with_ini(**{f"perf_{name}": value})
    run = project.run(tmp_path)
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, run.errors)
    assert line.startswith(f"ERROR: ini key perf_{name}{words}")


@pytest.mark.parametrize(("name", "value", "words"), [(name, *WRONG[name]) for name in ("budget", "json", "patterns")])
def test_an_option_that_cannot_be_read_ends_the_run_with_one_line(
    tmp_path: Path, distribution: tuple[str, ...], *, name: str, value: str, words: str
) -> None:
    run = EMPTY.with_tests(ASKS, marker=None).run(tmp_path, f"--perf-{name}={value}", *distribution)
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, run.errors)
    assert line.startswith(f"ERROR: --perf-{name}{words}")
    assert "Traceback" not in run.out
    assert "INTERNALERROR" not in run.out


@pytest.mark.parametrize("name", ["baseline", "inconclusive"])
def test_another_choice_than_those_offered_is_refused(tmp_path: Path, name: str) -> None:
    run = EMPTY.run(tmp_path, f"--perf-{name}", "perhaps")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert re.search(rf"argument --perf-{name}: invalid choice: 'perhaps'", run.err)


def test_no_option_swallows_a_path(tmp_path: Path) -> None:
    run = EMPTY.with_tests(ASKS).run(tmp_path, "--collect-only", "-q", "--perf-smoke", "test_perf.py")
    assert "test_perf.py::test_it" in run.out


PATHS = [name for name, attributes in plugin_options.OPTIONS.items() if attributes.get("metavar") == "PATH"]


@pytest.mark.parametrize(
    ("name", "variable"), [*((name, "") for name in (*PATHS, "engine")), ("json", "PYTEST_ADDOPTS")]
)
def test_a_value_behind_a_space_moves_no_project(tmp_path: Path, name: str, variable: str) -> None:
    (home := tmp_path / "home").mkdir()
    (tmp_path / "r.json").touch()
    given = f"--perf-{name} ../r.json"
    arguments = () if variable else given.split()
    run = EMPTY.with_tests(ASKS).run(
        home, "--collect-only", *arguments, environment={variable: given} if variable else {}
    )
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert list(filter(None, run.errors)) == [
        f"ERROR: {given}: behind a space pytest takes a path that exists for one of tests, and {tmp_path} for the root "
        f"directory instead of {home}; write {given.replace(' ', '=')}"
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--perf-json=../r.json", *APART),
        ("--perf-json", "../absent.json"),
        ("--perf-json", "r.json", *APART),
        ("--perf-json", "../r.json", "--rootdir=.", "-c", "pytest.ini"),
    ],
)
def test_a_value_that_moves_no_project_is_taken(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (home := tmp_path / "home").mkdir()
    (tmp_path / "r.json").touch()
    project = EMPTY.with_tests(ASKS).with_file("conftest.py", READ_ONLY).with_file("r.json", "")
    run = project.run(home, *arguments)
    assert f"rootdir: {home}\n" in run.out
    assert run.errors == []


def test_every_key_can_stand_in_the_ini_file(tmp_path: Path) -> None:
    project = EMPTY.with_tests(UNDECIDED, marker='pytest.mark.perf(warmup="0s", launches=3, model="test_perf:slow")')
    project = project.with_ini(
        perf_baseline="update",
        perf_baseline_file="base.json",
        perf_budget="200ms",
        perf_duration="200ms",
        perf_html="out.html",
        perf_inconclusive="pass",
        perf_json="out.json",
        perf_patterns="single",
        perf_smoke="false",
        perf_startup_timeout="50s",
        perf_tolerance="100%",
    )
    run = project.run(tmp_path, *APART)
    assert run.outcomes == {"passed": 1}
    assert f"results written to {tmp_path / 'out.json'}" in run.section("performance")
    assert f"report written to {tmp_path / 'out.html'}" in run.section("performance")
    made = html_report(read_results((tmp_path / "out.json").read_text(encoding="utf-8")), results_file="out.json")
    assert (tmp_path / "out.html").read_text(encoding="utf-8") == made
    (result,) = run.json("out.json")["results"]
    assert result["launch_count"] == 1  # the budget is spent by the first
    assert 1 <= result["blocks"] <= 8  # requests, of which a busy machine answers fewer in 200 ms
    assert result["requests"] <= 11
    assert run.json("base.json")["tests"].keys() == {"test_perf.py::test_it[single]"}


def test_the_tests_of_a_run_share_its_time_and_each_has_a_launch(tmp_path: Path, distribution: tuple[str, ...]) -> None:
    marker = 'pytest.mark.perf(duration="200ms", warmup="0s", launches=3)'
    project = EMPTY.with_tests(f"{ASKS}\n{ASKS.replace('test_it', 'test_other')}", marker=marker)
    run = project.run(tmp_path, "--perf-time=1us", "--perf-json=out.json", *RECORD, *distribution)
    assert run.outcomes == {"passed": 2}
    results = run.json("out.json")["results"]
    assert [one["launch_count"] for one in results] == [1, 1], "an update measures three of each"
    assert sorted(note for one in results for note in one["notes"] if "--perf-time" in note) == [
        "had 500 ns of --perf-time, less than its budget",
        "had nothing of --perf-time, less than its budget",
    ]


NEIGHBOUR = """
def pytest_addoption(parser):
    parser.getgroup("neighbour").addoption("--perf-json", help="mine")
"""


def test_beside_an_installed_plugin_the_run_ends_with_one_line_that_names_both(tmp_path: Path) -> None:
    """As beside pytest-perf, which owns --perf-baseline too: a distribution with an entry point."""
    metadata = tmp_path / "site" / "pytest_neighbour-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pytest-neighbour\nVersion: 1.0\n", encoding="utf-8"
    )
    (metadata / "entry_points.txt").write_text("[pytest11]\nneighbour = neighbour_plugin\n", encoding="utf-8")
    text = NEIGHBOUR.replace("--perf-json", "--perf-baseline")
    (tmp_path / "site" / "neighbour_plugin.py").write_text(text, encoding="utf-8")
    EMPTY.with_file("test_it.py", "def test_it(): pass\n").write(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", *(one for one in OPTIONS if not one.startswith("--perf-")), *arguments],
            cwd=tmp_path,
            env={**clean_environment(), "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    clash = run()
    assert clash.returncode == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, clash.stderr.splitlines())
    assert line == (
        "ERROR: pytest-mlpatterns and pytest-neighbour both own the option --perf-baseline; "
        "switch one off: pytest -p no:neighbour or pytest -p no:mlpatterns"
    )
    assert run("-p", "no:neighbour").returncode == pytest.ExitCode.OK
    assert run("-p", "no:mlpatterns").returncode == pytest.ExitCode.OK


@pytest.mark.parametrize(
    ("arguments", "autoload"),
    [
        (("-p", "neighbour"), True),
        (("-p", "neighbour", "-p", "pytest_mlpatterns.plugin.entry"), False),
        (("-p", "pytest_mlpatterns.plugin.entry", "-p", "neighbour"), False),
    ],
    ids=["ours is installed", "ours is named last", "ours is named first"],
)
def test_beside_a_plugin_named_on_the_command_line_too(
    tmp_path: Path, arguments: tuple[str, ...], autoload: bool
) -> None:
    environment = {"PYTHONPATH": f"{tmp_path}:{clean_environment().get('PYTHONPATH', '')}"}
    if not autoload:
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    project = EMPTY.with_file("neighbour.py", NEIGHBOUR).with_file("test_it.py", "def test_it(): pass\n")
    run = project.run(tmp_path, *arguments, environment=environment)
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, run.errors)
    assert line.startswith("ERROR: pytest-mlpatterns and neighbour both own the option --perf-json")
    assert "-p no:neighbour" in line
    assert "-p no:mlpatterns" in line


@pytest.mark.parametrize("arguments", [("--perf-duration", "soon"), ("--perf-against", "no-such-revision")])
def test_a_usage_error_leaves_no_temporary_directory(
    arguments: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, project = tmp_path / "temporary", tmp_path / "project"
    temporary.mkdir()
    project.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    run = Project().with_tests("def test_any(perf): pass").run(project, *arguments)
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert list(temporary.iterdir()) == []
