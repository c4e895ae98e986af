"""A verdict as a value: the metric, the reference, the outcome and the reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pytest_mlpatterns.records.launch import Estimate

__all__ = ["Outcome", "Verdict"]


class Outcome(StrEnum):
    """Outcome of a comparison with a limit or a reference."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One verdict on one metric. ``change`` is relative; worse is positive."""

    metric: str
    against: Literal["limit", "baseline", "pattern", "revision"]
    outcome: Outcome
    reason: str
    change: Estimate | None = None
