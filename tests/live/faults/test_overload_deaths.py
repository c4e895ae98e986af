"""A service that dies, hangs or refuses beyond its limit never passes, however busy the machine is."""

from pathlib import Path

import pytest
from support import SERVICES
from support.fault_run import run_fault_here
from support.nightly import rarer
from support.project import Project

pytestmark = pytest.mark.processes

GOODPUT = 'perf.assert_goodput_at_least(0.9, at=2.0, slo="p95<300ms")'
RECOVERY = 'perf.assert_recovers_within("2s", slo="p95<300ms")'
TEST = """
import pytest
from pytest_mlpatterns import Command

@pytest.fixture
def perf_target():
    return Command("{{python}} {server} {fault} {{port}}", path="/p", ready="/health", stop="1s")

@pytest.mark.perf(payload=["a", "b"], concurrency=2)
@pytest.mark.perf(duration="300ms", warmup="0s", timeout="1s", launches=1, budget="10s")
def test_it(perf):
    {body}
"""
DEAD = "one more request got no answer"


def limited(fault: str, body: str) -> Project:
    text = TEST.format(server=SERVICES / "limited.py", fault=fault, body=body)
    return Project().with_file("test_it.py", text)


@pytest.mark.parametrize(
    ("fault", "body", "said"),
    [
        ("refuses", RECOVERY, DEAD),
        *rarer(("hangs", GOODPUT, DEAD), ("freezes", RECOVERY, DEAD), ("hangs", RECOVERY, DEAD)),
        *rarer(("refuses", GOODPUT, DEAD), ("restarts", GOODPUT, "failed"), ("segfaults", GOODPUT, "SIGSEGV")),
        *rarer(("crashes", GOODPUT, "out of memory: too many requests wait")),
    ],
)
def test_a_service_that_breaks_beyond_its_limit_fails(fault: str, body: str, said: str, tmp_path: Path) -> None:
    run_fault_here(limited(fault, body), tmp_path).assert_ended({"failed": 1}, said)


@pytest.mark.nightly
@pytest.mark.parametrize("fault", ["closes", "fails", "rejects", "limits"])
def test_a_service_that_refuses_only_what_is_too_much_does_not_fail(fault: str, tmp_path: Path) -> None:
    run_fault_here(limited(fault, f"{GOODPUT}; {RECOVERY}"), tmp_path).assert_ended({"passed": 1})
