"""A set-up reads from a file what its values describe, and two environments name what differs."""

from pathlib import Path

import pytest
from msgspec import structs
from support.each_row import each_row
from support.synthetic import SETUP, make_setup

from pytest_mlpatterns.config.lists import parse_pattern
from pytest_mlpatterns.records.setup import (
    LoadDescription,
    Setup,
    SystemDescription,
    SystemKind,
    differing_facts,
    folded,
    merged_facts,
    unfolded,
)
from pytest_mlpatterns.serving.targets import App, Command, Target, Url
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, PoissonRate, Schedule, Stages, Trace

SCHEDULES = [
    ClosedLoop(8),
    ClosedLoop(3, think_time="50ms"),
    ClosedLoop(3, think_time=("10ms", "2s")),
    ConstantRate(200),
    PoissonRate(12.5, seed=7),
    Stages((("1s", 100), ("2s", 5))),
    Stages((("1s", 4),), of="concurrency"),
]


@each_row("schedule", SCHEDULES)
def test_a_load_is_known_by_the_text_of_its_schedule(schedule: Schedule) -> None:
    load, callers = LoadDescription(str(schedule)), schedule if isinstance(schedule, ClosedLoop) else None
    assert load.in_flight == (callers and callers.concurrency)
    assert load.paced is (callers is None or callers.think_time_ns > 0)
    assert load.changes is (schedule.length_ns is not None)


def test_a_trace_is_known_by_its_text(tmp_path: Path) -> None:
    (tmp_path / "arrivals.jsonl").write_text("0\n1\n")
    load = LoadDescription(str(Trace(tmp_path / "arrivals.jsonl")))
    assert (load.in_flight, load.paced, load.changes) == (None, True, True)


@each_row("schedule", SCHEDULES)
def test_a_load_with_a_function_beside_it_is_another_load_of_the_same_kind(schedule: Schedule) -> None:
    plain = LoadDescription(str(schedule))
    both = plain.beside("reload")
    assert str(both) == f"{schedule}, during reload"
    assert (both.in_flight, both.paced, both.changes) == (plain.in_flight, plain.paced, plain.changes)
    assert plain.beside("") == plain
    assert make_setup(load=str(both)).load == both != plain
    assert Setup.from_json({**SETUP.to_json(), "load": str(both)}).load == both


@each_row(
    ("text", "in_flight", "paced", "changes"),
    ("closed(8)", 8, False, False),
    ("closed(8, think_time=50ms)", 8, True, False),
    ("closed(8, think_time=10ms to 2s)", 8, True, False),
    ("constant(200/s)", None, True, False),
    ("poisson(200/s)", None, True, False),
    ("stages(rate_rps: 0, 1s→100)", None, True, True),
    ("trace(arrivals.csv, 10 in 5.00 s)", None, True, True),
    ("closed(many)", None, True, False),
)
def test_a_load_says_what_is_in_flight_and_set(text: str, in_flight: int | None, paced: bool, changes: bool) -> None:
    load = make_setup(load=text).load
    assert (load.in_flight, load.paced, load.changes) == (in_flight, paced, changes)


LEFT = [
    "mix(gold: poisson(20/s), bulk: closed(4))",
    "bulk(chunk=100, concurrency=4)",
    "bursts(100/s, 1000/s for 500ms every 5s)",
]
"""Loads of earlier versions."""


@each_row("text", ["ramp(3)", "closed(many)", "", *LEFT])
def test_an_unknown_load_keeps_its_text(text: str) -> None:
    load = make_setup(load=text).load
    assert load == LoadDescription(text)
    assert (load.in_flight, load.paced) == (None, True)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (Url("http://127.0.0.1:8000/predict"), SystemKind.URL),
        (Url("https://example.org/"), SystemKind.URL),
        (App("shop:app", workers=2), SystemKind.APP),
        (Command("python serve.py --port {port}"), SystemKind.COMMAND),
    ],
    ids=str,
)
def test_a_service_of_the_users_own_reads_back_as_it_describes_itself(target: Target, kind: SystemKind) -> None:
    assert make_setup(pattern=str(target)).pattern == target.describe() == SystemDescription(str(target), kind)


@pytest.mark.parametrize("name", ["single", "cached(max_entries=10)|replicated(replicas=2)"])
def test_any_other_system_is_a_pattern(name: str) -> None:
    assert make_setup(pattern=str(parse_pattern(name, "test"))).pattern.kind is SystemKind.PATTERN


@pytest.mark.parametrize("data", [{"pattern": "single"}, {**SETUP.to_json(), "speed": "1"}])
def test_a_set_up_with_other_fields_is_refused(data: dict[str, str]) -> None:
    with pytest.raises(TypeError):
        Setup.from_json(data)


