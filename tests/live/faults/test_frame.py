"""The frame itself sees what a run leaves behind, apart and in this process: a process that hides, a file, a hang."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.fault_run import FaultRun, run_fault, run_fault_here
from support.project import Project

pytestmark = [
    pytest.mark.processes,
    pytest.mark.parametrize("frame", [run_fault, run_fault_here], ids=["apart", "here"]),
]

HIDING = """
import subprocess, sys

def test_hides():
    quiet = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.DEVNULL)
    code = "import time; time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **quiet)
"""


def project(test: str) -> Project:
    return Project().with_file("test_it.py", test)


def test_a_process_that_outlives_the_run_is_found_and_ended(tmp_path: Path, frame: Callable[..., FaultRun]) -> None:
    run = frame(project(HIDING), tmp_path, grace_s=1.0)
    assert len(run.processes) == 1
    assert re.search(r"time\.sleep\(600\)", run.processes[0])
    with pytest.raises(AssertionError):
        run.assert_left_nothing()


def test_files_in_the_temporary_directory_and_hidden_are_found(tmp_path: Path, frame: Callable[..., FaultRun]) -> None:
    test = """
    import tempfile
    from pathlib import Path

    def test_leaves():
        Path(tempfile.gettempdir(), "left").touch()
        Path(".perf-baseline.json.1234").touch()
    """
    assert frame(project(test), tmp_path).files == (".perf-baseline.json.1234", "left")


def test_a_run_that_hangs_is_killed_at_its_limit(tmp_path: Path, frame: Callable[..., FaultRun]) -> None:
    run = frame(project("import time\n\ndef test_hangs(): time.sleep(600)"), tmp_path, limit_s=2.0)
    assert run.timed_out
    with pytest.raises(AssertionError, match="killed after"):
        run.assert_left_nothing()
