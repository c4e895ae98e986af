"""What the lines of a process hold, by tracemalloc; the memory of this process is declared to it."""

import sysconfig
import tracemalloc
from typing import Any

import pytest

from pytest_mlpatterns.records.samples import HELD_LAYER
from pytest_mlpatterns.serving import held_memory
from pytest_mlpatterns.serving.held_memory import HeldMemoryTally, trace_memory

LIBRARY = sysconfig.get_paths()["purelib"]
STANDARD = sysconfig.get_paths()["stdlib"]


def traced(*stacks: tuple[int, tuple[tuple[str, int], ...]]) -> tracemalloc.Snapshot:
    """A snapshot of allocations: sizes, and their stacks with the outermost line first."""
    traces: list[Any] = [(0, size, tuple(reversed(frames)), len(frames)) for size, frames in stacks]
    return tracemalloc.Snapshot(traces, 8)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _is_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_memory, "trace_memory", lambda _depth: None)


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Any:
    def declare(*stacks: tuple[int, tuple[tuple[str, int], ...]]) -> dict[str, int]:
        monkeypatch.setattr(tracemalloc, "take_snapshot", lambda: traced(*stacks))
        layer = HeldMemoryTally().snapshot()
        assert layer.layer == HELD_LAYER
        return dict(layer.counters)

    return declare


def test_memory_is_that_of_the_innermost_line_of_the_user(declared: Any) -> None:
    own, library = ("/app/model.py", 12), (f"{LIBRARY}/numpy/core.py", 5)
    outer = (f"{LIBRARY}/pytest_mlpatterns_peer.py", 1)
    assert declared((100, (outer, own, library)), (20, (own,)), (3, (("/app/main.py", 1), own))) == {
        "total": 123,
        "12:/app/model.py": 123,
    }


def test_without_a_line_of_the_user_it_is_that_of_the_innermost_line(declared: Any) -> None:
    stacks = ((f"{STANDARD}/json/decoder.py", 3), (f"{LIBRARY}/numpy/core.py", 5), ("<frozen importlib._bootstrap>", 1))
    assert declared((7, stacks)) == {"total": 7, "1:<frozen importlib._bootstrap>": 7}


def test_what_this_package_and_tracemalloc_hold_is_left_out(declared: Any) -> None:
    assert declared((7, ((held_memory.__file__, 3),)), (8, ((tracemalloc.__file__, 3),))) == {"total": 0}


def test_a_table_of_many_objects_is_read_in_a_fraction_of_its_making(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its neighbours are added at once: no dictionary is asked for each of them."""

    class Counted(tuple[tuple[str, int], ...]):
        hashed = 0

        def __hash__(self) -> int:
            Counted.hashed += 1
            return super().__hash__()

    table, other = Counted((("/app/model.py", 3),)), Counted((("/app/model.py", 9),))
    traces: list[Any] = [*((0, 24, table, 1) for _ in range(10_000)), (0, 7, other, 1), (0, 24, table, 1)]
    monkeypatch.setattr(tracemalloc, "take_snapshot", lambda: tracemalloc.Snapshot(traces, 8))  # type: ignore[arg-type]
    counters = dict(HeldMemoryTally().snapshot().counters)
    assert counters == {"total": 240_031, "3:/app/model.py": 240_024, "9:/app/model.py": 7}
    assert Counted.hashed < 10


def test_the_largest_lines_are_reported_and_the_total_of_all(declared: Any) -> None:
    counters = declared(*((number + 1, (("/app/model.py", number + 1),)) for number in range(60)))
    assert counters["total"] == sum(range(1, 61))
    assert len(counters) == 51
    assert "60:/app/model.py" in counters
    assert "10:/app/model.py" not in counters


def test_what_was_found_a_moment_ago_is_reported_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter((1, 2))
    monkeypatch.setattr(tracemalloc, "take_snapshot", lambda: traced((next(sizes), (("/app/model.py", 1),))))
    now = 100.0
    tally = HeldMemoryTally(clock=lambda: now)
    found = [tally.snapshot().counters["total"]]
    now += 0.1
    found.append(tally.snapshot().counters["total"])
    now += 0.3
    found.append(tally.snapshot().counters["total"])
    assert found == [1, 1, 2]


def test_allocations_of_this_process_are_seen_from_now_on() -> None:
    trace_memory()
    try:
        held = bytearray(3_000_000)
        counters = HeldMemoryTally().snapshot().counters
    finally:
        tracemalloc.stop()
    assert len(held) == 3_000_000
    assert max(size for site, size in counters.items() if site.endswith(f":{__file__}")) >= 3_000_000


def test_without_a_trace_the_first_report_begins_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    times = iter(range(4))
    tally = HeldMemoryTally(clock=lambda: next(times))
    try:
        first = tally.snapshot().counters
        held = bytearray(3_000_000)
        last = tally.snapshot().counters
    finally:
        tracemalloc.stop()
    assert len(held) == 3_000_000
    assert first["total"] < last["total"] - 2_900_000
