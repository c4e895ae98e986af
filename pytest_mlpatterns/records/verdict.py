"""A verdict as a value: on which metric, against what, with which outcome and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pytest_mlpatterns.records.launch import Estimate

__all__ = ["Outcome", "Verdict"]


class Outcome(StrEnum):
    """What a comparison with a limit or a baseline came to."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One verdict: on which metric, against what, and why. ``change`` is relative, worse is positive."""

    metric: str
    against: Literal["limit", "baseline", "pattern", "revision"]
    outcome: Outcome
    reason: str
    change: Estimate | None = None
