"""Every code block of the README and the documentation runs: Python as one project, commands by what takes them."""

import configparser
import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from support import HAS_RAY
from support.each_row import each_row
from support.pages import ROOT, Block, blocks, commands, page, pages
from support.profiles import slower_normalize
from support.project import READ_ONLY, Project, run_here
from support.repository import Repository, settings
from support.synthetic import ENVIRONMENT, make_setup, result, verdict

import pytest_mlpatterns
from pytest_mlpatterns.baseline.file import write_baselines
from pytest_mlpatterns.cli import main
from pytest_mlpatterns.config.acceptances import read_acceptances
from pytest_mlpatterns.history.file import History
from pytest_mlpatterns.plugin.options import OPTIONS
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind, Outcome
from pytest_mlpatterns.reports.files.result_file import results_json

PYTHON = blocks("python")
RUN_HERE = [block for block in PYTHON if not block.needs_ray]
"""The blocks that need no cluster; tests/live/ray runs the others."""
WIDTH = 92
"""Letters of a line that the site shows without scrolling."""
MODEL = """


import pytest as _pytest


@_pytest.fixture
def perf_model():
    return lambda batch: [sum(row) for row in batch]
"""
"""The model of a block that shows none."""
PAYLOAD = """


import pytest as _pytest


@_pytest.fixture
def perf_payload():
    return [[1.0, 2.0], [3.0, 4.0]]
"""


def completed(block: Block) -> str:
    """A block with the model and the inputs that it leaves out."""
    brings_target = "perf_target" in block.text or "target=" in block.text
    needs_model = "perf" in block.text and "def perf_model" not in block.text and not brings_target
    needs_payload = "perf" in block.text and "perf_payload" not in block.text and not brings_target
    return block.text + (MODEL if needs_model else "") + (PAYLOAD if needs_payload else "")


def project_of_all() -> Project:
    """One project with every block of Python that runs here in a file of its own."""
    project = Project()
    for block in RUN_HERE:
        name = block.name or f"{block.module}.py"
        is_test = name.startswith("test_")
        project = project.with_file(name, completed(block) if is_test else block.text)
    return project


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[str]]:
    """What became of the tests of each module, after one run of all blocks with one request per test."""
    run = project_of_all().run(
        tmp_path_factory.mktemp("snippets"), "--perf-smoke", "--junit-xml=junit.xml", "-p", "no:cacheprovider"
    )
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(run.directory / "junit.xml").iter("testcase"):
        problems = [child.get("message", child.tag) for child in case if child.tag in ("failure", "error", "skipped")]
        module = (case.get("classname") or case.get("name") or "").partition(".")[0]
        found.setdefault(module, []).append("; ".join(problems) or "passed")
    return found


@pytest.mark.processes
@pytest.mark.parametrize("block", RUN_HERE, ids=str)
def test_python_block_passes_as_it_stands(block: Block, outcomes: Mapping[str, list[str]]) -> None:
    module = (block.name or f"{block.module}.py").removesuffix(".py")
    assert set(outcomes.get(module, [])) == ({"passed"} if "def test_" in block.text else set())


def test_blocks_of_one_file_name_are_equal() -> None:
    by_name: dict[str, set[str]] = {}
    for block in PYTHON:
        if block.name is not None:
            by_name.setdefault(block.name, set()).add(block.text)
    assert {name: len(texts) for name, texts in by_name.items() if len(texts) > 1} == {}


@each_row("block", PYTHON)
def test_python_block_fits_the_width_of_the_site(block: Block) -> None:
    assert [line for line in block.text.splitlines() if len(line) > WIDTH] == []


@each_row("block", PYTHON)
def test_python_block_imports_public_names_only(block: Block) -> None:
    named = {
        name.strip()
        for line in re.findall(r"from pytest_mlpatterns import (.+)", block.text)
        for name in line.split(",")
    }
    assert named <= set(pytest_mlpatterns.__all__)
    assert "from pytest_mlpatterns." not in block.text


@pytest.mark.processes
def test_first_test_of_the_readme_passes_under_load(tmp_path: Path) -> None:
    (first,) = [block for block in PYTHON if block.page == "README.md" and block.name == "test_perf.py"]
    run = Project().with_file("test_perf.py", first.text).run(tmp_path, "test_perf.py", "--perf-duration", "300ms")
    assert run.exit_code == 0, run.out
    assert "test_sum" in run.section("performance")


