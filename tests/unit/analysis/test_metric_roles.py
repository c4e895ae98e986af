"""Roles of metrics: each has its metrics, and no module outside the definitions lists names of metrics."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.each_row import each_row

import pytest_mlpatterns
from pytest_mlpatterns.analysis.metrics.definitions import (
    LOCATIONS,
    METRICS,
    comparable_metrics,
    is_known_metric,
    leading_time,
    metric_named,
    metrics_in,
    nmrt_metric,
    objectives_of,
    streams_first,
    with_locations,
    with_role,
)
from pytest_mlpatterns.analysis.metrics.metric import Group, Nmrt, Role, times_of
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.units import Unit

PACKAGE = Path(pytest_mlpatterns.__file__).parent
NAMES = {*METRICS, *(location.name for location in LOCATIONS.values())}
LISTS = {
    "analysis/metrics/definitions.py": "the definitions",
    "analysis/metrics/stream_metrics.py": "a fluidity has the deadlines of exactly these times",
    "analysis/verdicts/launch_kinds.py": "figures of layers, in the order in which they are tried as a cause",
    "judging/perf.py": "default of an argument, which the reference shows",
    "profiling/frame_names.py": "names of functions",
    "records/latency.py": "the times of which a result holds the parts, as a type; fields of the record of streams",
    "reports/text/notes.py": "indices of one paper, in its order",
    "reports/text/where.py": "figures of layers, and which parts of a time explain a metric",
}
"""Modules that list names of metrics, and why."""


def listed(module: Path) -> Iterator[list[str]]:
    """The names of metrics in each tuple, list, set and pattern of alternatives that has two or more."""
    text = module.read_text(encoding="utf-8")
    if sum(f'"{name}"' in text for name in NAMES) < 2:
        return  # to read the code takes longer
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Tuple(elts=values) | ast.List(elts=values) | ast.Set(elts=values):
                constants = values
            case ast.MatchOr(patterns=patterns):
                constants = [one.value for one in patterns if isinstance(one, ast.MatchValue)]
            case _:
                continue
        found = [one.value for one in constants if isinstance(one, ast.Constant) and one.value in NAMES]
        if len(found) > 1:
            yield found


@pytest.mark.simulation
def test_no_module_outside_the_definitions_lists_metrics() -> None:
    found = {
        module.relative_to(PACKAGE).as_posix(): names
        for module in sorted(PACKAGE.rglob("*.py"))
        for names in listed(module)
    }
    assert found.keys() == LISTS.keys(), {name: names for name, names in found.items() if name not in LISTS}


@each_row("role", Role)
def test_a_role_has_metrics_in_the_order_of_definitions(role: Role) -> None:
    names = list(with_role(role))
    assert names
    assert names == [name for name in METRICS if name in names]
    assert all(role in METRICS[name].roles for name in names)


@each_row(
    ("role", "names"),
    (Role.PRIMARY, "rtm throughput ttft tpot output_tokens"),
    (
        Role.GUARD,
        "p95 p99 ttft:p95 tpot:p95 error_rate cpu_per_request instructions peak_memory memory_growth "
        "descriptor_growth thread_growth cold_start response_bytes",
    ),
    (
        Role.STANDING,
        "error_rate instructions peak_memory memory_growth descriptor_growth thread_growth request_bytes "
        "response_bytes",
    ),
    (Role.INDEPENDENT_OF_LATENCY, "cpu_per_request cold_start"),
    (Role.PACED, "throughput total_time"),
    (Role.PAIRED, "rtm throughput ttft tpot output_tokens cpu_per_request"),
    (Role.FACTOR, "rtm throughput ttft nmrt instructions"),
    (Role.RECORDED, "p95 p99 ttft:p95 ttft:p99 tpot:p95 cpu_per_request instructions peak_memory"),
    (Role.COLUMN, "rtm p95 throughput ttft ttft:p95 tpot output_tokens nmrt asl instructions cost"),
)
def test_what_comparisons_and_tables_are_about(role: Role, names: str) -> None:
    assert list(with_role(role)) == names.split()


def test_a_metric_is_primary_or_a_guard_and_what_is_judged_can_be_stored() -> None:
    primary, guards = with_role(Role.PRIMARY), with_role(Role.GUARD)
    assert not primary.keys() & guards.keys()
    assert primary.keys() | guards.keys() <= comparable_metrics().keys()
    assert not primary.keys() & with_role(Role.ALWAYS_GUARD).keys()


def test_the_leading_time_is_the_first_primary_time_and_has_a_location() -> None:
    for streams in (False, True):
        primary = with_role(Role.PRIMARY, streams=streams).values()
        assert leading_time(streams=streams) == next(one for one in primary if one.unit is Unit.DURATION)
        assert leading_time(streams=streams).name in LOCATIONS
    assert [leading_time(streams=streams).label for streams in (False, True)] == ["median latency", "median TTFT"]


def test_rates_of_a_closed_loop_follow_from_primary_times() -> None:
    rates = {name: times_of(metric) for name, metric in METRICS.items() if times_of(metric)}
    assert rates == {"throughput": ("rtm",), "output_tokens": ("ttft", "tpot")}
    assert {time for times in rates.values() for time in times} <= with_role(Role.PRIMARY).keys()


def test_groups_have_every_metric_once_each_before_its_location() -> None:
    grouped = [name for group in Group for name in metrics_in(group)]
    assert sorted(grouped) == sorted(NAMES)
    assert with_locations(["p95", "rtm"]) == ("p95", "rtm", "latency_mean")
    assert metrics_in(Group.LATENCY)[:2] == ("rtm", "latency_mean")


def test_metrics_of_streams_come_first_where_reports_mix_them() -> None:
    assert streams_first(with_role(Role.PRIMARY)) == ("ttft", "tpot", "output_tokens", "rtm", "throughput")


OBJECTIVE = Objective.of(95.0, 50_000_000)


def test_a_metric_is_found_by_its_name() -> None:
    for metric in (*METRICS.values(), nmrt_metric(None), nmrt_metric(OBJECTIVE)):
        assert repr(metric_named(metric.name)) == repr(metric)
    metric = metric_named("nmrt(p95<50ms)")
    assert (metric.kind, metric.name, metric.unit) == (Nmrt(OBJECTIVE), "nmrt(p95<50.0ms)", Unit.RATE)


@each_row("name", ["p960", "nmrt(fast)", "nmrt(p95<50ms", "nmrt2", ""])
def test_other_names_are_unknown(name: str) -> None:
    assert not is_known_metric(name)


def test_objectives_are_those_of_nmrt_only() -> None:
    names = ["rtm", "nmrt", "nmrt(p95<50.0ms)", "nmrt(later)"]
    assert objectives_of(names) == {"nmrt": None, "nmrt(p95<50.0ms)": OBJECTIVE}
