"""Verdicts on two sides, where what the paired launches gave is declared: floors, and metrics that are not known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from support.synthetic import MS

from pytest_mlpatterns.analysis.log_ratio import LogRatio, PairedLaunch, VariantFigures, paired_log_ratio
from pytest_mlpatterns.judging.interleaved_verdicts import judge_no_slower
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


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


@dataclass
class Declared:
    """A pairing whose launches are declared: as many as it takes, the last one again and again."""

    given: Sequence[PairedLaunch]
    in_flight: int | None = 1
    names: tuple[str, str] = ("main (1a2b3c4)", "the present")
    spent_s: float = 1.0
    launches: list[PairedLaunch] = field(default_factory=list)

    def decide(self, judge: Callable[..., Outcome], _budget_ns: int, *, max_launches: int) -> Outcome:
        while True:
            self.launches.append(self.given[min(len(self.launches), len(self.given) - 1)])
            outcome = judge(self.launches) if len(self.launches) >= 3 else Outcome.INCONCLUSIVE
            if outcome is not Outcome.INCONCLUSIVE or len(self.launches) == max_launches:
                return outcome


def verdicts(pairing: Any, *metrics: str, tolerance: float = 0.05) -> dict[str, tuple[Outcome, str]]:
    found = judge_no_slower(pairing, metrics, tolerance, budget_ns=10**12)
    return {verdict.metric: (verdict.outcome, verdict.reason) for verdict in found}


@pytest.mark.parametrize(
    ("before_ms", "after_ms", "outcome"),
    [
        (0.070, 0.095, Outcome.PASS),  # 36 % worse, by 25 µs
        (0.070, 0.110, Outcome.FAIL),
        (2.0, 2.4, Outcome.FAIL),
        (2.0, 2.0, Outcome.PASS),
    ],
)
@pytest.mark.parametrize("in_flight", [1, 16])
def test_a_quick_service_may_get_slower_by_the_floor_in_either_metric(
    before_ms: float, after_ms: float, outcome: Outcome, in_flight: int
) -> None:
    pairing = Declared([paired(before_ms * MS, after_ms * MS, in_flight=in_flight)], in_flight)
    found = verdicts(pairing, "rtm", "throughput")
    assert {name: one for name, (one, _) in found.items()} == {"rtm": outcome, "throughput": outcome}
    if after_ms == 0.095:
        assert "changes up to 30.0 µs do not count" in found["rtm"][1]
        assert "changes up to 30.0 µs a request do not count" in found["throughput"][1]


def test_the_rate_of_an_open_loop_has_no_floor() -> None:
    found = verdicts(Declared([paired(0.070 * MS, 0.095 * MS)], in_flight=None), "throughput")
    assert found["throughput"][0] is Outcome.FAIL


def test_launches_that_do_not_know_a_metric_are_left_out_of_its_verdict() -> None:
    launches = [paired(2 * MS, 2.6 * MS, cpu=number % 2 == 0) for number in range(24)]
    found = verdicts(Declared(launches), "cpu_per_request", tolerance=0.10)
    assert found["cpu_per_request"][0] is Outcome.FAIL
    assert found["cpu_per_request"][1].startswith("CPU per request 1.80 ms (main (1a2b3c4)) against 2.34 ms")


def test_a_metric_that_no_launch_knows_gets_no_verdict_and_keeps_nobody_waiting() -> None:
    pairing = Declared([paired(2 * MS, 2 * MS, cpu=False)])
    assert set(verdicts(pairing, "rtm", "cpu_per_request", tolerance=0.25)) == {"rtm"}
    assert len(pairing.launches) == 3
