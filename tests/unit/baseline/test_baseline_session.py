"""The session: which reference a test gets, which entries are gone, what an update writes and what drifts unseen."""

import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.repository import Repository
from support.synthetic import ENVIRONMENT, MS, SETUP, changed, counterpart, make_setup, result, verdict

from pytest_mlpatterns.baseline import session as sessions
from pytest_mlpatterns.baseline.file import read_baselines, write_baselines
from pytest_mlpatterns.baseline.session import BaselineSession, Collected
from pytest_mlpatterns.baseline.updates import anchor_of
from pytest_mlpatterns.config.run_settings import BaselineMode, read_run_settings
from pytest_mlpatterns.errors import BaselineFileError, DeploymentError, SettingError
from pytest_mlpatterns.records.baseline_entry import Anchor, Baselines, Entry, EntryKey, Level
from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.records.latency import RequestCounts
from pytest_mlpatterns.records.launch import LaunchValue, Noise
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import BaselineGap, Terms
from pytest_mlpatterns.records.setup import Setup
from pytest_mlpatterns.records.verdict import Gate, Outcome
from pytest_mlpatterns.system.git import tree_digest

TEST = "test_perf.py::test_digits"
HERE = ENVIRONMENT.machine
THERE = "Abacus 3000, 2 cores, wood, Python 3.12"
NEAR = "Slide Rule 1, 2 cores, bone, Python 3.12"
SEES = "this entry sees changes from 30 % on"
"""Of two launches, whose scatter is hardly known."""
WORK = Count((4e6, 4e6), low=4e6, high=4e6, requests=8, seconds=9.0)
COMPARING = (BaselineMode.CHECK, BaselineMode.REQUIRE, BaselineMode.PRUNE)


