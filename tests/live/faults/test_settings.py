"""Settings that nothing fits: the test, or the command line, is refused in one sentence without a traceback of ours.

Each of them is refused without a process in tests/unit/test_found.py.
"""

from pathlib import Path

import pytest
from support.fault_run import run_fault_here
from support.project import Project

pytestmark = pytest.mark.processes

TEST = """
import itertools

import numpy as np
import pytest
from pytest_mlpatterns import *

SEVERAL = np.zeros(3)

class Unhelpful:
    def __eq__(self, other): raise RuntimeError
    def __repr__(self): raise RuntimeError
    def __bool__(self): raise RuntimeError
    __hash__ = object.__hash__

class Model:
    def __call__(self, batch): return batch

@pytest.fixture
def perf_model(): return Model

@pytest.fixture
def perf_payload(): return [[1, 2]]

@pytest.fixture
def perf_target(): return {target}

@pytest.mark.perf({marker})
def test_it(perf):
    perf.assert_rtm_below("10s")
"""
RARE = pytest.mark.nightly


def project(*, marker: str = "", target: str = "None") -> Project:
    return Project().with_file("test_it.py", TEST.format(marker=marker, target=target))


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        pytest.param(
            "engine=SEVERAL", "perf(engine=...) is array([0., 0., 0.]), expected one of 'local', 'ray'", marks=RARE
        ),
        ("noise=Unhelpful()", "perf(noise=...) is a value of type Unhelpful, expected one of doubt, trust"),
    ],
)
def test_an_argument_of_the_marker_is_refused(tmp_path: Path, marker: str, message: str) -> None:
    fault = run_fault_here(project(marker=marker), tmp_path)
    fault.assert_ended({"failed": 1}, message)
    assert "pytest_mlpatterns/" not in fault.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 'Command("serve\\0 {port}")'}, "has NUL or characters that UTF-8 lacks, expected words of text"),
        pytest.param(
            {"marker": "pattern=Pipeline(itertools.repeat('a:b'))"},
            "has too many members, expected from 2 to 63",
            marks=RARE,
        ),
        pytest.param({"marker": "load=Trace('a\\0b')"}, "cannot be read: embedded null byte", marks=RARE),
    ],
)
def test_a_value_is_refused_where_it_is_made(tmp_path: Path, arguments: dict[str, str], message: str) -> None:
    run_fault_here(project(**arguments), tmp_path).assert_ended({"errors": 1}, message)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (f"--perf-patterns=queued(capacity={'[' * 9000})", "expected a whole number from 1 to 1,000,000"),
        pytest.param(f"--perf-duration={'9' * 5000}", "expected a time with its unit", marks=RARE),
    ],
)
def test_an_option_is_refused(tmp_path: Path, option: str, message: str) -> None:
    fault = run_fault_here(project(), tmp_path, option)
    fault.assert_left_nothing()
    assert fault.exit_code in (1, 4)  # refused for the whole run, or for each test that it concerns
    assert message in fault.text
    assert "Traceback" not in fault.text
