"""What the lines of a side hold: readings that are declared, and a real process that follows its allocations."""

import contextlib
import linecache
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace
from support.services.deploy import make_start_options
from support.synthetic import S

from pytest_mlpatterns import Deployment, Single
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement import held_memory
from pytest_mlpatterns.measurement.held_memory import HeldReading, held_under_load
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.samples import HELD_LAYER, HeldMemory
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats
from pytest_mlpatterns.serving.model import service_plan
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

HERE = sys.modules[__name__]
INPUTS = [[1], [2], [3]]
PLAN = LoadPlan(
    payload=read_payload(INPUTS), schedule=ClosedLoop(1), duration_ns=S, warmup_ns=9 * S, timeout_ns=30 * S, check=None
)
KEPT = 20_000


class Hoarder:
    """Holds 5 MB from the start on, and 20 kB more for each request."""

    def __init__(self) -> None:
        self.table = bytearray(5_000_000)
        self.kept: list[bytearray] = []

    def __call__(self, batch: list[Any]) -> list[Any]:
        self.kept.append(bytearray(KEPT))
        return batch


def readings(*counters: dict[str, int] | None) -> Any:
    """A deployment that reports these one after the other, ten requests more each time."""
    stats = iter(
        PatternStats((10 * number,), layers=() if held is None else (LayerStats(0, HELD_LAYER, held),))
        for number, held in enumerate(counters, 1)
    )
    return SimpleNamespace(stats=lambda: next(stats))


PROGRESS = cast("Progress", None)


def test_a_reading_has_the_most_that_each_line_held() -> None:
    reading = HeldReading(
        readings({"total": 90, "3:/app/model.py": 70}, {"total": 60, "3:/app/model.py": 10, "9:C:/app/x.py": 50}), 1
    )
    reading.on_progress(PROGRESS)
    reading.on_progress(PROGRESS)  # no reading is left under load
    assert reading.read() == HeldMemory({("/app/model.py", 3): 70, ("C:/app/x.py", 9): 50}, 90)
    assert reading.requests == 20


def test_the_last_reading_stands_alone() -> None:
    reading = HeldReading(readings({"total": 90, "3:/app/model.py": 70}, {"total": 5}), 0)
    reading.read()
    assert reading.last() == HeldMemory({}, 5)


def test_processes_that_report_nothing_are_unknown() -> None:
    reading = HeldReading(readings(None, None), 0)
    assert reading.read() is None
    assert reading.last() is None


def start(directory: Path) -> Deployment:
    options = replace(make_start_options(directory, INPUTS), traced="load")
    return launch(service_plan(Single(), Hoarder, [HERE]), options)


@pytest.mark.processes
def test_a_line_that_keeps_memory_of_every_request_is_found_with_its_bytes(
    tmp_path: Path, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_memory, "_WARMUP_NS", 200_000_000)  # as long as a reading is taken for fresh
    monkeypatch.setattr(held_memory, "_GROWTH_NS", 200_000_000)
    deployment = start(tmp_path)
    with contextlib.closing(deployment):
        variant = Variant("the working tree", lambda: deployment, PLAN)
        grown = held_under_load(variant, deployment, generator, of_growth=True)
    own = {line: size for (file, line), size in grown.sites.items() if file == __file__}
    (line,) = (line for line, size in own.items() if size >= KEPT)
    assert linecache.getline(__file__, line).strip() == "self.kept.append(bytearray(KEPT))"
    assert 0.5 * KEPT < own[line] / grown.requests < 2 * KEPT
