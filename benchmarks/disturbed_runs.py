"""Runs that were recorded in quiet and in disturbed minutes, judged against the baselines of all other minutes.

    python benchmarks/disturbed_runs.py [RESULTS]

RESULTS are those of ``verdict_error_rates.py``. Baselines and runs of hours on one machine meet each other here as they
would in a team's CI: every run of a case against every baseline, by RTM, throughput and CPU time per request, with and
without the load generator's cost per request, which tells how fast the machine was in each launch.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import Claim, Table
from plugin_runs import Records
from verdict_error_rates import PLACE, TEST

from pytest_mlpatterns.analysis.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.machine_speed import SLOWER, explained_slowdown, slowdowns
from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.analysis.tolerances import Tolerances
from pytest_mlpatterns.analysis.verdicts import judge_change, judge_guard
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLAIM = "a baseline of a quiet minute fails at most 1 % of unchanged runs in disturbed minutes"
SPEED = ("rtm", "throughput")
JUDGED = (*SPEED, "cpu_per_request")
MOST_LAUNCHES = 8
QUIET_LAUNCHES = 2
CASES = ("check 0.1 0", "check 0.1 0.15", "check 0.1 0.2", "check 0.1 0.25")


@dataclass(frozen=True)
class Side:
    """Launches of one side: values by metric, and the cost of the load generator."""

    values: dict[str, tuple[LaunchValue, ...]]
    costs_ns: tuple[float, ...]

    @classmethod
    def of(cls, record: dict[str, Any]) -> Side:
        launches = record["result"]["launches"]
        values = {name: tuple(LaunchValue(*pair) for pair in launches[name]) for name in JUDGED}
        return cls(values, tuple(record["result"]["generator_costs_ns"]))

    def some(self, numbers: Sequence[int]) -> Side:
        values = {name: tuple(found[number] for number in numbers) for name, found in self.values.items()}
        return Side(values, tuple(self.costs_ns[number] for number in numbers))

    def slower(self, ratio: float) -> Side:
        values = {
            name: tuple(LaunchValue(one.value * METRICS[name].unit.scale(ratio), one.relative_error) for one in found)
            for name, found in self.values.items()
        }
        return Side(values, self.costs_ns)


def failed(then: Side, now: Side, tolerances: Tolerances) -> set[str]:
    """The metrics that fail."""
    plan = SequentialPlan(
        first=1, last=MOST_LAUNCHES, alpha=0.01 / len(SPEED), pass_alpha=0.01, fixed_launches=len(then.costs_ns)
    )
    found = {}
    for name in JUDGED:
        sides, tolerance = (now.values[name], then.values[name]), tolerances.of(name)
        if name in SPEED:
            found[name] = judge_change(METRICS[name], *sides, tolerance=tolerance, plan=plan)
        else:
            found[name] = judge_guard(METRICS[name], *sides, tolerance=tolerance)
    return {name for name, verdict in found.items() if verdict.outcome is Outcome.FAIL}


def standing(then: Side, now: Side) -> set[str]:
    """The metrics that fail, without those that a slower machine explains."""
    found, ratios = failed(then, now, Tolerances()), slowdowns(now.costs_ns, then.costs_ns)
    if not found or max(ratios) < SLOWER:
        return found
    quiet = [number for number, ratio in enumerate(ratios) if ratio < SLOWER]
    alone = failed(then, now.some(quiet), Tolerances()) if len(quiet) >= QUIET_LAUNCHES else set()
    rest = failed(then.slower(explained_slowdown(ratios)), now, Tolerances(dict.fromkeys(JUDGED, 0.0)))
    return found & (alone | rest)


def measure() -> Iterator[Table]:
    yield from tables(Records(PLACE / "results.jsonl"))


def tables(records: Records) -> Iterator[Table]:
    baselines = [Side.of(one) for one in records.of("baseline") if one["test"] == TEST]
    rows: list[Sequence[str]] = []
    claims = []
    for case in CASES:
        runs = [Side.of(one) for one in records.runs(case)]
        pairs = [(then, now) for then in baselines for now in runs if then.costs_ns and now.costs_ns]
        if not pairs:
            continue
        before = sum(bool(failed(then, now, Tolerances())) for then, now in pairs) / len(pairs)
        after = sum(bool(standing(then, now)) for then, now in pairs) / len(pairs)
        added = float(case.split()[-1])
        rows.append((f"{added:+.0%}" if added else "nothing", f"{len(pairs):,}", f"{before:.1%}", f"{after:.1%}"))
        if not added:
            claims.append(Claim("unchanged runs that fail", after, at_most=0.01))
    headings = ("changed", "pairs", "fail without the generator's cost", "fail")
    yield Table(f"every run against each of {len(baselines)} baselines", headings, rows, claims)


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PLACE / "results.jsonl"
    for table in tables(Records(path)):
        print(f"\n{table}")


if __name__ == "__main__":
    main()
