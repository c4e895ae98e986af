"""How long an update measures: 12 s if that makes the entry narrow, and up to the budget if not."""

from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import even_launch, result, usage

from pytest_mlpatterns.baseline.updates import announcement
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.sequential import SequentialMeasurement, measure_for_the_baseline
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.result import TestResult

NARROW = ((10e6, 0.002), (10.1e6, 0.002), (9.9e6, 0.002))
WIDE = ((10e6, 0.002), (13e6, 0.002), (8e6, 0.002))


class DeclaredRunner:
    """Gives launches that take a declared time, on a clock of its own; the first one beside neighbours if ``busy``."""

    def __init__(self, seconds: float, busy: bool) -> None:
        self._seconds = seconds
        self._busy = busy
        self._now = 0.0

    def measure(self) -> Launch:
        self._now += self._seconds
        busy, self._busy = self._busy, False
        return replace(even_launch(), usage=usage(0.9, 2.0, others_cores=0.9)) if busy else even_launch()

    def clock(self) -> int:
        return round(self._now * 10**9)


def launches_of(seconds: float, values: tuple[tuple[float, float], ...], *, most: int = 8, busy: bool = False) -> int:
    """How many launches an update keeps that take so long and have these values of the RTM."""
    runner = DeclaredRunner(seconds, busy)
    measurement = SequentialMeasurement(runner, Spending(Budget(30 * 10**9), runner.clock), most)  # type: ignore[arg-type]
    found: TestResult = result(launches={"rtm": values}, metrics={"rtm": (10e6, 9.9e6, 10.1e6)}, passed=not busy)
    measure_for_the_baseline(measurement, lambda: found, steady=True)
    return len(measurement.metrics.launches)


@each_row(
    ("seconds", "narrow", "wide"),
    [
        (1.3, 8, 8),  # a light model: all launches within 12 s
        (3.0, 4, 8),
        (7.5, 3, 4),  # four answers a second: as many as a comparison measures
        (11.0, 2, 2),
        (40.0, 1, 1),
    ],
)
def test_a_wide_entry_gets_more_launches_in_the_budget(seconds: float, narrow: int, wide: int) -> None:
    assert launches_of(seconds, NARROW) == narrow
    assert launches_of(seconds, WIDE) == wide


def test_no_more_launches_than_the_test_allows() -> None:
    assert launches_of(7.5, WIDE, most=4) == 4


def test_an_update_is_announced_with_the_budget_as_it_was_given() -> None:
    assert announcement("45s") == "records up to 8 launches of a test, within its budget of 45s"


def test_a_second_kind_of_launches_of_which_there_is_one_gets_more() -> None:
    lonely = (*[(16e6, 0.001), (16.1e6, 0.001)] * 4, (22e6, 0.001))
    assert launches_of(1.3, lonely, most=16) == 12
    assert launches_of(1.3, lonely[:-1], most=16) == 8


def test_a_disturbed_launch_of_an_unsound_update_is_replaced_if_three_are_left() -> None:
    assert launches_of(3.0, NARROW, busy=True) == 4
    assert launches_of(11.0, NARROW, busy=True) == 2
