"""A comparison by times, and by counted instructions where a test asks for them or times do not decide.

A test that asks (``--perf-count instructions``) has one more guard. Otherwise instructions are counted when times stay
open for want of a quiet machine, and stand for them. Then they fail beyond the smallest tolerance of times and CPU, so
that a busy machine is no stricter than a quiet one. Unchanged work passes what is open if most of a request's time is
CPU time of the service itself (:mod:`pytest_mlpatterns.judging.settle`): waits, locks, threads that spin and devices
are not counted. It makes no failure pass, nor what is probably slower. This module must not know how a count is made.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.health.machine import busy_on_average
from pytest_mlpatterns.analysis.verdicts.open_reasons import probably_slower
from pytest_mlpatterns.config.settings import CountMode
from pytest_mlpatterns.errors import CountError, DeploymentError, GeneratorLimitError, PerfFailure, SettingError
from pytest_mlpatterns.judging.compared_metrics import Basis, ComparedMetric, compared_metrics
from pytest_mlpatterns.judging.counting import (
    INSTRUCTIONS,
    PASS_NS,
    CountedBeside,
    CountedPasses,
    is_counted,
    is_left_to_a_count,
    own_share,
)
from pytest_mlpatterns.judging.settle import Seen, settle
from pytest_mlpatterns.records.result_parts import Reference
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict
from pytest_mlpatterns.reports.text.where import functions_explain
from pytest_mlpatterns.units import format_percent
from pytest_mlpatterns.wording import first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.judging.causes import Causes
    from pytest_mlpatterns.judging.compared_metrics import Choice, Comparison
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement

_OWN = 0.7  # Share of the latency that is the service's own CPU time, from which unchanged work is an unchanged time


class _Counted(Struct, frozen=True):
    """What came of counting."""

    verdict: Verdict | None = None  # None if both sides were not compared
    beside: CountedBeside | None = None  # what the present was compared with
    left_out: LeftOut | None = None  # why it was not; None if it was, or nothing asked for it
    note: str = ""  # what it decided of the times, in words; empty if it was not to
    not_counted: str = ""  # the tool that is missing; empty if none is


class CountedComparison:
    """Compares one test by times, and by instructions."""

    def __init__(
        self, inner: Comparison, experiment: Experiment, measurement: SequentialMeasurement, *, causes: Causes
    ) -> None:
        self.alpha: float = inner.alpha
        self.kind: Literal["baseline", "revision"] = inner.kind
        self._inner = inner
        self._experiment = experiment
        self._measurement = measurement
        self._causes = causes
        self._passes = CountedPasses(experiment, measurement)
        self._found = _Counted()

    @property
    def basis(self) -> Basis:
        """What was compared with so far, and what was not compared."""
        basis, found = self._inner.basis, self._found
        left_out = {} if found.left_out is None else {INSTRUCTIONS.label: found.left_out}
        return replace(
            basis,
            reference=self._reference(basis.reference),
            counted=None if found.beside is None else found.beside.work,
            left_out={**basis.left_out, **left_out},
            note="; ".join(filter(None, (basis.note, found.note))),
            not_counted=found.not_counted,
        )

    def judge(self, choice: Choice) -> Sequence[Verdict]:
        """Compare the metrics of a choice; see :meth:`Comparison.judge`."""

        def times(streams: bool) -> Sequence[ComparedMetric]:
            return [one for one in choice(streams) if not is_counted(one.metric)]

        verdicts: Sequence[Verdict] = ()
        limited: GeneratorLimitError | None = None
        try:
            verdicts = self._inner.judge(times)
        except GeneratorLimitError as error:
            limited = error
        asked = next((one for one in choice(False) if is_counted(one.metric)), None)
        compared = asked or self._in_their_place(times(False), verdicts, limited)
        is_over = self._experiment.smoke or self._causes.interrupted or (self.kind == "revision" and self.basis.missing)
        if compared is not None and not is_over:
            verdicts = self._with_work(verdicts, compared, is_asked=asked is not None)
        if limited is not None and not any(one.outcome is Outcome.FAIL for one in verdicts):
            raise limited
        return verdicts

    def _in_their_place(
        self, times: Sequence[ComparedMetric], verdicts: Sequence[Verdict], limited: GeneratorLimitError | None
    ) -> ComparedMetric | None:
        """How instructions are compared in place of times; None if times decide, or nothing may be counted."""
        settings = self._experiment.settings
        is_open = limited is not None or any(map(is_left_to_a_count, verdicts))
        has_failed = any(one.outcome is Outcome.FAIL for one in verdicts)
        if settings.count is not CountMode.AUTO or not is_open or has_failed or not self._passes.may_compare:
            return None
        run_ns = self._experiment.run_ns
        if run_ns is not None and run_ns - self._measurement.budget.spent_ns < 2 * PASS_NS:
            return None  # the run has no time for both sides
        accepted = self._experiment.agreed.in_force
        (own,) = compared_metrics([INSTRUCTIONS], settings.tolerance, self.alpha, requested=False, accepted=accepted)
        if own.is_set or own.accepted is not None:
            return own
        allowed = min((one.tolerance for one in times if functions_explain(one.metric.name)), default=0.0)
        return replace(own, tolerance=max(own.tolerance, allowed))

    def _with_work(self, verdicts: Sequence[Verdict], compared: ComparedMetric, *, is_asked: bool) -> Sequence[Verdict]:
        """The verdicts with that on the instructions, which may pass what is open.

        Raises PerfFailure: the test requested the instructions itself, and they are not known.
        """
        can = self._passes.can
        try:
            if can.why:
                raise CountError(can.why)
            if not self._passes.now:
                self._passes.count()
            if not self._passes.may_compare:
                return verdicts
            work, beside = self._passes.compare(compared)
        except (CountError, DeploymentError, SettingError) as error:
            why = f"is not known: {first_line(error)}"
            if compared.requested:
                raise PerfFailure(f"assert_no_regression cannot judge {INSTRUCTIONS.label}: it {why}") from None
            is_said = not can.why or (is_asked and not can.lacks_tool)
            self._found = _Counted(
                left_out=LeftOut(why) if is_said else None, not_counted=can.why if can.lacks_tool else ""
            )
            return verdicts
        is_busy = busy_on_average(self._measurement.metrics.launches) is not None
        is_busy |= not verdicts or any(one.by_machine for one in verdicts)
        why = "the machine was too busy for times" if is_busy else "times scatter too much here"
        work = work if is_asked else replace(work, reason=f"{why}; {work.reason}")
        self._found = _Counted(work, beside)
        if beside.kind == "revision" and self._passes.other is not None:
            self._causes.search(self._passes.other, [work])
        return [*self._settled(verdicts, work, why), work]

    def _settled(self, verdicts: Sequence[Verdict], work: Verdict, why: str) -> Sequence[Verdict]:
        """The verdicts on times, of which unchanged work passes those that are open; notes what it decided."""
        left = [one for one in verdicts if is_left_to_a_count(one)]
        if not left or work.outcome is Outcome.FAIL:
            return verdicts
        likely = probably_slower(verdicts, busy_on_average(self._measurement.metrics.launches))
        share, words = self._share(), f"{why}; {in_short(work)}"
        may_decide = is_unchanged(work) and not likely
        if may_decide and share < _OWN:
            words += f", but {format_percent(share)} of the latency is its own CPU time"
        self._found = replace(self._found, note=words)
        return [_by_work(one, words) if may_decide and share >= _OWN and one in left else one for one in verdicts]

    def _share(self) -> float:
        """The share of a request's latency that is its own CPU time, in quiet launches of the entry or other code."""
        entry, reference = self._experiment.baseline.entry, self._inner.basis.reference
        stored = {} if entry is None else {name: min(v.value for v in found) for name, found in entry.metrics.items()}
        beside = {} if reference is None else {name: low for name, (_, low, _) in reference.metrics.items()}
        usages = [one.usage for one in self._measurement.metrics.launches if one.usage is not None]
        threads = max((sum(one.busy_threads) for one in usages), default=1)
        in_flight = self._experiment.setup.load.in_flight
        return max(own_share(quietest, in_flight, threads) for quietest in (stored, beside))

    def _reference(self, known: Reference | None) -> Reference | None:
        """The reference with the instructions that the present was compared with."""
        work, beside, name = self._found.verdict, self._found.beside, INSTRUCTIONS.name
        if work is None or beside is None or work.change is None:
            return known
        found, change = known or Reference(beside.kind, beside.name, {}), work.change
        then, now = ({name: 3 * (value or 0.0,)} for value in (work.reference_value, work.present_value))
        found = replace(found, metrics={**found.metrics, **then})
        if beside.kind == "baseline" or found.kind == "baseline":
            return found
        ratio = math.log1p(change.value), (math.log1p(change.high) - math.log1p(change.low)) / _WIDTH
        present = replace(found.present, metrics={**found.present.metrics, **now})
        return replace(found, present=present, log_ratios={**found.log_ratios, name: (ratio,)})


_WIDTH = 2 * 2.576  # Width of an interval of 99 %, in standard errors


def is_unchanged(work: Verdict) -> bool:
    """Whether the instructions are surely no more than the metric's own tolerance allows."""
    return work.change is not None and work.change.high <= INSTRUCTIONS.tolerance


def in_short(work: Verdict) -> str:
    """What a count shows: ``work per request unchanged, ±0.3 %``, or the instructions before and now."""
    change = work.change
    assert change is not None
    if is_unchanged(work) and change.low >= -INSTRUCTIONS.tolerance:
        return f"work per request unchanged, ±{format_percent((change.high - change.low) / 2)}"
    shown = " → ".join(INSTRUCTIONS.show(value or 0.0) for value in (work.reference_value, work.present_value))
    return f"{INSTRUCTIONS.label}: {shown}, {format_percent(change.value, signed=True)}"


def _by_work(verdict: Verdict, words: str) -> Verdict:
    """An open verdict on a time that unchanged work passes, unless it looks slower and no machine explains that."""
    if verdict.suspected and not verdict.by_machine:
        return verdict
    file, recorded = (verdict, None) if verdict.against == "baseline" else (None, verdict)
    return settle(Seen(file=file, recorded=recorded, work=words)).verdict
