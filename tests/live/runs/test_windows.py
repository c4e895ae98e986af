"""On Windows a run with perf tests ends with one line, before anything is imported that Windows lacks."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from support.project import Project

from pytest_mlpatterns import errors
from pytest_mlpatterns.errors import SettingError, check_system

REFUSAL = "perf tests need Linux or macOS, and this is Windows; run them in WSL or a container, or leave them out: "
AS_ON_WINDOWS = """
import sys
from types import SimpleNamespace

for name in [name for name in sys.modules if name.startswith("pytest_mlpatterns.")]:
    if name.partition(".")[2].partition(".")[0] not in ("plugin", "errors", "engines"):
        raise AssertionError(f"{name} is loaded already")
sys.modules.update(fcntl=None, resource=None)

from pytest_mlpatterns import errors
from pytest_mlpatterns.plugin import entry

entry.sys = errors.sys = SimpleNamespace(platform="win32")
"""
TESTS = """
import pytest

def test_plain():
    pass

@pytest.mark.perf
def test_perf(perf):
    pass
"""
PROJECT = Project().with_file("conftest.py", AS_ON_WINDOWS).with_file("test_it.py", TESTS)


@pytest.mark.processes
def test_a_run_with_perf_tests_ends_with_one_line_and_one_without_them_runs(tmp_path: Path) -> None:
    run = PROJECT.run_apart(tmp_path, "-m", "perf")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert run.errors == [f"ERROR: {REFUSAL}pytest -m 'not perf'", ""]


IMPORTS = """
import sys
import psutil

sys.modules.update(fcntl=None, resource=None)
import pytest_mlpatterns
from pytest_mlpatterns import errors

for name in {*pytest_mlpatterns.__all__} - {"measure"}:
    getattr(pytest_mlpatterns, name)
errors.sys.platform = "win32"
try:
    pytest_mlpatterns.measure
except pytest_mlpatterns.SettingError as error:
    print(error)
"""


@pytest.mark.processes
def test_every_name_but_measure_is_imported_so_that_tests_are_collected() -> None:
    run = subprocess.run([sys.executable, "-c", IMPORTS], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(REFUSAL)


@pytest.mark.processes
def test_in_a_distributed_run_the_perf_tests_fail_with_that_line_and_others_run(tmp_path: Path) -> None:
    run = PROJECT.run_apart(tmp_path, "-n", "1")
    assert run.outcomes == {"passed": 1, "errors": 1}
    assert REFUSAL in run.out


def test_the_command_line_ends_with_that_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors.sys, "platform", "win32")
    with pytest.raises(SettingError, match=REFUSAL):
        check_system()
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(SystemExit, match=f"ERROR: {REFUSAL}"):
        runpy.run_path(str(ROOT / "pytest_mlpatterns" / "__main__.py"), run_name="__main__")
