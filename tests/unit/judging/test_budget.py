"""The time of a test: one value, which the phases of a test draw from, and the loop that asks it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.each_row import each_row
from support.synthetic import S

from pytest_mlpatterns import TooFewSamplesError
from pytest_mlpatterns.judging.budget import PAIRS, Budget, Spending, forecast
from pytest_mlpatterns.judging.loop import Ruling, Supply, decide, ruling_of
from pytest_mlpatterns.plugin.xdist import RunTime
from pytest_mlpatterns.records.verdict import Outcome, Verdict

PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> int:
        return round(self.seconds * S)


def test_a_budget_allows_what_ends_in_time() -> None:
    budget = Budget(30 * S).after(20 * S)
    assert (budget.left_ns, budget.allows(10 * S), budget.allows(10 * S + 1)) == (10 * S, True, False)
    assert budget.after(15 * S).left_ns == 0


def test_what_is_kept_for_a_later_phase_is_not_left_for_this_one() -> None:
    budget = Budget(30 * S, 10 * S, reserved_ns=15 * S)
    assert (budget.left_ns, budget.allows(6 * S)) == (5 * S, False)


def test_what_no_open_verdict_asks_for_has_the_planned_part_of_a_budget() -> None:
    budget = Budget(60 * S, 25 * S, planned_ns=30 * S)
    assert (budget.left_ns, budget.planned.left_ns) == (35 * S, 5 * S)
    assert budget.planned.after(9 * S).left_ns == 0
    assert Budget(60 * S).planned == Budget(60 * S), "a budget that was given is planned for as a whole"


def test_nested_blocks_count_once_and_what_is_beside_does_not_count() -> None:
    clock = Clock()
    spending = Spending(Budget(30 * S), clock)
    clock.seconds = 100  # the body of the test
    with spending.counted():
        clock.seconds += 2
        with spending.counted():
            clock.seconds += 3
            assert spending.budget.spent_ns == 5 * S, "also while a block runs"
        with spending.beside():
            clock.seconds += 7
        clock.seconds += 1
    clock.seconds += 50
    assert (spending.budget.spent_ns, spending.beside_ns) == (6 * S, 7 * S)


def test_a_block_that_raises_has_counted() -> None:
    clock = Clock()
    spending = Spending(Budget(30 * S), clock)

    def fail() -> None:
        with spending.counted(), spending.beside():
            clock.seconds = 4
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (spending.budget.spent_ns, spending.beside_ns) == (0, 4 * S)


@each_row(
    ("each_s", "text", "left_s"),
    (7, "4 launches of 7 s", 23),
    (1.5, "8 launches of 1.5 s", 28.5),
    (29, "1 launch of 29 s", 1),
    (45, "1 launch of 45 s in any case, beyond its budget of 30 s", 0),
)
def test_a_test_is_foreseen_by_its_first_launch(each_s: float, text: str, left_s: float) -> None:
    budget = Budget(30 * S).after(round(each_s * S))
    found = forecast(budget, 1, each_s * S, fewest=1, most=8, what=("launch", "launches"))
    assert (found.text, found.left_ns) == (text, left_s * S)


@each_row(
    ("budget", "each_s", "text"),
    (Budget(30 * S).after(20 * S), 14, "3 pairs of 14 s in any case, beyond its budget of 30 s"),
    (Budget(60 * S).after(19 * S), 19, "3 pairs of 19 s"),
    # what came before the pairs, or is kept for a search, is what the budget lacks
    (Budget(60 * S).after(23 * S), 19, "3 pairs of 19 s in any case, 61 s in all, beyond its budget of 60 s"),
    (Budget(60 * S, 20 * S, 30 * S), 19, "3 pairs of 19 s in any case, 88 s in all, beyond its budget of 60 s"),
)
def test_pairs_that_are_measured_in_any_case_are_foreseen_beyond_the_budget(
    budget: Budget, each_s: int, text: str
) -> None:
    found = forecast(budget, 1, each_s * S, fewest=3, most=24, what=PAIRS)
    assert (found.text, each_s != 14 or found.left_ns == 28 * S) == (text, True)


class Measured:
    """Measurements that take a declared time each, on a clock of their own."""

    def __init__(self, seconds: float, limit_s: float) -> None:
        self.clock, self.done, self._seconds = Clock(), 0, seconds
        self.spending = Spending(Budget(round(limit_s * S)), self.clock)

    def measure(self) -> None:
        with self.spending.counted():
            self.clock.seconds += self._seconds
        self.done += 1

    def decided_by(self, *outcomes: Outcome | None, fewest: int = 0, most: int = 8) -> tuple[Ruling, int]:
        """The ruling of looks with these outcomes, the last again and again; None for too few samples."""
        looks = list(outcomes)

        def judge() -> Sequence[Verdict]:
            outcome = looks.pop(0) if len(looks) > 1 else looks[0]
            if outcome is None:
                raise TooFewSamplesError("too few")
            return [Verdict("rtm", "limit", outcome, "so it is")]

        def look() -> Ruling:
            if self.done < fewest:
                return Ruling("launch", fewest=fewest)
            try:
                return ruling_of(judge(), "launch", is_confirmed=self.done >= 2, fewest=2)
            except TooFewSamplesError as error:
                return Ruling("launch", fewest=2, why_not=error)

        launches = Supply(self.measure, lambda: self.done, most, lambda: self._seconds * S)
        return decide(look, {"launch": launches}, lambda: self.spending.budget), self.done


@each_row(
    ("seconds", "limit_s", "outcomes", "measured"),
    [
        (1, 30, [OPEN, OPEN, PASS], 2),
        (7, 30, [OPEN], 4),
        (1, 30, [OPEN], 8),
        (1, 30, [None, PASS], 1),
        (40, 30, [FAIL], 2),
        (40, 30, [OPEN], 0),
    ],
)
def test_a_loop_measures_what_a_look_wants_and_the_budget_allows(
    seconds: float, limit_s: float, outcomes: list[Outcome | None], measured: int
) -> None:
    assert Measured(seconds, limit_s).decided_by(*outcomes)[1] == measured


def test_the_fewest_are_measured_in_any_case_and_no_more() -> None:
    assert Measured(20, 30).decided_by(OPEN, fewest=3)[1] == 3


@pytest.mark.parametrize(
    ("took_s", "shares_s"),
    [
        ([10, 10, 10], [10, 10, 10, 0]),
        ([1, 2, 3], [10, 14.5, 27, 24]),
        ([40, 5], [10, 0, 0]),
    ],
    ids=["as planned", "what is left goes to the later ones", "spent"],
)
def test_tests_share_what_is_left_of_the_run(took_s: list[float], shares_s: list[float]) -> None:
    run = RunTime(30 * S, None)
    found = [run.share_ns(3)]
    for took in took_s:
        run.note(round(took * S))
        found.append(run.share_ns(3))
    assert found == [round(share * S) for share in shares_s]


def test_workers_share_the_time_of_the_run(tmp_path: Path) -> None:
    first, second = (RunTime(30 * S, tmp_path) for _ in range(2))
    assert second.share_ns(3) == 10 * S
    first.note(20 * S)
    assert second.share_ns(3) == 5 * S
    second.note(0)
    assert first.share_ns(3) == 10 * S