@pytest.fixture
def small(tmp_path: Path) -> Project:
    """A project under git with the files that the commands of the pages name."""
    test = "def test_x(perf_deploy):\n    pass\n"
    project = Project().with_file("test_perf.py", test).with_file("tests/perf/test_more.py", test)
    project.write(tmp_path)
    repository = Repository(tmp_path)
    for arguments in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "first")):
        repository.git(*arguments)
    repository.commit({}, "second")
    return project.with_file("data/untracked.csv", "")


PYTEST = [
    pytest.param(words[1:], id=f"{where} {shlex.join(words)}") for where, words in commands() if words[0] == "pytest"
]


@pytest.mark.processes
@pytest.mark.parametrize("arguments", PYTEST)
def test_pytest_takes_options_of_a_shown_command(arguments: tuple[str, ...], small: Project, tmp_path: Path) -> None:
    without_an_environment = ("--perf-smoke",) if "--perf-against-env" in arguments else ()
    run = small.with_file("conftest.py", READ_ONLY).run(tmp_path, *arguments, *without_an_environment)
    if "ray" in arguments and not HAS_RAY:
        assert run.exit_code == pytest.ExitCode.USAGE_ERROR
        assert "pip install 'pytest-mlpatterns[ray]'" in run.out + run.err
    else:
        assert run.exit_code == 0, run.out + run.err


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with the result files that the commands of the pages name."""
    measured = [
        result(f"test_perf.py::test_x[{pattern}]", setup=make_setup(pattern), profile=slower_normalize())
        for pattern in ("single", "replicated")
    ]
    slower = verdict(Outcome.FAIL, change=(0.5, 0.45, 0.55))
    measured.append(result("test_perf.py::test_digits", passed=False, verdicts=(slower,)))
    text = results_json(measured, ENVIRONMENT, "2026-11-24", baseline={})
    for name in ("results.json", "perf-results.json"):
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name in ("linux.json", "arm.json"):
        write_baselines(tmp_path / name, {})
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository with the histories that the commands of the pages name."""
    write_histories(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in settings().items():
        monkeypatch.setenv(name, value)


def write_histories(directory: Path) -> None:
    """A repository with a history."""
    repository = Repository(directory)
    repository.git("init", "--quiet")
    at = CommitPosition(repository.commit({}), 1)
    value = {"rtm": (LaunchValue(4e6, 0.01),)}
    line = HistoryLine(
        "test_perf.py::test_digits",
        "m",
        "2026-10-01T06:00:00Z",
        at,
        True,
        "s",
        "e",
        Kind.PASSED,
        value,
        {"rtm": (PairedRatio(0.0, 0.01),)},
        at,
    )
    History(directory / "perf-history.jsonl", "perf-history.jsonl").append([line])


STARTING = ("new", "bisect", "history")
"""Commands that start processes."""
OURS = [
    pytest.param(words[3:], id=f"{where} {shlex.join(words)}")
    for where, words in commands()
    if words[:3] == ("python", "-m", "pytest_mlpatterns") and words[3] not in STARTING
]
OF_HISTORIES = [
    pytest.param(words[3:], id=f"{where} {shlex.join(words)}")
    for where, words in commands()
    if words[:4] == ("python", "-m", "pytest_mlpatterns", "history")
]


@pytest.mark.usefixtures("stored")
@each_row("arguments", OURS)
def test_command_without_pytest_works(arguments: tuple[str, ...]) -> None:
    assert main(arguments) == (2 if arguments[0] == "verdict" else 0)  # a regression


@pytest.mark.processes
def test_old_commits_are_searched_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository.made(tmp_path / "shop")
    repository.commit({"a": "1"})
    repository.git("tag", "v1.0")
    repository.commit({"a": "2"})
    monkeypatch.chdir(repository.top)
    ours = {words[3:] for _, words in commands() if words[2:3] == ("pytest_mlpatterns",)}
    shown = {words for words in ours if words[0] == "bisect"}
    assert shown
    for arguments in shown:
        assert main([*arguments, "--budget", "1s", "--at-most", BARELY_1_S]) == 3  # no time is left to measure


BARELY_1_S = "1000.001ms"
"""More than a budget of one second, but not when the command has looked at the repository."""


@pytest.mark.processes
@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("arguments", OF_HISTORIES)
def test_command_for_a_history_works(arguments: tuple[str, ...]) -> None:
    assert main(arguments) == 0


@pytest.mark.processes
def test_first_test_is_written_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "service.py").write_text("from fastapi import FastAPI\n\napp = FastAPI()\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shown = {words[3:] for _, words in commands() if words[2:4] == ("pytest_mlpatterns", "new")}
    assert shown
    for arguments in shown:
        assert main([*arguments, "--no-run"]) == 0


def test_every_shown_command_is_known() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    unknown = []
    for where, words in commands():
        match words:
            case ("pytest", *_) | ("python", "-m", "pytest_mlpatterns", *_):
                known = True  # run by the tests above
            case ("make", target):
                known = re.search(rf"^{target}:", makefile, re.MULTILINE) is not None
            case (
                ("git", "init" | "add" | "commit", *_)
                | ("rm", "-f", "perf-results.json")
                | ("apt-get", "install", "valgrind")
            ):
                known = True
            case (
                ("pip", "install", *packages) | ("uv", "pip", "install", *packages) | ("uv", "add", "--dev", *packages)
            ):
                named = [
                    re.fullmatch(r"(?:pytest-mlpatterns|\.)(?:\[([\w,]+)\])?", one) for one in packages if one != "-e"
                ]
                known = all(one is not None and set((one[1] or "demo").split(",")) <= set(extras) for one in named)
            case _:
                known = False
        if not known:
            unknown.append(f"{where}: {shlex.join(words)}")
    assert unknown == []


@pytest.mark.processes
@pytest.mark.parametrize("block", blocks("ini"), ids=str)
def test_ini_block_is_read_by_pytest(block: Block, tmp_path: Path) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(block.text)
    keys = [key for key in parser["pytest"] if key.startswith("perf_")]
    project = Project({"test_perf.py": "def test_x(perf_deploy): pass\n", "pytest.ini": block.text})
    run = project.with_file("conftest.py", READ_ONLY).run(tmp_path)
    assert {key.removeprefix("perf_").replace("_", "-") for key in keys} <= set(OPTIONS)
    assert run.exit_code == 0, run.out + run.err


def is_accepted(block: Block) -> bool:
    """Whether a block is a file of acceptances; the others are of pytest."""
    return "[[accepted]]" in block.text


@pytest.mark.parametrize("block", [one for one in blocks("toml") if is_accepted(one)], ids=str)
def test_a_file_of_acceptances_is_read(block: Block, tmp_path: Path) -> None:
    assert read_acceptances(tmp_path / "perf-accepted.toml", block.text)


@pytest.mark.processes
@pytest.mark.parametrize("block", [one for one in blocks("toml") if not is_accepted(one)], ids=str)
def test_toml_block_is_read_by_pytest(block: Block, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(block.text, encoding="utf-8")
    (tmp_path / "test_perf.py").write_text("def test_x(perf):\n    pass\n", encoding="utf-8")
    collected = run_here(tmp_path, "--collect-only", "-W", "error")
    (tmp_path / "conftest.py").write_text(READ_ONLY, encoding="utf-8")
    run = run_here(tmp_path, "-W", "error")
    keys = tomllib.loads(block.text)["tool"]["pytest"]
    assert {key.removeprefix("perf_").replace("_", "-") for key in keys} <= set(OPTIONS)
    assert run.exit_code == 0, run.out + run.err
    assert "test_x[single]" in collected.out
    assert "test_x[cached|batched]" in collected.out


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_block_is_a_workflow(block: Block) -> None:
    assert {"name", "jobs"} <= set(yaml.safe_load(block.text))


def test_every_block_has_a_language_that_is_tested() -> None:
    tested = {"bash", "console", "ini", "python", "text", "toml", "yaml", ""}
    fences = {
        f"{name}: {language}"
        for name in pages()
        for language in re.findall(r"^```(.*)\n(?:.*\n)*?```$", page(name), re.MULTILINE)
        if language not in tested and not language.startswith("{")  # a directive of Sphinx
    }
    assert fences == set()