@pytest.fixture(autouse=True)
def _outside_of_git(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks git but the one that says so."""
    if request.node.get_closest_marker("processes") is None:
        monkeypatch.setattr(sessions, "commit", lambda _root: None)
        monkeypatch.setattr(sessions, "tree_digest", Mock(side_effect=DeploymentError("outside of git")))


def entry(rtm_ms: float = 4.0, rate_rps: float = 1000.0, **changes: Any) -> Entry:
    """An entry of two equal launches, recorded with what is installed now."""
    metrics = {"rtm": (LaunchValue(rtm_ms * MS, 0.01),) * 2, "throughput": (LaunchValue(rate_rps, 0.01),) * 2}
    return replace(Entry(SETUP, metrics, ENVIRONMENT.versions, "1a2b3c4", "2026-01-31"), **changes)


def measured(rtm_ms: float = 4.0, rate_rps: float = 1000.0, test: str = TEST, **changes: Any) -> TestResult:
    """What a test gave, in the same shape."""
    launches = {"rtm": ((rtm_ms * MS, 0.01),) * 2, "throughput": ((rate_rps, 0.01),) * 2}
    return result(test, **{"launches": launches, **changes})


def opened(
    directory: Path, mode: BaselineMode = BaselineMode.CHECK, before: Baselines | None = None, **switches: bool
) -> BaselineSession:
    """The session of a run over a file with these entries."""
    if before is not None:
        write_baselines(directory / "perf-baseline.json", before)
    run = read_run_settings({"baseline": mode, **switches}, {}, invoked_in=directory, root=directory)
    return BaselineSession(run, ENVIRONMENT, root=directory)


def recorded(directory: Path) -> Baselines:
    return read_baselines(directory / "perf-baseline.json")


# --- references ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", COMPARING)
def test_a_test_is_compared_with_its_entry_of_this_machine(tmp_path: Path, mode: BaselineMode) -> None:
    own = entry()
    found = opened(tmp_path, mode, {TEST: {HERE: own, THERE: entry(9.0)}}).match(TEST, SETUP)
    assert (found.setup, found.entry, found.missing) == (SETUP, own, "")
    assert found.mode is (BaselineMode.CHECK if mode is BaselineMode.PRUNE else mode)


@pytest.mark.parametrize(
    ("mode", "smoke"), [(BaselineMode.UPDATE, False), (BaselineMode.OFF, False), (BaselineMode.REQUIRE, True)]
)
def test_a_run_without_comparison_misses_nothing(tmp_path: Path, mode: BaselineMode, smoke: bool) -> None:
    found = opened(tmp_path, mode, {TEST: {HERE: entry()}}, smoke=smoke).match(TEST, SETUP)
    assert (found.mode, found.entry, found.missing) == (mode, None, "")


@pytest.mark.parametrize(
    ("before", "missing"),
    [
        ({}, "no baseline"),
        ({HERE: entry(setup=make_setup(load="closed(16)"))}, "(load: closed(16) → closed(8))"),
        ({HERE: entry(setup=make_setup(model="1"))}, "(model: 1 → none)"),
        (
            {HERE: entry(versions={"uvloop": "0.22.1", "uvicorn": "0.38.0"})},
            "(event loop: uvloop 0.22.1 → asyncio; uvicorn: 0.38.0 → none)",
        ),
        ({HERE: entry(versions={"numpy": "1.0", "pytest-mlpatterns": "0.1.9"})}, ""),
        ({HERE: entry(versions={"pytest-mlpatterns": "0.0.1"})}, "(pytest-mlpatterns: 0.0 → 0.1)"),
        ({THERE: entry(), NEAR: entry()}, f"(machine: {THERE}; {NEAR} → {HERE})"),
        ({THERE: entry(sorting_ns=(350_000.0,))}, f"(machine: {THERE} → {HERE})"),
    ],
)
def test_an_entry_that_is_not_comparable_is_not_given_and_says_what_differs(
    tmp_path: Path, before: dict[str, Entry], missing: str
) -> None:
    found = opened(tmp_path, before={TEST: before} if before else None).match(TEST, SETUP)
    assert (found.entry is None) is bool(missing)
    assert found.missing == (f"baseline not comparable {missing}" if missing.startswith("(") else missing)


@pytest.mark.parametrize(("recorded_at", "root"), [("svc", "."), (".", "svc"), ("svc", "svc/tests")])
def test_an_entry_of_another_root_directory_is_named_instead_of_passing(
    tmp_path: Path, recorded_at: str, root: str
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "svc/tests").mkdir(parents=True)

    def named_from(directory: str) -> str:
        return f"{(tmp_path / 'svc/tests/test_perf.py').relative_to(tmp_path / directory)}::test_digits"

    write_baselines(tmp_path / recorded_at / "perf-baseline.json", {named_from(recorded_at): {HERE: entry()}})
    assert opened(tmp_path / root).match(f"{named_from(root)}[1]", SETUP).missing == "no baseline"
    other = re.escape(str(tmp_path / recorded_at))
    with pytest.raises(SettingError, match=rf"test_digits has no baseline, but {other}/.* --rootdir={other}"):
        opened(tmp_path / root).match(named_from(root), SETUP)
    assert opened(tmp_path / root, BaselineMode.UPDATE).match(named_from(root), SETUP).missing == ""


def test_off_does_not_read_the_file(tmp_path: Path) -> None:
    (tmp_path / "perf-baseline.json").write_bytes(b"not a baseline")
    opened(tmp_path, BaselineMode.OFF)
    with pytest.raises(BaselineFileError):
        opened(tmp_path, BaselineMode.CHECK)


@pytest.mark.parametrize(
    ("entries", "counted"),
    [
        ({HERE: None, THERE: WORK, NEAR: WORK}, NEAR),  # the latest
        ({HERE: WORK, NEAR: WORK}, HERE),
        ({HERE: None}, None),
    ],
)
def test_a_count_of_any_machine_is_found(tmp_path: Path, entries: dict[str, Any], counted: str | None) -> None:
    dates = {HERE: "2026-01-01", THERE: "2026-01-31", NEAR: "2026-02-28"}
    before = {machine: entry(date=dates[machine], work=work) for machine, work in entries.items()}
    found = opened(tmp_path, before={TEST: before}).match(TEST, SETUP).counted
    assert (None if found is None else found.date) == (counted and dates[counted])


# --- a Ray cluster ---------------------------------------------------------------------------------------------------

NODES = "3 × Abacus 3000, 16 cores, wood"
ON_RAY = replace(SETUP, engine="ray")
CLUSTER = ENVIRONMENT.machine_of(NODES)
OTHER_RAY = {**ENVIRONMENT.versions, "ray": "2.60.0"}


@pytest.mark.parametrize("mode", COMPARING)
def test_a_test_on_a_cluster_is_compared_with_the_entry_of_that_cluster(tmp_path: Path, mode: BaselineMode) -> None:
    own = entry(setup=ON_RAY)
    session = opened(tmp_path, mode, {TEST: {HERE: entry(9.0), CLUSTER: own}})
    assert session.match(TEST, ON_RAY, NODES).entry == own
    assert session.match(TEST, SETUP).entry == entry(9.0)
    assert f"Ray cluster of {NODES}; Python {ENVIRONMENT.python}" == CLUSTER


@pytest.mark.parametrize(
    ("before", "nodes", "details"),
    [
        ({HERE: entry()}, NODES, f"machine: {HERE} → {CLUSTER}"),
        (
            {CLUSTER: entry(setup=ON_RAY)},
            "2 × Abacus 3000, 16 cores, wood",
            f"machine: {CLUSTER} → {ENVIRONMENT.machine_of('2 × Abacus 3000, 16 cores, wood')}",
        ),
        ({CLUSTER: entry(setup=ON_RAY)}, "", f"machine: {CLUSTER} → {HERE}"),
        ({CLUSTER: entry()}, NODES, "engine: local → ray"),
        ({CLUSTER: entry(setup=ON_RAY, versions=OTHER_RAY)}, NODES, "ray: 2.60.0 → none"),
    ],
    ids=["this machine", "fewer nodes", "a cluster, here", "another engine", "another Ray"],
)
def test_an_entry_of_another_cluster_is_not_comparable(
    tmp_path: Path, before: dict[str, Entry], nodes: str, details: str
) -> None:
    found = opened(tmp_path, before={TEST: before}).match(TEST, ON_RAY if nodes else SETUP, nodes)
    assert found.missing == f"baseline not comparable ({details})"


def test_an_update_records_for_the_cluster(tmp_path: Path) -> None:
    before = {TEST: {HERE: entry(), CLUSTER: entry(setup=ON_RAY)}}
    session = opened(tmp_path, BaselineMode.UPDATE, before)
    assert session.match(TEST, ON_RAY, NODES).entry is None
    session.close([measured(5.0, setup=ON_RAY, cluster=NODES), measured(test="test_c.py::test")], complete=True)
    after = recorded(tmp_path)
    assert after[TEST][HERE] == before[TEST][HERE]
    assert after[TEST][CLUSTER].setup == ON_RAY
    assert after[TEST][CLUSTER].metrics["rtm"][0].value == pytest.approx(5.0 * MS)
    assert list(after["test_c.py::test"]) == [HERE]
    assert any("median latency 4.00 ms → 5.00 ms" in text for text in session.lines)


def test_a_drift_is_that_of_the_cluster(tmp_path: Path) -> None:
    anchor = Anchor({"rtm": (LaunchValue(4.0 * MS, 0.001),) * 2}, "0a0a0a0", "2026-01-01", updates=3)
    on_cluster = entry(4.9, setup=ON_RAY, anchor=anchor)
    session = opened(tmp_path, before={TEST: {HERE: entry(5.0), CLUSTER: on_cluster}})
    assert session.with_drift(measured(5.0)).judged.notes == ()
    (note,) = session.with_drift(measured(5.0, setup=ON_RAY, cluster=NODES)).judged.notes
    assert "worse than on 2026-01-01 (0a0a0a0), little by little" in note


# --- entries whose tests are gone ------------------------------------------------------------------------------------

FILED = {
    name: {HERE: entry()}
    for name in (
        *("test_a.py::test_kept", "test_a.py::test_gone", "test_a.py::test_listed[single]"),
        *("test_a.py::test_asked[cached]", "test_a.py::test_asked_too", "test_away.py::test_it"),
        "deep/test_b.py::test_it",
    )
}


@pytest.fixture
def filed(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    for name in ("test_a.py", "deep/test_b.py"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("collected", "gone"),
    [
        (Collected(), []),
        (Collected(tests=["test_a.py::test_kept"]), []),
        (
            Collected(files=["test_a.py"], tests=["test_a.py::test_kept"]),
            [
                "test_a.py::test_asked[cached]",
                "test_a.py::test_asked_too",
                "test_a.py::test_gone",
                "test_a.py::test_listed[single]",
            ],
        ),
        (
            Collected(
                files=["test_a.py", "deep"],
                tests=["test_a.py::test_kept", "test_a.py::test_listed[single]"],
                variable=["test_a.py::test_asked"],
            ),
            ["test_a.py::test_asked_too", "test_a.py::test_gone"],
        ),
        (Collected(files=["deep/test_b.py"], tests=["deep/test_b.py::test_it"]), []),
        (Collected(files=["deep/test_b.py"]), ["deep/test_b.py::test_it"]),
    ],
    ids=["nothing", "single tests", "a file", "patterns of the command line", "its test is there", "an emptied file"],
)
def test_an_entry_is_gone_with_its_file_or_if_all_was_seen(filed: Path, collected: Collected, gone: list[str]) -> None:
    session = opened(filed, before=FILED)
    session.look_for_gone(collected)
    assert session.report()["without_test"] == sorted([*gone, "test_away.py::test_it"])


OTHER = make_setup(load="closed(16)")


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ({}, ""),
        ({"test_a.py::test_old": SETUP}, "test_a.py::test_old, which no longer exists"),
        ({"test_a.py::test_old": OTHER}, "test_a.py::test_old, which no longer exists"),
        ({"test_a.py::test_old": SETUP, "test_a.py::test_other": OTHER}, "test_a.py::test_old, which no longer exists"),
        ({"test_away.py::test_b": SETUP, "test_a.py::test_c": OTHER}, "test_away.py::test_b, which no longer exists"),
        ({"test_away.py::test_it": OTHER}, ""),
        (
            {f"test_a.py::test_{number}": SETUP for number in range(5)},
            "test_a.py::test_0, test_a.py::test_1 and test_a.py::test_2, which no longer exist",
        ),
    ],
    ids=["none", "same", "same file", "same set-up first", "a file that is gone", "another one", "several"],
)
def test_a_test_without_an_entry_names_those_of_tests_now_gone(filed: Path, gone: dict[str, Setup], named: str) -> None:
    session = opened(filed, before={test: {THERE: entry(setup=setup)} for test, setup in gone.items()})
    session.look_for_gone(Collected(files=["test_a.py"], tests=["test_a.py::test_new"]))
    missing = session.match("test_a.py::test_new", SETUP).missing
    hint = f" (perf-baseline.json has {named}: rename the entry there if the test was renamed)" if named else ""
    assert missing == f"no baseline{hint}"


def test_entries_without_a_test_are_listed_and_stay(filed: Path) -> None:
    before = {**FILED, "test_away.py::test_it": {HERE: entry(), THERE: entry()}}
    session = opened(filed, before=before)
    session.look_for_gone(Collected())
    session.close([measured()], complete=True)
    assert session.lines == [
        "2 entries of the baseline belong to no test; remove what is not needed: pytest --perf-baseline prune",
        "  test_away.py::test_it",
    ]
    assert recorded(filed) == before


@pytest.mark.parametrize("smoke", [False, True])
def test_prune_removes_them_and_nothing_else(filed: Path, smoke: bool) -> None:
    session = opened(filed, BaselineMode.PRUNE, FILED, smoke=smoke)
    session.look_for_gone(Collected(files=["deep/test_b.py"]))
    session.close([], complete=True)
    assert session.lines == [
        f"baseline {filed / 'perf-baseline.json'} pruned:",
        "  deep/test_b.py::test_it",
        "  test_away.py::test_it",
    ]
    assert set(recorded(filed)) == {test for test in FILED if test.startswith("test_a.py")}
    assert session.report()["pruned"] == ["deep/test_b.py::test_it", "test_away.py::test_it"]
    assert session.report()["without_test"] == []


@pytest.mark.parametrize(
    ("collected", "complete", "why"),
    [(True, False, "the run was not completed"), (False, True, "every entry that this run collected has a test")],
)
def test_prune_says_why_it_removed_nothing(filed: Path, collected: bool, complete: bool, why: str) -> None:
    session = opened(filed, BaselineMode.PRUNE, FILED)
    if collected:
        session.look_for_gone(Collected())
    session.close([], complete=complete)
    assert session.lines == [f"baseline not pruned: {why}"]
    assert recorded(filed) == FILED


def test_a_run_that_did_not_come_to_its_end_lists_nothing(filed: Path) -> None:
    session = opened(filed, before=FILED)
    session.look_for_gone(Collected())
    session.close([], complete=False)
    assert session.lines == []


def test_findings_of_workers_reach_the_process_that_writes(filed: Path) -> None:
    writer = opened(filed, BaselineMode.PRUNE, FILED)
    for test in ("test_a.py", "deep/test_b.py"):
        worker = opened(filed, BaselineMode.PRUNE)
        worker.look_for_gone(Collected(files=[test]))
        writer.merge(json.loads(json.dumps(worker.to_json())))
    assert writer.report()["without_test"] == sorted(FILED)


# --- updates ---------------------------------------------------------------------------------------------------------


def updated(directory: Path, *results: TestResult, before: Baselines | None = None) -> BaselineSession:
    session = opened(directory, BaselineMode.UPDATE, before)
    session.close(results, complete=True)
    return session


def test_an_update_records_what_passed_and_keeps_all_others(tmp_path: Path) -> None:
    before = {TEST: {HERE: entry(), THERE: entry()}, "test_b.py::test": {HERE: entry()}}
    failed = measured(9.0, test="test_b.py::test", passed=False)
    limit = verdict(Outcome.FAIL, against="limit")
    advisory = measured(test="test_c.py::test", passed=False, verdicts=(limit,), gate=Gate.WARN)
    session = updated(tmp_path, measured(4.1), failed, advisory, before=before)
    after = recorded(tmp_path)
    assert after[TEST][HERE].metrics["rtm"][0].value == pytest.approx(4.1 * MS)
    assert after[TEST][HERE].versions == ENVIRONMENT.versions
    assert after[TEST][THERE] == before[TEST][THERE]
    assert after["test_b.py::test"] == before["test_b.py::test"]
    assert set(after) == {TEST, "test_b.py::test", "test_c.py::test"}
    assert session.lines == [
        f"baseline {tmp_path / 'perf-baseline.json'} updated:",
        f"{TEST}: median latency 4.00 ms → 4.10 ms (+2.5 %), throughput 1,000 req/s → 1,000 req/s (+0.0 %); {SEES}",
        f"test_c.py::test: new, median latency 4.00 ms, throughput 1,000 req/s; {SEES}",
    ]
    assert session.report() == {
        "mode": "update",
        "accepted_file": "perf-accepted.toml",
        "recorded": [TEST, "test_c.py::test"],
        "not_recorded": {"test_b.py::test": "the test failed"},
        "recorded_although_disturbed": {},
        "recorded_although_worse": [],
        "without_test": [],
        "pruned": [],
    }


@pytest.mark.parametrize(
    ("results", "complete", "why"),
    [
        ([], True, "no perf test passed that is compared"),
        ([measured(passed=False)], True, "no perf test passed that is compared"),
        ([measured()], False, "the run was not completed"),
    ],
)
def test_an_update_says_why_it_is_empty(tmp_path: Path, results: list[TestResult], complete: bool, why: str) -> None:
    session = opened(tmp_path, BaselineMode.UPDATE)
    session.close(results, complete=complete)
    assert session.lines == [f"baseline not updated: {why}"]
    assert session.recorded_nothing
    assert not (tmp_path / "perf-baseline.json").exists()


def test_an_update_records_no_cost_since_it_follows_from_the_price(tmp_path: Path) -> None:
    launches = {"rtm": ((4 * MS, 0.01),) * 2, "throughput": ((1000.0, 0.01),) * 2, "cost": ((0.4, 0.01),) * 2}
    updated(tmp_path, measured(launches=launches, price=Price(0.04, 0.0, "USD")))
    assert set(recorded(tmp_path)[TEST][HERE].metrics) == {"rtm", "throughput"}


def test_an_update_of_a_smoke_run_writes_nothing(tmp_path: Path) -> None:
    session = opened(tmp_path, BaselineMode.UPDATE, smoke=True)
    session.close([measured()], complete=True)
    assert session.lines == []
    assert not (tmp_path / "perf-baseline.json").exists()


def test_metrics_recorded_although_worse_are_listed_separately(tmp_path: Path) -> None:
    tests = {f"test_perf.py::test_{name}": {HERE: entry()} for name in ("slower", "fewer", "wide", "within")}
    session = updated(
        tmp_path,
        measured(5.6, test="test_perf.py::test_slower"),
        measured(rate_rps=700.0, test="test_perf.py::test_fewer"),
        measured(5.6, test="test_perf.py::test_wide", tolerance=0.8),
        measured(4.2, test="test_perf.py::test_within"),
        before=tests,
    )
    start = session.lines.index("recorded although worse:")
    slower, fewer = session.lines[start + 1 :]
    assert slower.startswith("  test_perf.py::test_slower: median latency 4.00 ms → 5.60 ms: 40.0 % worse")
    assert slower.endswith("tolerance 10.0 %")
    assert fewer.startswith("  test_perf.py::test_fewer: throughput 1,000 req/s → 700 req/s: 30.0 % worse")
    told = session.report()["recorded_although_worse"]
    assert [(one["test"], one["metric"]) for one in told] == [
        ("test_perf.py::test_slower", "rtm"),
        ("test_perf.py::test_fewer", "throughput"),
    ]
    assert told[0]["change"]["value"] == pytest.approx(0.4)
    assert json.loads(json.dumps(told)) == told


def test_a_search_that_found_less_is_recorded_although_worse_too(tmp_path: Path) -> None:
    sought = "nmrt(p95<50.0ms)"
    before = entry(metrics={**entry().metrics, sought: (LaunchValue(400.0, 0.01),)})
    less = measured()
    less = changed(less, launches={**less.measured.launches, sought: ((200.0, 0.01),)})
    told = updated(tmp_path, less, before={TEST: {HERE: before}}).report()["recorded_although_worse"]
    assert [one["metric"] for one in told] == [sought]


@pytest.mark.parametrize(
    ("rtm_ms", "rate_rps", "worse"), [(15.0, 260.0, []), (17.0, 240.0, ["rtm", "throughput"])], ids=["within", "beyond"]
)
def test_four_times_the_rtm_is_a_quarter_of_the_throughput(
    tmp_path: Path, rtm_ms: float, rate_rps: float, worse: list[str]
) -> None:
    slower = measured(rtm_ms, rate_rps, tolerance=3.0)
    told = updated(tmp_path, slower, before={TEST: {HERE: entry()}}).report()["recorded_although_worse"]
    assert [one["metric"] for one in told] == worse


def test_a_worse_metric_is_listed_even_if_its_verdict_is_open(tmp_path: Path) -> None:
    session = updated(
        tmp_path,
        measured(4.52, test="test_perf.py::test_more"),
        measured(4.3, test="test_perf.py::test_little"),
        before={f"test_perf.py::test_{name}": {HERE: entry()} for name in ("more", "little")},
    )
    (told,) = session.report()["recorded_although_worse"]
    assert (told["test"], told["metric"], told["outcome"]) == ("test_perf.py::test_more", "rtm", "inconclusive")


def test_tail_and_memory_are_listed_too_and_leave_the_anchor_where_it_is(tmp_path: Path) -> None:
    before = {"p99": 8.0 * MS, "peak_memory": 100 * 2.0**20, "cpu_per_request": 1.0 * MS, "cold_start": 900.0 * MS}
    old = entry(
        metrics={**entry().metrics, **{name: (LaunchValue(value, 0.01),) * 3 for name, value in before.items()}}
    )
    now = {name: ((1.6 * value, 0.01),) * 3 for name, value in before.items()}
    session = updated(tmp_path, measured(launches={**measured().measured.launches, **now}), before={TEST: {HERE: old}})
    told = session.report()["recorded_although_worse"]
    assert [one["metric"] for one in told] == ["p99", "peak_memory", "cpu_per_request"]
    assert recorded(tmp_path)[TEST][HERE].anchor == replace(anchor_of(old), updates=1)


def test_an_entry_of_another_set_up_is_replaced_and_not_compared(tmp_path: Path) -> None:
    other = entry(1.0, setup=make_setup(load="closed(16)"), anchor=anchor_of(entry(0.5)))
    session = updated(tmp_path, measured(4.0), before={TEST: {HERE: other}})
    assert session.lines[1:] == [
        f"{TEST}: replaced (load: closed(16) → closed(8)), median latency 4.00 ms, throughput 1,000 req/s; {SEES}",
    ]
    assert recorded(tmp_path)[TEST][HERE].anchor is None


# --- the anchor ------------------------------------------------------------------------------------------------------


def test_the_anchor_stays_while_updates_change_little_and_the_drift_is_told(tmp_path: Path) -> None:
    first = entry(4.0)
    write_baselines(tmp_path / "perf-baseline.json", {TEST: {HERE: first}})
    told = []
    for step in range(1, 6):
        now = measured(4.0 * 1.06**step)
        session = opened(tmp_path, BaselineMode.UPDATE)
        told.append([note for note in session.with_drift(now).judged.notes if "little by little" in note])
        session.close([now], complete=True)
        assert "recorded although worse:" not in session.lines
        assert recorded(tmp_path)[TEST][HERE].anchor == replace(anchor_of(first), updates=step)
    assert told[0] == []
    assert told[-1] == ["median latency 33.8 % worse than on 2026-01-31 (1a2b3c4), little by little"]


@pytest.mark.parametrize(("rtm_ms", "rate_rps"), [(6.0, 1000.0), (2.0, 1000.0), (4.0, 1500.0)])
def test_the_anchor_begins_anew_after_a_step_that_was_seen(tmp_path: Path, rtm_ms: float, rate_rps: float) -> None:
    before = {TEST: {HERE: entry(anchor=anchor_of(entry(3.9)))}}
    updated(tmp_path, measured(rtm_ms, rate_rps), before=before)
    assert recorded(tmp_path)[TEST][HERE].anchor is None


ANCHOR = Anchor(entry(4.0, 1000.0).metrics, None, "2026-01-31", updates=2)
DRIFTED = entry(5.0, 800.0, anchor=ANCHOR, date="2026-02-01")


@each_row(
    ("before", "now", "notes"),
    (
        DRIFTED,
        measured(5.1, 790.0),
        (
            "median latency 27.5 % worse than on 2026-01-31, little by little",
            "throughput 21.0 % worse than on 2026-01-31, little by little",
        ),
    ),
    (DRIFTED, measured(4.1, 1000.0), ()),
    (DRIFTED, measured(8.0, 1000.0), ()),
    (DRIFTED, measured(5.1, 1000.0, tolerance=0.5), ()),
    (DRIFTED, measured(5.1, 1000.0, interrupted=True), ()),
    (replace(DRIFTED, anchor=None), measured(5.1, 790.0), ()),
    (replace(DRIFTED, anchor=replace(ANCHOR, updates=1)), measured(5.1, 790.0), ()),
    (replace(DRIFTED, date="2026-01-31"), measured(5.1, 790.0), ()),
    (replace(DRIFTED, setup=make_setup(load="closed(1)")), measured(5.1, 790.0), ()),
    (DRIFTED, measured(launches={}), ()),
)
def test_drift_is_told_where_the_anchor_is_left_behind_but_not_the_entry(
    tmp_path: Path, before: Entry, now: TestResult, notes: tuple[str, ...]
) -> None:
    session = opened(tmp_path, before={TEST: {HERE: before}})
    assert session.with_drift(changed(now, notes=("first",))) == changed(now, notes=("first", *notes))


def test_a_file_that_was_harmed_meanwhile_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    session = opened(tmp_path, BaselineMode.UPDATE, {TEST: {HERE: entry()}})
    (tmp_path / "perf-baseline.json").write_bytes(b"")
    with pytest.raises(BaselineFileError):
        session.close([measured()], complete=True)
    assert (tmp_path / "perf-baseline.json").read_bytes() == b""
    assert session.report()["recorded"] == []


# --- what is not recorded, and what was wrong ------------------------------------------------------------------------


def test_a_wide_entry_is_recorded_with_its_width_since_the_recorded_code_decides_then(tmp_path: Path) -> None:
    session = opened(tmp_path, BaselineMode.UPDATE, {TEST: {HERE: entry()}})
    session.close([measured(metrics={"rtm": (10e6, 3e6, 20e6)})], complete=True)
    width = "median latency 10.0 ms is known to ±85.0 % only, wider than the tolerance of 10.0 %"
    assert recorded(tmp_path)[TEST][HERE].disturbed == (width,)
    assert f"  {TEST}: {width}" in session.lines
    assert not session.recorded_nothing


def test_an_update_may_record_the_level_of_a_history(tmp_path: Path) -> None:
    session = opened(tmp_path, BaselineMode.UPDATE, {TEST: {HERE: entry()}})
    values = {"rtm": (LaunchValue(5 * MS, 0.01), LaunchValue(5.1 * MS, 0.01), LaunchValue(4.9 * MS, 0.01))}
    noisy = measured(noise=(Noise("others used 40 % of the machine"),))
    session.close([noisy], complete=True, levels={TEST: Level(values, runs=7, since="2026-10-03")})
    after = recorded(tmp_path)[TEST][HERE]
    assert (after.metrics, after.disturbed) == (values, ())
    assert (session.refused, session.recorded_nothing) == (False, False)
    assert f"  {TEST}: the level of 7 runs since 2026-10-03" in session.lines
    ((worse,),) = [[one["metric"] for one in session.report()["recorded_although_worse"]]]
    assert worse == "rtm"


def test_a_test_without_a_level_is_not_recorded_and_that_is_no_success(tmp_path: Path) -> None:
    other = "test_perf.py::test_other"
    before: Baselines = {TEST: {HERE: entry()}}
    session = opened(tmp_path, BaselineMode.UPDATE, before)
    levels = {TEST: Level(why_not="the history has 2 runs")}
    session.close([measured(), measured(test=other)], complete=True, levels=levels)
    assert recorded(tmp_path) == before
    assert (session.refused, session.recorded_nothing) == (True, True)
    why = {TEST: "the history has 2 runs", other: "this run added no line to the history"}
    assert session.report()["not_recorded"] == why
    assert session.lines == [
        "not recorded from the history (--perf-baseline-from run records this run alone):",
        *(f"  {test}: {text}" for test, text in why.items()),
    ]


def test_the_other_tests_are_recorded_beside_one_without_a_level(tmp_path: Path) -> None:
    other = "test_perf.py::test_other"
    session = opened(tmp_path, BaselineMode.UPDATE)
    levels = {other: Level({"rtm": (LaunchValue(5 * MS, 0.01),)}, runs=5, since="2026-10-03")}
    session.close([measured(), measured(test=other)], complete=True, levels=levels)
    assert [*recorded(tmp_path)] == [other]
    assert (session.refused, session.recorded_nothing) == (True, False)


def test_a_test_that_compares_nothing_is_not_recorded_and_has_no_drift(tmp_path: Path) -> None:
    given = measured(5.1)
    nothing = replace(given, definition=replace(given.definition, terms=Terms(10**9, 1, {})))
    session = opened(tmp_path, BaselineMode.UPDATE, {TEST: {HERE: DRIFTED}})
    assert session.with_drift(given) != given
    assert session.with_drift(nothing) == nothing
    session.close([nothing], complete=True)
    assert (session.recorded_nothing, session.report()["not_recorded"]) == (True, {})


@pytest.mark.processes
def test_an_update_records_which_files_were_measured(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "project")
    repository.commit({"model.py": "1\n"})
    worker, session = (opened(repository.top, BaselineMode.UPDATE) for _ in range(2))
    worker.match(TEST, SETUP, "a cluster")
    tree = tree_digest(repository.top, [repository.top / "perf-baseline.json"])
    repository.write({"report.xml": "written by the run\n"})
    session.merge(worker.to_json())
    session.close([measured()], complete=True)
    assert recorded(repository.top)[TEST][HERE].tree == tree


@pytest.mark.parametrize("mode", COMPARING)
def test_the_newest_entry_of_the_same_set_up_names_the_recorded_code(tmp_path: Path, mode: BaselineMode) -> None:
    old, new = entry(date="2026-01-31", commit="a" * 12), entry(date="2026-02-28", commit="b" * 12, tree="c" * 20)
    other = entry(date="2026-03-31", setup=replace(SETUP, wire="rest+msgpack"))
    before = {TEST: {THERE: old, "a third": new, "a fourth": other}}
    found = opened(tmp_path, mode, before).match(TEST, SETUP)
    assert found.entry is None
    assert found.recorded == EntryKey(TEST, "a third", "b" * 12, "c" * 20)
    own = opened(tmp_path, mode, {TEST: {HERE: old, "a third": new}}).match(TEST, SETUP)
    assert own.recorded == EntryKey(TEST, HERE, "a" * 12)


def test_what_was_wrong_is_stored_and_every_later_comparison_says_it(tmp_path: Path) -> None:
    session = opened(tmp_path, BaselineMode.UPDATE)
    noise = "other processes used 1.1 of the 2 cores while this was measured"
    session.close([measured(noise=(Noise(noise, "stop other programs"),))], complete=True)
    assert recorded(tmp_path)[TEST][HERE].disturbed == (noise,)
    assert any(line.startswith("recorded although disturbed") for line in session.lines)
    assert session.report()["recorded_although_disturbed"] == {TEST: [noise]}
    compared = measured(reference=counterpart())
    (note,) = opened(tmp_path).with_drift(compared).judged.notes
    assert re.fullmatch(rf"the baseline of 2\S+( \(\S+\))? was recorded although {noise}", note)
    assert opened(tmp_path, before={TEST: {HERE: entry()}}).with_drift(compared).judged.notes == ()


@pytest.mark.parametrize("member", ["duration", "warmup", "timeout", "generators", "headers"])
def test_what_an_older_entry_does_not_hold_is_equal_and_a_change_is_named(tmp_path: Path, member: str) -> None:
    present = replace(SETUP, **{member: "2"})
    assert opened(tmp_path, before={TEST: {HERE: entry()}}).match(TEST, present).entry is not None
    before = {TEST: {HERE: entry(setup=replace(SETUP, **{member: "1"}))}}
    assert opened(tmp_path, before=before).match(TEST, present).missing == (
        f"baseline not comparable ({member}: 1 → 2)"
    )


def test_an_update_records_the_counts_of_requests(tmp_path: Path) -> None:
    counts = (RequestCounts(100, 1, {1_000: 40, 2_000: 40, 64_000: 19}),)
    updated(tmp_path, measured(counts=counts))
    assert recorded(tmp_path)[TEST][HERE].counts == (RequestCounts(100, 1, {2_000: 80, 64_000: 19}),)


@pytest.mark.parametrize(
    ("recorded", "named", "lines"),
    [
        (
            "base.json",
            "bsae.json",
            ["there is no baseline file bsae.json, but base.json has entries of these tests: …"],
        ),
        ("base.json", "perf-baseline.json", ["there is no baseline file perf-baseline.json, but base.json has …"]),
        ("other.txt", "bsae.json", ["there is no baseline file bsae.json"]),
        ("other.txt", "perf-baseline.json", []),
    ],
)
def test_a_file_that_does_not_exist_is_named_with_the_one_that_may_be_meant(
    tmp_path: Path, recorded: str, named: str, lines: list[str]
) -> None:
    write_baselines(tmp_path / recorded, {TEST: {HERE: entry()}})
    (tmp_path / "data.json").write_text("{}")
    options = {"baseline": "check", "baseline-file": named}
    session = BaselineSession(
        read_run_settings(options, {}, invoked_in=tmp_path, root=tmp_path), ENVIRONMENT, root=tmp_path
    )
    session.close([measured(baseline_gap=BaselineGap.ABSENT)], complete=True)
    assert all(line.startswith(start.removesuffix("…")) for line, start in zip(session.lines, lines, strict=True))
