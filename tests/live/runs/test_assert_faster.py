"""``perf.assert_faster_than``: two patterns measured interleaved through the real plugin, and what is refused."""

from pathlib import Path

import pytest
from support.project import QUICK, Project

pytestmark = pytest.mark.processes

SLOW = """
import time

import pytest

def slow(batch):
    time.sleep(0.03)
    return batch

pytestmark = pytest.mark.perf(model=slow, payload=[1, 2])
"""


def make_project(body: str, arguments: str = 'pattern="cached"') -> Project:
    test = f"""
@{QUICK.replace("launches=1", 'launches=1, budget="3s"')}
@pytest.mark.perf({arguments})
def test_it(perf):
    {body}
"""
    return Project().with_file("test_it.py", SLOW + test)


def test_a_cache_is_faster_than_a_slow_model(tmp_path: Path) -> None:
    run = make_project('perf.assert_faster_than("single", by=1.5)').run(tmp_path, "--perf-json=results.json")
    assert run.outcomes == {"passed": 1}
    (result,) = run.json("results.json")["results"]
    (verdict,) = result["verdicts"]
    assert verdict["against"] == "pattern"
    assert verdict["outcome"] == "pass"
    assert "(cached) against" in verdict["reason"]
    assert "(single): " in verdict["reason"]
    assert "paired launches" in verdict["reason"]


def test_a_pattern_that_is_not_faster_fails_with_both_figures(tmp_path: Path) -> None:
    body = 'perf.assert_faster_than("microservice", by=3.0, on="throughput")'
    run = make_project(body, 'pattern="single"').run(tmp_path)
    assert run.outcomes == {"failed": 1}
    assert "LimitFailure: throughput" in run.failure("test_it")
    assert "times as fast" in run.failure("test_it")
    assert "which is not at least 3;" in run.failure("test_it")


SMOKED = """
    perf.assert_faster_than("single", by=1000.0)
    perf.assert_nmrt_at_least(10_000)
    assert perf.measure_nmrt().nmrt_rps is None
    assert perf.measure_overload(up_to=3.0, slo="p95<60s") is None
    assert not perf.measure_scaling(replicas=(1, 2)).steps
    perf.assert_scaling_efficiency_at_least("1%", replicas=2)
    perf.assert_scale_out_below("1h")
"""


def test_a_smoke_run_compares_searches_overloads_scales_and_ranks_nothing(tmp_path: Path) -> None:
    run = make_project(SMOKED, 'pattern=["cached", "queued"]').run(tmp_path, "--perf-smoke", "--perf-rank", "rtm=1")
    assert run.outcomes["passed"] == 2, run.out
    assert "choosing a pattern" not in run.out
