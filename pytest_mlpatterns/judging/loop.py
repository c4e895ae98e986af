"""The loop of a test: look at what there is, measure what the look wants, and look again.

A rule is a function from a look to a :class:`Ruling`; a :class:`Supply` measures one more of something. Only this
module asks a budget whether another one may begin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.errors import DeploymentError, TooFewSamplesError
from pytest_mlpatterns.judging.budget import Budget
from pytest_mlpatterns.judging.look import Pairs
from pytest_mlpatterns.measurement.system_under_test import ends_starts
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.wording import first_and_last

if TYPE_CHECKING:
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun

Want = Literal["launch", "pair", "search", "start", "count"]
"""What another look may want: a launch, a pair, a search for NMRT, a start without a load, a count."""
MOST_STARTS = 20
"""Further starts of a pair. Of starts that take 74 % longer (tolerance 50 %) and scatter by 10 %, 9 of 10 fail after 6;
where 20 do not decide, the change is at the tolerance."""


class Ruling(Struct, frozen=True):
    """What one look comes to."""

    wants: Want | None = None  # what may change it; None if nothing does
    verdicts: Sequence[Verdict] = ()
    fewest: int = 0  # of what is wanted, as many are measured also if the budget is spent
    is_clear: bool = False  # whether a failure stands if what would confirm it cannot be had
    why_not: TooFewSamplesError | None = None  # why there is no verdict yet
    left_out: Mapping[str, Exception] = {}  # why other metrics have no verdict, by name


class Supply(Struct, frozen=True):
    """What can be measured more."""

    measure: Callable[[], object]
    done: Callable[[], int]  # how many there are
    most: int
    each_ns: Callable[[], float] = lambda: 0.0  # what the next one takes

    def may_go_on(self, budget: Budget, fewest: int = 0) -> bool:
        """Whether another one may begin; ``fewest`` are measured in any case."""
        done = self.done()
        return done < self.most and (done < fewest or budget.allows(self.each_ns()))


def ruling_of(verdicts: Sequence[Verdict], wants: Want, *, is_confirmed: bool = True, fewest: int = 0) -> Ruling:
    """What a look at all verdicts of a test comes to.

    ``is_confirmed``: whether a failure rests on enough; otherwise it wants more. ``fewest``: what it has to rest on,
    also if the budget is spent.
    """
    outcomes = {verdict.outcome for verdict in verdicts}
    if Outcome.FAIL in outcomes:
        return Ruling(None, verdicts) if is_confirmed else Ruling(wants, verdicts, fewest)
    return Ruling(wants if Outcome.INCONCLUSIVE in outcomes else None, verdicts)


def decide(
    look: Callable[[], Ruling],
    supplies: Mapping[Want, Supply],
    budget: Callable[[], Budget],
    *,
    last: Callable[[], Ruling] | None = None,
) -> Ruling:
    """Measure while a look wants more and may have it; the last look.

    ``last``: the look once there are no further starts; None for the same one.
    """
    while (ruling := look()).wants is not None:
        supply = supplies[ruling.wants]
        is_first = not supply.done()
        if not supply.may_go_on(budget(), ruling.fewest):
            break
        try:
            supply.measure()
        except DeploymentError as error:
            if is_first or not ends_starts(error):
                raise
            ruling = ruling if last is None else last()
            why = WhyOpen(OpenBy.STARTS, f"a further start failed twice: {first_and_last(error)}")
            # a failure that another launch was to confirm is open, unless it is clear
            stands = {Outcome.PASS, *([Outcome.FAIL] if ruling.is_clear else [])}
            verdicts = [one if one.outcome in stands else one.left_open(why) for one in ruling.verdicts]
            return replace(ruling, verdicts=verdicts)
    return ruling


def decide_pairs(
    rule: Callable[[Pairs], Ruling], run: InterleavedRun, looks: SequentialPlan, *, budget_ns: int, wants: Want = "pair"
) -> Ruling:
    """The same of an interleaved run, which may take this time in all; the pairs or searches of the first look, too."""

    def each_ns() -> float:
        return run.spent_s * 1e9 / max(len(run.launches) + len(run.capacities), 1)

    supplies: dict[Want, Supply] = {
        "pair": Supply(lambda: run.measure(budget_ns), lambda: len(run.launches), looks.last, each_ns),
        "search": Supply(lambda: run.search(budget_ns), lambda: len(run.capacities), looks.last, each_ns),
        "start": Supply(run.start_again, lambda: len(run.first_starts_ns), MOST_STARTS, lambda: run.start_ns),
    }

    def look() -> Ruling:
        is_early = supplies[wants].done() < looks.first
        return Ruling(wants, fewest=looks.first) if is_early else rule(Pairs.of(run))

    def budget() -> Budget:
        return Budget(budget_ns, round(run.spent_s * 1e9))

    return decide(look, supplies, budget, last=lambda: rule(Pairs.of(run)))
