"""A set-up reads from a file what the values themselves describe."""

from pathlib import Path

import pytest
from msgspec import structs
from support.each_row import each_row
from support.synthetic import SETUP, make_setup

from pytest_mlpatterns.config.lists import parse_pattern
from pytest_mlpatterns.records.setup import LoadDescription, Setup, SystemDescription, SystemKind
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


@each_row("text", ["ramp(3)", "closed(many)", "other", "", *LEFT])
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


def test_an_engine_is_the_local_one_unless_it_is_named() -> None:
    on_ray = structs.replace(SETUP, engine="ray")
    assert on_ray.differences(SETUP) == ("engine: local → ray",)
    assert SETUP.differences(on_ray, timing=False) == ("engine: ray → local",)
    assert Setup.from_json(on_ray.to_json()) == on_ray


def test_an_order_of_older_entries_is_not_the_shuffled_one() -> None:
    shuffled = structs.replace(SETUP, order="shuffled")
    assert shuffled.differences(SETUP) == ("order: not shuffled → shuffled",)
    assert SETUP.differences(shuffled, timing=False) == ("order: shuffled → not shuffled",)
    assert Setup.from_json(shuffled.to_json()) == shuffled


def test_the_timing_of_one_load_that_drives_both_sides_does_not_count() -> None:
    ours, theirs = (
        structs.replace(SETUP, duration="3.00 s", headers="none"),
        structs.replace(SETUP, duration="1.00 s", headers="a: b"),
    )
    assert ours.differences(theirs) == ("headers: a: b → none", "duration: 1.00 s → 3.00 s")
    assert ours.differences(theirs, timing=False) == ("headers: a: b → none",)
