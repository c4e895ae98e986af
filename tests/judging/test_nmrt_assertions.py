"""Verdicts on the capacity: from declared searches, and what a search that ended early says."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from support.synthetic import S, capacity, even_launch

from pytest_mlpatterns import GeneratorLimitError, InvalidResultError
from pytest_mlpatterns.judging.nmrt_assertions import NmrtAssertions
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.records.launch import SearchEnd
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from pytest_mlpatterns.records.launch import Capacity, Launch

SLO = "p95<50ms"


class FakeRunner:
    """A deployment whose searches find what is declared, in this order; the last one for ever."""

    def __init__(self, *found: Capacity) -> None:
        self.found = list(found)
        self.launches = self.searches = 0

    def measure(self) -> Launch:
        self.launches += 1
        return even_launch()

    def search(self, *_: object) -> Capacity:
        self.searches += 1
        return self.found.pop(0) if len(self.found) > 1 else self.found[0]


def make(runner: FakeRunner, *, launches: int = 1) -> NmrtAssertions:
    experiment = SimpleNamespace(smoke=False, settings=SimpleNamespace(launches=launches), searches=())
    measurement = SequentialMeasurement(runner, 60 * S, launches)  # type: ignore[arg-type]
    return NmrtAssertions(experiment, measurement)  # type: ignore[arg-type]


def ended(end: SearchEnd, rate: float = 18.3, *, objective: str | None = SLO) -> Capacity:
    return replace(capacity(rate, at_least=True, objective=objective), end=end, stopped=f"of {end}")


def test_a_search_that_the_generator_ended_is_no_verdict_but_its_lower_bound_passes() -> None:
    late = ended(SearchEnd.GENERATOR)
    with pytest.raises(GeneratorLimitError, match=r"is at least 18\.3 req/s, but not known: of generator"):
        make(FakeRunner(late)).decide_at_least(60, SLO)
    verdict = make(FakeRunner(late)).decide_at_least(10, SLO)
    assert verdict is not None
    assert verdict.outcome is Outcome.PASS


@pytest.mark.parametrize("end", [SearchEnd.TIME, SearchEnd.TOP])
def test_a_search_that_ended_early_for_another_reason_fails(end: SearchEnd) -> None:
    with pytest.raises(InvalidResultError, match=f"but not known: of {end}") as caught:
        make(FakeRunner(ended(end))).decide_at_least(60, SLO)
    assert not isinstance(caught.value, GeneratorLimitError)


def test_how_a_search_for_another_objective_ended_does_not_matter() -> None:
    runner = FakeRunner(ended(SearchEnd.TIME, objective=None), capacity(40, objective=SLO))
    assertions = make(runner)
    assertions.search(None)
    verdict = assertions.decide_at_least(60, SLO)
    assert verdict is not None
    assert verdict.outcome is Outcome.FAIL
