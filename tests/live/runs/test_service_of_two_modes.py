"""A service whose times have two modes, through the plugin: its median jumps, and the mean that is judged does not."""

from pathlib import Path

import pytest
from support.project import Project

pytestmark = pytest.mark.processes

MODEL = """
import itertools
import os
import time

import pytest

class Model:
    def __init__(self):
        self.times = itertools.cycle((0.02, 0.04))
        self.slower = float(os.environ.get("SLOWER", "1"))

    def __call__(self, batch):
        time.sleep(next(self.times) * self.slower)
        return batch

@pytest.mark.perf(model=Model, payload=[1], tolerance=0.5, compare=("rtm",))
@pytest.mark.perf(duration="460ms", warmup="0s", launches=6)
def test_it(perf):
    pass
"""
"""Every second request takes twice as long, so the median is 20, 30 or 40 ms by which requests a window holds. Twice as
much is beyond the tolerance, and what a busy machine adds to the mean is not."""


def test_unchanged_it_passes_by_its_mean_and_slower_it_fails(tmp_path: Path) -> None:
    project = Project().with_file("test_perf.py", MODEL)
    recorded = project.run(tmp_path, "--perf-baseline", "update")
    assert recorded.table == {"test_it": "measured"}
    unchanged = project.run(tmp_path, "--perf-json", "out.json")
    assert unchanged.table == {"test_it": "pass"}
    (verdict,) = unchanged.json("out.json")["results"][0]["verdicts"]
    assert (verdict["metric"], verdict["judged_by"]) == ("rtm", "latency_mean")
    slower = project.run(tmp_path, environment={"SLOWER": "2.5"})
    assert slower.table == {"test_it": "FAIL"}
    assert "RegressionFailure: mean latency " in slower.failure("test_it")
