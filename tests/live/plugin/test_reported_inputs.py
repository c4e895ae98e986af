"""What is sent and what is answered stays in the run: no report and no file has it."""

import pytest
from support.project import QUICK, RECORD, Project, Run

TESTS = f"""
import time

import pytest

def upper(batch):
    time.sleep(0.005)
    return [text.upper() for text in batch]

@{QUICK}
@pytest.mark.perf(model=upper, payload=["an-input-to-hide", "another-input-to-hide"])
def test_it(perf):
    perf.assert_rtm_below("60s")
"""

WRITTEN = ("r.json", "r.html", "r.xml", "perf-baseline.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that records a baseline and writes every kind of report."""
    outputs = ("--perf-json=r.json", "--perf-html=r.html", "--junit-xml=r.xml", "-v")
    directory = tmp_path_factory.mktemp("project")
    return Project().with_file("test_it.py", TESTS).run(directory, *RECORD, *outputs)


@pytest.mark.processes
def test_no_input_and_no_output_is_written(run: Run) -> None:
    assert run.outcomes == {"passed": 1}
    texts = [run.out, run.err, *((run.directory / name).read_text(encoding="utf-8") for name in WRITTEN)]
    assert not [text for text in texts if "input-to-hide" in text.lower()]


@pytest.mark.processes
def test_a_run_writes_the_files_that_are_named_and_no_other(run: Run) -> None:
    found = {path.name for path in run.directory.iterdir()} - {".pytest_cache", "__pycache__"}
    assert found == {"pytest.ini", "test_it.py", *WRITTEN}
