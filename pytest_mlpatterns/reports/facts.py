"""The facts of one result in words: what stands in a failure below its first line, and in notes."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_mlpatterns.load.job import describe_failures
from pytest_mlpatterns.metrics import METRICS
from pytest_mlpatterns.records import Estimate, Outcome
from pytest_mlpatterns.units import format_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records import Capacity, Judgement, TestResult

__all__ = ["describe_capacity", "failure_text"]

_BESIDE = ("rtm", "p95", "throughput", "error_rate", "asl", "cpu_per_request", "peak_memory")


def describe_capacity(capacity: Capacity) -> str:
    """A capacity search in one line: ``NMRT 391 req/s at concurrency 4: two doublings …``."""
    objective = f" with {capacity.objective}" if capacity.objective else ""
    least = "at least " if capacity.at_least else ""
    rate = format_rate(capacity.nmrt.value)
    return f"NMRT{objective} {least}{rate} at concurrency {capacity.concurrency} (the search ended: {capacity.stopped})"


def failure_text(judgements: Sequence[Judgement], result: TestResult) -> str:
    """A failure: the first line is the verdict with its figures, the rest says what it stands on and what to do."""
    setup = result.setup
    failed = sum(result.failed_requests.values())
    kinds = describe_failures({int(code): count for code, count in result.failed_requests.items()})
    lines = [judgement.reason for judgement in judgements]
    lines += [
        f"  test      {result.test}",
        f"  set-up    pattern {setup.pattern}, load {setup.load}, wire {setup.wire}",
        f"  evidence  {_count(result.launch_count, 'launch', 'launches')}, {_count(result.blocks, 'block')}, "
        f"{_count(result.requests, 'request')}, {failed:,} failed{f' ({kinds})' if kinds else ''}, "
        f"{result.seconds_spent:.1f} s",
        f"  beside    {_beside(result, {judgement.metric for judgement in judgements})}",
        f"  next      {_next_step(judgements, result)}",
    ]
    return "\n".join(lines)


def _beside(result: TestResult, shown: set[str]) -> str:
    return ", ".join(
        f"{METRICS[name].label} {METRICS[name].show(Estimate(*result.metrics[name]).value)}"
        for name in _BESIDE
        if name in result.metrics and name not in shown
    )


def _next_step(judgements: Sequence[Judgement], result: TestResult) -> str:
    test = shlex.quote(result.test)
    if any(judgement.outcome is Outcome.INCONCLUSIVE for judgement in judgements):
        return f"measure longer: pytest {test} --perf-budget 120s --perf-duration 10s"
    if any(judgement.against == "baseline" for judgement in judgements):
        return f"find the slower change; if it is meant, accept it: pytest {test} --perf-baseline update"
    return f"find what is slow; if the limit is too tight, change it in the test: {result.test.partition('::')[0]}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
