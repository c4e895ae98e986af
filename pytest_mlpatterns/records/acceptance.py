"""An acceptance: a worsening that a team has agreed to, with its reason and its end."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Collection
from fnmatch import fnmatchcase

from msgspec import Struct

__all__ = ["ACCEPTED_FILE", "NOTHING_ACCEPTED", "Acceptance", "Accepted", "held_by", "pattern_of", "rounded_ceiling"]

ACCEPTED_FILE = "perf-accepted.toml"
"""The file of a team's acceptances, beside the baseline file."""
_ITSELF = re.compile(r"\\([*?])|(\[)")
"""What in a pattern stands for itself, although it does not for :mod:`fnmatch`."""
_COARSE = 0.05
"""Ceilings are whole multiples of this share, since what is measured again differs by some per cent."""
_FINE = 0.01
"""The same of changes below a tenth, and of shares such as the error rate."""


class Acceptance(Struct, frozen=True):
    """One metric of some tests may be worse than its reference, up to a ceiling.

    Attributes:
        metric: its name.
        ceiling: largest accepted worsening, such as 0.6; of a share the difference.
        reason: why, in the team's words.
        test: pattern of pytest's ids, in which ``*`` and ``?`` stand for others, and after a backslash for themselves;
            brackets are those of an id.
        issue: where it was discussed; empty if nowhere.
        since: commit from which on it holds; empty if unknown.
        until: last day on which it holds; None without an end.
    """

    metric: str
    ceiling: float
    reason: str
    test: str = "*"
    issue: str = ""
    since: str = ""
    until: datetime.date | None = None

    def __str__(self) -> str:
        """As the marker writes it: ``rtm +60 %: larger model, #123, until 2026-12-31``."""
        issue = f", {self.issue}" if self.issue else ""
        until = "" if self.until is None else f", until {self.until.isoformat()}"
        return f"{self.metric} +{round(100 * self.ceiling, 6):g} %: {self.reason}{issue}{until}"

    @property
    def identity(self) -> str:
        """Its text and its first commit. A later acceptance may have the same text, but not the same first commit."""
        return f"{self}, since {self.since}" if self.since else str(self)

    def is_of(self, test: str) -> bool:
        """Whether it holds for a test: the pattern is or matches its id, or is its id without those brackets."""
        return self.test in (test, test.partition("[")[0]) or _matches(self.test, test)


def pattern_of(test: str) -> str:
    """The pattern that matches this id of a test and no other."""
    return re.sub(r"[*?]", r"\\\g<0>", test)


def _matches(pattern: str, test: str) -> bool:
    """Whether a pattern matches an id as a whole."""
    return fnmatchcase(test, _ITSELF.sub(lambda found: f"[{found[1] or found[2]}]", pattern))


def rounded_ceiling(share: float) -> float:
    """A ceiling in per cent, not below a change that was measured: what is measured again differs a little."""
    step = _COARSE if share > 2 * _COARSE else _FINE
    return round(100 * step * math.ceil(share / step - 1e-9), 6)


class Accepted(Struct, frozen=True):
    """The acceptances of one test.

    Attributes:
        in_force: those that hold in this run.
        ended: those that no longer do, and why.
    """

    in_force: tuple[Acceptance, ...] = ()
    ended: tuple[tuple[Acceptance, str], ...] = ()

    def without(self, ended: Collection[str], why: str) -> Accepted:
        """The same, but those in force that are among these no longer hold.

        Args:
            ended: identities.
            why: they no longer hold.
        """
        over = tuple((one, why) for one in self.in_force if one.identity in ended)
        return Accepted(tuple(one for one in self.in_force if one.identity not in ended), (*self.ended, *over))

    @property
    def states(self) -> dict[str, str]:
        """Why each no longer holds, by its identity; empty while it holds."""
        return {one.identity: "" for one in self.in_force} | {one.identity: why for one, why in self.ended}

    @property
    def notes(self) -> tuple[str, ...]:
        """What to do about those that ended, a sentence each."""
        return tuple(f"accepted is {one}; {why}, so remove it" for one, why in self.ended)


def held_by(revision: str) -> str:
    """Why an acceptance ends that this revision has too: its change is on both sides."""
    return f"{revision} has it already"


NOTHING_ACCEPTED = Accepted()
"""Of a test of which nothing is accepted."""
