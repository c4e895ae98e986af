"""Error rates of all default metrics together, at a small size; ``benchmarks/verdict_simulation.py`` counts thousands.

Every run is seeded, so the counts are the same each time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest
from support import ROOT

from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.simulation

STORED, PAIRED = "stored baseline, 10 %", "against a revision, 5 %"


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("verdict_simulation")


@pytest.mark.parametrize("design", [STORED, PAIRED])
@pytest.mark.parametrize("service", [0, 3, 7])
def test_without_a_change_no_metric_fails(simulation: ModuleType, design: str, service: int) -> None:
    runs = simulation.trials(simulation.DESIGNS[design], simulation.SERVICES[service], simulation.UNCHANGED, count=15)
    assert simulation.share(runs, Outcome.FAIL) == 0
    assert simulation.share(runs, Outcome.PASS) >= 0.8


@pytest.mark.parametrize("design", [STORED, PAIRED])
@pytest.mark.parametrize(
    ("change", "metric"),
    [(0, "p99"), (1, "error_rate"), (2, "peak_memory"), (3, "cold_start"), (4, "cpu_per_request"), (6, "rtm")],
)
def test_what_became_worse_fails_by_its_metric(simulation: ModuleType, design: str, change: int, metric: str) -> None:
    worse, _ = simulation.CHANGES[change]
    runs = simulation.trials(simulation.DESIGNS[design], simulation.USUAL, worse, count=15)
    assert simulation.share(runs, Outcome.FAIL) >= 0.9
    assert simulation.share(runs, Outcome.PASS) == 0
    assert sum(metric in run.failed for run in runs) >= 0.6 * len(runs)
