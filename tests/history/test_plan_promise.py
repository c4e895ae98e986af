"""The benchmark of a plan's promise: with drawn launches, and with a file of sittings."""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support import ROOT

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

pytestmark = pytest.mark.simulation


@pytest.fixture
def promise(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("plan_promise")
    monkeypatch.setattr(module, "PLANS", 3)
    return module


@pytest.mark.parametrize("number", [1, 8])
def test_what_is_called_seen_fails_in_drawn_runs(
    promise: ModuleType, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promise, "DRAWN", (promise.DRAWN[number],))
    (table,) = promise.measure()
    assert [str(claim) for claim in table.claims if not claim.met] == []


def test_sittings_of_a_file_are_replayed(promise: ModuleType, tmp_path: Path) -> None:
    records = importlib.import_module("plugin_runs").Records(tmp_path / "results.jsonl")
    draw = np.random.default_rng(2)
    for _ in range(6):
        launches = {
            noise.label: {
                "latency_mean": [(math.exp(level), error) for level, error in promise.drawn(draw, promise.NOISES[2], 8)]
            }
            for noise in promise.NOISES
        }
        pairs = {
            noise.label: {"latency_mean": promise.drawn(draw, promise.NOISES[2], 4, is_paired=True)}
            for noise in promise.NOISES
        }
        records.add({"kind": "sitting", "launches": launches, "pairs": pairs, "wall_s": [0.0, 0.0]})
    table = promise.report(records)
    assert len(table.rows) == 10
    assert [str(claim) for claim in table.claims if not claim.met] == []
