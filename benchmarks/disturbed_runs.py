"""Runs that were recorded in quiet and in disturbed minutes, judged against the baselines of all other minutes.

    python benchmarks/disturbed_runs.py [RESULTS]

RESULTS are those of ``verdict_error_rates.py``. Baselines and runs of hours on one machine meet each other here as they
would in a team's CI: every run of a case against every baseline, by RTM, throughput and CPU time per request, with and
without the load generator's cost per request, by which the plugin knows how fast the machine was in each launch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import Claim, Table
from plugin_runs import Records
from verdict_error_rates import PLACE, TEST
from verdict_simulation import DEFAULTS, SPEED, Sample, doubted, speed_outcomes

from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.analysis.verdicts import judge_guard
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_mlpatterns.analysis.tolerances import Tolerances

CLAIM = "a baseline of a quiet minute fails at most 1 % of unchanged runs in disturbed minutes"
CPU = METRICS["cpu_per_request"]
CASES = ("check 0.1 0", "check 0.1 0.15", "check 0.1 0.2", "check 0.1 0.25")


def sample_of(record: dict[str, Any]) -> Sample:
    """The launches of a recorded run or baseline, without their requests."""
    result = record["result"]
    values = {name: [LaunchValue(*pair) for pair in result["launches"][name]] for name in (*SPEED, CPU.name)}
    return Sample(values=values, generator_ns=result["generator_costs_ns"])


def outcomes(then: Sample, now: Sample, tolerances: Tolerances = DEFAULTS) -> dict[str, Outcome]:
    """The outcomes of RTM, throughput and CPU time per request."""
    sides = now.values[CPU.name], then.values[CPU.name]
    guarded = judge_guard(CPU, *sides, tolerance=tolerances.of(CPU)).outcome
    return {**speed_outcomes(then, now, tolerances), CPU.name: guarded}


def measure() -> Iterator[Table]:
    yield from tables(Records(PLACE / "results.jsonl"))


def tables(records: Records) -> Iterator[Table]:
    baselines = [sample_of(one) for one in records.of("baseline") if one["test"] == TEST]
    rows: list[Sequence[str]] = []
    claims = []
    for case in CASES:
        runs = [sample_of(one) for one in records.runs(case)]
        pairs = [(then, now) for then in baselines for now in runs if then.generator_ns and now.generator_ns]
        if not pairs:
            continue
        before, after = (
            sum(Outcome.FAIL in found.values() for found in judged) / len(pairs)
            for judged in ((outcomes(*pair) for pair in pairs), (doubted(*pair, outcomes) for pair in pairs))
        )
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
