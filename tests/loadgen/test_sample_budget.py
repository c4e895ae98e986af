"""The memory that the samples of a load take while they are merged, and the refusal of what does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.services.jobs import a_job
from support.synthetic import S

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.loadgen.sample_budget import MERGED_ROW_BYTES, check_samples, most_rows
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, PoissonRate, Stages
from pytest_mlpatterns.workload.trace import Trace

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.loadgen.messages import LoadJob
    from pytest_mlpatterns.workload.schedule import Schedule


def job(schedule: Schedule, *, seconds: float = 60, warmup_s: float | None = 0) -> LoadJob:
    return a_job(
        [("10.0.0.1", 80)],
        schedule,
        duration_ns=round(seconds * S),
        warmup_ns=None if warmup_s is None else round(warmup_s * S),
    )


def check(job: LoadJob, *, free_bytes: int, generators: int = 4, ceiling_rps: float = 0) -> None:
    check_samples(job, generators, lambda: ceiling_rps, free_bytes=lambda: free_bytes)


@pytest.mark.parametrize(
    ("schedule", "rows"),
    [
        (ConstantRate(1000), 70_000),
        (PoissonRate(1000), 70_000),
        (ClosedLoop(8), 7_000_000),
        (Stages((("60s", 3000),), start=100), 210_000),
        (Stages((("60s", 30),), start=1, of="concurrency"), 7_000_000),
    ],
    ids=str,
)
def test_a_load_has_at_most_what_its_rate_or_the_generators_allow(schedule: Schedule, rows: int) -> None:
    assert most_rows(job(schedule, warmup_s=10), 100_000) == rows


def test_a_warm_up_without_a_length_counts_with_its_longest() -> None:
    assert most_rows(job(ConstantRate(1000), warmup_s=None), 0) > 60_000


def test_a_trace_has_its_requests(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    path.write_text("0\n1\n4\n")
    assert most_rows(job(Trace(path)), 0) == 3


def test_what_does_not_fit_is_refused_with_what_it_takes_and_what_is_free() -> None:
    with pytest.raises(SettingError) as refused:
        check(job(ConstantRate(1_000_000)), free_bytes=10 << 30)
    assert str(refused.value) == (
        "a load of 60,000,000 requests gives 6.26 GiB of samples while they are merged, and 10.0 GiB are free, of "
        "which they may take half; shorten duration="
    )


def test_half_of_the_free_memory_is_enough() -> None:
    rows = 60_000_000
    check(job(ConstantRate(1_000_000)), free_bytes=2 * rows * MERGED_ROW_BYTES)


def test_a_closed_loop_is_held_to_what_the_generators_reach() -> None:
    with pytest.raises(SettingError, match="a load of 60,000,000 requests"):
        check(job(ClosedLoop(8), seconds=600), free_bytes=1 << 30, ceiling_rps=100_000)
    check(job(ClosedLoop(8), seconds=600), free_bytes=1 << 30, ceiling_rps=10_000)


@pytest.mark.parametrize("schedule", [ClosedLoop(8), ConstantRate(100)], ids=str)
def test_a_short_load_asks_for_nothing(schedule: Schedule) -> None:
    def never() -> int:
        raise AssertionError("asked")

    check_samples(job(schedule, seconds=10), 8, never, free_bytes=never)
