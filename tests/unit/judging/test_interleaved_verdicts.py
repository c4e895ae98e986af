"""Verdicts on two variants whose paired launches are declared: floors, guards, and metrics that are not known."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.declared_run import DeclaredRun
from support.each_row import each_row
from support.synthetic import MS, START_NS, S, launch, samples, usage

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.statistics.alpha_spending import looks_of_pairs, looks_that_fit
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, PairedLaunch, VariantFigures, paired_log_ratio
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.judging.compared_metrics import compared_metrics
from pytest_mlpatterns.judging.look import Look, Pairs
from pytest_mlpatterns.judging.metric_rules import confirming_pairs, rule_pairs
from pytest_mlpatterns.judging.revision_comparison import judge_no_slower
from pytest_mlpatterns.judging.sides import Factor, judge_factor
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, WhyOpen


def side(rtm_ns: float, in_flight: int, cpu_ns: float | None) -> VariantFigures:
    return VariantFigures(rtm_ns, in_flight * 1e9 / rtm_ns, cpu_ns, requests=1000, failed=0)


def paired(before_ns: float, after_ns: float, *, in_flight: int = 1, cpu: bool = True) -> PairedLaunch:
    """A paired launch of two sides that answer in these times, without any noise."""
    first, second = (side(ns, in_flight, 0.9 * ns if cpu else None) for ns in (before_ns, after_ns))

    def ratio(before: float, after: float) -> LogRatio:
        return paired_log_ratio([before] * 8, [after] * 8)

    return PairedLaunch(
        rtm=ratio(before_ns, after_ns),
        throughput=ratio(after_ns, before_ns),
        cpu_per_request=ratio(before_ns, after_ns) if cpu else None,
        first=first,
        second=second,
        pairs=8,
        second_began=False,
        repeated=0,
    )


def declared_launch(
    *,
    slow: float = 0.0,
    failed: float = 0.0,
    rss_mib: float = 100,
    start_s: float = 0.9,
    size: int = 150,
    others: float = 0.0,
) -> Launch:
    """A launch of 400 requests of 2 ms, of which a share takes four times as long, and another share fails.

    Other processes use ``others`` cores beside it.
    """
    count = 400
    due = START_NS + np.arange(count) * (S // count)
    every = np.arange(count)
    latency = np.where(every % max(round(1 / slow), 1) == 0, 8 * MS, 2 * MS) if slow else np.full(count, 2 * MS)
    outcome = np.where(every % round(1 / failed) == 0, 500, 200) if failed else 200
    return launch(
        samples(due, latency, outcome=outcome, received_bytes=size),
        seconds=1.0,
        used=usage(machine_cores=0.5 + others, seconds=1.0, rss_bytes=(round(rss_mib * 2**20),), others_cores=others),
        cold_start_ns=round(start_s * S),
    )


@dataclass
class Declared(DeclaredRun):
    """A pairing whose launches are declared: as many as it takes, the last one again and again.

    From the fourth paired launch on, ``later`` takes the place of ``present``."""

    given: Sequence[PairedLaunch]
    present: Launch = field(default_factory=declared_launch)
    later: Launch | None = None

    def next_launch(self) -> tuple[PairedLaunch, Launch, Launch]:
        number = len(self.launches)
        second = self.later if self.later and number >= 3 else self.present
        return self.given[min(number, len(self.given) - 1)], declared_launch(), second


def verdicts(
    pairing: Any, *metrics: str, tolerance: float | None = 0.05, requested: bool = True
) -> dict[str, tuple[Outcome, str]]:
    wanted = compared_metrics([METRICS[name] for name in metrics], Tolerances(tolerance), 0.025, requested=requested)
    found = judge_no_slower(pairing, wanted, budget_ns=10**12).verdicts
    return {verdict.metric: (verdict.outcome, verdict.reason) for verdict in found}


@pytest.mark.parametrize(("budget_s", "outcome"), [(30, Outcome.PASS), (1000, Outcome.INCONCLUSIVE)])
def test_launches_of_which_three_fit_into_the_budget_keep_no_error_probability_for_more(
    budget_s: int, outcome: Outcome
) -> None:
    scattered = [paired(2 * MS, factor * 2 * MS) for factor in (0.96, 1.0, 1.04)]
    wanted = compared_metrics([METRICS["rtm"]], Tolerances(0.08), 0.025, requested=True)
    run = Declared(scattered)
    for _ in scattered:
        run.measure(budget_s * S)
    looks = looks_that_fit(looks_of_pairs(0.08, 0.025, budget_s * S), budget_s * S, 29 / 3)
    (verdict,) = rule_pairs(wanted, Look.at_pairs(Pairs.of(run), looks)).verdicts  # type: ignore[arg-type]
    assert verdict.outcome is outcome


DEFAULT = ("rtm", "throughput", "p95", "p99", "error_rate", "cpu_per_request", "peak_memory", "cold_start")


@each_row(
    ("change", "metric", "words"),
    [
        ({"slow": 0.02}, "p99", "p99 latency 2.01 ms → 8.03 ms: 2.0 % of 1,600 requests took over 2.41 ms"),
        ({"failed": 0.02}, "error_rate", "error rate 0.0 % (0 of 1,200) → 2.0 % (24 of 1,200)"),
        ({"rss_mib": 125}, "peak_memory", "peak memory 100 MiB → 125 MiB: 25.0 % worse"),
        ({"start_s": 1.8}, "cold_start", "900 ms → 1.80 s: 100 % worse"),
        ({"size": 1150}, "response_bytes", "response size 150 B → "),
    ],
)
def test_guards_fail_what_the_median_does_not_show(change: dict[str, Any], metric: str, words: str) -> None:
    run = Declared([paired(2 * MS, 2 * MS)], present=declared_launch(**change))
    found = verdicts(run, *DEFAULT, "response_bytes", tolerance=None, requested=False)
    failed = {name for name, (outcome, _) in found.items() if outcome is Outcome.FAIL}
    assert metric in failed <= {metric, "p95", "p99"}  # failed requests are infinitely late
    assert words in found[metric][1]


def test_more_cpu_time_fails_although_the_clock_hides_it() -> None:
    launches = [
        replace(paired(2 * MS, 2.3 * MS), rtm=paired(2 * MS, 2 * MS).rtm, throughput=paired(2 * MS, 2 * MS).rtm)
    ]
    found = verdicts(Declared(launches), *DEFAULT, tolerance=None, requested=False)
    assert {name for name, (outcome, _) in found.items() if outcome is Outcome.FAIL} == {"cpu_per_request"}


@each_row(
    ("before_ms", "after_ms", "outcome"),
    [
        (0.020, 0.024, Outcome.PASS),  # 20 % worse, by 4 µs
        (0.070, 0.110, Outcome.FAIL),
        (0.370, 0.400, Outcome.FAIL),  # 8 % worse, by 30 µs
        (2.0, 2.4, Outcome.FAIL),
        (2.0, 2.0, Outcome.PASS),
    ],
)
@each_row("in_flight", [1, 16])
def test_a_quick_service_may_get_slower_by_the_floor_in_either_metric(
    before_ms: float, after_ms: float, outcome: Outcome, in_flight: int
) -> None:
    pairing = Declared([paired(before_ms * MS, after_ms * MS, in_flight=in_flight)], in_flight=in_flight)
    found = verdicts(pairing, "rtm", "throughput")
    assert {name: one for name, (one, _) in found.items()} == {"rtm": outcome, "throughput": outcome}
    if after_ms == 0.024:
        assert "changes up to 5.00 µs do not count" in found["rtm"][1]
        assert "changes up to 5.00 µs a request do not count" in found["throughput"][1]


def test_what_the_floor_leaves_undecided_passes_at_once() -> None:
    noisy = [paired(0.050 * MS, (0.0526 + 0.001 * (number % 2)) * MS) for number in range(24)]
    pairing = Declared(noisy)
    (found,) = verdicts(pairing, "rtm").values()
    assert (found[0], len(pairing.launches)) == (Outcome.PASS, 3)
    assert "changes up to 5.00 µs do not count" in found[1]


def test_ratios_that_only_happen_to_average_to_no_change_are_no_pass() -> None:
    noisy = [paired(0.4 * MS, 0.4 * MS * (1.3 if number % 2 else 1 / 1.3)) for number in range(24)]
    pairing = Declared(noisy)
    for outcome, reason in verdicts(pairing, "rtm", "throughput").values():
        assert outcome is Outcome.INCONCLUSIVE
        assert "do not count" not in reason
    assert len(pairing.launches) > 3


FAST, SLOW = 16 * MS, 22 * MS
SIDES = [(FAST, SLOW), (SLOW, FAST), (FAST, FAST), (SLOW, FAST), (FAST, SLOW)]


@each_row(("factor", "outcome"), [(1.0, Outcome.PASS), (1.3, Outcome.FAIL)])
@each_row("metric", ["rtm", "throughput", "cpu_per_request"])
def test_sides_that_settle_in_different_ways_are_compared_without_that(
    metric: str, factor: float, outcome: Outcome
) -> None:
    run = Declared([paired(first, second * factor) for first, second in SIDES])
    found, reason = verdicts(run, metric, tolerance=0.1)[metric]
    assert found is outcome
    assert len(run.launches) <= 6
    assert "launches run in one of two ways: " in reason


def test_a_ratio_that_fails_in_three_pairs_is_confirmed_by_a_fourth() -> None:
    """All three may have the slower way on the same side by chance."""
    by_chance = Declared([*[paired(FAST, SLOW)] * 3, paired(SLOW, FAST), *(paired(*pair) for pair in SIDES)])
    assert verdicts(by_chance, "rtm", tolerance=0.1)["rtm"][0] is Outcome.PASS
    slower = Declared([paired(FAST, SLOW)])
    found, reason = verdicts(slower, "rtm", tolerance=0.1)["rtm"]
    assert (found, len(slower.launches)) == (Outcome.FAIL, 4)
    assert "4 paired launches" in reason


@pytest.mark.parametrize(
    ("metric", "seen_worse", "pairs"), [("p99", False, 4), ("p99", True, 3), ("cold_start", False, 3)]
)
def test_a_tail_is_as_slow_as_the_way_of_its_launches(metric: str, seen_worse: bool, pairs: int) -> None:
    (wanted,) = compared_metrics([METRICS[metric]], Tolerances(0.1), 0.025, requested=True)
    assert confirming_pairs(replace(wanted, seen_worse=seen_worse)) == pairs


def test_a_ratio_that_the_file_saw_too_fails_in_three_pairs() -> None:
    """Its entry knows many starts, so that three which settle in the slower way by chance pass by it."""
    slower = Declared([paired(FAST, SLOW)])
    (wanted,) = compared_metrics([METRICS["rtm"]], Tolerances(0.1), 0.025, requested=True)
    (verdict,) = judge_no_slower(slower, [replace(wanted, seen_worse=True)], budget_ns=10**12).verdicts  # type: ignore[arg-type]
    assert (verdict.outcome, len(slower.launches)) == (Outcome.FAIL, 3)


LATE = WhyOpen(OpenBy.MACHINE, "1 % of the requests were sent over 2 ms late")


@each_row(
    ("after_ns", "late", "outcome", "pairs"),
    (FAST, (0, 1, 2, 3, 4, 5, 6, 7), Outcome.INCONCLUSIVE, 8),
    (FAST, (0, 2), Outcome.PASS, 5),  # three of them have requests that were sent in time
    (SLOW, (0, 1, 2, 3, 4, 5, 6, 7), Outcome.FAIL, 4),
)
def test_late_requests_hide_a_change_and_make_none(
    after_ns: float, late: tuple[int, ...], outcome: Outcome, pairs: int
) -> None:
    given = [replace(paired(FAST, after_ns), late=LATE if number in late else None) for number in range(8)]
    pairing = Declared(given)
    (wanted,) = compared_metrics([METRICS["rtm"]], Tolerances(0.1), 0.025, requested=True)
    (verdict,) = judge_no_slower(pairing, [wanted], budget_ns=8 * S).verdicts  # type: ignore[arg-type]
    assert (verdict.outcome, len(pairing.launches)) == (outcome, pairs)
    assert verdict.why_open == (LATE if outcome is Outcome.INCONCLUSIVE else None)


def test_a_way_that_no_launch_of_the_present_settles_in_is_no_pass() -> None:
    run = Declared([paired(first, SLOW) for first in (FAST, SLOW, FAST, SLOW, SLOW, FAST) * 2])
    assert verdicts(run, "rtm", tolerance=0.1)["rtm"][0] is not Outcome.PASS


def test_the_rate_of_an_open_loop_has_no_floor() -> None:
    found = verdicts(Declared([paired(0.020 * MS, 0.024 * MS)], in_flight=None), "throughput")
    assert found["throughput"][0] is Outcome.FAIL


def test_launches_that_do_not_know_a_metric_are_left_out_of_its_verdict() -> None:
    launches = [paired(2 * MS, 2.6 * MS, cpu=number % 2 == 0) for number in range(24)]
    found = verdicts(Declared(launches), "cpu_per_request", tolerance=0.10)
    assert found["cpu_per_request"][0] is Outcome.FAIL
    assert found["cpu_per_request"][1].startswith("CPU per request 1.80 ms (main (1a2b3c4)) against 2.34 ms")


def test_a_metric_that_no_launch_knows_gets_no_verdict_and_delays_none_of_equal_launches() -> None:
    pairing = Declared([paired(2 * MS, 2 * MS, cpu=False)])
    found = verdicts(pairing, *DEFAULT, tolerance=None, requested=False)
    assert {outcome for outcome, _ in found.values()} == {Outcome.PASS}
    assert set(found) == {*DEFAULT} - {"cpu_per_request"}
    assert len(pairing.launches) == 3


def test_the_ratio_of_the_printed_rates_is_the_printed_change() -> None:
    drifting = replace(  # the second's mean came from a slower moment than the neighbouring blocks of both
        paired(2 * MS, 2 * MS),
        throughput=paired_log_ratio([508.0] * 8, [461.0] * 8),
        first=replace(side(2 * MS, 1, None), throughput_rps=508.0),
        second=replace(side(2 * MS, 1, None), throughput_rps=400.0),
    )
    wanted = compared_metrics([METRICS["throughput"]], Tolerances(0.05), 0.025, requested=True)
    (verdict,) = judge_no_slower(Declared([drifting]), wanted, budget_ns=10**12).verdicts
    assert "throughput 508 req/s (main (1a2b3c4)) against 461 req/s (the working tree): 9.3 % worse" in verdict.reason
    assert (verdict.reference_value, verdict.present_value) == (508.0, pytest.approx(508 * (1 - verdict.change.value)))


def test_a_pair_whose_start_is_given_up_leaves_the_verdict_to_those_before() -> None:
    class Ending(Declared):
        def next_launch(self) -> tuple[PairedLaunch, Launch, Launch]:
            if self.launches:
                failed = DeploymentError("it is not ready")
                failed.end_starts()
                raise failed
            return super().next_launch()

    run = Ending((paired(2 * MS, 3 * MS),))
    assert verdicts(run, "rtm")["rtm"][0] is Outcome.INCONCLUSIVE
    assert len(run.launches) == 1


BUSY = "other processes used 1.4 of the 2 cores meanwhile"


def faster(pairing: Any, by: float, *, neighbours: bool = True, on: str = "rtm") -> tuple[Outcome, str]:
    verdict = judge_factor(pairing, Factor(on, by), budget_ns=10**12, neighbours=neighbours)
    return verdict.outcome, verdict.reason


class TestFasterBesideBusyNeighbours:
    """The present answers 1.5 times as fast as the other pattern."""

    FASTER = (paired(2 * MS, 3 * MS),)

    @each_row("on", ["rtm", "throughput"])
    def test_a_missed_factor_stays_open_as_neighbours_make_patterns_alike(self, on: str) -> None:
        run = Declared(self.FASTER, present=declared_launch(others=1.4))
        outcome, reason = faster(run, 2.0, on=on)
        assert outcome is Outcome.INCONCLUSIVE
        assert "1.5 times as fast" in reason
        assert f"which is not at least 2; 3 paired launches in 1.0 s; but {BUSY}, which makes both sides" in reason
        assert len(run.launches) == 8

    @each_row(
        ("given", "by", "how", "outcome", "launches"),
        (FASTER, 2.0, {"later": declared_launch()}, Outcome.FAIL, 6),  # once three quiet launches show it
        (FASTER, 2.0, {"neighbours": False}, Outcome.FAIL, 3),
        (FASTER, 1.2, {}, Outcome.PASS, 3),
        ((paired(3 * MS, 2 * MS),), 1.0, {}, Outcome.FAIL, 3),  # slower, beside any neighbours
    )
    def test_what_neighbours_cannot_hide_is_decided(
        self, given: Sequence[PairedLaunch], by: float, how: dict[str, Any], outcome: Outcome, launches: int
    ) -> None:
        run = Declared(given, present=declared_launch(others=1.4), later=how.get("later"))
        found, reason = faster(run, by, neighbours=how.get("neighbours", True))
        assert (found, len(run.launches)) == (outcome, launches)
        assert BUSY not in reason

    def test_a_time_of_streams_has_no_factor_without_streams(self) -> None:
        with pytest.raises(SettingError, match=r'^on="ttft" of answers that are no streams, .* write on="rtm"$'):
            faster(Declared(self.FASTER), 1.0, on="ttft")


class TestNotSlower:
    """The present answers in 2.1 ms, and the other side in 2.0 ms."""

    SLOWER = (paired(2.1 * MS, 2 * MS),)

    @each_row("on", ["rtm", "throughput"])
    @each_row(
        ("margin", "outcome", "words"),
        [
            (
                1.10,
                Outcome.PASS,
                "0.952 times as fast (0.93 to 0.976), which is at least 0.909 (at most 10.0 % slower)",
            ),
            (1.01, Outcome.FAIL, "which is not at least 0.99 (at most 1.0 % slower)"),
            (3.0, Outcome.PASS, "which is at least 0.333 (at most 3 times as slow)"),
        ],
    )
    def test_a_margin_is_a_factor_of_time(self, on: str, margin: float, outcome: Outcome, words: str) -> None:
        asked = Factor(on, 1 / margin, margin)
        for others in (0.0, 1.4):  # neighbours excuse no missed margin
            run: Any = Declared(self.SLOWER, present=declared_launch(others=others))
            verdict = judge_factor(run, asked, budget_ns=10**12, neighbours=True)
            assert verdict.outcome is outcome
            assert words in verdict.reason

    def test_equal_services_that_scatter_get_as_many_launches_as_a_comparison_with_a_revision(self) -> None:
        noisy = [paired(2 * MS, 2 * MS * (1.3 if number % 2 else 1 / 1.3)) for number in range(24)]
        run = Declared(noisy)
        verdict = judge_factor(run, Factor("rtm", 1 / 1.1, 1.1), budget_ns=10**12, neighbours=True)  # type: ignore[arg-type]
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert len(run.launches) == 14


def scattered(log_ratio: float) -> PairedLaunch:
    """A paired launch whose second side takes this much longer, and almost as much more CPU time."""
    found = paired(2e6, 2e6 * np.exp(log_ratio))
    return replace(found, cpu_per_request=LogRatio(0.8 * log_ratio, 0.01))


@pytest.mark.parametrize(("shift", "outcome"), [(0.0, Outcome.FAIL), (-0.6, Outcome.INCONCLUSIVE)])
def test_a_service_several_times_as_slow_fails_by_its_metrics_together(shift: float, outcome: Outcome) -> None:
    given = [scattered(one + shift) for one in (3.3, -0.6, 1.2, 2.4, 0.2, 2.9, 0.8, 2.6)]
    wanted = compared_metrics(
        [METRICS[name] for name in ("rtm", "cpu_per_request")], Tolerances(), 0.025, requested=False
    )
    verdicts = judge_no_slower(Declared(given), wanted, budget_ns=12 * S).verdicts
    assert [one.outcome for one in verdicts] == [outcome, outcome], [one.reason for one in verdicts]
    assert ("together with CPU per request: each is at least 3 times as bad" in verdicts[0].reason) is (shift == 0)
