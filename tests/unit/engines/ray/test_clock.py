"""The clock of another machine: the calls bound its offset, whatever they take in each direction."""

from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY

from pytest_mlpatterns.engines.ray.cluster import SAME_CLOCK, ClockOffset, RoundTrip, offset_of

LEGS = st.integers(0, 10**9)


def trip(sent_ns: int, there_ns: int, back_ns: int, *, offset_ns: int = 0) -> RoundTrip:
    """A call whose two legs took so long, to a clock that is so far ahead."""
    arrived_ns = sent_ns + there_ns
    return RoundTrip(sent_ns, arrived_ns + offset_ns, arrived_ns + back_ns)


@PROPERTY
@given(st.integers(-(10**15), 10**15), st.lists(st.tuples(LEGS, LEGS, LEGS), min_size=1, max_size=20))
def test_the_true_offset_lies_within_the_error(offset_ns: int, legs: list[tuple[int, int, int]]) -> None:
    trips = [trip(sent, there, back, offset_ns=offset_ns) for sent, there, back in legs]
    found = offset_of(trips)
    assert abs(found.offset_ns - offset_ns) <= found.error_ns
    assert found.error_ns == (min(one.duration_ns for one in trips) + 1) // 2


@PROPERTY
@given(st.integers(-(10**15), 10**15), st.integers(-(10**15), 10**15))
def test_a_time_that_goes_there_and_back_is_the_same(offset_ns: int, time_ns: int) -> None:
    clock = ClockOffset(offset_ns, 5)
    assert clock.here(clock.there(time_ns)) == time_ns
    assert clock.here(offset_ns) == 0


def test_processes_of_one_machine_share_its_clock() -> None:
    assert offset_of([trip(0, 10, 500), trip(1000, 0, 90)], same_machine=True) == SAME_CLOCK


def test_a_container_with_a_clock_of_its_own_is_measured_as_any_other() -> None:
    trips = [trip(0, 10, 500, offset_ns=10**9), trip(1000, 40, 60, offset_ns=10**9)]
    found = offset_of(trips, same_machine=True)
    assert found == ClockOffset(10**9 - 10, 50)
