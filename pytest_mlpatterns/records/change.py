"""A change that a history shows: which metric of which test, by how much, between which commits, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from pytest_mlpatterns.records.history import CommitPosition
from pytest_mlpatterns.records.result_parts import Location

__all__ = ["Change", "ChangeForm", "Course", "NewChange"]


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


class Change(Struct, frozen=True):
    """A change of one metric of one test.

    Attributes:
        test: the test's id.
        metric: its name.
        machine: where the values come from; empty for a course of ratios, which holds on any.
        course: what changed, values or ratios.
        form: how it changed.
        factor: ``(value, low, high)``: after over before with its 99 % interval; over the whole stretch for a drift.
        is_worse: whether that is a change for the worse; False if it is not known which values are better.
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

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            **msgspec.to_builtins(self),
            "course": self.course.value,
            "form": self.form.value,
            "factor": list(self.factor),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Change:
        """The inverse of :meth:`to_json`, also after a trip through JSON or between processes."""
        value, low, high = data["factor"]
        read = {
            "course": Course(data["course"]),
            "form": ChangeForm(data["form"]),
            "factor": (value, low, high),
            "old": CommitPosition(**data["old"]),
            "new": CommitPosition(**data["new"]),
        }
        return cls(**{**data, **read})


class NewChange(Struct, frozen=True):
    """A change that a run made known.

    Attributes:
        change: what changed.
        sentence: the same in words, without the name of the test.
        command: the command that finds its commit; empty for a change for the better, or if no commits are known.
        fails: whether it fails the run.
        location: where the test is defined.
    """

    change: Change
    sentence: str
    command: str
    fails: bool
    location: Location | None

    def to_json(self) -> dict[str, Any]:
        """Plain values for the result file."""
        plain = self.change.to_json()
        return {**plain, "sentence": self.sentence, "command": self.command, "fails_the_run": self.fails}
