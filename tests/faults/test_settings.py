"""Settings that nothing fits: the test, or the command line, is refused in one sentence without a traceback of ours."""

from pathlib import Path

import pytest
from support.fault_run import run_fault_here
from support.project import Project

pytestmark = pytest.mark.processes

TEST = """
import itertools
from fractions import Fraction
from pathlib import Path

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
def perf_payload(): return {payload}

@pytest.fixture
def perf_target(): return {target}

@pytest.mark.perf({marker})
def test_it(perf):
    perf.assert_rtm_below("10s")
"""
RARE = pytest.mark.all_faults


def project(*, marker: str = "", target: str = "None", payload: str = "[[1, 2]]") -> Project:
    return Project().with_file("test_it.py", TEST.format(marker=marker, target=target, payload=payload))


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("warmup=SEVERAL", "perf(warmup=...) is array([0., 0., 0.]), expected a time with its unit"),
        ("engine=SEVERAL", "perf(engine=...) is array([0., 0., 0.]), expected one of 'local', 'ray'"),
        ("launches=10**5000", "perf(launches=...) is a value of type int, expected a whole number of deployments"),
        ("noise=Unhelpful()", "perf(noise=...) is a value of type Unhelpful, expected one of doubt, trust"),
        pytest.param("duration=SEVERAL", "perf(duration=...) is array([0., 0., 0.]), expected a time", marks=RARE),
        pytest.param("concurrency=SEVERAL", "concurrency is array([0., 0., 0.]), expected a whole number", marks=RARE),
        pytest.param("rate_rps=Fraction(10**400)", "expected requests per second, from 0.000001 to", marks=RARE),
        pytest.param("tolerance={5: 0.1}", "perf(tolerance=...) names 5, expected the name of a metric", marks=RARE),
        pytest.param("compare=(['rtm'],)", "perf(compare=...) names the metric ['rtm'], expected some of", marks=RARE),
        pytest.param("load=Unhelpful()", "perf(load=...) is a value of type Unhelpful, expected a sch", marks=RARE),
        pytest.param("check=Unhelpful()", "perf(check=...) is a value of type Unhelpful, expected a func", marks=RARE),
        pytest.param("wire=SEVERAL", "perf(wire=...) is array([0., 0., 0.]), expected a wire", marks=RARE),
    ],
)
def test_an_argument_of_the_marker_is_refused(tmp_path: Path, marker: str, message: str) -> None:
    fault = run_fault_here(project(marker=marker), tmp_path)
    fault.assert_ended({"failed": 1}, message)
    assert "pytest_mlpatterns/" not in fault.text


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ('Command("serve\\0 {port}")', "has NUL or characters that UTF-8 lacks, expected words of text"),
        ('Url("http://127.0.0.1:1/", ca=object())', "expected a certificate file that exists, for an https address"),
        pytest.param('App("a:b", env={"A=B": "x"})', "names the variable 'A=B', expected a name without", marks=RARE),
        pytest.param('App("a:b", server=SEVERAL)', "App(server=array([0., 0., 0.])), expected one of", marks=RARE),
        pytest.param('App("a:b", cwd="a\\0b")', "expected the path of a directory", marks=RARE),
        pytest.param('Url("http://bücher.example/")', "expected a host of printable ASCII; write host.", marks=RARE),
    ],
)
def test_a_target_is_refused(tmp_path: Path, target: str, message: str) -> None:
    run_fault_here(project(target=target), tmp_path).assert_ended({"errors": 1}, message)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("pattern=Replicated(SEVERAL)", "Replicated(replicas=array([0., 0., 0.])), expected a whole number from 2"),
        ("pattern=Pipeline(itertools.repeat('a:b'))", "has too many members, expected from 2 to 63"),
        ("load=Trace('a\\0b')", "cannot be read: embedded null byte"),
        pytest.param("load=Trace('/dev/zero')", "/dev/zero", marks=RARE),
        pytest.param("load=PoissonRate(5e-324)", "rate_rps is 5e-324, expected requests per second", marks=RARE),
        pytest.param("load=ClosedLoop(1, '9999999h')", "expected at most 1,000,000h; write 1h", marks=RARE),
        pytest.param("pattern=Cached(store=SEVERAL)", "Cached(store=array([0., 0., 0.])), expected", marks=RARE),
    ],
)
def test_a_value_in_the_marker_is_refused_when_the_file_is_collected(tmp_path: Path, marker: str, message: str) -> None:
    run_fault_here(project(marker=marker), tmp_path).assert_ended({"errors": 1}, message)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (f"--perf-patterns=queued(capacity={'[' * 9000})", "expected a whole number from 1 to 1,000,000"),
        ("--perf-patterns=" + "cached|" * 999 + "cached", "1,000 patterns, expected at most 64"),
        pytest.param(f"--perf-patterns=queued(capacity={'-' * 9000}1)", "expected a whole number from 1", marks=RARE),
        pytest.param(
            f"--perf-patterns=cached{' ' * 100_000}x", "expected one of batched, cached, continuous", marks=RARE
        ),
        pytest.param(f"--perf-rank=rtm{' ' * 100_000}x", "expected a weight such as rtm=0.5", marks=RARE),
        pytest.param(f"--perf-duration={'9' * 5000}", "expected a time with its unit", marks=RARE),
        pytest.param(f"--perf-html={'x' * 300}", "File name too long; name a file", marks=RARE),
    ],
)
def test_an_option_is_refused(tmp_path: Path, option: str, message: str) -> None:
    fault = run_fault_here(project(), tmp_path, option)
    fault.assert_left_nothing()
    assert fault.exit_code in (1, 4)  # refused for the whole run, or for each test that it concerns
    assert message in fault.text
    assert "Traceback" not in fault.text
