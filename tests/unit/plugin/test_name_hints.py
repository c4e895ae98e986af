"""A name that does not exist is answered with the nearest one that does."""

from pathlib import Path
from types import ModuleType

import pytest
from support.each_row import each_row
from support.project import Project

from pytest_mlpatterns.plugin.name_hints import fixture_hint, misspelled_fixture, require_known_options

KNOWN = ["baseline", "html"]


@pytest.mark.parametrize("unknown", [[], ["--html"], ["--perf-zzzz"], ["--baseline"]])
def test_option_of_another_plugin_is_left_to_pytest(unknown: list[str]) -> None:
    require_known_options(unknown, KNOWN)
    with pytest.raises(pytest.UsageError, match=r"^--perf-htlm is not an option"):
        require_known_options([*unknown, "--perf-htlm"], KNOWN)


@each_row(
    ("given", "hint"), [("pref", "did you mean perf?"), ("perf_modell", "did you mean perf_model?"), ("client", "")]
)
def test_fixture_is_answered_with_the_nearest(given: str, hint: str) -> None:
    assert fixture_hint(given) == hint


@each_row(
    ("defined", "found"),
    [("perf_modell", "perf_modell"), ("prf_perf_model", "prf_perf_model"), ("model", ""), ("perf_payload", "")],
)
def test_misspelled_definition_is_found(defined: str, found: str) -> None:
    module = ModuleType("test_it")
    setattr(module, defined, object())
    assert misspelled_fixture("perf_model", [module]) == found


@pytest.mark.processes
def test_options_of_conftest_files_are_known(tmp_path: Path) -> None:
    own = "def pytest_addoption(parser):\n    parser.addoption('--perf-htm')\n"
    project = Project().with_file("conftest.py", own).with_file("test_it.py", "def test_it():\n    pass\n")
    assert project.run(tmp_path, "--perf-htm=x", "-q").exit_code == 0
    run = project.run(tmp_path, "--perf-hmtl=x")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert run.errors[0] == "ERROR: --perf-hmtl is not an option; did you mean --perf-html? pytest --help lists all"
