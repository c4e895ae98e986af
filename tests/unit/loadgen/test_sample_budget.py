"""The memory that the samples of a load take while they are merged, and the refusal of what does not fit."""

from pathlib import Path

import pytest
from support.each_row import each_row
from support.services.jobs import a_job
from support.synthetic import S

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.loadgen.ceiling import MERGED_ROW_BYTES, check_samples, known_rows, require_fit
from pytest_mlpatterns.loadgen.messages import LoadJob
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, PoissonRate, Schedule, Stages, Trace


def job(schedule: Schedule, *, seconds: float = 60, warmup_s: float | None = 0) -> LoadJob:
    return a_job(
        [("10.0.0.1", 80)],
        schedule,
        duration_ns=round(seconds * S),
        warmup_ns=None if warmup_s is None else round(warmup_s * S),
    )


@each_row(
    ("schedule", "rows"),
    (ConstantRate(1000), 70_000),
    (PoissonRate(1000), 70_000),
    (Stages((("60s", 3000),), start=100), 210_000),
    (ClosedLoop(8), None),
    (Stages((("60s", 30),), start=1, of="concurrency"), None),
)
def test_an_open_loop_has_at_most_what_its_highest_rate_gives(schedule: Schedule, rows: int | None) -> None:
    assert known_rows(job(schedule, warmup_s=10)) == rows


def test_a_warm_up_without_a_length_counts_with_its_longest() -> None:
    rows = known_rows(job(ConstantRate(1000), warmup_s=None))
    assert rows > 60_000


def test_a_trace_has_its_requests(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    path.write_text("0\n1\n4\n")
    assert known_rows(job(Trace(path))) == 3


def test_what_does_not_fit_is_refused_with_what_it_takes_and_what_is_free() -> None:
    with pytest.raises(SettingError) as refused:
        check_samples(job(ConstantRate(1_000_000)), 10 << 30)
    assert str(refused.value) == (
        "a load of 60,000,000 requests gives 6.26 GiB of samples while they are merged, and 10.0 GiB are free, of "
        "which they may take half; shorten duration="
    )


def test_half_of_the_free_memory_is_enough() -> None:
    needed = 2 * 60_000_000 * MERGED_ROW_BYTES
    check_samples(job(ConstantRate(1_000_000)), needed)
    with pytest.raises(SettingError):
        check_samples(job(ConstantRate(1_000_000)), needed - 2)


def test_how_long_a_closed_loop_may_last_is_found_out_while_it_runs() -> None:
    check_samples(job(ClosedLoop(8), seconds=10**6), 1)
    require_fit(10, 20 * MERGED_ROW_BYTES)
    with pytest.raises(SettingError, match="a load of 11 requests"):
        require_fit(11, 20 * MERGED_ROW_BYTES)
