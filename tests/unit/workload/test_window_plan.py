"""How many requests the window of a slow service has: whole rounds, and four launches in the budget if they fit."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import MS, PROPERTY, S

from pytest_mlpatterns.workload.window_plan import RequestWindow, WindowPlan, whole_rounds

PLAN = WindowPlan(budget_ns=30 * S, launches=8, start_ns=1500 * MS, round=1, callers=2, window_ns=700 * MS)
"""A service that starts in a second and a half, two callers, and the default budget."""
ALONE = replace(PLAN, callers=1, decides_alone=True)


def requests(plan: WindowPlan, interval_ns: float, warmup_ns: int = S) -> int:
    found = plan.window(interval_ns, warmup_ns)
    return 0 if found is None else found.requests


@each_row(
    ("plan", "interval_ns", "expected"),
    (PLAN, 34 * MS, 0),  # twenty fit into 0.7 s
    (PLAN, 50 * MS, 50),  # 2.5 s, as start and warm-up
    (PLAN, 100 * MS, 26),
    (PLAN, 250 * MS, 16),  # 7.5 s a launch, less 2.8 s and what is in flight at the end
    (replace(PLAN, budget_ns=60 * S), 250 * MS, 20),
    (replace(PLAN, round=12), 250 * MS, 12),
    (replace(PLAN, round=7), 250 * MS, 14),
    (replace(PLAN, round=17), 250 * MS, 17),
    (replace(PLAN, round=18), 250 * MS, 16),  # no round fits
    (replace(PLAN, round=64), 50 * MS, 64),  # one does
    (replace(PLAN, callers=1), 2 * S, 2),  # in each of four launches
    (ALONE, 2 * S, 8),  # of one launch: two have no time for a median
    (replace(ALONE, start_ns=500 * MS), 3 * S, 8),  # a call of 3 s
    (replace(ALONE, start_ns=10 * S), 3 * S, 6),  # a stream of LitServe on a busy machine
    (replace(ALONE, start_ns=20 * S), S, 8),
    (replace(ALONE, callers=10, start_ns=30 * S, enough=459), 40 * MS, 460),  # the p99 of a gateway
    (ALONE, 60 * S, 2),  # a single slow request is asked again before another start
    (ALONE, 250 * MS, 18),  # four launches have time
    (replace(PLAN, callers=3), 100 * MS, 27),  # nine of each caller
    (replace(PLAN, start_ns=6 * S), 250 * MS, 28),  # a third launch would have no time for its window
    (replace(PLAN, start_ns=60 * S), 250 * MS, 2),  # one of each caller whatever it takes
    (replace(ALONE, start_ns=60 * S), 250 * MS, 8),  # which take less than the start
    (replace(PLAN, launches=1), 250 * MS, 20),
    (replace(PLAN, window_ns=3 * S, is_given=True), 250 * MS, 0),  # as it was asked for
    (replace(PLAN, window_ns=10 * S, is_given=True), 250 * MS, 16),  # or what four launches have time for
    (replace(PLAN, window_ns=10 * S, is_given=True, launches=1), 250 * MS, 0),
    (replace(PLAN, window_ns=S, is_given=True), 700 * MS, 4),  # a request takes 1.4 s
    (replace(PLAN, window_ns=S, is_given=True, callers=1), 700 * MS, 0),
    (replace(PLAN, window_ns=S, is_given=True, start_ns=10 * PLAN.budget_ns, callers=1), 50 * MS, 8),  # no time is left
)
def test_the_requests_of_a_window(plan: WindowPlan, interval_ns: int, expected: int) -> None:
    assert requests(plan, interval_ns) == expected


@each_row(
    ("interval_ns", "expected"),
    (MS, 0),  # the window has them
    (3 * MS, 459),  # 1.4 s instead of 0.7 s and another start
    (5 * MS, 459),
    (8 * MS, 0),  # 3.7 s: two starts and windows take less
    (50 * MS, 50),  # a slow service has what its time allows
)
def test_a_window_is_longer_for_the_requests_that_a_verdict_needs_if_another_launch_takes_more(
    interval_ns: int, expected: int
) -> None:
    assert requests(replace(PLAN, enough=459), interval_ns) == expected
    assert requests(replace(PLAN, enough=459, is_given=True), interval_ns) == 0


@each_row(
    ("interval_ns", "is_slow"), [(3 * MS, False), (5 * MS, False), (35 * MS, True), (250 * MS, True), (60 * S, True)]
)
def test_only_the_window_of_a_slow_service_is_kept_for_the_next_launches(interval_ns: int, is_slow: bool) -> None:
    """The requests that a verdict needs are those of the first launch: another one need not be as long."""
    found = replace(PLAN, enough=459).window(interval_ns, S)
    assert found is not None
    assert found.is_of_slow_service is is_slow


def test_a_window_lasts_its_time_at_least_and_three_times_as_long_as_planned_at_most() -> None:
    """A service whose first answers alone were slow has as many requests as without a plan."""
    assert PLAN.window(250 * MS, S) == RequestWindow(16, 700 * MS, 12 * S)
    given = replace(PLAN, window_ns=10 * S, is_given=True)
    assert given.window(250 * MS, S) == RequestWindow(16, 0, 12 * S)
    assert replace(PLAN, is_given=True).window(S, S) == PLAN.window(S, S)  # a request of 2 s
    assert PLAN.window(60 * S, S) == RequestWindow(2, 700 * MS, PLAN.longest_ns)


@PROPERTY
@given(st.floats(0, 1e4), st.floats(0, 1e4), st.integers(1, 5000), st.integers(1, 64))
def test_a_number_of_requests_is_whole_rounds_if_one_fits(wanted: float, most: float, of: int, callers: int) -> None:
    found = whole_rounds(wanted, most, of, callers=callers)
    assert found <= max(most, callers)
    if of <= most and found > callers:
        assert found % of == 0
        assert found <= max(wanted + of * callers, of)


@PROPERTY
@given(st.floats(36 * MS, 10 * S), st.integers(0, 20 * S), st.integers(1, 200), st.integers(1, 8))
def test_two_launches_fit_into_the_budget_or_have_the_least_that_says_anything(
    interval_ns: float, start_ns: int, of: int, callers: int
) -> None:
    plan = replace(PLAN, start_ns=start_ns, round=of, callers=callers)
    found, alone = requests(plan, interval_ns), requests(replace(plan, decides_alone=True), interval_ns)
    assert found == max(callers, 2) or 2 * (start_ns + S + found * interval_ns) <= plan.budget_ns
    few = max(callers, 8, (start_ns + 1.3 * S) / interval_ns + callers)
    assert alone <= few or 2 * (start_ns + S + alone * interval_ns) <= plan.budget_ns
