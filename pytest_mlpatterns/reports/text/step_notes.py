"""Notes on the steps of the function beside the load: what each of them hurt. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.capacity.step_impact import describe_impact
from pytest_mlpatterns.units import SECOND_NS
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.step_impact import StepImpact

__all__ = ["describe_steps", "worst_impacts"]


def worst_impacts(impacts: Sequence[StepImpact]) -> list[StepImpact]:
    """The step of each name that hurt most, in the order of the steps."""
    by_name: dict[str, list[StepImpact]] = {}
    for impact in impacts:
        by_name.setdefault(impact.name, []).append(impact)
    return [max(some, key=lambda one: (one.recovery_ns is None, one.hurt)) for some in by_name.values()]


def describe_steps(impacts: Sequence[StepImpact]) -> list[str]:
    """``step reload, 1.00 s to 1.52 s: 52 of 153 requests hurt, …``, of the launch in which it hurt most."""
    launches = len({one.launch for one in impacts})
    which = f", the worst of {count(launches, 'launch', 'launches')}" if launches > 1 else ""
    return [f"step {one.name}, {_span(one)}{which}: {describe_impact(one)}" for one in worst_impacts(impacts)]


def _span(impact: StepImpact) -> str:
    begin, end = (f"{at_ns / SECOND_NS:.2f} s" for at_ns in (impact.begin_ns, impact.end_ns))
    return f"at {begin}" if begin == end else f"{begin} to {end}"
