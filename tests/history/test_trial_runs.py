"""Runs of unchanged tests: bounded in time, and what became of them."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.project import Project
from support.repository import Repository
from support.synthetic import changed, counterpart, result

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.history import trial_runs
from pytest_mlpatterns.history.trial_runs import Trials, measure_trials
from pytest_mlpatterns.records.launch import Noise

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"


def without_measurement(directory: Path, *, body: str = "pass") -> None:
    Project().with_file("test_x.py", f"import signal\n\n\ndef test_x():\n    {body}\n").write(directory)


def test_a_run_that_takes_too_long_is_interrupted(tmp_path: Path) -> None:
    without_measurement(tmp_path, body="signal.pause()")
    with pytest.raises(SettingError, match=r"no test was measured in 6\.00 s; give more time, --at-most 30min"):
        measure_trials(["test_x.py"], at_most_s=6.0, directory=tmp_path)


def test_tests_that_measure_nothing_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_runs, "_MOST_RUNS", 1)
    without_measurement(tmp_path)
    reports: list[str] = []
    with pytest.raises(SettingError, match="pytest measured no test: it ended with exit code 0"):
        measure_trials([], at_most_s=120.0, directory=tmp_path, report=reports.append)
    assert [one.partition(";")[0] for one in reports] == ["run 1 of up to 1, alone"]


def test_a_repository_without_a_commit_has_nothing_to_compare_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_runs, "_MOST_RUNS", 1)
    without_measurement(tmp_path)
    Repository(tmp_path).git("init", "--quiet")
    reports: list[str] = []
    with pytest.raises(SettingError, match="pytest measured no test: it ended with exit code 0"):
        measure_trials([], at_most_s=120.0, directory=tmp_path, report=reports.append)
    assert len(reports) == 1


@pytest.mark.parametrize("reason", ["time", "interrupt"])
def test_a_process_that_ignores_an_interrupt_is_killed(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_runs, "_GRACE_S", 0.1)
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        if reason == "time":
            assert trial_runs.ended(process, 0.05) == -signal.SIGKILL
            return
        waits = process.wait

        def interrupted(timeout: float | None = None) -> int:
            monkeypatch.setattr(process, "wait", waits)
            raise KeyboardInterrupt

        monkeypatch.setattr(process, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trial_runs.ended(process, 60.0)
        assert process.returncode == -signal.SIGKILL


def test_a_damaged_result_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_runs, "_MOST_RUNS", 1)
    test = "def test_x(perf_deploy):\n    pass\n"
    hook = (
        "import pytest\n\n\n"
        "@pytest.hookimpl(trylast=True)\n"
        "def pytest_unconfigure(config):\n"
        "    file = config.getoption('perf_json')\n"
        "    open(file, 'w').write('[')\n"
    )
    Project().with_file("test_x.py", test).with_file("conftest.py", hook).write(tmp_path)
    with pytest.raises(SettingError, match="its results cannot be read: is damaged"):
        measure_trials([], at_most_s=120.0, directory=tmp_path)


def test_the_last_disturbance_is_named() -> None:
    quiet = result()
    busy = changed(quiet, noise=(Noise("others used a core", "run it alone"),))
    assert Trials(((quiet,), (busy,)), ()).noise == "others used a core"
    assert Trials(((quiet,),), ()).noise == ""


def test_pairs_are_those_of_a_revision() -> None:
    reference = replace(counterpart(kind="revision"), log_ratios={"rtm": ((0.0, 0.01),)})
    assert trial_runs.has_ratios([changed(result(), reference=reference)])
    assert not trial_runs.has_ratios([result(), changed(result(), reference=counterpart())])


def test_what_ended_the_run_beside_the_commit_is_named() -> None:
    nothing = "HEAD gave no comparison of these tests"
    assert trial_runs.why_no_pairs((), "it ended with exit code 4:\nERROR: no such commit") == (
        f"{nothing} (ERROR: no such commit)"
    )
    assert trial_runs.why_no_pairs(((result(),),), "") == nothing
    reference = replace(counterpart(kind="revision"), log_ratios={"rtm": ((0.0, 0.01),)})
    assert trial_runs.why_no_pairs(((changed(result(), reference=reference),),), "") == ""