@each_row(
    ("name", "value", "usual"),
    [("engine", "ray", "local"), ("order", "shuffled", "not shuffled"), ("cpus", "2", "all")],
)
def test_what_an_older_entry_does_not_name_is_the_usual(name: str, value: str, usual: str) -> None:
    other = structs.replace(SETUP, **{name: value})
    assert other.differences(SETUP) == (f"{name}: {usual} → {value}",)
    assert SETUP.differences(other, timing=False) == (f"{name}: {value} → {usual}",)
    assert Setup.from_json(other.to_json()) == other


def test_the_timing_of_one_load_that_drives_both_sides_does_not_count() -> None:
    ours, theirs = (
        structs.replace(SETUP, duration="3.00 s", headers="none"),
        structs.replace(SETUP, duration="1.00 s", headers="a: b"),
    )
    assert ours.differences(theirs) == ("headers: a: b → none", "duration: 1.00 s → 3.00 s")
    assert ours.differences(theirs, timing=False) == ("headers: a: b → none",)


KNOWN = {"kernel": "Linux 6.1", "package numpy": "2.1.0"}


def texts(before: dict[str, str], now: dict[str, str]) -> list[str]:
    changes = differing_facts(KNOWN | before, KNOWN | now)
    assert changes is not None
    return [str(change) for change in changes]


@each_row(
    ("before", "now", "expected"),
    ({}, {}, []),
    ({}, {"OMP_NUM_THREADS": "8"}, ["OMP_NUM_THREADS unset → 8"]),
    ({"LD_PRELOAD": "libjemalloc.so"}, {}, ["LD_PRELOAD libjemalloc.so → unset"]),
    ({}, {"PYTHONOPTIMIZE": "1"}, ["PYTHONOPTIMIZE unset → 1"]),
    ({"package numpy": "1.26.4"}, {}, ["numpy 1.26.4 → 2.1.0"]),
    ({"package orjson": "3.10.1"}, {}, ["orjson 3.10.1 → not loaded"]),
    ({}, {"package torch": "2.4.0"}, ["torch not loaded → 2.4.0"]),
    ({"CPU quota": "none"}, {"CPU quota": "2 cores"}, ["CPU quota none → 2 cores"]),
    ({"BLAS threads": "4"}, {}, []),
    ({}, {"governor": "powersave"}, []),
)
def test_what_differs_is_said_and_what_one_side_cannot_know_is_not(
    before: dict[str, str], now: dict[str, str], expected: list[str]
) -> None:
    assert texts(before, now) == expected


def test_what_most_probably_explains_a_change_comes_first() -> None:
    names = ["kernel", "Python", "package numpy", "BLAS", "memory limit", "BLAS threads", "MKL_NUM_THREADS"]
    changes = texts(dict.fromkeys(names, "1"), dict.fromkeys(names, "2"))
    expected = ["MKL_NUM_THREADS", "BLAS threads", "memory limit", "BLAS", "Python", "numpy", "kernel"]
    assert changes == [f"{name} 1 → 2" for name in expected]


@pytest.mark.parametrize(("before", "now"), [({}, KNOWN), (KNOWN, {}), ({}, {})])
def test_an_environment_that_is_not_known_has_no_differences(before: dict[str, str], now: dict[str, str]) -> None:
    assert differing_facts(before, now) is None


def test_packages_of_one_side_alone_differ_in_nothing_if_the_other_lists_none() -> None:
    assert differing_facts({"kernel": "Linux 6.1"}, KNOWN) == ()


def test_values_that_differ_between_processes_stand_side_by_side() -> None:
    parts = [{"kernel": "Linux 6.1", "BLAS threads": "8"}, {"kernel": "Linux 6.1", "BLAS threads": "1"}, {}]
    assert merged_facts(parts) == {"kernel": "Linux 6.1", "BLAS threads": "8, 1"}


LOADED = {"kernel": "Linux 6.1", "packages": "loaded", "package features": "1.0", "package pip": "24.0, 25.1+cu1"}


def test_a_file_has_one_line_of_packages_and_gives_back_each() -> None:
    line = {"kernel": "Linux 6.1", "packages loaded": "features 1.0; pip 24.0, 25.1+cu1"}
    assert folded(LOADED) == line
    assert unfolded(line) == LOADED
    assert unfolded(folded({"packages": "imported"})) == {"packages": "imported"}
    assert folded(KNOWN) == unfolded(KNOWN) == KNOWN


def test_a_package_that_an_entry_could_not_know_has_not_changed() -> None:
    old = {"kernel": "Linux 6.1", "package pip": "23.0", "package typing_extensions": "4.0"}
    changes = differing_facts(old, LOADED)
    assert changes is not None
    assert [str(one) for one in changes] == ["pip 23.0 → 24.0, 25.1+cu1"]
    changes = differing_facts({**LOADED, "package orjson": "3.10"}, {**LOADED, "package features": "2.0"})
    assert changes is not None
    assert [str(one) for one in changes] == ["features 1.0 → 2.0", "orjson 3.10 → not loaded"]
    assert differing_facts(LOADED, {**LOADED, "packages": "imported", "package orjson": "3.10"}) == ()
