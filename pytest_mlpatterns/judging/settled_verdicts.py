"""The verdict on each metric, of what the baseline file and the recorded code say of it. Pure.

The recorded code decides. The file adds what it saw: a metric that both sides share to be worse needs a reason, and
two measurements that agree decide what one of them leaves open. This module must not know how anything is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import NOT_OF_THE_MACHINE, metric_named
from pytest_mlpatterns.records.verdict import TIMES_OF_RATES, Outcome, Verdict
from pytest_mlpatterns.units import format_percent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.judging.machine_sign import MachineSign

__all__ = ["SettledVerdicts", "is_decided", "with_rates"]

_SHARE = 0.5
"""Share of its tolerance up to which the estimate of a rate speaks for no change."""


def is_decided(screened: Verdict) -> bool:
    """Whether the file alone decides: the metric passes, or it fails and no machine changes it."""
    if screened.outcome is Outcome.FAIL:
        return screened.metric in NOT_OF_THE_MACHINE
    return screened.outcome is Outcome.PASS


def with_rates(screened: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """The verdicts of the file on a closed loop, with the rates that its times decide.

    A rate scatters with every stall of the machine, so one disturbed launch of an entry leaves it open while the median
    of the times is known. If these are surely within their tolerance and the estimate of the rate within half of its
    own, nothing speaks for a slower service. A tail that grew is seen by the guards.

    Args:
        screened: by metric.
    """
    return {name: _by_its_times(verdict, screened) for name, verdict in screened.items()}


def _by_its_times(verdict: Verdict, screened: Mapping[str, Verdict]) -> Verdict:
    times = [screened.get(name) for name in TIMES_OF_RATES.get(verdict.metric, ())]
    if verdict.outcome is not Outcome.INCONCLUSIVE or verdict.change is None or not verdict.tolerance or not times:
        return verdict
    if verdict.change.value > _SHARE * verdict.tolerance or any(
        one is None or one.outcome is not Outcome.PASS for one in times
    ):
        return verdict
    return replace(verdict, outcome=Outcome.PASS, reason=f"{verdict.reason}; decided by the times that it follows from")


@dataclass(frozen=True, slots=True)
class SettledVerdicts:
    """What one look at the file says, and what is known beside it.

    Attributes:
        name: of the recorded code in messages.
        is_present: whether the present code is the recorded code, which was then not measured again.
        seen: the verdicts by the file, by metric.
        sign: what the machine explains; None if nothing is to be explained by it.
        is_faster: whether the machine is faster than when the baseline was recorded.
        facts: what of the environment a person changed since then, in words; empty if nothing.
        today: how much worse than its entry the recorded code is now, by metric, each None if that is not known;
            None if none is.
    """

    name: str
    is_present: bool
    seen: Mapping[str, Verdict]
    sign: MachineSign | None = None
    is_faster: bool = False
    facts: str = ""
    today: Callable[[str], float | None] | None = None

    def merged(self, settled: Sequence[Verdict]) -> list[Verdict]:
        """The verdict on each metric.

        Args:
            settled: by the recorded code, on the metrics that the file does not decide.
        """
        judged = {verdict.metric: verdict for verdict in settled}
        return [
            self._of_both(self.seen[name], judged[name])
            if name in self.seen and name in judged
            else judged.get(name) or self._of_the_file(self.seen[name])
            for name in {**self.seen, **judged}
        ]

    def calm(self, verdicts: Sequence[Verdict]) -> str:
        """How much slower the machine is, if that is why the file decided nothing; empty otherwise."""
        worse = next((self.seen[name] for name in ("ttft", "rtm") if self._is_worse(name)), None)
        passes = all(verdict.outcome is Outcome.PASS for verdict in verdicts)
        if not passes or self.sign is None or worse is None or worse.change is None:
            return ""
        return (
            f"this machine takes {worse.change.value + 1:.1f} times as long as when the baseline was recorded "
            f"({self._explanation(worse)}); the code does not"
        )

    def _of_the_file(self, screened: Verdict) -> Verdict:
        """The verdict on a metric that only the file knows, or that needs no more."""
        if is_decided(screened):
            return screened
        if not self.is_present:
            why = self._explanation(screened) if screened.outcome is Outcome.FAIL else ""
            if not why:
                return screened
            return _open(screened, f"{screened.reason}; but {why}", why, by_machine=True)
        return self._shared(screened) if self._is_worse(screened.metric) else replace(screened, outcome=Outcome.PASS)

    def _of_both(self, screened: Verdict, judged: Verdict) -> Verdict:
        is_worse = self._is_worse(screened.metric)
        if judged.outcome is Outcome.PASS:
            return self._shared(screened) if is_worse and not self._has_passed(screened) else judged
        if judged.outcome is Outcome.INCONCLUSIVE:
            if screened.outcome is Outcome.PASS and not judged.suspected and not self.is_faster:
                return screened
            is_sure = judged.suspected and judged.change is not None and judged.change.low > 0
            if screened.outcome is Outcome.FAIL and is_sure and not self._explanation(screened):
                judged = replace(judged, outcome=Outcome.FAIL)  # two measurements agree, and no machine explains them
        return replace(judged, reason=f"{judged.reason}; by the file: {_short(screened)}") if is_worse else judged

    def _shared(self, screened: Verdict) -> Verdict:
        """The verdict on a metric that is worse than the entry, and no worse than the recorded code today."""
        who = "with the code that was recorded" if self.is_present else f"and so is {self.name} today"
        said = f"{_short(screened)}, {who}"
        if why := self._explanation(screened):
            return replace(screened, outcome=Outcome.PASS, reason=f"{said}: {why}")
        if self.facts and screened.outcome is Outcome.FAIL:
            reason = f"{said}: not the code, but {self.facts} changed since the baseline was recorded"
            return replace(screened, outcome=Outcome.FAIL, reason=f"{reason}; if that is intended, record it anew")
        why = (
            f"{who}: not the code, and no sign of the machine explains it; look for a data file, a variable or "
            "another service that changed, and record it anew if that is intended"
        )
        return _open(screened, f"{_short(screened)}, {why}", why)

    def _has_passed(self, screened: Verdict) -> bool:
        """Whether the recorded code is today as it was, so that what slowed the first launches down has passed."""
        change = None if self.today is None else self.today(screened.metric)
        return change is not None and screened.tolerance is not None and change <= screened.tolerance

    def _explanation(self, screened: Verdict) -> str:
        return "" if self.sign is None else self.sign.explains(screened, list(self.seen.values()))

    def _is_worse(self, metric: str) -> bool:
        """Whether the file saw the metric worse than its tolerance, surely or by its estimate."""
        screened = self.seen.get(metric)
        return screened is not None and (screened.outcome is Outcome.FAIL or screened.suspected)


def _open(screened: Verdict, reason: str, why: str, *, by_machine: bool = False) -> Verdict:
    """The verdict, left open for a reason that more measuring does not remove."""
    return replace(screened, outcome=Outcome.INCONCLUSIVE, reason=reason, why_open=why, by_machine=by_machine)


def _short(screened: Verdict) -> str:
    """What the file saw, in short: ``RTM 1.45 ms → 1.85 ms, 27 % worse than the baseline``."""
    metric, then, now = metric_named(screened.figure), screened.reference_value, screened.present_value
    figures = "" if then is None or now is None else f" {metric.show(then)} → {metric.show(now)},"
    worse = "" if screened.change is None else f" {format_percent(abs(screened.change.value))}"
    return f"{metric.label}{figures}{worse} worse than the baseline"
