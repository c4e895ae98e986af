"""The line of a result: which metrics it keeps, which results have none, and which commits it names."""

import math

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import ENVIRONMENT, S, capacity, counterpart, make_setup, result, verdict

from pytest_mlpatterns.history.session import RunOfLines, kept_metrics, line_of, lines_of
from pytest_mlpatterns.records.history import CommitPosition, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.result_parts import Terms
from pytest_mlpatterns.records.verdict import Kind, Outcome, Unjudged

HEAD = CommitPosition("a" * 40, 12)
RUN = RunOfLines(ENVIRONMENT, HEAD, clean=True, date="2026-11-29T20:00:00+00:00")
THEIRS = "b" * 40
RTM = ((4_100_000.0, 0.011), (4_140_000.0, 0.012))


def position_of(commit: str) -> CommitPosition:
    return CommitPosition(commit, 7)


def test_a_result_gives_its_values_and_where_they_come_from() -> None:
    line = line_of(result(launches={"rtm": RTM, "p99": ((math.inf, 0.0), (5e6, 0.1))}), RUN, position_of)
    assert (line.test, line.machine, line.date) == ("test_perf.py::test_digits", ENVIRONMENT.machine, RUN.date)
    assert (line.at, line.clean, line.kind) == (HEAD, True, Kind.PASSED)
    assert line.values == {"rtm": tuple(LaunchValue(*one) for one in RTM)}, "without a tail among failed requests"
    assert (line.ratios, line.reference) == ({}, None)
    on_cluster = line_of(result(cluster="3 × EPYC"), RUN, position_of)
    assert on_cluster.machine == ENVIRONMENT.machine_of("3 × EPYC") != ENVIRONMENT.machine


def test_another_set_up_or_environment_has_another_digest() -> None:
    line, other, elsewhere = (
        line_of(one, RUN, position_of)
        for one in (result(), result(setup=make_setup(wire="grpc")), result(facts={"kernel": "Linux 6"}))
    )
    assert elsewhere is not None
    assert (line.setup != other.setup, line.facts == other.facts == "") == (True, True)
    assert (line.setup == elsewhere.setup, elsewhere.facts != "") == (True, True)


@each_row(
    "changes",
    {"interrupted": True},
    {"generator": {"limited": True}, "verdicts": (verdict(Outcome.INCONCLUSIVE),)},
    {"unjudged": Unjudged(Kind.TEST_ERROR, "assert 1 == 2"), "passed": False},
    {"unjudged": Unjudged(Kind.INVALID, "none of 20 requests succeeded"), "passed": False},
    {"launches": {}},
    {"launches": {"output_tokens_per_user": RTM}},
)
def test_a_result_that_supports_no_verdict_gives_no_line(changes: dict[str, object]) -> None:
    assert line_of(result(**changes), RUN, position_of) is None


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.INCONCLUSIVE])
def test_a_result_that_failed_by_its_verdict_gives_a_line(outcome: Outcome) -> None:
    line = line_of(result(verdicts=(verdict(outcome),), passed=outcome is not Outcome.FAIL), RUN, position_of)
    assert line is not None
    assert line.kind is (Kind.REGRESSION if outcome is Outcome.FAIL else Kind.UNDECIDED)


def test_a_line_keeps_what_is_judged_and_nothing_that_follows_from_it() -> None:
    names = ("rtm", "latency_mean", "p90", "p99", "error_rate", "cost", "nmrt", "request_bytes", "not_known_here")
    launches = dict.fromkeys(names, RTM)
    assert kept_metrics(result(launches=launches)) == ("rtm", "p99", "error_rate", "nmrt")
    asked = result(launches=launches, verdicts=(replace(verdict(Outcome.PASS), metric="p90", against="limit"),))
    assert kept_metrics(asked) == ("rtm", "p90", "p99", "error_rate", "nmrt")


def test_a_line_keeps_what_the_test_asks_to_compare_although_nothing_was_compared() -> None:
    asks = result(launches=dict.fromkeys(("rtm", "asl", "p90", "cost"), RTM))
    asks = replace(asks, definition=replace(asks.definition, terms=Terms(30 * S, 8, {"asl": 0.1, "cost": 0.1})))
    assert kept_metrics(asks) == ("rtm", "asl")


def test_a_line_keeps_no_lower_bound() -> None:
    launches = dict.fromkeys(("rtm", "nmrt", "nmrt(p95<50.0ms)"), RTM)
    both = (capacity(at_least=True), capacity(objective="p95<50.0ms"))
    assert kept_metrics(result(launches=launches, capacities=both)) == ("rtm", "nmrt(p95<50.0ms)")


def test_a_run_beside_a_revision_gives_its_ratios_and_its_commit() -> None:
    pairs = {"rtm": ((0.04, 0.01), (0.05, 0.01)), "throughput": ((math.inf, 0.0),), "latency_mean": ((0.04, 0.01),)}
    reference = replace(counterpart(kind="revision"), log_ratios=pairs, revision_commit=THEIRS)
    line = line_of(result(reference=reference), RUN, position_of)
    assert line.ratios == {"rtm": (PairedRatio(0.04, 0.01), PairedRatio(0.05, 0.01))}
    assert line.reference == CommitPosition(THEIRS, 7)


def test_ratios_to_a_commit_that_is_not_known_are_left_out() -> None:
    reference = replace(counterpart(kind="revision"), log_ratios={"rtm": ((0.04, 0.01),)})
    line = line_of(result(reference=reference), RUN, position_of)
    assert (line.ratios, line.reference) == ({}, None)


def test_of_two_results_of_a_test_the_last_one_gives_the_line() -> None:
    both = [
        result(),
        result(launches={"rtm": RTM[:1]}),
        result("t.py::test_b"),
        result("t.py::test_c", interrupted=True),
    ]
    found = lines_of(both, RUN, position_of)
    assert [line.test for line in found] == ["test_perf.py::test_digits", "t.py::test_b"]
    assert len(found[0].values["rtm"]) == 1
