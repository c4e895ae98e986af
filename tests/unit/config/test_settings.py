"""Settings: marker over command line over ini over default at every level, and messages that name what is wrong."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.each_row import each_row

from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.config import settings as config
from pytest_mlpatterns.config.arguments import ARGUMENT_HELP, LOAD_ARGUMENTS, merge_markers
from pytest_mlpatterns.config.lists import patterns_of, wires_of
from pytest_mlpatterns.config.run_settings import BaselineMode, BaselineSource, HistoryFail, read_run_settings
from pytest_mlpatterns.config.settings import (
    CountMode,
    InconclusivePolicy,
    NoisePolicy,
    ProfileMode,
    read_choice,
    read_settings,
)
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns import Batched, Cached, Replicated, Single
from pytest_mlpatterns.plugin.options import OPTIONS
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.records.verdict import Gate
from pytest_mlpatterns.reports.files.result_file import FORMAT
from pytest_mlpatterns.wire import Wire
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, PoissonRate, Schedule, Stages

S = 1_000_000_000
LEVELS: dict[str, tuple[str, tuple[Any, Any], tuple[Any, Any], tuple[Any, Any], Any]] = {
    "duration": ("duration_ns", ("1s", S), ("2s", 2 * S), ("4s", 4 * S), 7 * S // 10),
    "requests": ("requests", (500, 500), ("40 requests", 40), ("all", "all"), None),
    "budget": ("budget_ns", ("1s", S), ("2s", 2 * S), ("4s", 4 * S), 60 * S),
    "startup_timeout": ("startup_timeout_ns", ("1s", S), ("2s", 2 * S), ("4s", 4 * S), 60 * S),
    "tolerance": (
        "tolerance",
        ({"p99": "30%"}, Tolerances({"p99": 0.3})),
        ("5%", Tolerances(0.05)),
        ("rtm=0.3, p99=40%", Tolerances({"rtm": 0.3, "p99": 0.4})),
        Tolerances(),
    ),
    "count": (
        "count",
        ("off", CountMode.OFF),
        ("instructions", CountMode.INSTRUCTIONS),
        ("off", CountMode.OFF),
        CountMode.AUTO,
    ),
    "gate": ("gate", ("warn", Gate.WARN), ("fail", Gate.FAIL), ("warn", Gate.WARN), Gate.FAIL),
    "compare": ("compare", (["p99"], ("p99",)), ("rtm, error_rate", ("rtm", "error_rate")), ("rtm", ("rtm",)), None),
    "price": (
        "price",
        ("0.04 USD per core-hour", Price(0.04, 0.0, "USD")),
        ("2 EUR per GiB-hour", Price(0.0, 2.0, "EUR")),
        ("0.0425 USD per core-hour, 0.0057 USD per GiB-hour", Price(0.0425, 0.0057, "USD")),
        None,
    ),
    "profile": (
        "profile",
        ("off", ProfileMode.OFF),
        ("on", ProfileMode.ON),
        ("auto", ProfileMode.AUTO),
        ProfileMode.AUTO,
    ),
    "noise": (
        "noise",
        ("trust", NoisePolicy.TRUST),
        ("doubt", NoisePolicy.DOUBT),
        ("trust", NoisePolicy.TRUST),
        NoisePolicy.DOUBT,
    ),
    "cpus": ("cpus", (0.5, 0.5), ("2", 2), ("1.5", 1.5), None),
    "engine": ("engine", ("local", "local"), ("ray", "ray"), ("other", "other"), "local"),
    "generators_on": ("generators_on", ("local", "local"), ("ray", "ray"), ("other", "other"), "local"),
    "inconclusive": (
        "inconclusive",
        ("fail", InconclusivePolicy.FAIL),
        ("pass", InconclusivePolicy.PASS),
        ("fail", InconclusivePolicy.FAIL),
        InconclusivePolicy.WARN,
    ),
}
"""Marker argument → field of the settings, then of marker, option and ini key what is given and what it comes to, and
the default."""
RUN_LEVEL = {
    *("against", "against-env", "against-files", "baseline", "baseline-file", "baseline-from", "history"),
    *("history-fail", "html", "json", "rank", "ray-address", "ray-runtime-env", "settle", "smoke", "time"),
}
COLLECTION_LEVEL = {"patterns"}

IN_FLIGHT = "a whole number of requests in flight from 1 to 10,000; write 16"


@each_row("name", LEVELS)
def test_the_marker_wins_over_the_command_line_over_the_ini_file_over_the_default(name: str) -> None:
    field, marker, option, ini, default = LEVELS[name]
    text = name.replace("_", "-")
    for has_marker, has_option, has_ini in itertools.product((False, True), repeat=3):
        found = read_settings(
            {name: marker[0]} if has_marker else {},
            {text: option[0] if has_option else None},
            {text: ini[0] if has_ini else ""},
        )
        rest = ini[1] if has_ini else default
        assert getattr(found, field) == (marker[1] if has_marker else option[1] if has_option else rest)


def test_every_option_of_a_test_has_its_levels_tested() -> None:
    assert {name.replace("_", "-") for name in LEVELS} == set(OPTIONS) - RUN_LEVEL - COLLECTION_LEVEL


@each_row(
    ("option", "kind"),
    ("baseline", BaselineMode),
    ("baseline-from", BaselineSource),
    ("history-fail", HistoryFail),
    ("inconclusive", InconclusivePolicy),
    ("gate", Gate),
)
def test_the_choices_of_an_option_are_those_that_it_is_read_by(option: str, kind: Any) -> None:
    assert list(OPTIONS[option]["choices"]) == [str(member) for member in kind]


def test_options_are_named_by_their_help_and_take_no_optional_value() -> None:
    for attributes in OPTIONS.values():
        assert attributes["help"]
        assert "default" not in attributes  # the default of each is None, so that the ini file can win
        assert attributes.get("nargs") is None


@pytest.mark.parametrize("source", ["marker", "options", "ini", ""])
def test_loads_are_planned_for_all_of_a_given_budget_and_for_half_of_the_usual_one(source: str) -> None:
    given = {name: {"budget": "60s"} if name == source else {} for name in ("marker", "options", "ini")}
    found = read_settings(**given)
    assert (found.budget_ns, found.planned_ns) == (60 * S, 60 * S if source else 30 * S)


def test_without_any_argument_the_defaults_are_as_documented() -> None:
    found = read_settings({}, {}, {})
    assert found.pattern == Single()
    assert found.schedule == ClosedLoop(1)
    assert (found.duration_ns, found.warmup_ns, found.timeout_ns) == (7 * S // 10, None, 10 * S)
    assert (found.startup_timeout_ns, found.budget_ns, found.launches) == (60 * S, 60 * S, 8)
    assert (found.tolerance, found.inconclusive) == (Tolerances(), InconclusivePolicy.WARN)
    assert (found.compare, found.overload, found.noise, found.stretches) == (None, False, NoisePolicy.DOUBT, True)
    assert (found.payload, found.model, found.check, found.wire) == (None, None, None, Wire("rest", "json"))


def check(inputs: object, outputs: object) -> None:
    """A check that a marker names."""


@each_row(
    ("argument", "given", "field", "value"),
    ("pattern", Replicated(3), "pattern", Replicated(3)),
    ("pattern", "replicated(replicas=3)", "pattern", Replicated(3)),
    ("pattern", "cached|batched", "pattern", Cached() | Batched()),
    ("concurrency", 16, "schedule", ClosedLoop(16)),
    ("rate_rps", 200, "schedule", ConstantRate(200)),
    ("load", PoissonRate(50), "schedule", PoissonRate(50)),
    ("warmup", "auto", "warmup_ns", None),
    ("warmup", "1s", "warmup_ns", S),
    ("warmup", 50, "warmup_requests", 50),
    ("warmup", "1 request", "warmup_requests", 1),
    ("warmup", "50 requests", "warmup_ns", None),
    ("warmup", "0s", "warmup_ns", 0),
    ("warmup", 0, "warmup_ns", 0),
    ("warmup", 0, "warmup_requests", 0),
    ("timeout", "1s", "timeout_ns", S),
    ("launches", 1, "launches", 1),
    ("launches", 100, "launches", 100),
    ("tolerance", "5%", "tolerance", Tolerances(0.05)),
    ("tolerance", 0, "tolerance", Tolerances(0.0)),
    ("tolerance", {"rtm": "300%", "p99": "150%"}, "tolerance", Tolerances({"rtm": 3.0, "p99": 1.5})),
    ("overload", True, "overload", True),
    ("payload", [1, 2], "payload", [1, 2]),
    ("model", "package.module:attribute", "model", "package.module:attribute"),
    ("check", check, "check", check),
    ("wire", "rest+json", "wire", Wire("rest", "json")),
    ("duration", "100ms", "duration_ns", S // 10),
    ("engine", "local", "wire", Wire("rest", "json")),
    ("cpus", "all", "cpus", None),
    ("cpus", 2.0, "cpus", 2),
    ("cpus", 1 / 3, "cpus", 0.333),
)
def test_an_argument_of_the_marker_is_read(argument: str, given: object, field: str, value: object) -> None:
    assert getattr(read_settings({argument: given}, {}, {}), field) == value


def test_a_load_with_a_length_of_its_own_is_the_window() -> None:
    found = read_settings({"load": Stages((("2s", 10), ("5s", 0)))}, {"duration": "1s"}, {})
    assert found.duration_ns == 7 * S


def test_the_member_of_a_list_of_patterns_is_the_pattern_of_the_test() -> None:
    patterns = [Single(), Replicated(3)]
    assert read_settings({"pattern": patterns}, {}, {}, pattern=patterns[1]).pattern == Replicated(3)


@each_row(
    ("marker", "found", "expected"),
    ({"pattern": 3}, "perf(pattern=...) is 3", 'write Single(), Cached() | Batched(), or "cached|batched"'),
    ({"pattern": "replicated(replicas=1)"}, "perf(pattern=...): Replicated(replicas=1)", "write Single()"),
    ({"concurrency": 0}, "concurrency is 0", IN_FLIGHT.replace("16", "1")),
    ({"concurrency": 10001}, "concurrency is 10001", IN_FLIGHT),
    ({"concurrency": 2.0}, "concurrency is 2.0", IN_FLIGHT),
    ({"concurrency": True}, "concurrency is True", IN_FLIGHT),
    ({"rate_rps": 0}, "rate_rps is 0", "requests per second, from 0.000001 to 1,000,000; write 200"),
    ({"load": ClosedLoop}, "perf(load=...) is <class", "a schedule; write ClosedLoop(16)"),
    ({"duration": "99ms"}, "perf(duration=...) is '99ms'", "at least 100ms"),
    ({"warmup": "1"}, "perf(warmup=...) is '1'", "50 for as many requests"),
    ({"duration": "500 requests"}, "perf(duration=...) is '500 requests'", "expected a time; write requests=500"),
    ({"duration": "1s", "requests": 5}, "perf(duration=...) and perf(requests=...) each end", "expected one of"),
    ({"requests": 1.5}, "perf(requests=...) is 1.5", "a whole number of requests from 1 to 10,000,000"),
    ({"requests": "some"}, "perf(requests=...) is 'some'", 'or "all" for each input once; write requests=500'),
    ({"requests": 5, "generators": 2}, "requests=5 beside generators=2", "leave generators= out, or write dur"),
    ({"requests": 5, "rate_rps": 9, "during": print}, "requests=5 beside during=", 'write duration="4s"'),
    ({"load": Stages((("2s", 10),)), "requests": 5}, "perf(requests=...) and stages(", "leave requests= out"),
    ({"warmup": "soon"}, "perf(warmup=...) is 'soon'", '"auto"'),
    ({"timeout": "0s"}, "perf(timeout=...) is '0s'", "a time above zero"),
    ({"startup_timeout": "0s"}, "perf(startup_timeout=...) is '0s'", "a time above zero"),
    ({"budget": "0s"}, "perf(budget=...) is '0s'", "a time above zero"),
    ({"cpus": True}, "perf(cpus=...) is True", 'a number of cores of at least 0.01, or "all"; write 2 or 0.5'),
    ({"cpus": "two"}, "perf(cpus=...) is 'two'", 'a number of cores of at least 0.01, or "all"; write 2 or 0.5'),
    ({"launches": 0}, "perf(launches=...) is 0", "a whole number of deployments from 1 to 100"),
    ({"launches": 101}, "perf(launches=...) is 101", "a whole number of deployments from 1 to 100"),
    ({"launches": True}, "perf(launches=...) is True", "a whole number of deployments from 1 to 100"),
    ({"tolerance": "300%"}, "perf(tolerance=...) is '300%'", "expected at most 1 (100 %)"),
    ({"tolerance": {"rtm": 3}}, "perf(tolerance=...)['rtm'] is 3", "expected at most 1 (100 %)"),
    ({"tolerance": "throughput=101%"}, "perf(tolerance=...)['throughput'] is '101%'", "at most 1 (100 %)"),
    ({"tolerance": {"rmt": "101%"}}, "perf(tolerance=...)['rmt'] is '101%'", "at most 1 (100 %)"),
    ({"tolerance": -0.1}, "perf(tolerance=...) is -0.1", 'write 0.05 or "5%"'),
    ({"tolerance": {"p9x": 0.1}}, "perf(tolerance=...) names the metric 'p9x'", "rtm"),
    ({"tolerance": "rtm=5%, rtm=6%"}, "perf(tolerance=...) is 'rtm=5%, rtm=6%'", "expected each metric once"),
    ({"compare": "cost"}, "perf(compare=...) names the metric 'cost'", "expected some of rtm"),
    ({"tolerance": {"cost": 0.1}}, "perf(tolerance=...) names the metric 'cost'", "expected some of rtm"),
    ({"price": "0.04 USD"}, "perf(price=...) is '0.04 USD'", "per core-hour, per GiB-hour or both"),
    ({"compare": 5}, "perf(compare=...) is 5", "write ('rtm', 'p99', 'error_rate')"),
    ({"overload": "yes"}, "perf(overload=...) is 'yes'", "expected True or False"),
    ({"tolerance": "much"}, "perf(tolerance=...) is 'much'", 'write 0.05 or "5%"'),
    ({"load": Stages((("2s", 10),)), "duration": "3s"}, "perf(duration=...) and stages(", "one of them"),
    ({"load": Stages((("2s", 10),)), "warmup": "3s"}, "perf(warmup=...) and stages(", "one of them"),
)
def test_a_wrong_argument_is_named_with_what_is_allowed(marker: dict[str, Any], found: str, expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_settings(marker, {}, {})
    message = str(caught.value)
    assert message.startswith(found)
    assert expected in message
    assert "\n" not in message


@each_row("name", ["duration", "budget", "startup-timeout", "tolerance", "inconclusive"])
@each_row("level", ["option", "ini"])
def test_a_wrong_value_is_named_by_where_it_was_given(name: str, level: str) -> None:
    given = {name: "nonsense"}
    with pytest.raises(SettingError) as caught:
        read_settings({}, given if level == "option" else {}, given if level == "ini" else {})
    where = f"--perf-{name}" if level == "option" else f"ini key perf_{name.replace('-', '_')}"
    assert str(caught.value).startswith(f"{where} is 'nonsense', expected ")


def test_markers_merge_argument_by_argument_and_the_closest_wins() -> None:
    function = {"tolerance": 0.2}
    class_ = {"tolerance": 0.3, "duration": "1s"}
    module = {"tolerance": 0.4, "duration": "2s", "launches": 2}
    merged = merge_markers([((), function), ((), class_), ((), module)])
    assert merged == {"tolerance": 0.2, "duration": "1s", "launches": 2}


@each_row("near", [{"concurrency": 4}, {"rate_rps": 10}, {"load": ClosedLoop(2)}])
@each_row("far", [{"concurrency": 8}, {"rate_rps": 20}, {"load": ClosedLoop(3)}])
def test_the_closest_marker_that_chooses_a_load_chooses_it_alone(near: dict[str, Any], far: dict[str, Any]) -> None:
    assert merge_markers([((), near), ((), {**far, "launches": 2})]) == {**near, "launches": 2}


@each_row("given", ["0", "many", "9" * 5000, 20_000])
def test_a_wrong_concurrency_has_a_number_that_is_allowed(given: object) -> None:
    with pytest.raises(SettingError) as caught:
        read_settings({"concurrency": given}, {}, {})
    assert str(caught.value).endswith("from 1 to 10,000; write 16")


def test_an_unknown_argument_is_named_with_the_nearest_and_all_that_are_allowed() -> None:
    with pytest.raises(SettingError) as caught:
        merge_markers([((), {"concurency": 4})])
    message = str(caught.value)
    assert message.startswith("perf(concurency=...) is not an argument of the marker; did you mean concurrency=?")
    for name in ARGUMENT_HELP:
        assert name in message


def test_every_argument_that_is_read_has_a_name_in_the_help() -> None:
    assert {*config._READERS, *LOAD_ARGUMENTS} == {*ARGUMENT_HELP}


@each_row("marker", [{}, {"pattern": Single()}, {"pattern": "single"}, {"pattern": None}])
@each_row("nothing", [{}, {"patterns": None}, {"patterns": ""}])
def test_one_pattern_or_none_makes_no_list(marker: dict[str, Any], nothing: dict[str, Any]) -> None:
    assert patterns_of(marker, {"patterns": None}, nothing) is None


def test_an_empty_list_of_the_command_line_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^--perf-patterns is empty, expected at least one pattern"):
        patterns_of({}, {"patterns": ""}, {"patterns": "cached"})


@each_row(
    ("options", "ini", "weights"),
    ({"rank": "rtm=1"}, {"rank": "asl=1"}, {"rtm": 1.0}),
    ({"rank": None}, {"rank": "asl=1"}, {"asl": 1.0}),
    ({"rank": None}, {"rank": ""}, None),
)
def test_weights_of_the_command_line_win_over_those_of_the_ini_file(
    options: dict[str, object], ini: dict[str, object], weights: dict[str, float] | None, tmp_path: Path
) -> None:
    found = read_run_settings(options, ini, invoked_in=tmp_path, root=tmp_path)
    assert (found.rank and found.rank.weights) == weights
    assert found.always_ranks is (options["rank"] is None)


@each_row(
    ("options", "ini", "source"),
    [({"rank": ""}, {"rank": "rtm=1"}, "--perf-rank is ''"), ({}, {"rank": "rtm"}, "ini key perf_rank has 'rtm'")],
)
def test_weights_that_cannot_be_read_are_told_with_where_they_were_given(
    options: dict[str, object], ini: dict[str, object], source: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=f"^{source}, expected"):
        read_run_settings(options, ini, invoked_in=tmp_path, root=tmp_path)


def test_files_to_take_along_are_separated_by_commas_or_spaces_unless_quoted(tmp_path: Path) -> None:
    found = read_run_settings(
        {"against-files": " a.csv,b/*  'my file, too' "}, {"against": "main"}, invoked_in=tmp_path, root=tmp_path
    )
    assert found.against == "main"
    assert found.against_files == ("a.csv", "b/*", "my file, too")
    with pytest.raises(SettingError, match=r"--perf-against-files 'a: No closing quotation; close the quotes"):
        read_run_settings({"against-files": "'a"}, {}, invoked_in=tmp_path, root=tmp_path)


@pytest.mark.parametrize(
    ("ini", "below", "expected"),
    [
        ({}, "", "perf-accepted.toml"),
        ({}, "tests", "../perf-accepted.toml"),
        ({"baseline-file": "ci/base.json"}, "", "ci/perf-accepted.toml"),
        ({"baseline-file": "ci/base.json"}, "tests", "../ci/perf-accepted.toml"),
    ],
)
def test_the_file_of_acceptances_is_named_from_where_the_run_was_started(
    ini: dict[str, object], below: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "ci").mkdir()
    found = read_run_settings({}, ini, invoked_in=tmp_path / below, root=tmp_path)
    assert found.accepted_from_here == expected
    assert found.accepted_file.name == "perf-accepted.toml"


@pytest.mark.parametrize("ini", [{}, {"baseline": "require"}, {"baseline": "check"}])
def test_against_a_revision_the_baseline_file_is_left_alone(ini: dict[str, object], tmp_path: Path) -> None:
    found = read_run_settings({"against": "main"}, ini, invoked_in=tmp_path, root=tmp_path)
    assert found.baseline is BaselineMode.OFF
    assert found.against_required is (ini.get("baseline") == "require")


def test_a_comparison_may_be_required_on_the_command_line_and_only_beside_a_revision(tmp_path: Path) -> None:
    found = read_run_settings({"against": "main", "baseline": "require"}, {}, invoked_in=tmp_path, root=tmp_path)
    assert (found.baseline, found.against_required) == (BaselineMode.OFF, True)
    found = read_run_settings({"baseline": "require"}, {"against": ""}, invoked_in=tmp_path, root=tmp_path)
    assert (found.baseline, found.against_required) == (BaselineMode.REQUIRE, False)


@pytest.mark.parametrize("given", ["", " "])
def test_an_empty_revision_on_the_command_line_is_an_error(given: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=rf"^--perf-against is '{given}', expected a branch, tag or commit"):
        read_run_settings({"against": given}, {"against": "main"}, invoked_in=tmp_path, root=tmp_path)


@each_row(("options", "ini"), [({"baseline": "update"}, {}), ({"baseline": "prune"}, {}), ({}, {"baseline": "update"})])
def test_baseline_modes_exclude_a_comparison_with_a_revision(
    options: dict[str, object], ini: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=r"--perf-against main beside --perf-baseline \w+, expected one of them"):
        read_run_settings({"against": "main", **options}, ini, invoked_in=tmp_path, root=tmp_path)


@each_row(
    ("marker", "option", "ini", "found"),
    (None, "single,cached", "batched", (Single(), Cached())),
    (None, None, " batched , cached|batched ,", (Batched(), Cached() | Batched())),
    (None, "replicated(replicas=3,balance=shared-socket),single", None, (Replicated(3, "shared-socket"), Single())),
    (None, "single", None, (Single(),)),
    ([Single()], "cached,batched", "batched", (Single(),)),
    (["single", Replicated(), "cached|batched"], None, None, (Single(), Replicated(), Cached() | Batched())),
    (Single(), "cached,batched", "batched", None),
    ("single", "cached,batched", "batched", None),
)
def test_patterns_of_the_marker_win_over_the_command_line_over_the_ini_file(
    marker: object, option: str | None, ini: str | None, found: object
) -> None:
    assert patterns_of({"pattern": marker}, {"patterns": option}, {"patterns": ini}) == found


@each_row(("level", "source"), [("option", "--perf-patterns"), ("ini", "ini key perf_patterns")])
@each_row(
    ("text", "message"),
    ("single,cachd", " names the pattern 'cachd', did you mean cached? expected one of batched, cached, "),
    (" , ,", ' is empty, expected at least one pattern; write [Single()] or "single"'),
    ("cached,batched,cached", " lists 'cached' twice, expected each pattern once"),
    ("cached(max_entries=0)", ": Cached(max_entries=0), expected a whole number"),
    ("pipeline", " names 'pipeline', which needs code; write the value: Pipeline(...)"),
)
def test_wrong_patterns_are_named_by_where_they_were_given(level: str, source: str, text: str, message: str) -> None:
    given = {"patterns": text}
    option, ini = (given, {}) if level == "option" else ({}, given)
    for read in (patterns_of, read_settings):  # the second is where a usage error can end the run
        with pytest.raises(SettingError) as caught:
            read({}, option, ini)
        assert str(caught.value).startswith(f"{source}{message}")


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_patterns_is_kept_in_its_order(kind: type) -> None:
    patterns = (Replicated(3), Single(), Replicated(2))
    assert patterns_of({"pattern": kind(patterns)}, {}, {}) == patterns


BAD_WIRES = [
    ([], "perf(wire=...) is empty, expected at least one wire; write ['rest+json', 'rest+binary']"),
    (["rest+json", 3], "perf(wire=...) is 3, expected a wire; write 'rest+json' or Wire('rest', 'json')"),
    (["rest+jsn"], "perf(wire=...) is 'rest+jsn', did you mean 'rest+json'? expected 'rest+json', "),
    (["rest+json", Wire()], "perf(wire=...) lists 'rest+json' twice, expected each wire once"),
]


@pytest.mark.parametrize(("wires", "message"), BAD_WIRES, ids=["empty", "no wire", "no name", "twice"])
def test_a_list_of_wires_that_makes_no_tests_is_refused(wires: list[Any], message: str) -> None:
    for read in (wires_of, lambda marker: read_settings(marker, {}, {})):
        with pytest.raises(SettingError) as caught:
            read({"wire": wires})
        assert str(caught.value).startswith(message)


def test_a_list_of_wires_makes_one_test_each_and_a_single_one_none() -> None:
    assert wires_of({"wire": ["rest+json"]}) == (Wire(),)
    assert wires_of({"wire": "rest+json"}) is None
    assert wires_of({}) is None
    assert read_settings({"wire": ["rest+json"]}, {}, {}, wire=Wire()).wire == Wire()


BAD_LISTS = [
    ([], 'perf(pattern=...) is empty, expected at least one pattern; write [Single()] or "single"'),
    ([Single(), 3], "perf(pattern=...) is 3, expected a pattern; write Single(), Cached() | Batched(), or "),
    (
        ["single", "cachd"],
        "perf(pattern=...) names the pattern 'cachd', did you mean cached? expected one of batched, cached, ",
    ),
    ([Single], "perf(pattern=...) is the class Single, expected a value; write Single()"),
    ([Replicated(), Single(), Replicated(2)], "perf(pattern=...) lists 'replicated' twice, expected each pattern once"),
]


@each_row(("patterns", "message"), BAD_LISTS)
def test_a_list_that_makes_no_tests_is_refused(patterns: list[Any], message: str) -> None:
    for read in (patterns_of, read_settings):  # the second is where a usage error can end the run
        with pytest.raises(SettingError) as caught:
            read({"pattern": patterns}, {}, {})
        assert str(caught.value).startswith(message)


def test_a_choice_may_be_its_member_or_its_text() -> None:
    assert read_choice(BaselineMode, "update", "x") is BaselineMode.UPDATE
    assert read_choice(BaselineMode, BaselineMode.OFF, "x") is BaselineMode.OFF


def run_settings(tmp_path: Path, options: dict[str, object] | None = None, ini: dict[str, object] | None = None) -> Any:
    for name in ("root", "invoked"):
        (tmp_path / name).mkdir(exist_ok=True)
    return read_run_settings(options or {}, ini or {}, invoked_in=tmp_path / "invoked", root=tmp_path / "root")


def test_a_run_without_options_checks_the_baseline_beside_the_project(tmp_path: Path) -> None:
    found = run_settings(tmp_path)
    assert found.baseline is BaselineMode.CHECK
    assert found.baseline_file == tmp_path / "root" / "perf-baseline.json"
    assert found.html_file is None
    assert found.json_file is None
    assert found.smoke is False


@each_row(
    ("option", "ini", "mode"),
    ("update", "off", BaselineMode.UPDATE),
    ("check", "off", BaselineMode.CHECK),
    (None, "off", BaselineMode.OFF),
    (None, "require", BaselineMode.REQUIRE),
    (None, "", BaselineMode.CHECK),
    (None, None, BaselineMode.CHECK),
)
def test_the_mode_of_the_baseline_is_of_the_command_line_then_of_the_ini_file(
    tmp_path: Path, option: str | None, ini: str | None, mode: BaselineMode
) -> None:
    assert run_settings(tmp_path, {"baseline": option}, {"baseline": ini}).baseline is mode


def test_a_history_is_a_file(tmp_path: Path) -> None:
    found = run_settings(tmp_path, {}, {"history": "runs.jsonl"})
    assert found.history == tmp_path / "root" / "runs.jsonl"
    assert run_settings(tmp_path, {"history": "runs.jsonl"}).history == tmp_path / "invoked" / "runs.jsonl"
    assert run_settings(tmp_path, {"history": "./git:perf"}).history == tmp_path / "invoked" / "git:perf"
    assert found.results_files == (tmp_path / "root" / "runs.jsonl",)


@each_row(
    ("options", "ini", "source"),
    [({"history": "git:perf"}, {}, "--perf-history"), ({}, {"history": "git:perf"}, "ini key perf_history")],
)
def test_git_notes_are_refused_with_what_to_do(
    tmp_path: Path, options: dict[str, object], ini: dict[str, object], source: str
) -> None:
    with pytest.raises(SettingError) as caught:
        run_settings(tmp_path, options, ini)
    message = str(caught.value)
    assert message.startswith(f"{source} is 'git:perf': git notes left in 0.3 (commit ")
    assert "commit it with merge=union in .gitattributes; for a file of this name, write ./git:perf" in message


def test_an_empty_option_leaves_the_history_of_the_ini_file_out(tmp_path: Path) -> None:
    found = run_settings(tmp_path, {"history": ""}, {"history": "runs.jsonl", "history-fail": "new"})
    assert (found.history, found.history_fail) == (None, HistoryFail.NEW)
    assert run_settings(tmp_path).history_fail is HistoryFail.NEVER


def test_a_baseline_from_the_history_needs_one_when_it_is_recorded(tmp_path: Path) -> None:
    given: dict[str, object] = {"baseline-from": "history", "baseline": "update"}
    with pytest.raises(SettingError, match="--perf-baseline-from history without a history, expected one"):
        run_settings(tmp_path, given)
    found = run_settings(tmp_path, {**given, "history": "runs.jsonl"})
    assert found.baseline_source is BaselineSource.HISTORY
    assert run_settings(tmp_path, {"baseline-from": "history"}).baseline is BaselineMode.CHECK
    assert run_settings(tmp_path).baseline_source is BaselineSource.RUN


@pytest.mark.parametrize("name", ["baseline-file", "html", "json"])
def test_paths_are_relative_to_where_they_were_written(tmp_path: Path, name: str) -> None:
    field = name.replace("-", "_") if name == "baseline-file" else f"{name}_file"
    both = run_settings(tmp_path, {name: "here.json"}, {name: "there.json"})
    assert getattr(both, field) == tmp_path / "invoked" / "here.json"
    assert getattr(run_settings(tmp_path, {name: None}, {name: "there.json"}), field) == tmp_path / "root/there.json"
    assert getattr(run_settings(tmp_path, {name: str(tmp_path / "a.json")}), field) == tmp_path / "a.json"


@each_row(
    ("option", "ini", "on"),
    *((True, None, True), (True, "false", True), (None, "true", True), (None, "1", True), (None, " Yes ", True)),
    *((None, "false", False), (None, "0", False), (None, "no", False), (None, "", False), (None, None, False)),
)
def test_a_switch_is_of_the_command_line_then_of_the_ini_file(
    tmp_path: Path, option: bool | None, ini: str | None, on: bool
) -> None:
    assert run_settings(tmp_path, {"smoke": option}, {"smoke": ini}).smoke is on


@each_row(
    ("ini", "message"),
    ({"baseline": "chek"}, "perf_baseline is 'chek', expected one of check, update, require, prune, off"),
    ({"smoke": "maybe"}, "perf_smoke is 'maybe', expected true or false"),
)
def test_a_wrong_value_of_a_run_says_what_is_allowed(tmp_path: Path, ini: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        run_settings(tmp_path, ini=ini)
    assert message in str(caught.value)


def test_the_time_of_a_run_is_of_the_command_line_then_of_the_ini_file(tmp_path: Path) -> None:
    assert run_settings(tmp_path).time_ns is None
    assert run_settings(tmp_path, {"time": None}, {"time": "90s"}).time_ns == 90 * S
    assert run_settings(tmp_path, {"time": "10min"}, {"time": "90s"}).time_ns == 600 * S
    for options, ini, message in (
        ({"time": "10"}, {}, "--perf-time is '10', expected a time with its unit"),
        ({}, {"time": "0s"}, "ini key perf_time is '0s', expected a time above zero; write 10s"),
    ):
        with pytest.raises(SettingError) as caught:
            run_settings(tmp_path, options, ini)
        assert str(caught.value).startswith(message)


@each_row("name", ["baseline-file", "history", "html", "json"])
@each_row("level", ["option", "ini"])
@each_row("kind", ["directory", "nowhere"])
def test_an_impossible_path_is_named_by_where_it_was_given(tmp_path: Path, name: str, level: str, kind: str) -> None:
    given: dict[str, object] = {name: str(tmp_path if kind == "directory" else tmp_path / "absent" / "file.json")}
    with pytest.raises(SettingError) as caught:
        run_settings(tmp_path, given if level == "option" else None, given if level == "ini" else None)
    message = str(caught.value)
    where = f"--perf-{name}" if level == "option" else f"perf_{name.replace('-', '_')}"
    assert where in message
    assert str(given[name]) in message
    assert ("is a directory" if kind == "directory" else "does not exist") in message
    assert message.endswith("; name a file in a directory that exists")


BASELINE_TEXT = '{"format": "pytest-mlpatterns-baseline", "version": 1, "tests": {}}'


@each_row("name", ["baseline-file", "history", "html", "json"])
@each_row("file", ["test_q.py", "test_q.py::test_a[b]"])
def test_a_test_in_place_of_a_forgotten_value_is_no_file_to_write(tmp_path: Path, name: str, file: str) -> None:
    with pytest.raises(SettingError, match=rf"--perf-{name} .*is a Python file or a test, expected a file to write"):
        run_settings(tmp_path, {name: file})


@each_row(
    ("name", "text", "words"),
    ("json", BASELINE_TEXT, "exists and is no result file, expected a new file or one that --perf-json wrote"),
    ("json", '{"at":["1a2b3c4",7]}', "is no result file"),
    ("html", "x = 1\n", "exists and is no page, expected a new file or one that --perf-html wrote"),
    ("json", "", ""),
    ("json", f'{{\n "format": "{FORMAT}",\n', ""),
    ("html", "", ""),
    ("html", "\n<!DOCTYPE html>\n<html>", ""),
)
def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path, name: str, text: str, words: str) -> None:
    file = tmp_path / "given"
    file.write_text(text, encoding="utf-8")
    if words:
        with pytest.raises(SettingError, match=words):
            run_settings(tmp_path, {name: str(file)})
    else:
        assert getattr(run_settings(tmp_path, {name: str(file)}), f"{name}_file") == file


@each_row(
    ("options", "ini", "words"),
    ({"json": "x.json", "html": "./x.json"}, {}, "--perf-html and --perf-json are both "),
    ({"json": "x", "history": "x"}, {}, "--perf-json and --perf-history are both "),
    ({"baseline-file": "x"}, {"html": "../invoked/x"}, "--perf-baseline-file and ini key perf_html are both "),
    ({}, {"json": "perf-baseline.json"}, "--perf-baseline-file and ini key perf_json are both "),
)
def test_two_files_that_are_one_are_refused(
    tmp_path: Path, options: dict[str, object], ini: dict[str, object], words: str
) -> None:
    with pytest.raises(SettingError, match=f"{words}.*, expected a file for each; name another one"):
        run_settings(tmp_path, options, ini)
    assert run_settings(tmp_path, {"json": "/dev/null", "html": "/dev/null"}).json_file is not None


@pytest.mark.parametrize("name", ["baseline-file", "html", "json"])
def test_an_empty_path_on_the_command_line_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingError, match=f"--perf-{name} is '', expected the path of a file; if a variable"):
        run_settings(tmp_path, {name: ""})


def test_a_gate_on_the_history_needs_one(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--perf-history-fail new without a history, expected one"):
        run_settings(tmp_path, {"history-fail": "new"})
    found = run_settings(tmp_path, {"history-fail": "new", "history": "runs.jsonl"})
    assert found.history_fail is HistoryFail.NEW
    assert run_settings(tmp_path, {}, {"history-fail": "new"}).history_fail is HistoryFail.NEW


def test_tokens_are_counted_by_a_function() -> None:
    assert read_settings({}, {}, {}).tokens is None
    assert read_settings({"tokens": len}, {}, {}).tokens is len
    with pytest.raises(SettingError, match=r"perf\(tokens=...\) is 5, expected a function; write lambda text: len"):
        read_settings({"tokens": 5}, {}, {})


def test_a_function_beside_the_load_makes_the_window_longer() -> None:
    assert read_settings({}, {}, {}).during is None
    beside = read_settings({"during": len, "rate_rps": 200}, {}, {})
    assert (beside.during, beside.duration_ns, beside.stretches) == (len, 4_000_000_000, False)
    assert read_settings({"during": len, "rate_rps": 200, "duration": "1s"}, {}, {}).duration_ns == 1_000_000_000
    with pytest.raises(SettingError, match=r"expected a function of 1 argument, the deployment"):
        read_settings({"during": lambda: None}, {}, {})


async def waits(*_given: object) -> None:
    raise AssertionError


def yields(*_given: object) -> Iterator[None]:
    yield


@each_row("argument", ["during", "check", "request", "tokens"])
@each_row(("function", "kind"), [(waits, "an async function"), (yields, "a generator function")])
def test_a_function_that_would_never_run_is_refused(argument: str, function: Any, kind: str) -> None:
    words = (
        rf"perf\({argument}=...\) is {function.__name__}, {kind}, and calling it runs nothing; expected one .*; write "
    )
    with pytest.raises(SettingError, match=words):
        read_settings({argument: function, "rate_rps": 200}, {}, {})


CLOSED: list[dict[str, object]] = [
    {},
    {"concurrency": 8},
    {"load": ClosedLoop(2, "50ms")},
    {"load": Stages((("2s", 4),), of="concurrency")},
]


@each_row("load", CLOSED)
@each_row("caller", ["perf", "measure"])
def test_a_function_runs_beside_no_closed_loop(load: dict[str, object], caller: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_settings({"during": len, **load}, {}, {}, caller=caller)
    found = str(caught.value)
    assert found.startswith(f"{caller}(during=...) under ")
    assert "expected an open loop: callers who wait for a service that stands still send nothing meanwhile" in found
    assert found.endswith("(coordinated omission); write rate_rps=200, or load=PoissonRate(200)")


@pytest.mark.parametrize("load", [PoissonRate(20), Stages((("2s", 40),))], ids=str)
def test_a_function_runs_beside_any_open_loop(load: Schedule) -> None:
    assert read_settings({"during": len, "load": load}, {}, {}).schedule == load


@each_row(
    ("marker", "place"),
    ({"engine": "ray"}, "ray"),
    ({"engine": "local"}, "local"),
    ({"engine": "ray", "generators_on": "local"}, "local"),
)
def test_the_load_comes_from_the_place_of_the_service_unless_said(marker: dict[str, str], place: str) -> None:
    assert read_settings(marker, {}, {}).generators_on == place
