"""Pictures in characters: where the bars stand says where the latencies are, alone and beside others."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.synthetic import FEW, MS, counterpart, latencies, result

from pytest_mlpatterns.analysis.metrics.distribution_summary import latency_of, stored_percentiles
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import Reference
from pytest_mlpatterns.reports.text.terminal_text import latency_picture, load_picture, load_varies, width_of

PLOT = slice(10, 46)


def of(values: object, reference: Reference | None = None) -> TestResult:
    return result(latency=latency_of(np.asarray(values, dtype=np.int64)), reference=reference)


def before(values: object) -> Reference:
    """A baseline of these latencies."""
    return replace(counterpart(), latency_percentiles=stored_percentiles(latency_of(np.asarray(values))))


def heights(line: str) -> list[int]:
    return [" ▁▂▃▄▅▆▇█".index(bar) for bar in line[PLOT].ljust(36)]


def test_the_highest_bar_is_where_most_latencies_are() -> None:
    now, axis = latency_picture(of(latencies(4 * MS)))
    assert now.startswith("now  ")
    assert max(heights(now)) == 8
    assert 10 < heights(now).index(8) < 20  # 4 ms between 1.7 and 18 ms
    assert axis.split() == ["1.74", "ms", "5.55", "ms", "17.7", "ms"]


def test_two_kinds_of_requests_are_two_hills() -> None:
    now, _ = latency_picture(of(np.concatenate([latencies(60_000, 1500), latencies(5 * MS, 500)])))
    high = [column for column, height in enumerate(heights(now)) if height >= 2]
    assert max(after - here for here, after in pairwise(high)) > 15


def test_the_same_distribution_looks_the_same() -> None:
    same = latencies(4 * MS)
    then, now, _ = latency_picture(of(same, before(same)))
    assert then.startswith("baseline  ")
    assert heights(then) == heights(now)


def test_a_slower_distribution_is_drawn_further_right() -> None:
    then, now, _ = latency_picture(of(latencies(8 * MS), before(latencies(4 * MS))))
    assert heights(now).index(max(heights(now))) > heights(then).index(max(heights(then))) + 5
    assert then.endswith("p95 6.63 ms")
    assert now.endswith("p95 13.3 ms")


def test_beside_a_revision_stands_what_was_measured_with_it() -> None:
    revision = counterpart(2 * MS, kind="revision")
    first, now, _ = latency_picture(result(reference=revision))
    assert first.startswith("revision  ")
    told = dict(revision.present.latency_percentiles)[95] / MS
    assert now.endswith(f"p95 {told:.2f} ms")


@pytest.mark.parametrize(
    "unknown",
    [result(latency=None), result(latency=None, reference=counterpart()), of([5 * MS]), of([5 * MS], counterpart())],
    ids=["nothing succeeded", "nothing beside a baseline", "one request", "one beside a baseline"],
)
def test_too_little_is_not_drawn(unknown: TestResult) -> None:
    assert latency_picture(unknown) == []


def test_a_baseline_without_a_shape_is_left_out() -> None:
    old = replace(counterpart(), latency_percentiles=())
    assert [line[:8] for line in latency_picture(result(reference=old))] == ["now     ", " " * 8]


def test_requests_that_all_take_the_same_time_are_one_bar() -> None:
    now, _ = latency_picture(of([4 * MS] * 100))
    assert sorted(heights(now))[-2:] == [0, 8]


def test_times_of_nothing_take_no_room_on_the_axis() -> None:
    _, axis = latency_picture(of([0] * 500 + [4 * MS] * 500))
    assert axis.lstrip().startswith("980 ns ")


@FEW
@given(
    st.lists(st.integers(0, 10**10), min_size=1, max_size=200),
    st.lists(st.integers(0, 10**10), min_size=1, max_size=200),
)
def test_any_two_distributions_are_drawn_within_their_columns(now: list[int], then: list[int]) -> None:
    for lines in (latency_picture(of(now)), latency_picture(of(now, before(then)))):
        assert all(width_of(text) <= 60 for text in lines)
        assert len(lines) in (0, 2, 3)


def test_load_is_drawn_of_the_service_and_of_the_machine() -> None:
    course = tuple((second / 4, 1.0 if second > 6 else 0.0, 1.0) for second in range(1, 13))
    service, machine, axis = load_picture(result(load_over_time=course))
    assert heights(service) == [0] * 18 + [8] * 18
    assert heights(machine) == [8] * 36
    assert service.endswith("mean 50.0 %")
    assert axis.split() == ["0", "s", "3", "s", "of", "100", "%"]


def test_a_long_course_is_averaged() -> None:
    course = tuple((second / 4, float(second % 2), 0.0) for second in range(1, 145))
    service, _, _ = load_picture(result(load_over_time=course))
    assert heights(service) == [4] * 36


@pytest.mark.parametrize(("last", "varies"), [(0.7, False), (0.8, True)])
def test_a_load_that_stays_within_two_heights_of_a_bar_is_flat(last: float, varies: bool) -> None:
    course = tuple((float(second), 0.5, 0.5 if second < 10 else last) for second in range(1, 13))
    assert load_varies(result(load_over_time=course)) is varies


def test_without_the_processes_no_load_is_drawn() -> None:
    assert load_picture(result(load_over_time=())) == []
