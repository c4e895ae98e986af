"""A verdict as a value: the metric, the reference, the outcome and the reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pytest_mlpatterns.records.launch import Estimate

__all__ = ["TIMES_OF_RATES", "Outcome", "Verdict"]

TIMES_OF_RATES: dict[str, tuple[str, ...]] = {"throughput": ("rtm",), "output_tokens": ("ttft", "tpot")}
"""Rates of a closed loop, and the times that they follow from: each caller sends again when it has its answer."""


class Outcome(StrEnum):
    """Outcome of a comparison with a limit or a reference."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One verdict on one metric.

    Attributes:
        metric: its name.
        against: kind of the reference.
        outcome: of the comparison.
        reason: the verdict with its figures, as a sentence.
        change: relative change (of a share: the difference); worse is positive; None for a limit.
        tolerance: largest acceptable change; None for a limit.
        reference_value: the reference's figure, in the metric's unit; None if unknown, or for a limit.
        present_value: the present's figure that it is compared with.
        accepted: the acceptance to which a change beyond the usual tolerance owes its pass; empty for all others.
        judged_by: name of the metric that was judged in its place and that the figures are of, such as
            ``latency_mean`` for RTM; empty if it was judged itself.
        why_open: why it is open although more measuring would not decide it, in words; empty for all others.
        by_machine: whether that is the machine, so that another moment would.
    """

    metric: str
    against: Literal["limit", "baseline", "pattern", "service", "revision"]
    outcome: Outcome
    reason: str
    change: Estimate | None = None
    tolerance: float | None = None
    reference_value: float | None = None
    present_value: float | None = None
    accepted: str = ""
    judged_by: str = ""
    why_open: str = ""
    by_machine: bool = False

    @property
    def figure(self) -> str:
        """Name of the metric that the figures are of."""
        return self.judged_by or self.metric

    @property
    def suspected(self) -> bool:
        """Whether an undecided change is beyond its tolerance by its estimate: a suspected regression."""
        if self.outcome is not Outcome.INCONCLUSIVE or self.change is None or self.tolerance is None:
            return False
        return self.change.value > self.tolerance
