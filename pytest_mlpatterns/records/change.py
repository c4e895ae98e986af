"""A change that a history shows: which metric of which test, by how much, between which commits, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mlpatterns.records.history import CommitPosition

__all__ = ["Change", "ChangeForm", "Course"]


class Course(StrEnum):
    """What a series of a history consists of."""

    VALUES = "values"
    """Absolute values of one machine."""
    RATIOS = "ratios"
    """Ratios to revisions that were measured interleaved; they hold on any machine."""


class ChangeForm(StrEnum):
    """How a metric changed."""

    STEP = "step"
    """From one run to the next."""
    DRIFT = "drift"
    """A little with each run."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one metric of one test.

    Attributes:
        test: the test's id.
        metric: its name.
        machine: where the values come from; empty for a course of ratios, which holds on any.
        course: what changed, values or ratios.
        form: how it changed.
        factor: ``(value, low, high)``: after over before with its 99 % interval; over the whole stretch for a drift.
        is_worse: whether that is a change for the worse.
        old: the last commit before the change; the first one of a drift.
        new: the first commit after it; the last one of a drift.
        date: of the first run after the change, ISO 8601; the last one of a drift.
        is_confirmed: whether there are enough runs after it; else it is new, and may yet be withdrawn.
        p_value: that an unchanged series shows as much, corrected for the choice of the place.
    """

    test: str
    metric: str
    machine: str
    course: Course
    form: ChangeForm
    factor: tuple[float, float, float]
    is_worse: bool
    old: CommitPosition
    new: CommitPosition
    date: str
    is_confirmed: bool
    p_value: float
