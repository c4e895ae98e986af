"""The loop of a test: look at what there is, measure what the look wants, and look again.

A look is a function from what is measured to a :class:`Ruling`; a :class:`Supply` measures one more launch, pair,
search or start. Only this module asks a budget whether another one may begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.errors import TooFewSamplesError
from pytest_mlpatterns.records.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.judging.budget import Budget


class Ruling(Struct, frozen=True):
    """What one look comes to."""

    wants_more: bool  # whether another measurement may change it
    verdicts: Sequence[Verdict] = ()
    fewest: int = 0  # measurements that it has to rest on, also if the budget is spent
    why_not: TooFewSamplesError | None = None  # why there is no verdict yet
    left_out: Mapping[str, Exception] = {}  # why other metrics have no verdict, by name
    wants_start: bool = False  # whether another start without a load may


class Supply(Struct, frozen=True):
    """What can be measured more."""

    measure: Callable[[], object]
    done: Callable[[], int]  # how many there are
    most: int
    each_ns: Callable[[], float]  # what the next one takes
    fewest: int = 0  # how many are measured in any case

    def may_go_on(self, budget: Budget, fewest: int = 0) -> bool:
        """Whether another one may begin; ``fewest`` are measured in any case."""
        done = self.done()
        return done < self.most and (done < max(self.fewest, fewest) or budget.allows(self.each_ns()))


def ruling_of(judge: Callable[[], Sequence[Verdict]], *, is_confirmed: bool, fewest: int) -> Ruling:
    """What a look at all verdicts of a test comes to.

    ``is_confirmed``: whether a failure rests on enough; otherwise it wants more. ``fewest``: what a failure, or a
    metric with too few samples, has to rest on, also if the budget is spent.
    """
    try:
        verdicts = judge()
    except TooFewSamplesError as error:
        return Ruling(wants_more=True, fewest=fewest, why_not=error)
    outcomes = {verdict.outcome for verdict in verdicts}
    if Outcome.FAIL in outcomes:
        return Ruling(not is_confirmed, verdicts, 0 if is_confirmed else fewest)
    return Ruling(Outcome.INCONCLUSIVE in outcomes, verdicts)


def decide(look: Callable[[], Ruling], supply: Supply, budget: Callable[[], Budget]) -> Ruling:
    """Measure while a look wants more and may have it; the last look."""
    while (ruling := look()).wants_more and supply.may_go_on(budget(), ruling.fewest):
        supply.measure()
    return ruling
