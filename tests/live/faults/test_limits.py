"""Loads near the limits: thousands of connections, few open files, payloads of megabytes."""

from pathlib import Path

import pytest
from support.fault_run import run_fault
from support.nightly import rarer
from support.project import Project

from pytest_mlpatterns.system.process_limits import allowed_connections

pytestmark = pytest.mark.processes

PATIENT_S = 180.0
MIB = 2**20

CONFTEST = """
import resource

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, LIMITS)
"""
"""Limits on open files, which the processes of the run inherit."""

TEST = """
import numpy as np
import pytest

async def echo(batch):
    return batch

async def size(batch):
    return [np.float32(value.nbytes) for value in batch]

@pytest.mark.perf(model=MODEL, payload=[PAYLOAD], timeout="60s", MARKER)
@pytest.mark.perf(duration="DURATION", warmup="0s", launches=1)
def test_it(perf):
    assert perf.metrics.failures == {}
"""


def project(
    marker: str,
    *,
    model: str = "echo",
    payload: str = "1",
    limits: str = "(min(1024, soft), hard)",
    duration: str = "1s",
) -> Project:
    values = {"MARKER": marker, "MODEL": model, "PAYLOAD": payload, "DURATION": duration}
    text = TEST
    for name, value in values.items():
        text = text.replace(name, value)
    return Project().with_file("conftest.py", CONFTEST.replace("LIMITS", limits)).with_file("test_it.py", text)


def allowed(connections: int) -> bool:
    most = allowed_connections()
    return most is None or most >= connections


@pytest.mark.parametrize("pattern", ["single()", pytest.param("replicated(replicas=2)", marks=pytest.mark.nightly)])
def test_2000_callers_are_served_with_a_soft_limit_of_1024_open_files(tmp_path: Path, pattern: str) -> None:
    test = project(f'concurrency=2000, pattern="{pattern}"')
    run = run_fault(test, tmp_path, limit_s=PATIENT_S)
    if allowed(4000):
        run.assert_ended({"passed": 1})
    else:
        run.assert_ended({"failed": 1}, "2,000 requests in flight need as many connections")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("single()", "10,000 requests in flight need as many connections, but the system allows 800 "),
        pytest.param(
            "replicated(replicas=2)",
            "need as many connections to each of 2 addresses, but the system allows 400 ",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_more_callers_than_allowed_are_refused_with_the_number(tmp_path: Path, pattern: str, expected: str) -> None:
    test = project(f'concurrency=10_000, pattern="{pattern}"', limits="(512, 1000)")
    run_fault(test, tmp_path).assert_ended({"failed": 1}, expected, "ulimit -Hn")


@pytest.mark.parametrize(
    ("wire", "mebibytes", "message"),
    [
        ("rest+binary", 65, "413"),
        *rarer(("rest+binary", 63, ""), ("grpc", 63, ""), ("grpc", 65, "larger than max (68157475 vs. 67108864)")),
    ],
)
def test_a_payload_below_the_limit_of_64_mib_is_served_and_one_above_it_is_named(
    tmp_path: Path, wire: str, mebibytes: int, message: str
) -> None:
    payload = f"np.zeros({mebibytes * MIB // 4}, np.float32)"
    # a busy machine may take longer for such a request than a window of a second lasts
    test = project(f'wire="{wire}"', model="size", payload=payload, duration="10s")
    run = run_fault(test, tmp_path, limit_s=PATIENT_S)
    if message:
        run.assert_left_nothing()
        assert "passed" not in run.outcomes
        assert message in run.text
    else:
        run.assert_ended({"passed": 1})
