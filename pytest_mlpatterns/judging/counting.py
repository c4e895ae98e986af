"""Counted instructions: of both sides of a comparison, and what they decide that times leave open.

A test that asks (``--perf-count instructions``) has one more guard. Otherwise instructions are counted when times stay
open for want of a quiet machine, and stand for them. Then they fail beyond the smallest tolerance of times and CPU, so
that a busy machine is no stricter than a quiet one. Unchanged work passes what is open if most of a request's time is
CPU time of the service itself (:mod:`pytest_mlpatterns.judging.settling_rules`): waits, locks, threads that spin and
devices are not counted. It makes no failure pass, nor what is probably slower.

A failure rests on two passes of the present, as far as the time of a side allows them, unless it is clear. This module
must not know how instructions are counted.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import psutil
from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.health.machine import busy_on_average
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, leading_time, with_locations
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import CONFIRMING_LAUNCHES
from pytest_mlpatterns.analysis.verdicts.open_reasons import probably_slower
from pytest_mlpatterns.analysis.verdicts.verdicts import GUARD_ALPHA
from pytest_mlpatterns.config.settings import CountMode
from pytest_mlpatterns.errors import CountError, DeploymentError, GeneratorLimitError, PerfFailure, SettingError
from pytest_mlpatterns.judging.basis import INSTRUCTIONS, Basis
from pytest_mlpatterns.judging.budget import Budget
from pytest_mlpatterns.judging.compared_metrics import Choice, ComparedMetric, compared_metrics, only
from pytest_mlpatterns.judging.look import Sample
from pytest_mlpatterns.judging.loop import Ruling, Supply, decide, ruling_of
from pytest_mlpatterns.judging.metric_rules import judge_guarded
from pytest_mlpatterns.judging.result_builder import facts_of
from pytest_mlpatterns.judging.settling_rules import Seen, settle
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.records.result_parts import Reference
from pytest_mlpatterns.records.setup import EnvironmentFacts, differing_facts
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict
from pytest_mlpatterns.reports.text.where import functions_explain
from pytest_mlpatterns.revision.commits import UnknownRevisionError
from pytest_mlpatterns.system.environment import available_cores, machine_cores
from pytest_mlpatterns.units import SECOND_NS, format_duration, format_percent
from pytest_mlpatterns.wording import first_line, listed

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.profiling.callgrind import Countable
    from pytest_mlpatterns.revision.client import RevisionClient


PASS_NS = 60_000_000_000  # Time of the passes of one side, where they have a core for themselves
_MOST_LONGER = 3  # Largest factor by which that time grows on a busy machine
_ALIKE = ("architecture", "python", "requests", "environment")
"""Fields of two counts that are equal if they count the same instructions for the same code."""
_OWN = 0.7  # Share of the latency that is the service's own CPU time, from which unchanged work is an unchanged time
_CLEAR = 0.05
"""Change beyond the tolerance that one pass is enough for: of some hundred passes of the same code the worst was 3.2 %
off, and a pass takes a minute and more on a busy machine."""


def is_left_to_a_count(verdict: Verdict) -> bool:
    """Whether a time or a rate is undecided because the machine was busy, or because its values scatter too much."""
    if verdict.outcome is not Outcome.INCONCLUSIVE or not functions_explain(verdict.metric):
        return False
    if verdict.why_open is not None or verdict.change is None:
        return verdict.by_machine
    return verdict.change.high - verdict.change.low > (verdict.tolerance or 0.0)


def pass_ns() -> int:
    """Time of the passes of one side. It grows with the programs that run on each core, since the passes share them.

    So do both sides share a CPU limit of less than two cores.
    """
    each = max(psutil.getloadavg()[0] / machine_cores(), 2 / available_cores(), 1.0)
    return round(PASS_NS * min(each, _MOST_LONGER))


def own_share(figures: Mapping[str, float], in_flight: int | None, threads: int) -> float:
    """The share of a request's latency that is CPU time of the service itself; 0 if it is not known.

    ``figures``: by metric, of the quietest launch, since nothing makes a request shorter. ``in_flight``: of a closed
    loop, whose requests wait for the CPU time of others, as far as there are fewer ``threads`` that work.
    """
    latency_ns = max(figures.get(name, 0.0) for name in with_locations([leading_time(streams=False).name]))
    callers = in_flight or 1
    share = figures.get("cpu_per_request", 0.0) / latency_ns if latency_ns else 0.0
    return share * callers / min(callers, max(threads, 1))


def unhindered_figures(reference: Reference) -> Mapping[str, float]:
    """CPU time and latency without the waits for a processor, in the server and before it; empty if not known."""
    split, cpu = reference.split.get("rtm"), reference.metrics.get("cpu_per_request")
    if split is None or cpu is None or not any(part.name == "run_queue" for part in split.parts):
        return {}
    waits_ns = sum(part.mean_ns for part in split.parts if part.name in ("run_queue", "socket"))
    return {"rtm": split.mean_ns - waits_ns, "cpu_per_request": cpu[0]}


def holds_here(entry: Entry, now: Count, facts: EnvironmentFacts | None) -> bool:
    """Whether the count of an entry, of any machine, holds for its code here.

    ``facts``: of the service; None if the packages may be others.
    """
    then = entry.work
    if then is None or any(getattr(then, name) != getattr(now, name) for name in _ALIKE):
        return False
    changes = () if facts is None else differing_facts(entry.facts, facts)
    return changes is not None and not any(one.may_change_work for one in changes)


class CountedBeside(Struct, frozen=True):
    """What the present is counted beside."""

    kind: Literal["baseline", "revision"]
    name: str  # in messages
    sample: Sample
    work: Count  # its last pass

    @classmethod
    def entry(cls, entry: Entry) -> CountedBeside:
        """An entry with a count."""
        assert entry.work is not None
        return cls("baseline", f"the baseline of {entry.recorded_at}", entry, entry.work)


class CountedPasses:
    """Counts the instructions of one test, and of the code that it is compared with."""

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._then: tuple[Count, ...] = ()

    @property
    def now(self) -> tuple[Count, ...]:
        """The passes of the present."""
        return self._measurement.metrics.counts

    @functools.cached_property
    def other(self) -> RevisionClient | None:
        """The code that the present is compared with, or that its baseline was recorded from; None if it is the same.

        Raises UnknownRevisionError, SettingError: it cannot be had.
        """
        revision, settle = self._experiment.revision, self._experiment.settle
        return settle().revision if revision is None and settle is not None else revision

    @property
    def may_compare(self) -> bool:
        """Whether there may be a count or other code to count the present beside."""
        with contextlib.suppress(UnknownRevisionError, SettingError):
            return self._experiment.baseline.counted is not None or self.other is not None
        return False

    @property
    def can(self) -> Countable:
        """Whether the service of the test can be counted here."""
        from pytest_mlpatterns.judging.cause_search import why_not_readable
        from pytest_mlpatterns.profiling.callgrind import Countable, countable

        why = why_not_readable(self._experiment)
        return Countable(why) if why else countable()

    def begin(self) -> None:
        """Count the present for the first time, together with the other code if that has to be counted in any case.

        Raises CountError: one of them cannot be counted. DeploymentError, SettingError: the other code cannot be had.
        """
        is_stored = self._experiment.revision is None and self._experiment.baseline.counted is not None
        other = None if is_stored or not self.may_compare else self.other
        if other is None:
            self.count()
            return
        with contextlib.closing(other):
            now, then = self.count_sides([self._own, self._side_of(other)])
        self._measurement.adopt(counts=(*self.now, now))
        self._then = (then,)

    def count(self) -> None:
        """Count the present in one more pass; it takes the inputs that a stored count had.

        Raises CountError: it cannot be counted.
        """
        experiment = self._experiment
        stored = experiment.baseline.counted
        requests = None if stored is None or stored.work is None else stored.work.requests
        found = self.count_sides([self._own], requests)
        if experiment.revision is None and experiment.settings.count is CountMode.INSTRUCTIONS:  # a file may keep it
            found = self._with_calls(found)
        self._measurement.adopt(counts=(*self.now, *found))

    @property
    def _own(self) -> Variant:
        return Variant("the working tree", self._experiment.system.start, self._experiment.plan)

    def _side_of(self, other: RevisionClient) -> Variant:
        """The same test at the other code. Raises CountError: it is not comparable there."""
        theirs = other.setup()
        if differences := self._experiment.setup.differences(theirs.setup, timing=False):
            raise CountError(f"{other.name} is not comparable ({'; '.join(differences)})")
        return Variant(other.name, other.start, replace(self._experiment.plan, payload=theirs.payload))

    def required(self, what: str) -> CountedPasses:
        """The same with a pass, for what an assertion asks. Raises SettingError: it cannot be counted here."""
        if why := self.can.why:
            raise SettingError(f"{what} cannot be decided: {why}")
        if not self.now:
            self.count()
        return self

    def decide(self, judge: Callable[[], Verdict]) -> Verdict:
        """Judge, and count the present once more while that is open or a failure rests on one pass."""

        def look() -> Ruling:
            verdict = judge()
            is_confirmed = len(self.now) >= CONFIRMING_LAUNCHES or _is_clear(verdict)
            return ruling_of([verdict], "count", is_confirmed=is_confirmed)

        def budget() -> Budget:
            return Budget(pass_ns(), round(sum(one.seconds for one in self.now) * SECOND_NS))

        def each_ns() -> float:
            return self.now[-1].seconds * SECOND_NS

        supply = Supply(self.count, lambda: len(self.now), CONFIRMING_LAUNCHES, each_ns)
        return decide(look, {"count": supply}, budget).verdicts[0]

    def compare(self, compared: ComparedMetric) -> tuple[Verdict, CountedBeside]:
        """Count the other side, and decide whether the present needs more instructions; it has at least one pass.

        Raises CountError: a side cannot be counted, or there is none but the present. DeploymentError, SettingError:
        the other code cannot be had.
        """
        match, now, facts = self._experiment.baseline, self.now[-1], facts_of(self._measurement.so_far)
        is_stored = self._experiment.revision is None
        if is_stored and match.counted is not None and holds_here(match.counted, now, facts):
            beside = CountedBeside.entry(match.counted)
            return self.decide(lambda: self._judge(compared, beside)), beside
        own = match.entry if is_stored and match.entry is not None and holds_here(match.entry, now, None) else None
        if (other := self.other) is not None:
            found = self._beside(other)
            verdict = self.decide(lambda: self._judge(compared, found))
            return verdict if own is None else self._settled(compared, own, found=found, verdict=verdict), found
        if own is None:
            raise CountError("no entry with the same software has it: --perf-baseline update --perf-count instructions")
        return self._settled(compared, own, found=None, verdict=None), CountedBeside.entry(own)

    def _judge(self, compared: ComparedMetric, beside: CountedBeside, present: Sample | None = None) -> Verdict:
        """The verdict on the present, or on what stands for it, beside one side."""
        now = present or self._measurement.metrics
        return judge_guarded(compared, beside.sample, now, against=beside.kind, in_flight=None)

    def _settled(
        self, compared: ComparedMetric, own: Entry, *, found: CountedBeside | None, verdict: Verdict | None
    ) -> Verdict:
        """The verdict, with what the entry of this machine shows of packages that changed since.

        ``found``, ``verdict``: the other code, and the verdict beside it; None if the present is that code.
        """
        stored, facts = CountedBeside.entry(own), facts_of(self._measurement.so_far)
        changes = differing_facts(own.facts, facts) or ()
        seen = Seen(
            file=self._judge(compared, stored),
            recorded=verdict,
            name="" if found is None else found.name,
            is_same=found is None and self._experiment.settle is not None,
            is_standing=True,
            today=None if found is None else self._judge(compared, stored, found.sample),
        )
        return settle(seen.after([one for one in changes if one.may_be_intended and one.may_change_work])).verdict

    def _beside(self, other: RevisionClient) -> CountedBeside:
        """The same test at the other code, counted once."""
        if not self._then:
            with contextlib.closing(other):
                self._then = self.count_sides([self._side_of(other)], self.now[-1].requests)
        return CountedBeside("revision", other.name, Metrics((), counts=self._then), self._then[-1])

    def explained(self, beside: CountedBeside) -> CountedBeside:
        """The same with the calls of Python functions, which show where the work of a failure grew."""
        other = self.other if beside.kind == "revision" else None
        if other is not None:
            with contextlib.closing(other):
                now, then = self._with_calls([self.now[-1], beside.work], other)
            self._measurement.adopt(counts=(*self.now[:-1], now))
            return replace(beside, work=then)
        if beside.work.calls and not self.now[-1].calls:
            self._measurement.adopt(counts=(*self.now[:-1], *self._with_calls(self.now[-1:])))
        return beside

    def count_sides(self, sides: Sequence[Variant], requests: int | None = None) -> tuple[Count, ...]:
        """One pass of each side. ``requests``: of a round; None for any. Raises CountError: one cannot be counted."""
        from pytest_mlpatterns.measurement.counted_pass import counted_passes, require_time_for_a_pass

        known = self._measurement.metrics.launch_values(METRICS["cpu_per_request"])
        require_time_for_a_pass(min((one.value for one in known), default=0.0), limit_ns=pass_ns())
        return self._announced("instructions", sides, functools.partial(counted_passes, requests=requests))

    def _with_calls(self, counts: Sequence[Count], other: RevisionClient | None = None) -> tuple[Count, ...]:
        """The counts of the present, and of the other code if it is given, with the calls of Python functions."""
        from pytest_mlpatterns.measurement.counted_pass import with_calls
        from pytest_mlpatterns.profiling.frame_names import SourceNames

        sides, names = [self._own], [SourceNames(self._experiment.system.options.root)]
        if other is not None:
            sides.append(self._side_of(other))
            names.append(SourceNames(other.worktree.directory, other.worktree.root))
        return self._announced("calls of functions", sides, functools.partial(with_calls, counts, names=names))

    def _announced(
        self, what: str, sides: Sequence[Variant], do: Callable[..., tuple[Count, ...]]
    ) -> tuple[Count, ...]:
        """Count the sides, beside the budget; the live line announces it."""
        self._measurement.runner.close()  # the sides need the machine to themselves
        show, limit_ns = self._experiment.driver.on_search, pass_ns()
        names = listed([side.name for side in sides])
        show(f"counting the {what} of {names}, up to {format_duration(limit_ns * len(sides))}")
        try:
            with self._measurement.spending.beside():
                return do(sides=sides, directory=self._experiment.system.options.directory, limit_ns=limit_ns)
        finally:
            show("")


class CountedComparison:
    """Compares one test by times, and by instructions. ``times``: compares the metrics of a choice by their times."""

    def __init__(self, times: Callable[[Choice], Sequence[Verdict]], basis: Basis) -> None:
        self._times = times
        self._basis, self._experiment, self._measurement = basis, basis.experiment, basis.measurement
        self._passes = CountedPasses(basis.experiment, basis.measurement)

    def judge(self, choice: Choice) -> Sequence[Verdict]:
        """Compare the metrics of a choice, and measure as much as that takes.

        Raises PerfFailure: a metric that the test requested cannot be compared.
        """
        times = only(choice, lambda one: not one.metric.is_counted)
        verdicts: Sequence[Verdict] = ()
        limited: GeneratorLimitError | None = None
        try:
            verdicts = self._times(times)
        except GeneratorLimitError as error:
            limited = error
        asked = next((one for one in choice(False) if one.metric.is_counted), None)
        compared = asked or self._in_their_place(times(False), verdicts, limited)
        is_over = (
            self._experiment.smoke
            or self._basis.causes.interrupted
            or (self._experiment.revision is not None and self._basis.code.missing)
        )
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
        if run_ns is not None and run_ns - self._measurement.budget.spent_ns < 2 * pass_ns():
            return None  # the run has no time for both sides
        accepted = self._experiment.agreed.in_force
        (own,) = compared_metrics([INSTRUCTIONS], settings.tolerance, GUARD_ALPHA, requested=False, accepted=accepted)
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
                self._passes.begin()
            if not self._passes.may_compare:
                return verdicts
            work, beside = self._passes.compare(compared)
        except (CountError, DeploymentError, SettingError) as error:
            why = f"is not known: {first_line(error)}"
            if compared.requested:
                raise PerfFailure(f"assert_no_regression cannot judge {INSTRUCTIONS.label}: it {why}") from None
            is_said = not can.why or (is_asked and not can.lacks_tool)
            left_out, tool = LeftOut(why) if is_said else None, can.why if can.lacks_tool else ""
            self._basis.keep("work", verdict=None, beside=None, note="", left_out=left_out, not_counted=tool)
            return verdicts
        if work.outcome is Outcome.FAIL:
            with contextlib.suppress(DeploymentError):  # calls only explain it
                beside = self._passes.explained(beside)
        is_busy = busy_on_average(self._measurement.metrics.launches) is not None
        is_busy |= not verdicts or any(one.by_machine for one in verdicts)
        why = "the machine was too busy for times" if is_busy else "times scatter too much here"
        work = work if is_asked else replace(work, reason=f"{why}; {work.reason}")
        self._basis.keep("work", verdict=work, beside=beside, note="", left_out=None, not_counted="")
        if beside.kind == "revision" and self._passes.other is not None:
            self._basis.causes.search(self._passes.other, [work])
        return [*self._settled(verdicts, work, why), work]

    def _settled(self, verdicts: Sequence[Verdict], work: Verdict, why: str) -> Sequence[Verdict]:
        """The verdicts on times, of which unchanged work passes those that are open; notes what it decided."""
        left = [one for one in verdicts if is_left_to_a_count(one)]
        if not left or work.outcome is Outcome.FAIL:
            return verdicts
        likely = probably_slower(verdicts, busy_on_average(self._measurement.metrics.launches))
        may_decide = is_unchanged(work) and not likely
        shares, words = {one.metric: self._share_of(one) for one in left}, f"{why}; {in_short(work)}"
        least = min(shares.values())
        self._basis.keep("work", note=f"{words}{_but_waits(least)}" if may_decide and least < _OWN else words)
        passed = {name for name, share in shares.items() if may_decide and share >= _OWN}
        return [_by_work(one, words) if one in left and one.metric in passed else one for one in verdicts]

    def _share_of(self, verdict: Verdict) -> float:
        """The share of a request's latency that is its own CPU time, in launches of the entry or of other code.

        It comes from quiet ones, or from what is left without the waits for a processor. Of what the recorded code
        shares, only those of today show it: what a request waits for may have become slower.
        """
        entry, reference = self._experiment.baseline.entry, self._basis.reference
        if self._experiment.settle is not None and verdict.suspected and verdict.against == "baseline":
            entry, reference = None, self._basis.code.reference
        stored = {} if entry is None else {name: min(v.value for v in found) for name, found in entry.metrics.items()}
        beside = {} if reference is None else {name: low for name, (_, low, _) in reference.metrics.items()}
        usages = [one.usage for one in self._measurement.metrics.launches if one.usage is not None]
        threads = max((sum(one.busy_threads) for one in usages), default=1)
        in_flight = self._experiment.setup.load.in_flight
        unhindered = {} if reference is None else unhindered_figures(reference)
        return max(own_share(quietest, in_flight, threads) for quietest in (stored, beside, unhindered))


def _is_clear(work: Verdict) -> bool:
    """Whether a failure is so far beyond the tolerance that another pass would not undo it."""
    return work.change is not None and work.change.low > (work.tolerance or 0.0) + _CLEAR


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


def _but_waits(share: float) -> str:
    """That unchanged work is no unchanged time, by the share of the latency that it takes; 0 is not known."""
    own = f"{format_percent(share)} of the latency is" if share else "it is not known how much of the latency is"
    return f", but {own} its own CPU time"


def _by_work(verdict: Verdict, words: str) -> Verdict:
    """An open verdict on a time that unchanged work passes, unless it looks slower and no machine explains that."""
    if verdict.suspected and not verdict.by_machine:
        return verdict
    file, recorded = (verdict, None) if verdict.against == "baseline" else (None, verdict)
    return settle(Seen(file=file, recorded=recorded, work=words)).verdict
