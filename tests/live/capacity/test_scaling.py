"""A test that measures how its pattern scales: the figures, the verdict, the notes and the result file."""

from pathlib import Path

import pytest
from support.project import Project

from pytest_mlpatterns.measurement import capacity, scaling

pytestmark = pytest.mark.processes

SCALES = """
import time

import pytest

def rest(batch):
    time.sleep(0.005)
    return batch

@pytest.mark.perf(model=rest, payload=[1], duration="200ms", warmup="0s", launches=1, concurrency=2)
def test_scales(perf):
    scaling = perf.measure_scaling(replicas=(1, 2))
    assert [step.replicas for step in scaling.steps] == [1, 2]
    assert scaling.efficiency(2).low < scaling.predicted_rps(2).high
    assert scaling.scale_out_ns.low > 0
    perf.assert_scaling_efficiency_at_least("1%", replicas=2)
    perf.assert_scale_out_below("1h")
"""
MS = 1_000_000
PRICE = "0.0425 USD per core-hour"
PROJECT = Project().with_file("test_perf.py", SCALES)


def test_scaling_is_measured_judged_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In short steps; an example measures in steps of the usual length."""
    monkeypatch.setattr(capacity, "_STEP_NS", 50 * MS)
    monkeypatch.setattr(capacity, "_STEP_COMPLETIONS", 10)
    monkeypatch.setattr(capacity, "_STEP_WAVES", 5)
    monkeypatch.setattr(scaling, "_WINDOW_NS", 100 * MS)
    run = PROJECT.with_ini(perf_price=PRICE).run(tmp_path, "--perf-json", "out.json", "--junitxml", "junit.xml")
    assert run.outcomes["passed"] == 1
    assert "1 replica: capacity (NMRT) " in run.out
    assert "2 replicas: capacity (NMRT) " in run.out
    assert "scalability law: contention " in run.out
    assert "one more replica under load carries its share " in run.out
    (result,) = run.json("out.json")["results"]
    assert [step["replicas"] for step in result["scaling"]["steps"]] == [1, 2]
    assert [verdict["metric"] for verdict in result["verdicts"]] == ["scaling_efficiency", "scale_out"]
    assert result["scaling"]["scale_out"]["failed"] == 0
    assert {"pc", "hsxe", "hsxc"} <= set(result["metrics"])
    assert [len(result["launches"][name]) for name in ("hsxe", "hsxc")] == [2, 2]
    assert 'name="perf_hsxe_ratio"' in (tmp_path / "junit.xml").read_text(encoding="utf-8")
    assert ("hsx" in result["metrics"]) != ("hsx" in result["missing_indices"])
