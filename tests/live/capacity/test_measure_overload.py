"""Load beyond the NMRT through the plugin, on a real service that holds a bounded number of requests."""

import json
from pathlib import Path
from textwrap import dedent

import pytest
from support.project import Project

pytestmark = pytest.mark.processes

BODY = """
    import os
    import time
    import pytest
    from pytest_mlpatterns import Queued

    CPUS = 1 if hasattr(os, "sched_setaffinity") else "all"

    def slow(batch):
        assert CPUS == "all" or len(os.sched_getaffinity(0)) == 1
        time.sleep(0.02)
        return batch

    @pytest.mark.perf(model=slow, payload=[1, 2, 3])
    @pytest.mark.perf(pattern=Queued(capacity=4), duration="300ms", warmup="0s", launches=1, budget="60s", cpus=CPUS)
    def test_it(perf):
        overload = perf.measure_overload(up_to=3.0, slo="p95<60s")  # every answer is in time
        assert [step.load_ratio for step in overload.steps][-1] == 3.0
        assert overload.peak.requests > 0
        assert overload.peak.rejected_ratio > 0  # it holds five requests, and three times as many come as it can serve
        perf.assert_goodput_at_least(0.1, at=3.0, slo="p95<60s")
"""


def test_a_bounded_queue_rejects_at_three_times_its_nmrt_and_the_result_holds_the_curve(tmp_path: Path) -> None:
    project = Project().with_file("test_perf.py", dedent(BODY))
    run = project.run(tmp_path, "--perf-json", "results.json")
    assert run.outcomes["passed"] == 1  # and a warning if the generator was late: no verdict on the goodput then
    (result,) = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["results"]
    (overload,) = result["overloads"]
    assert overload["steps"][-1]["load_ratio"] == 3.0
    assert overload["watched_ns"] > 0
    assert any("of the capacity" in note for note in result["notes"])
