"""A change that a history shows: which metric of which test, by how much, between which commits, and how sure it is."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from pytest_mlpatterns.records.codec import Amount, Share, plain
from pytest_mlpatterns.records.history import CommitPosition
from pytest_mlpatterns.records.result_parts import Location

__all__ = ["Change", "Course", "NewChange"]


class Course(StrEnum):
    """What a series of a history consists of."""

    VALUES = "values"
    """Absolute values of one machine."""
    RATIOS = "ratios"
    """Ratios to revisions that were measured interleaved; they hold on any machine."""


class Change(Struct, frozen=True):
    """A change of one metric of one test, from one commit to the next.

    Attributes:
        test: the test's id.
        metric: its name.
        machine: where the values come from; empty for a course of ratios, which holds on any.
        course: what changed, values or ratios.
        factor: ``(value, low, high)``: after over before with its 99 % interval.
        is_worse: whether that is a change for the worse; False if it is not known which values are better.
        old: the last commit before the change.
        new: the first commit after it.
        date: of the first run after the change, ISO 8601.
        is_confirmed: whether there are enough runs after it; else it is new, and may yet be withdrawn.
        p_value: that an unchanged series shows as much, corrected for the choice of the place.
    """

    test: str
    metric: str
    machine: str
    course: Course
    factor: tuple[Amount, Amount, Amount]
    is_worse: bool
    old: CommitPosition
    new: CommitPosition
    date: str
    is_confirmed: bool
    p_value: Share

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**plain(self), "factor": list(self.factor)}


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
