"""A small grid of ``benchmarks/worlds``: tests of which the truth is known, judged from ``Perf`` on.

Every world is seeded, so the rulings are the same each time.
"""

import importlib
from typing import Any

import pytest
from support import ROOT
from support.each_row import each_row

pytestmark = pytest.mark.simulation


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("worlds.bench_of_worlds")


HOLDS = {
    "unchanged, idle": 1,
    "unchanged, machine slower": 1,
    "unchanged, machine faster": 1,
    "unchanged, another machine": 2,
    "faster": 1,
    "everything +50 to 1,000 %": 2,
    "a fifth to a third x3": 1,
    "second mode x2": 1,
    "2 to 4 % fail": 1,
    "memory +40 to 100 %": 1,
    "leak of 4 to 40 KiB": 1,
    "start x2.2 to 4": 1,
    "CPU +20 to 80 %": 1,
    "a broken cache": 1,
    "a package x1.3 to 4": 1,
    "a data file x1.5 to 4": 1,
    "dirty entry: everything +30 to 300 %": 2,
    "history: nothing": 2,
    "history: +20 to 50 %": 1,
}
"""Worlds of each mode, by the name of their family: of these, few enough are wrong that none is in a small sample."""


@each_row("name", HOLDS)
def test_no_world_fails_that_is_fine_and_none_passes_that_is_worse(bench: Any, name: str) -> None:
    (family,) = (one for one in bench.FAMILIES if one.name == name)
    for cell in bench.cells_of([family], count=HOLDS[name], processes=1):
        assert not cell.wrong, f"{cell.mode}: {cell.wrong[0]}"


def test_a_world_has_the_same_ruling_each_time_and_takes_no_time_of_the_machine(bench: Any) -> None:
    job = bench.Job(0, bench.Mode.REVISION, (3,))
    (_, [first]), (_, [again]) = bench.judge(job), bench.judge(job)
    assert first == again
    assert first.seconds > 1


def test_each_recording_has_launches_and_pairs_of_a_few_kilobytes(bench: Any) -> None:
    recorded = importlib.import_module("worlds.recorded")
    assert recorded.names()
    for name in recorded.names():
        recording = recorded.read(name)
        assert recording.launches
        assert recording.pairs
        assert (recorded.HERE / f"{name}.npz").stat().st_size < 12_000
